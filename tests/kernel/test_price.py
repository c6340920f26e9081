"""What a kernel is said to cost, before it is computed."""

from __future__ import annotations

import pytest
import torch
from helpers.zoo import ZOO, ragged_rows
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ntk_lpft.errors import InputError
from ntk_lpft.kernel import KernelSettings, compute_train_eval_ntk, passes, price, price_ntk

ENTRY = ZOO["bert"]


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(price, "_MEASURED", 0.01)


def rows_of_one_length(count: int, length: int) -> list[dict[str, list[int]]]:
    row = ragged_rows(ENTRY, n=1)[0]
    return [{name: (values * length)[:length] for name, values in row.items()} for _ in range(count)]


def test_the_price_is_that_of_the_computation() -> None:
    model, rows = ENTRY.build(), ragged_rows(ENTRY, n=7)
    settings = KernelSettings(precision="float64", memory_budget="1GiB")
    told = price_ntk(model, rows[:5], rows[5:], settings=settings)
    parts = compute_train_eval_ntk(model, rows[:5], rows[5:], settings=settings)
    plan = parts["train"].metadata["plan"]
    assert len(told.plans) == 1
    assert plan["passes"] == len(told.plans[0].passes)
    assert plan["predicted_peak"] == told.plans[0].predicted_peak
    kept = [part.feature_kernel for part in parts.values()]
    kept += [value for part in parts.values() for value in part.ft_groups.values()]
    assert told.kernel_bytes == sum(value.nbytes for value in kept)
    assert (told.samples, told.combinations) == (7, 3)
    assert told.seconds == pytest.approx((told.capture_flops + told.contraction_flops) / told.rate)


def test_operations_are_those_that_torch_counts() -> None:
    model, length, count = ENTRY.build(), 8, 6
    rows = rows_of_one_length(count, length)
    # Attention by its plain algorithm, as the engine runs it.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(**{name: torch.tensor([values]) for name, values in rows[0].items()})
    forward = counter.get_total_flops()
    told = price_ntk(model, rows)
    # One forward pass, and for each of three logits one backward pass to the lowest layer, which costs as much.
    assert told.capture_flops == pytest.approx(count * forward * (1 + 3), rel=0.05)
    linear = [m for m in model.bert.encoder.modules() if isinstance(m, torch.nn.Linear)]
    entries = sum(module.weight.numel() for module in linear)
    # At most gradients of each sample and logit, and their products above the diagonal; vectors and tables cost little.
    made, products = 2 * entries * count * 3 * length, 2 * entries * count * (count + 1) / 2 * 3 * 3
    assert 0.2 * products < told.contraction_flops <= 1.2 * (made + products)


def test_processes_divide_it() -> None:
    model, rows = ENTRY.build(), ragged_rows(ENTRY, n=6)
    alone, shared = price_ntk(model, rows), price_ntk(model, rows, processes=3)
    assert len(shared.plans) == 3
    names = [name for plan in shared.plans for step in plan.passes for name in step.parameters]
    assert sorted(names) == sorted(name for step in alone.plans[0].passes for name in step.parameters)
    assert shared.contraction_flops == pytest.approx(alone.contraction_flops)
    assert alone.capture_flops <= shared.capture_flops <= 3 * alone.capture_flops
    assert any("in each of 3 processes" in line for line in shared.lines())


def test_nothing_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passes.PassRunner, "run", lambda *_: pytest.fail("computed"))
    assert len(price_ntk(ENTRY.build(), ragged_rows(ENTRY)).lines()) == 5


def test_ten_thousand_samples_are_planned_at_once() -> None:
    rows = ragged_rows(ENTRY, n=8) * 1250
    told = price_ntk(ENTRY.build(), rows, settings=KernelSettings(memory_budget="16GiB", groups=False))
    assert told.samples == 10_000
    assert told.kernel_bytes == 8 * (30_000**2 + 10_000**2)
    assert told.plans[0].predicted_peak <= 16 * 2**30


def test_a_budget_that_does_not_do_is_refused() -> None:
    with pytest.raises(InputError, match="too small for one layer"):
        price_ntk(ENTRY.build(), ragged_rows(ENTRY), settings=KernelSettings(memory_budget="10KiB"))
