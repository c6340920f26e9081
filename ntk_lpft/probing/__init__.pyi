from .cache import cached_features, cached_logistic_head, cached_logistic_heads
from .logistic import CurvePoint, LogisticHead, fit_logistic_head
from .path import GradientPath, LabelledFeatures, PathSettings, gradient_path, head_norm_derivative
from .probe import LinearProbe, linear_probe
from .spread import FoldDraw, FoldSpread

__all__ = [
    "CurvePoint",
    "FoldDraw",
    "FoldSpread",
    "GradientPath",
    "LabelledFeatures",
    "LinearProbe",
    "LogisticHead",
    "PathSettings",
    "cached_features",
    "cached_logistic_head",
    "cached_logistic_heads",
    "fit_logistic_head",
    "gradient_path",
    "head_norm_derivative",
    "linear_probe",
]
