from .classifier import load_classifier, load_tokenizer
from .kernel import KernelSettings, NTKDecomposition, compute_ntk, compute_train_eval_ntk
from .tasks import load_files, load_task
from .version import __version__

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
