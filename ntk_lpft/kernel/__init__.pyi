from .decomposition import NTKDecomposition
from .engine import KernelSettings, compute_ntk, compute_train_eval_ntk
from .groups import group_parameters

__all__ = ["KernelSettings", "NTKDecomposition", "compute_ntk", "compute_train_eval_ntk", "group_parameters"]
