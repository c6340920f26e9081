"""f = Vφ + b: body and linear head of any Hugging Face classifier."""

from ntk_lpft.classifier.features import Features, extract_features
from ntk_lpft.classifier.head import Head, find_head
from ntk_lpft.classifier.linear_head import LinearHeadClassifier
from ntk_lpft.classifier.loading import load_classifier, load_tokenizer
from ntk_lpft.classifier.logistic import LogisticHead, fit_logistic_head, scale_head, set_head
from ntk_lpft.classifier.lora import apply_lora

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
