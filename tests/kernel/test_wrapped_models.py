"""A model in a wrapper is computed as its user calls it: nothing that its rows say is dropped on the way."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from helpers.agreement import assert_identical, error
from helpers.referee import referee
from helpers.zoo import ZOO, ragged_rows
from torch import Tensor, nn

from ntk_lpft.calibration import TemperatureScaledClassifier
from ntk_lpft.classifier import Classifier
from ntk_lpft.classifier.wrappers import forward_names, innermost, unwrapped
from ntk_lpft.errors import InputError
from ntk_lpft.kernel import compute_ntk


class Around(nn.Module):
    """What users write around a model; it says nothing of what it hands on."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.inner, self.config = model, model.config

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.inner(*args, **kwargs)


class WithoutConfig(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.net = model
        self.scale = nn.Identity()

    def forward(self, **batch: Tensor) -> Tensor:
        return (self.scale(self.net(**batch).logits),)


class Hidden(nn.Module):
    """Its model lies where nothing tells what it takes."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.inner, self.config = nn.ModuleList([model]), model.config

    def forward(self, **batch: Tensor) -> Any:
        return self.inner[0](**batch)


def compiled_inside(model: nn.Module) -> nn.Module:
    model.bert.encoder = torch.compile(model.bert.encoder, backend="eager")
    return model


def compiled_in_place(model: nn.Module) -> nn.Module:
    model.compile(backend="eager")
    return model


WRAPPERS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "compiled": lambda model: torch.compile(model, backend="eager"),
    "compiled inside": compiled_inside,
    "compiled in place": compiled_in_place,
    "a user's": Around,
    "a user's without config": WithoutConfig,
    "of a user's": lambda model: Around(Around(model)),
    "hidden": Hidden,
    "temperature": lambda model: TemperatureScaledClassifier(model, 1.0),
    "parallel": nn.DataParallel,
    "compiled wrapper": lambda model: torch.compile(Around(model), backend="eager"),
}


def segmented(n: int = 4) -> list[dict[str, list[int]]]:
    """Rows whose second half is another segment, and whose positions are counted otherwise."""
    rows = ragged_rows(ZOO["bert"], n=n)
    for row in rows:
        length = len(row["input_ids"])
        row["token_type_ids"] = [int(2 * i >= length) for i in range(length)]
        row["position_ids"] = list(reversed(range(length)))
    return rows


def test_rows_without_segments_would_show() -> None:
    model, rows = ZOO["bert"].build(), segmented()
    bare = [{"input_ids": row["input_ids"]} for row in rows]
    assert error(compute_ntk(model, bare).total, compute_ntk(model, rows).total) > 0.05


@pytest.mark.parametrize("engine", ["structured", "functional", "per_example"])
@pytest.mark.parametrize("name", list(WRAPPERS))
def test_segments_and_positions_reach_the_model(name: str, engine: str) -> None:
    rows = segmented()
    reference = sum(referee(ZOO["bert"].build(), rows).values())
    ntk = compute_ntk(WRAPPERS[name](ZOO["bert"].build()), rows, engine=engine)
    assert error(ntk.total, reference) < 1e-9
    assert ntk.metadata["head_error"] < 1e-12


def test_features_of_a_wrapped_model_are_its_own() -> None:
    rows = segmented()
    expected = Classifier.of(ZOO["bert"].build(), rows).run(rows)
    for wrap in WRAPPERS.values():
        outputs = Classifier.of(wrap(ZOO["bert"].build()), rows).run(rows)
        assert torch.equal(outputs.features, expected.features)
        assert torch.equal(outputs.logits, expected.logits)


def test_accelerates_autocast_inside_a_wrapper_is_taken_off() -> None:
    rows = segmented()
    plain = compute_ntk(ZOO["bert"].build(dtype=torch.float32), rows)
    AcceleratorState._reset_state(reset_partial_state=True)
    try:
        model = Accelerator(mixed_precision="bf16", cpu=True).prepare_model(ZOO["bert"].build(dtype=torch.float32))
        assert_identical(compute_ntk(Around(model), rows), plain)
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)


def test_extra_columns_that_no_model_takes_are_left_out() -> None:
    """As Trainer leaves them out; they may be as long as the tokens are."""
    rows = segmented()
    plain = compute_ntk(ZOO["bert"].build(), rows)
    for row in rows:
        row["special_tokens_mask"] = [1, *[0] * (len(row["input_ids"]) - 1)]
        row["idx"] = 7
    assert_identical(compute_ntk(ZOO["bert"].build(), rows), plain)
    assert_identical(compute_ntk(Around(ZOO["bert"].build()), rows), plain)


class Weighted(Around):
    """Takes one more column, which only its code names."""

    def forward(self, **batch: Tensor) -> Any:
        weights = batch.pop("token_weights", None)
        if weights is not None:
            batch["position_ids"] = weights
        return self.inner(**batch)


def test_an_argument_that_no_signature_names_is_refused_where_it_counts() -> None:
    rows = ragged_rows(ZOO["bert"], n=3)
    model = Weighted(ZOO["bert"].build())
    compute_ntk(model, rows)
    for row in rows:
        row["token_weights"] = [3] * len(row["input_ids"])
    with pytest.raises(InputError, match=r"inputs: .*depend on token_weights.*name them in forward"):
        compute_ntk(model, rows)


def test_a_hook_on_the_wrapper_is_not_lost() -> None:
    model = torch.compile(ZOO["bert"].build(), backend="eager")
    model.register_forward_hook(lambda module, inputs, output: SimpleNamespace(logits=output.logits + 1))
    with pytest.raises(InputError, match="other logits through its wrapper OptimizedModule"):
        compute_ntk(model, ragged_rows(ZOO["bert"], n=2))


class Rounded(Around):
    def forward(self, **batch: Tensor) -> Any:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return SimpleNamespace(logits=self.inner(**batch).logits.float())


def test_a_model_that_rounds_inside_is_refused() -> None:
    rows = segmented()
    with pytest.raises(InputError, match="the model rounds to bfloat16 inside its forward"):
        compute_ntk(Rounded(ZOO["bert"].build(dtype=torch.float32)), rows)


def test_names_of_arguments() -> None:
    bert = ZOO["bert"].build()
    assert {"input_ids", "token_type_ids", "position_ids"} <= (forward_names(Around(bert)) or set())
    assert forward_names(Hidden(bert)) is None
    assert innermost(Around(Around(bert))) is bert
    assert unwrapped(torch.compile(nn.DataParallel(bert), backend="eager")) is bert
    assert Classifier.of(nn.DataParallel(bert), segmented()).module is bert


def test_hooks_of_the_users_in_the_body_are_part_of_the_model() -> None:
    """What they change is differentiated as it stands, by plain autograd where a layer's rule does not know of it."""

    def hooked() -> Any:
        model = ZOO["bert"].build()
        model.bert.pooler.dense.register_forward_hook(lambda module, inputs, output: output * output)
        model.bert.encoder.layer[0].output.dense.register_forward_pre_hook(lambda module, inputs: (2 * inputs[0],))
        return model

    rows = ragged_rows(ZOO["bert"], n=3)
    assert error(compute_ntk(hooked(), rows).total, sum(referee(hooked(), rows).values())) < 1e-9


def test_gradient_checkpointing_changes_nothing() -> None:
    rows = ragged_rows(ZOO["bert"], n=3)
    plain = compute_ntk(ZOO["bert"].build(), rows)
    model = ZOO["bert"].build()
    getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)()
    model.train()
    for engine in ("structured", "per_example"):
        assert error(compute_ntk(model, rows, engine=engine).total, plain.total) < 1e-12
    assert model.training
    assert model.is_gradient_checkpointing


