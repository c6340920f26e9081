"""Rules that are wrong for the model at hand are found out, and the kernel is right all the same."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers.agreement import assert_agrees_with_referee, error
from helpers.bent_models import (
    EmbeddingUsedOutside,
    Gathered,
    GatheredAlways,
    Hooked,
    InPlace,
    OtherClass,
    RawParameter,
    SeesPadding,
    Tiny,
    Transposed,
    UsedOutside,
    WithBatchNorm,
    WithGatedNorm,
    WithGroupNorm,
    WithNormOfPooled,
    WithPairNorm,
    build,
)
from helpers.zoo import ENTRIES, LORA_ENTRIES, ZOO, Entry, ragged_rows
from torch import Tensor, nn

from ntk_lpft.errors import InputError
from ntk_lpft.kernel import NTKDecomposition, compute_ntk, passes
from ntk_lpft.kernel.gradients import OuterGradients, SampleGradients
from ntk_lpft.kernel.rules import DenseLayer, EmbeddingTable, Norm

ROWS = [{"input_ids": ids} for ids in ([1, 2, 3, 2, 1], [4, 1, 2, 2], [3, 3, 1, 5], [2, 6, 1], [5, 1])]


def routes(ntk: NTKDecomposition) -> dict[str, list[str]]:
    return {route: names for route, names in ntk.metadata["self_check"]["routes"].items() if names}


def checked(model: nn.Module, rows: list | None = None, **options: object) -> NTKDecomposition:
    rows = ROWS if rows is None else rows
    ntk = compute_ntk(model, rows, precision="float64", **options)
    assert_agrees_with_referee(ntk, model, rows, attention="eager", tolerance=1e-8)
    return ntk


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (Tiny, {}),
        (OtherClass, {"autograd": ["mix.weight", "mix.bias"]}),
        (Hooked, {"autograd": ["mix.weight", "mix.bias"]}),
        (Transposed, {"single": ["mix.weight", "mix.bias"]}),
        (RawParameter, {"autograd": ["mix.matrix"]}),
        (InPlace, {"autograd": ["mix.weight", "mix.bias"]}),
        (UsedOutside, {"autograd": ["mix.weight"]}),
        (EmbeddingUsedOutside, {"autograd": ["embed.weight"]}),
        (WithGatedNorm, {"autograd": ["gated_norm.weight"]}),
        (WithPairNorm, {"autograd": ["pair_norm.weight"]}),
        (WithNormOfPooled, {"autograd": ["last.weight"]}),
        (WithBatchNorm, {"autograd": ["last.weight", "last.bias"]}),
        (WithGroupNorm, {"autograd": ["last.weight", "last.bias"]}),
        (SeesPadding, {"single": ["embed.weight", "mix.weight", "mix.bias"]}),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_unusual_modules_are_routed(kind: type[Tiny], expected: dict[str, list[str]]) -> None:
    ntk = checked(build(kind))
    assert routes(ntk) == expected
    notices = " ".join(ntk.metadata["self_check"]["notices"])
    assert all(names[0] in notices for names in expected.values())
    assert bool(notices) == bool(expected)


@pytest.mark.parametrize("kind", [Gathered, GatheredAlways])
@pytest.mark.parametrize(
    "ids",
    [
        [[1, 2, 3, 2, 1], [4, 4, 2, 2], [3, 3, 1, 5], [2, 4, 1, 4], [5, 1]],
        [[1, 2, 3, 2, 1], [4, 4, 4, 2], [3, 3, 4, 1], [2, 1, 1, 4], [5, 1]],
    ],
    ids=["fewer positions than samples", "as many positions as samples"],
)
def test_a_layer_that_the_checked_samples_do_not_reach_is_right(kind: type[Gathered], ids: list[list[int]]) -> None:
    """With as many gathered positions as samples in a batch, shapes alone do not give the mistake away."""
    checked(build(kind), [{"input_ids": row} for row in ids])


@pytest.mark.parametrize("rule", [DenseLayer, Norm, EmbeddingTable])
def test_wrong_rules_are_found_out(rule: type, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each rule is off by a hundredth; all of its parameters leave the fast ways."""
    original = rule.record

    def wrong(self, module, parameter, inputs, grads, start, dtype):
        return original(self, module, parameter, inputs, 1.01 * grads, start, dtype)

    monkeypatch.setattr(rule, "record", wrong)
    model, rows = ZOO["bert"].build(), ragged_rows(ZOO["bert"], n=3)
    said: list[str] = []
    ntk = compute_ntk(model, rows, precision="float64", report=said.append)
    kinds = {DenseLayer: nn.Linear, Norm: nn.LayerNorm, EmbeddingTable: nn.Embedding}
    affected = {
        f"{name}.{local}"
        for name, module in model.named_modules()
        if isinstance(module, kinds[rule]) and name != "classifier"
        for local, _ in module.named_parameters(recurse=False)
    }
    # A key's bias has no influence on the logits, so that nothing can be said of it.
    immaterial = {f"bert.encoder.layer.{i}.attention.self.key.bias" for i in (0, 1)}
    assert affected - immaterial <= set(routes(ntk)["autograd"]) <= affected
    assert any("plain autograd" in line for line in said)
    assert_agrees_with_referee(ntk, model, rows)


