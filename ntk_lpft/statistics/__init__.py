"""What a kernel says: spectrum, rank and norms, FT ratio, alignment, shares of parameter groups, kernel classifier."""

from ntk_lpft.statistics.alignment import (
    alignment,
    centred_alignment,
    pretrain_effective_alignment,
    pretrain_effective_centred_alignment,
)
from ntk_lpft.statistics.blocks import (
    block_trace_norms,
    class_boundaries,
    class_order,
    pretrain_effective_block_trace_norms,
)
from ntk_lpft.statistics.classifier import KernelClassifierResult, kernel_classifier
from ntk_lpft.statistics.groups import frobenius_shares, projection_shares, trace_shares
from ntk_lpft.statistics.matrix import as_matrix, pretrain_effective, transposed
from ntk_lpft.statistics.residual import (
    OneStepChange,
    ft_ratio,
    initial_residual,
    one_step_logit_change,
    sample_ft_ratios,
)
from ntk_lpft.statistics.spectrum import (
    Spectrum,
    kernel_spectrum,
    numerical_rank_tolerance,
    pretrain_effective_spectrum,
)
from ntk_lpft.statistics.summary import KernelStatistics, statistics_table, summarise

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
    "frobenius_shares",
    "ft_ratio",
    "initial_residual",
    "kernel_classifier",
    "kernel_spectrum",
    "numerical_rank_tolerance",
    "one_step_logit_change",
    "pretrain_effective",
    "pretrain_effective_alignment",
    "pretrain_effective_block_trace_norms",
    "pretrain_effective_centred_alignment",
    "pretrain_effective_spectrum",
    "projection_shares",
    "sample_ft_ratios",
    "statistics_table",
    "summarise",
    "trace_shares",
    "transposed",
]
