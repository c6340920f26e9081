from .arrays import read_predictions
from .binned import Bins, pooled_bins, reliability_bins
from .brier import BrierDecomposition
from .evaluation import Estimate, Evaluation, errors_by_chance, evaluate
from .measures import (
    MEASURES,
    adaptive_calibration_error,
    brier_decomposition,
    brier_score,
    classwise_calibration_error,
    expected_calibration_error,
    maximum_calibration_error,
    negative_log_likelihood,
    smooth_calibration_error,
)
from .predictions import Predictions
from .scaled_classifier import TemperatureScaledClassifier, load_temperature, save_temperature
from .scaling import IsotonicCalibration, VectorScaling, fit_isotonic, fit_vector_scaling
from .temperature import TemperatureFit, fit_temperature

__all__ = [
    "MEASURES",
    "Bins",
    "BrierDecomposition",
    "Estimate",
    "Evaluation",
    "IsotonicCalibration",
    "Predictions",
    "TemperatureFit",
    "TemperatureScaledClassifier",
    "VectorScaling",
    "adaptive_calibration_error",
    "brier_decomposition",
    "brier_score",
    "classwise_calibration_error",
    "errors_by_chance",
    "evaluate",
    "expected_calibration_error",
    "fit_isotonic",
    "fit_temperature",
    "fit_vector_scaling",
    "load_temperature",
    "maximum_calibration_error",
    "negative_log_likelihood",
    "pooled_bins",
    "read_predictions",
    "reliability_bins",
    "save_temperature",
    "smooth_calibration_error",
]
