"""Explains the fine-tuning of Transformer classifiers through the neural tangent kernel."""

from ntk_lpft.classifier import load_classifier, load_tokenizer
from ntk_lpft.kernel import KernelSettings, NTKDecomposition, compute_ntk, compute_train_eval_ntk
from ntk_lpft.tasks import load_files, load_task
from ntk_lpft.version import __version__

__all__ = [
    "KernelSettings",
    "NTKDecomposition",
    "__version__",
    "compute_ntk",
    "compute_train_eval_ntk",
    "load_classifier",
    "load_files",
    "load_task",
    "load_tokenizer",
]
