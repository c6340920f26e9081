"""The tiny models are what their entries say, and the naive reference kernel is right."""

from __future__ import annotations

from collections import Counter
from itertools import chain

import pytest
import torch
from torch.func import functional_call, jacrev
from torch.overrides import TorchFunctionMode
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES

from helpers.referee import referee, referee_jacobian, referee_logits
from helpers.zoo import LORA_ENTRIES, ZOO, Entry, padded, ragged_rows, widened

ARCHITECTURES = {
    "albert", "bert", "deberta-v2", "distilbert", "electra", "gemma2", "gpt2", "gpt_neox", "llama", "mistral",
    "modernbert", "mpnet", "opt", "qwen2", "qwen3", "roberta", "t5", "xlm-roberta",
}  # fmt: skip
every_entry = pytest.mark.parametrize("entry", ZOO.values(), ids=ZOO)


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).norm() / b.norm())


class Float32Spy(TorchFunctionMode):
    """Notes the functions that return float32 values which a gradient flows through."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor) and out.dtype == torch.float32 and out.requires_grad:
            self.seen.add(func.__name__)
        return out


def test_all_architectures_are_there():
    types = {entry.build().config.model_type for entry in ZOO.values()}
    assert types == ARCHITECTURES
    assert set(MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES) >= ARCHITECTURES


@every_entry
def test_weights_are_random_and_reproducible(entry: Entry):
    state = torch.random.get_rng_state()
    model = entry.build()
    assert torch.equal(torch.random.get_rng_state(), state)
    again, different = entry.build(), entry.build(seed=1)
    for (name, a), b, c in zip(model.named_parameters(), again.parameters(), different.parameters(), strict=True):
        assert a.dtype == torch.float64, name
        assert torch.equal(a, b), name
        assert a.unique().numel() == a.numel(), name
        assert not torch.isin(a, torch.tensor([0.0, 1.0])).any(), name
        assert (a != c).all(), name
    single = entry.build(num_labels=2, dtype=torch.float32)
    assert {parameter.dtype for parameter in single.parameters()} == {torch.float32}
    assert referee_logits(single, ragged_rows(entry, n=1)).shape == (1, 2)


@every_entry
def test_dropout_is_there_and_off(entry: Entry):
    model, rows = entry.build(), ragged_rows(entry)
    logits = referee_logits(model, rows)
    assert torch.equal(logits, referee_logits(model, rows))
    with torch.random.fork_rng(devices=[]), torch.no_grad(), widened():
        torch.manual_seed(0)
        noisy = model.train()(**padded(rows, pad_id=entry.pad_id)).logits
    assert relative(noisy, logits) > 1e-3
    with pytest.raises(ValueError, match="training mode"):
        referee_logits(model, rows)


@every_entry
@pytest.mark.parametrize("max_len", [3, 9])
def test_rows(entry: Entry, max_len: int):
    rows = ragged_rows(entry, n=5, seed=2, max_len=max_len)
    assert rows == ragged_rows(entry, n=5, seed=2, max_len=max_len)
    assert rows != ragged_rows(entry, n=5, seed=3, max_len=max_len)
    ids = [row["input_ids"] for row in rows]
    lengths = Counter(map(len, ids))
    assert max(lengths) == max_len
    assert max_len == 3 or max(lengths.values()) == 1
    assert entry.pad_id not in chain(*ids)
    shared = set.intersection(*map(set, ids)) - {entry.start, entry.end}
    assert len(shared) > 0
    assert max_len == 3 or any(max(Counter(row).values()) > 1 for row in ids)
    for row in rows:
        assert row["attention_mask"] == [1] * len(row["input_ids"])
        assert ("token_type_ids" in row) == entry.token_types
        assert all(len(values) == len(row["input_ids"]) for values in row.values())
        if entry.token_types:
            assert set(row["token_type_ids"]) == {0, 1}
        if entry.start is not None:
            assert row["input_ids"][0] == entry.start
        if entry.end is not None:
            assert row["input_ids"].index(entry.end) == len(row["input_ids"]) - 1


def test_padded():
    rows = [{"input_ids": [5, 6], "attention_mask": [1, 1]}, {"input_ids": [7], "attention_mask": [1]}]
    right = padded(rows, pad_id=9, extra=1)
    assert right["input_ids"].tolist() == [[5, 6, 9], [7, 9, 9]]
    assert right["attention_mask"].tolist() == [[1, 1, 0], [1, 0, 0]]
    left = padded(rows, pad_id=9, side="left")
    assert left["input_ids"].tolist() == [[5, 6], [9, 7]]
    assert left["attention_mask"].tolist() == [[1, 1], [0, 1]]


@every_entry
def test_padding_leaves_logits_alone(entry: Entry):
    model, rows = entry.build(), ragged_rows(entry)
    own = model.config._attn_implementation
    tolerance = entry.tolerance if entry.internal_float32 else 1e-10
    alone = referee_logits(model, rows, own)
    with torch.no_grad():
        right = model(**padded(rows, pad_id=entry.pad_id, extra=2)).logits
        left = model(**padded(rows, pad_id=entry.pad_id, side="left", extra=2)).logits
    assert (relative(right, alone) < tolerance) == entry.padding_exact == (not entry.padding_note)
    # Sines and cosines rounded to float32 move with the tokens.
    assert (relative(left, alone) < 1e-6) == entry.left_padding_exact
    # Eager attention, by which the referee goes, gives the same.
    assert relative(referee_logits(model, rows), alone) < max(tolerance, entry.tolerance)
    with widened(), torch.no_grad():
        alone = referee_logits(model, rows, own)
        assert relative(referee_logits(model, rows), alone) < 1e-10
        assert relative(model(**padded(rows, pad_id=entry.pad_id, extra=2)).logits, alone) < 1e-10
        if entry.left_padding_exact:
            left = model(**padded(rows, pad_id=entry.pad_id, side="left", extra=2)).logits
            assert relative(left, alone) < 1e-10


@every_entry
def test_float32_inside(entry: Entry):
    model, rows = entry.build(), ragged_rows(entry)
    if model.config._attn_implementation != "eager":
        with Float32Spy() as spy:
            model(**padded(rows, pad_id=entry.pad_id))
        assert bool(spy.seen) == entry.internal_float32, spy.seen
        model.set_attn_implementation("eager")
    with Float32Spy() as spy:
        model(**padded(rows, pad_id=entry.pad_id))
    assert ("softmax" in spy.seen) == entry.eager_softmax_float32
    assert bool(spy.seen - {"softmax"}) == entry.internal_float32, spy.seen
    with widened():
        logits = model(**padded(rows, pad_id=entry.pad_id)).logits
    with Float32Spy() as spy, widened():
        model(**padded(rows, pad_id=entry.pad_id))
    assert logits.dtype == torch.float64
    assert spy.seen == set()


@every_entry
def test_referee_agrees_with_finite_differences(entry: Entry):
    """The logits' change along a random direction of all trainable parameters is what their Jacobian says."""
    model, rows = entry.build(), ragged_rows(entry)
    generator = torch.Generator().manual_seed(5)
    trainable = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    direction = {
        name: torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        for name, parameter in trainable.items()
    }
    step = 1e-6
    with widened():
        jacobian = referee_jacobian(model, rows)
        predicted = sum(jacobian[name] @ direction[name].flatten() for name in trainable)
        sides = []
        for sign in (1, -1):
            with torch.no_grad():
                for name, parameter in trainable.items():
                    parameter.add_(direction[name], alpha=sign * step)
                sides.append(referee_logits(model, rows))
                for name, parameter in trainable.items():
                    parameter.sub_(direction[name], alpha=sign * step)
    assert relative((sides[0] - sides[1]) / (2 * step), predicted) < 1e-6


