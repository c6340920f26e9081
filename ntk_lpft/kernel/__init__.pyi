from .decomposition import NTKDecomposition, save_parts
from .engine import compute_ntk, compute_train_eval_ntk
from .groups import group_parameters
from .price import KernelPrice, price_ntk
from .settings import KernelSettings

__all__ = [
    "KernelPrice",
    "KernelSettings",
    "NTKDecomposition",
    "compute_ntk",
    "compute_train_eval_ntk",
    "group_parameters",
    "price_ntk",
    "save_parts",
]