def raising(*_: object) -> SampleGradients:
    raise IndexError("no such axis\nat all")


def misfitting(*arguments: Any) -> SampleGradients:
    *_, start, dtype = arguments
    return OuterGradients(start, torch.ones(2, 2, 3, dtype=dtype), torch.ones(2, 3, 2, 4, dtype=dtype))


@pytest.mark.parametrize("record", [raising, misfitting])
@pytest.mark.parametrize("rule", [DenseLayer, EmbeddingTable])
def test_a_rule_that_fails_stands_down(
    rule: type, record: Callable[..., SampleGradients], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rule, "record", record)
    ntk = checked(build(Tiny))
    assert routes(ntk) == {"autograd": ["embed.weight"] if rule is EmbeddingTable else ["mix.weight", "mix.bias"]}
    assert all("\n" not in notice for notice in ntk.metadata["self_check"]["notices"])


@pytest.mark.parametrize("failure", [RuntimeError, ValueError, IndexError])
def test_a_contraction_that_fails_in_the_run_alone_stands_down(
    failure: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The two samples of the check fit each other, all of them do not: nothing half-added stays in the kernel."""
    whole = passes.contract

    def contract(out: Tensor, layout: Any, records: Any, workspace: Any) -> None:
        whole(out, layout, records, workspace)
        if isinstance(records[0], OuterGradients):
            raise failure("sizes differ")

    monkeypatch.setattr(passes, "contract", contract)
    said: list[str] = []
    ntk = checked(build(Tiny), report=said.append)
    assert ntk.metadata["self_check"]["rerouted"] == ["mix.weight"]
    assert any("mix.weight" in line and "plain autograd" in line for line in said)


@pytest.mark.parametrize(
    "failure",
    [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: can't allocate memory")],
)
def test_running_out_of_memory_is_no_disagreement(failure: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def contract(*_: object) -> None:
        raise failure

    monkeypatch.setattr(passes, "contract", contract)
    with pytest.raises(RuntimeError, match=str(failure)):
        compute_ntk(build(Tiny), ROWS)


def test_a_rule_that_fails_on_the_longest_sample_alone_stands_down(monkeypatch: pytest.MonkeyPatch) -> None:
    original = EmbeddingTable.record

    def record(self, module, parameter, calls):
        if calls.inputs.shape == (1, 5):
            raise IndexError("one sample too long")
        return original(self, module, parameter, calls)

    monkeypatch.setattr(EmbeddingTable, "record", record)
    checked(build(Tiny))


def test_the_error_of_a_sound_model_is_reported() -> None:
    said: list[str] = []
    model = ZOO["bert"].build()
    check = compute_ntk(model, ragged_rows(ZOO["bert"]), precision="float64", report=said.append).metadata["self_check"]
    assert 0 < check["error"] < 1e-12
    assert 0 < check["worst"] < check["tolerance"]
    assert check["worst_parameter"] in dict(model.named_parameters())
    assert check["parameters"] == len(list(model.parameters())) - 2
    assert any(line.startswith("self-check:") for line in said)


@pytest.mark.parametrize("name", ["bert", "distilbert", "gpt2", "opt", "electra", "albert"])
def test_shared_positions_flattened_inputs_and_repeated_calls_stay_fast(name: str) -> None:
    entry = ZOO[name]
    slow = routes(compute_ntk(entry.build(), ragged_rows(entry), precision="float64"))
    # OPT's positions are looked up by numbers that its own class computes from the mask.
    assert slow == ({"autograd": ["model.decoder.embed_positions.weight"]} if name == "opt" else {})


def test_deberta_and_t5_take_the_slower_ways_where_they_must() -> None:
    deberta = routes(compute_ntk(ZOO["deberta-v2"].build(), ragged_rows(ZOO["deberta-v2"]), precision="float64"))
    assert deberta["autograd"] == ["deberta.encoder.rel_embeddings.weight"]
    assert len(deberta["single"]) == 8
    assert all(".pos_key_proj." in name or ".pos_query_proj." in name for name in deberta["single"])
    t5 = routes(compute_ntk(ZOO["t5"].build(dtype=torch.float32), ragged_rows(ZOO["t5"])))
    assert t5 == {
        "single": [
            f"transformer.{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
            for stack in ("encoder", "decoder")
        ]
    }


def test_models_with_float32_inside_are_run_one_by_one_in_float64() -> None:
    narrow = compute_ntk(ZOO["gemma2"].build(), ragged_rows(ZOO["gemma2"]), precision="float64")
    check = narrow.metadata["self_check"]
    assert len(check["routes"]["single"]) == check["parameters"]
    assert "computes in float32 inside" in check["notices"][0]
    assert check["error"] < 1e-9
    wide = compute_ntk(ZOO["bert"].build(), ragged_rows(ZOO["bert"]), precision="float64")
    assert wide.metadata["self_check"]["routes"]["single"] == []


@pytest.mark.parametrize("entry", [*ENTRIES, *LORA_ENTRIES], ids=lambda e: e.name)
def test_every_trainable_parameter_is_in_one_group_or_in_the_head(entry: Entry) -> None:
    model = entry.build()
    ntk = compute_ntk(model, ragged_rows(entry, n=2), precision="float64")
    grouped = [name for names in ntk.parameter_groups.values() for name in names]
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    assert len(grouped) == len(set(grouped))
    assert set(grouped) < trainable
    head = trainable - set(grouped)
    assert {name.rsplit(".", 1)[1] for name in head} <= {"weight", "bias"}
    assert len({name.rsplit(".", 1)[0] for name in head}) == 1
    assert ntk.metadata["self_check"]["parameters"] == len(grouped)


def test_p_does_not_depend_on_padding_even_where_the_head_is_zero() -> None:
    """The logits say nothing about padding there, but the features see it."""
    model = build(SeesPadding)
    with torch.no_grad():
        model.classifier.weight.zero_()
    ntk = compute_ntk(model, ROWS, precision="float64")
    assert_agrees_with_referee(ntk, model, ROWS, attention="eager")


def test_a_model_that_is_random_in_eval_mode_is_refused() -> None:
    class Noisy(Tiny):
        def mixed(self, hidden: Tensor) -> Tensor:
            return nn.functional.dropout(self.mix(hidden), 0.3, training=True)

    with pytest.raises(InputError):
        compute_ntk(build(Noisy), ROWS)

    class NoisyHead(Tiny):
        def forward(self, *args: Tensor, **kwargs: Tensor) -> SimpleNamespace:
            logits = super().forward(*args, **kwargs).logits
            return SimpleNamespace(logits=logits + 1e-7 * torch.rand_like(logits))

    with pytest.raises(InputError, match="other logits each time"):
        compute_ntk(build(NoisyHead), ROWS, precision="float64")


def test_parameters_without_influence_are_noticed() -> None:
    model = build(Tiny)
    model.spare = nn.Linear(2, 2).double().eval()
    ntk = checked(model)
    assert ntk.metadata["self_check"]["unused"] == ["spare.weight", "spare.bias"]
    assert "no gradient on the two samples: spare.weight, spare.bias" in ntk.metadata["self_check"]["notices"]


@pytest.mark.parametrize("engine", ["functional", "per_example"])
def test_reference_engines_need_no_rules(engine: str) -> None:
    for kind in (Tiny, OtherClass, UsedOutside):
        ntk = checked(build(kind), engine=engine)
        assert error(ntk.total, compute_ntk(build(kind), ROWS, precision="float64").total) < 1e-10
