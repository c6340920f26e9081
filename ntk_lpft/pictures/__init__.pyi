from .calibration import NormCurve, confidence_against_head_norm, reliability_diagram
from .kernels import block_heat_maps, group_shares, singular_values
from .names import drawn_name
from .prediction import flow_picture, step_error_picture
from .saving import save
from .style import (
    BLACK,
    BLUE,
    CURVES,
    GREEN,
    MOST_CURVES,
    ORANGE,
    PURPLE,
    SKY,
    VERMILLION,
    CurveStyle,
    empty_figure,
)
from .training import feature_curves, head_scale_curves, training_curves

__all__ = [
    "BLACK",
    "BLUE",
    "CURVES",
    "GREEN",
    "MOST_CURVES",
    "ORANGE",
    "PURPLE",
    "SKY",
    "VERMILLION",
    "CurveStyle",
    "NormCurve",
    "block_heat_maps",
    "confidence_against_head_norm",
    "drawn_name",
    "empty_figure",
    "feature_curves",
    "flow_picture",
    "group_shares",
    "head_scale_curves",
    "reliability_diagram",
    "save",
    "singular_values",
    "step_error_picture",
    "training_curves",
]
