"""Every architecture that classifies sequences: its kernel is right, or one line says why there is none."""

from __future__ import annotations

import pytest
import torch
from helpers.agreement import error
from helpers.architectures import ARCHITECTURES, build
from helpers.referee import referee

from ntk_lpft.errors import InputError
from ntk_lpft.kernel import compute_ntk

# None is so short that CANINE, whose characters are pooled in fours, or Funnel's pooling has nothing left of it.
ROWS = [{"input_ids": ids} for ids in ([5, 9, 7, 9, 11, 8, 2], [9, 5, 12, 2], [7, 9, 9, 8, 2])]
# Their own code masks attention, or multiplies, in float32 whatever the weights are.
FLOAT32_ALONE = {"canine", "mra"}
REFUSED = {"reformer": r"the model's own code fails on .*train"}
# Needs detectron2, which no package index has.
UNAVAILABLE = {"layoutlmv2"}


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in ARCHITECTURES if n not in FLOAT32_ALONE | UNAVAILABLE | REFUSED.keys()])
def test_the_kernel_agrees_with_the_referee(name: str) -> None:
    model = build(name)
    # Grouped products of experts have no float64; the referee calls the model as it is.
    model.config._experts_implementation = "eager"
    ntk = compute_ntk(model, ROWS, precision="float64")
    rows = [row | {"attention_mask": [1] * len(row["input_ids"])} for row in ROWS]
    blocks = referee(model, rows, attention="sdpa" if model._supports_sdpa else "eager")
    assert {n for names in ntk.parameter_groups.values() for n in names} < set(blocks)
    # Half of them compute rotations, norms or routers in float32 inside, and so round as float32 does.
    assert error(ntk.total, sum(blocks.values())) <= 1e-6
    assert ntk.metadata["self_check"]["error"] <= 1e-6


@pytest.mark.parametrize("name", sorted(FLOAT32_ALONE))
def test_models_that_know_float32_alone(name: str) -> None:
    model = build(name, torch.float32)
    ntk = compute_ntk(model, ROWS)
    rows = [row | {"attention_mask": [1] * len(row["input_ids"])} for row in ROWS]
    expected = sum(referee(model, rows).values())
    assert error(ntk.total, expected) <= 1e-4
    assert error(compute_ntk(build(name), ROWS, precision="float32").total, expected) <= 1e-4
    for wide in (model, build(name)):
        with pytest.raises(InputError, match="another precision"):
            compute_ntk(wide, ROWS, precision="float64")


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_cannot_be_differentiated_is_refused_in_one_line(name: str) -> None:
    with pytest.raises(InputError, match=REFUSED[name]) as refusal:
        compute_ntk(build(name), ROWS, precision="float64")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("name", ["mixtral", "qwen2_moe", "gpt_oss", "jetmoe"])
def test_mixtures_of_experts_need_no_setting_for_float64(name: str) -> None:
    """And the user's own choice of how experts are multiplied is there again afterwards."""
    model = build(name)
    before = model.config._experts_implementation
    structured, plain = (compute_ntk(model, ROWS, precision="float64", engine=e) for e in ("structured", "per_example"))
    assert error(structured.total, plain.total) <= 1e-9
    assert model.config._experts_implementation == before


@pytest.mark.parametrize("name", ["canine", "funnel"])
def test_rows_that_the_models_own_code_cannot_take_are_refused(name: str) -> None:
    with pytest.raises(InputError, match=r"the model's own code fails on input_ids \(1, 2\)"):
        compute_ntk(build(name, torch.float32), [{"input_ids": [9, 2]}])
    with pytest.raises(InputError, match=r"the model's own code fails on input_ids \(1, 2\)"):
        compute_ntk(build(name, torch.float32), [*ROWS, {"input_ids": [9, 2]}])
