from .cache import cached_features, cached_logistic_head
from .logistic import LogisticHead, fit_logistic_head
from .path import GradientPath, LabelledFeatures, PathSettings, gradient_path, head_norm_derivative
from .probe import LinearProbe, linear_probe

__all__ = [
    "GradientPath",
    "LabelledFeatures",
    "LinearProbe",
    "LogisticHead",
    "PathSettings",
    "cached_features",
    "cached_logistic_head",
    "fit_logistic_head",
    "gradient_path",
    "head_norm_derivative",
    "linear_probe",
]
