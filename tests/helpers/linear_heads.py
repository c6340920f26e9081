"""The paper's head on a body of the zoo."""

from __future__ import annotations

import torch

from helpers.zoo import ZOO
from ntk_lpft.classifier import LinearHeadClassifier


def linear_head(name: str, pooling: str) -> LinearHeadClassifier:
    body = ZOO[name].build().base_model
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return LinearHeadClassifier(body, 3, pooling).double().eval()
