"""Θ = P + F: the engines, the per-layer rules, the decomposition and its storage."""

from ntk_lpft.kernel.decomposition import NTKDecomposition
from ntk_lpft.kernel.engine import KernelSettings, compute_ntk, compute_train_eval_ntk
from ntk_lpft.kernel.groups import group_parameters

__all__ = ["KernelSettings", "NTKDecomposition", "compute_ntk", "compute_train_eval_ntk", "group_parameters"]
