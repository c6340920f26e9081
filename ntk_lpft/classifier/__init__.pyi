from .features import Features, extract_features
from .head import Head, find_head
from .linear_head import LinearHeadClassifier
from .loading import load_classifier, load_tokenizer
from .logistic import LogisticHead, fit_logistic_head, scale_head, set_head
from .lora import apply_lora

__all__ = [
    "Features",
    "Head",
    "LinearHeadClassifier",
    "LogisticHead",
    "apply_lora",
    "extract_features",
    "find_head",
    "fit_logistic_head",
    "load_classifier",
    "load_tokenizer",
    "scale_head",
    "set_head",
]
