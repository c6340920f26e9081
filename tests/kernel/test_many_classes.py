"""Seventy-seven classes, as Banking77 has: more than the features of a tiny model, all of them or reduced."""

from __future__ import annotations

import pytest
import torch
from helpers.agreement import error
from helpers.referee import referee
from helpers.zoo import ZOO, ragged_rows
from torch import Tensor, nn

from ntk_lpft.kernel import compute_ntk, compute_train_eval_ntk
from ntk_lpft.kernel.settings import KernelSettings

CLASSES = 77
ENTRY = ZOO["bert"]
ROWS = ragged_rows(ENTRY, n=5)
TRAIN, EVALUATION = ROWS[:3], ROWS[3:]


def model_of(head: str) -> nn.Module:
    """Build a BERT whose head is random, or has rows that add up to zero, as logistic regression makes them."""
    model = ENTRY.build(num_labels=CLASSES)
    if head == "logistic":
        with torch.no_grad():
            model.classifier.weight -= model.classifier.weight.mean(dim=0)
            model.classifier.bias -= model.classifier.bias.mean()
    return model


def split(blocks: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """P and F."""
    head = {name for name in blocks if name.startswith("classifier")}
    return sum(blocks[name] for name in head), sum(blocks[name] for name in blocks.keys() - head)  # type: ignore[return-value]


@pytest.mark.parametrize("head", ["random", "logistic"])
def test_all_blocks_agree_with_the_referee(head: str) -> None:
    model = model_of(head)
    ntk = compute_train_eval_ntk(model, TRAIN, EVALUATION)
    for part, rows in (("train", TRAIN), ("eval", EVALUATION)):
        p, f = split(referee(model, rows, TRAIN))
        assert ntk[part].total.shape == (len(rows), CLASSES, 3, CLASSES)
        assert error(ntk[part].pretrain_effective, p) <= 1e-12
        assert error(ntk[part].ft_effective, f) <= 1e-12


@pytest.mark.parametrize("head", ["random", "logistic"])
@pytest.mark.parametrize("outputs", ["class_trace", "pseudo"])
def test_reduced_outputs_agree_with_the_referee(head: str, outputs: str) -> None:
    model = model_of(head)
    ntk = compute_train_eval_ntk(model, TRAIN, EVALUATION, settings=KernelSettings(outputs=outputs))
    for part, rows in (("train", TRAIN), ("eval", EVALUATION)):
        p, f = split(referee(model, rows, TRAIN))
        reduced = [
            (torch.einsum("ncmc->nm", x) if outputs == "class_trace" else x.sum(dim=(1, 3))) / CLASSES for x in (p, f)
        ]
        # Where rows cancel, the sum of the logits has no gradient in the body but what rounding leaves of C terms.
        size = float(torch.einsum("ncmc->nm", f).norm()) / CLASSES
        assert error(ntk[part].pretrain_effective, reduced[0]) <= 1e-12
        assert float((ntk[part].ft_effective - reduced[1]).norm()) <= 1e-12 * size
        if (head, outputs) == ("logistic", "pseudo"):
            assert float(ntk[part].ft_effective.norm()) <= 1e-12 * size


def test_float32_and_the_other_engines() -> None:
    model = model_of("random")
    expected = compute_ntk(model, TRAIN).total
    assert error(compute_ntk(model, TRAIN, precision="float32").total.double(), expected) <= 1e-5
    for engine in ("functional", "per_example"):
        assert error(compute_ntk(model, TRAIN, engine=engine).total, expected) <= 1e-12
