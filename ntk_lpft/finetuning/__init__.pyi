from .defaults import Hyperparameters, hyperparameters, training_defaults
from .evaluation import encoded_splits, predict_splits, split_metrics
from .methods import HeadStart, Start, fine_tune, prepare_start
from .settings import Method, MethodSettings
from .trainer import ClassifierTrainer

__all__ = [
    "ClassifierTrainer",
    "HeadStart",
    "Hyperparameters",
    "Method",
    "MethodSettings",
    "Start",
    "encoded_splits",
    "fine_tune",
    "hyperparameters",
    "predict_splits",
    "prepare_start",
    "split_metrics",
    "training_defaults",
]
