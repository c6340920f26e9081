from .classifier import Classifier, Outputs
from .features import Features, extract_features
from .head import Head, find_head
from .head_file import load_head, save_head
from .head_weights import head_norm, scale_head, set_head
from .linear_head import LinearHeadClassifier
from .loading import load_classifier, load_tokenizer
from .lora import apply_lora

__all__ = [
    "Classifier",
    "Features",
    "Head",
    "LinearHeadClassifier",
    "Outputs",
    "apply_lora",
    "extract_features",
    "find_head",
    "head_norm",
    "load_classifier",
    "load_head",
    "load_tokenizer",
    "save_head",
    "scale_head",
    "set_head",
]