@every_entry
def test_float32_inside_costs_less_than_the_tolerance(entry: Entry):
    model, rows = entry.build(), ragged_rows(entry)
    for attention, tolerance in {
        "eager": entry.tolerance,
        model.config._attn_implementation: entry.tolerance_sdpa,
    }.items():
        plain = sum(referee(model, rows, attention=attention).values())
        with widened():
            wide = sum(referee(model, rows, attention=attention).values())
        # Rounded constants alone make up 1e-7 of the difference, in the models that have them.
        assert relative(plain, wide) < max(tolerance, 1e-7)


@pytest.mark.parametrize("name", ["bert", "llama", "gpt2-lora"])
def test_referee_agrees_with_jacrev(name: str):
    model, rows = ZOO[name].build(), ragged_rows(ZOO[name], n=2)
    model.set_attn_implementation("eager")
    trainable = {key: value.detach() for key, value in model.named_parameters() if value.requires_grad}
    with widened():
        jacobian = referee_jacobian(model, rows)
        for i, row in enumerate(rows):
            inputs = {key: torch.tensor([values]) for key, values in row.items()}

            def logits(parameters, inputs=inputs):
                return functional_call(model, parameters, (), inputs).logits[0]

            expected = jacrev(logits)(trainable)
            assert expected.keys() == jacobian.keys()
            for key, value in expected.items():
                assert torch.allclose(jacobian[key][i], value.flatten(1), rtol=1e-10, atol=1e-12), key


@every_entry
def test_referee_kernel(entry: Entry):
    model, rows = entry.build(), ragged_rows(entry, n=4)
    own = model.config._attn_implementation
    kernel = referee(model, rows)
    assert model.config._attn_implementation == own
    assert list(kernel) == [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    total = sum(kernel.values())
    assert total.shape == (4, 3, 4, 3)
    flat = total.reshape(12, 12)
    assert torch.equal(flat, flat.T)
    assert torch.linalg.eigvalsh(flat).min() > -1e-12 * flat.trace()
    # No weight is without influence; the bias of a key projection rightly is.
    for name, block in kernel.items():
        assert name.endswith("bias") or block.reshape(12, 12).trace() > 1e-8 * flat.trace(), name
    cross = referee(model, rows[1:], rows[:2])
    for name, block in kernel.items():
        assert torch.allclose(cross[name], block[1:, :, :2], rtol=1e-12, atol=1e-14 * float(flat.trace())), name


def test_tied_parameters_appear_once():
    model = ZOO["t5"].build()
    kernel = referee(model, ragged_rows(ZOO["t5"], n=1))
    assert [name for name in kernel if "shared" in name or "embed_tokens" in name] == ["transformer.shared.weight"]


@pytest.mark.parametrize("entry", LORA_ENTRIES, ids=lambda entry: entry.name)
def test_adapters_are_trained_with_the_head_alone(entry: Entry):
    kernel = referee(entry.build(), ragged_rows(entry, n=1))
    kinds = {"lora_A" if "lora_A" in name else "lora_B" if "lora_B" in name else name for name in kernel}
    assert {"lora_A", "lora_B"} < kinds
    assert all("modules_to_save" in kind for kind in kinds - {"lora_A", "lora_B"})