class Counting(Around):
    """Notes its calls in a buffer, as running statistics do."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, **batch: Tensor) -> Any:
        self.calls += 1
        return self.inner(**batch)


@pytest.mark.parametrize("engine", ["structured", "per_example"])
def test_buffers_that_forward_changes_are_put_back(engine: str) -> None:
    model, rows = Counting(ZOO["bert"].build()), ragged_rows(ZOO["bert"], n=3)
    calls = model.calls
    plain = compute_ntk(ZOO["bert"].build(), rows, engine=engine)
    assert_identical(compute_ntk(model, rows, engine=engine), plain)
    assert model.calls is calls
    assert calls.item() == 0


class Remembering(Counting):
    def forward(self, **batch: Tensor) -> Any:
        output = super().forward(**batch)
        return SimpleNamespace(logits=output.logits * (1 + self.calls))


def test_a_model_that_remembers_is_refused() -> None:
    with pytest.raises(InputError):
        compute_ntk(Remembering(ZOO["bert"].build()), ragged_rows(ZOO["bert"], n=2))


def test_weights_that_are_elsewhere_are_refused() -> None:
    with torch.device("meta"):
        model = type(ZOO["bert"].build())(ZOO["bert"].build().config)
    with pytest.raises(InputError, match=r"weight bert\.\S+ of the model is not in memory"):
        compute_ntk(model, ragged_rows(ZOO["bert"], n=2))


@pytest.mark.parametrize("off", ["merged", "disabled"])
def test_adapters_that_are_switched_off_are_refused(off: str) -> None:
    """They are trainable, and no gradient reaches them: F would be 0."""
    model, rows = ZOO["bert-lora"].build(), ragged_rows(ZOO["bert-lora"], n=2)
    assert compute_ntk(model, rows).ft_effective.any()
    if off == "merged":
        model.merge_adapter()
    else:
        model.base_model.disable_adapter_layers()
        for name, parameter in model.named_parameters():
            parameter.requires_grad_("lora_" in name or "modules_to_save" in name)
    with pytest.raises(InputError, match=r"no gradient reaches any of the \d+ trainable|carry no gradient"):
        compute_ntk(model, rows)


def test_a_head_that_was_taken_away_is_missed() -> None:
    model, rows = ZOO["bert"].build(), ragged_rows(ZOO["bert"], n=2)
    classifier = Classifier.of(model, rows)
    model.classifier = nn.Linear(20, 3).double()
    with pytest.raises(InputError, match="the head classifier is not called by the model any more"):
        classifier.run(rows)
