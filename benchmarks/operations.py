"""The operations that a kernel needs, whatever time they take."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.inputs import Row
from ntk_lpft.devices import float32_products
from ntk_lpft.kernel.capture import capture
from ntk_lpft.kernel.cost import measure_costs
from ntk_lpft.kernel.selfcheck import run_self_check
from ntk_lpft.kernel.setup import find_classifier, set_up


def needed_flops(model: nn.Module, rows: Sequence[Row], device: str) -> dict[str, float]:
    """Count what the algorithm needs: one capture, and the contraction without redundant halves.

    Of the combinations of the logits that the head can reach, as the engine does.

    Args:
        model: The classifier.
        rows: The samples, columns and rows of the kernel.
        device: A torch device.

    Returns:
        Floating-point operations of ``capture``, counted on a quarter of the batches, and of ``contraction``.
    """
    classifier, columns, extra, kind = find_classifier(model, {"train": rows}, "float32", device)
    with classifier.opened(), float32_products(kind.tf32):
        setup = set_up(classifier, columns, extra, symmetric=True, outputs="full", precision=kind, rank_form=True)
        run_self_check(setup, 1 << 30)
        counted = cells = 0
        for number, batch in enumerate(setup.batches(2048)):
            if number % 4 == 0:
                with FlopCounterMode(display=False) as counter:
                    capture(model, setup.parameters, batch, setup.seeds, torch.float32)
                counted += counter.get_total_flops()
                cells += int(batch.tensors["attention_mask"].sum())
        tokens = sum(len(row["input_ids"]) for row in setup.rows)
        contraction = sum(cost.flops + cost.sample_flops * setup.layout.samples for cost in measure_costs(setup))
        return {"capture": counted / cells * tokens, "contraction": contraction}
