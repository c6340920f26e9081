from .blocks import (
    block_trace_norms,
    class_boundaries,
    class_order,
    pretrain_effective_block_trace_norms,
)
from .classifier import KernelClassifierResult, kernel_classifier
from .features import (
    feature_difference,
    feature_norm,
    fisher_discriminant_ratio,
    linear_cka,
    mean_cosines,
    measure_features,
    reference_cosine_similarity,
    sample_cosine_similarity,
    sample_feature_differences,
    trace_ratio,
)
from .groups import frobenius_shares, projection_shares, trace_shares
from .matrix import as_matrix, pretrain_effective, transposed
from .rank_form import ft_effective_spectrum, total_spectrum
from .residual import (
    OneStepChange,
    ft_ratio,
    initial_residual,
    one_step_logit_change,
    sample_ft_ratios,
)
from .spectrum import (
    Spectrum,
    kernel_spectrum,
    numerical_rank_tolerance,
    pretrain_effective_spectrum,
    sum_spectrum,
)
from .summary import KernelStatistics, statistics_table, summarise
from .target_alignment import (
    alignment,
    centred_alignment,
    pretrain_effective_alignment,
    pretrain_effective_centred_alignment,
)

__all__ = [
    "KernelClassifierResult",
    "KernelStatistics",
    "OneStepChange",
    "Spectrum",
    "alignment",
    "as_matrix",
    "block_trace_norms",
    "centred_alignment",
    "class_boundaries",
    "class_order",
    "feature_difference",
    "feature_norm",
    "fisher_discriminant_ratio",
    "frobenius_shares",
    "ft_effective_spectrum",
    "ft_ratio",
    "initial_residual",
    "kernel_classifier",
    "kernel_spectrum",
    "linear_cka",
    "mean_cosines",
    "measure_features",
    "numerical_rank_tolerance",
    "one_step_logit_change",
    "pretrain_effective",
    "pretrain_effective_alignment",
    "pretrain_effective_block_trace_norms",
    "pretrain_effective_centred_alignment",
    "pretrain_effective_spectrum",
    "projection_shares",
    "reference_cosine_similarity",
    "sample_cosine_similarity",
    "sample_feature_differences",
    "sample_ft_ratios",
    "statistics_table",
    "sum_spectrum",
    "summarise",
    "total_spectrum",
    "trace_ratio",
    "trace_shares",
    "transposed",
]
