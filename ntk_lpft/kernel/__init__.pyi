from .decomposition import NTKDecomposition, save_parts
from .engine import compute_ntk, compute_train_eval_ntk
from .groups import group_parameters
from .settings import KernelSettings

__all__ = [
    "KernelSettings",
    "NTKDecomposition",
    "compute_ntk",
    "compute_train_eval_ntk",
    "group_parameters",
    "save_parts",
]
