"""What must not change a kernel, and what must change it in a known way."""

from __future__ import annotations

import random
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from helpers.agreement import assert_close, assert_identical, error, least_budget, parts_of, replanned
from helpers.zoo import ZOO, padded, ragged_rows, widened
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from ntk_lpft.kernel import KernelSettings, NTKDecomposition, compute_ntk, compute_train_eval_ntk

# BERT; positions counted by the model and heads applied to every position; samples that cannot be told apart in some
# modules' inputs; an encoder and a decoder; adapters.
HANDFUL = ["bert", "gpt2", "deberta-v2", "t5", "llama-lora"]
FEW = ["bert", "deberta-v2", "llama-lora"]

few = settings(max_examples=6, deadline=None, derandomize=True)


def exact(model: nn.Module, *rows: Any, **options: Any) -> NTKDecomposition:
    """Compute in float64, also what Llama and T5 compute in float32 inside."""
    with widened() if model.config.model_type in ("llama", "t5") else nullcontext():
        return compute_ntk(model, *rows, precision="float64", **options)


def head_of(model: nn.Module) -> nn.Linear:
    return next(m for name, m in model.named_modules() if name.endswith("classifier") and isinstance(m, nn.Linear))


def matrix(kernel: Tensor) -> Tensor:
    return kernel.reshape(kernel.shape[0] * kernel.shape[1], -1)


@pytest.mark.parametrize("name", HANDFUL)
@pytest.mark.parametrize("max_cells", [1, 17])
def test_batch_size_does_not_matter(name: str, max_cells: int) -> None:
    model, rows = ZOO[name].build(), ragged_rows(ZOO[name])
    with replanned(max_cells=10**6):
        whole = exact(model, rows)
    with replanned(max_cells=max_cells):
        assert_close(exact(model, rows), whole)


@pytest.mark.parametrize("name", FEW)
def test_chunk_size_does_not_matter(name: str) -> None:
    model, rows = ZOO[name].build(), ragged_rows(ZOO[name])
    with replanned(chunk_bytes=1):
        small = exact(model, rows)
    assert_close(small, exact(model, rows))


@pytest.mark.parametrize("name", ["bert", "deberta-v2", "t5"])
def test_memory_budget_does_not_matter(name: str) -> None:
    model, rows = ZOO[name].build(), ragged_rows(ZOO[name])
    least = least_budget(model, rows, precision="float64")
    free = exact(model, rows)
    passes = {free.metadata["plan"]["passes"]}
    for budget in (int(1.1 * least), 2 * least):
        tight = exact(model, rows, memory_budget=budget)
        passes.add(tight.metadata["plan"]["passes"])
        assert_close(tight, free)
    assert len(passes) >= 2
    assert max(passes) >= 3


@few
@given(seed=st.integers(0, 99), side=st.sampled_from(["left", "right"]), extra=st.integers(0, 3))
def test_padding_of_the_inputs_does_not_matter(seed: int, side: str, extra: int) -> None:
    entry = ZOO["bert"]
    model, rows = entry.build(), ragged_rows(entry, n=3, seed=seed)
    batch = padded(rows, pad_id=entry.pad_id, side=side, extra=extra)
    assert_identical(exact(model, batch), exact(model, rows))


@few
@given(name=st.sampled_from(FEW), seed=st.integers(0, 99))
def test_a_permutation_of_the_rows_permutes_the_kernel(name: str, seed: int) -> None:
    model, rows = ZOO[name].build(), ragged_rows(ZOO[name])
    order = list(range(len(rows)))
    random.Random(seed).shuffle(order)
    permuted, plain = exact(model, [rows[i] for i in order]), exact(model, rows)
    assert error(permuted.feature_kernel, plain.feature_kernel[order][:, order]) < 1e-12
    for group, kernel in plain.ft_groups.items():
        assert float((permuted.ft_groups[group] - kernel[order][:, :, order]).norm()) <= 1e-10 * plain.total.norm(), (
            group
        )
    assert torch.allclose(permuted.row_logits, plain.row_logits[order], rtol=0, atol=1e-12)


@few
@given(name=st.sampled_from(FEW), kept=st.sets(st.integers(0, 4), min_size=1, max_size=4))
def test_the_presence_of_other_rows_does_not_matter(name: str, kept: set[int]) -> None:
    model, rows = ZOO[name].build(), ragged_rows(ZOO[name])
    chosen = sorted(kept)
    part, whole = exact(model, [rows[i] for i in chosen]), exact(model, rows)
    assert error(part.total, whole.total[chosen][:, :, chosen]) < 1e-10


@pytest.mark.parametrize("name", HANDFUL)
def test_symmetric_and_rectangular_kernels_agree(name: str) -> None:
    model, rows = ZOO[name].build(), ragged_rows(ZOO[name])
    symmetric, rectangular = exact(model, rows), exact(model, rows, [dict(row) for row in rows])
    assert symmetric.symmetric
    assert not rectangular.symmetric
    assert_close(rectangular, symmetric)
    for kernel in symmetric.ft_groups.values():
        assert torch.equal(kernel, kernel.permute(2, 3, 0, 1))


@pytest.mark.parametrize("outputs", ["full", "class_trace", "pseudo"])
@pytest.mark.parametrize("name", FEW)
def test_the_pair_of_kernels_equals_separate_calls(name: str, outputs: str) -> None:
    model, train = ZOO[name].build(), ragged_rows(ZOO[name], n=3, seed=1)
    evaluation = ragged_rows(ZOO[name], n=4, seed=2)
    options = {"precision": "float64", "outputs": outputs}
    with widened():
        pair = compute_train_eval_ntk(model, train, evaluation, settings=KernelSettings(**options))
        assert_close(pair["train"], compute_ntk(model, train, **options))
        assert_close(pair["eval"], compute_ntk(model, evaluation, train, **options))


@pytest.mark.parametrize("name", FEW)
def test_groups_sum_to_the_kernel_without_groups(name: str) -> None:
    model, rows = ZOO[name].build(), ragged_rows(ZOO[name])
    split, merged = exact(model, rows), exact(model, rows, groups=False)
    assert list(merged.ft_groups) == ["body"]
    assert sorted(merged.parameter_groups["body"]) == sorted(
        n for names in split.parameter_groups.values() for n in names
    )
    assert error(sum(split.ft_groups.values()), merged.ft_groups["body"]) < 1e-12
    assert error(split.ft_effective, merged.ft_effective) < 1e-12


@pytest.mark.parametrize("alpha", [4.0, 3.0])
def test_f_is_quadratic_in_the_head_and_p_does_not_depend_on_it(alpha: float) -> None:
    model, rows = ZOO["bert"].build(), ragged_rows(ZOO["bert"])
    before = exact(model, rows)
    with torch.no_grad():
        head_of(model).weight.mul_(alpha)
    after = exact(model, rows)
    assert torch.equal(after.feature_kernel, before.feature_kernel)
    for group, kernel in before.ft_groups.items():
        if alpha == 4.0:  # a power of two changes no digit
            assert torch.equal(after.ft_groups[group], alpha**2 * kernel), group
        else:
            assert error(after.ft_groups[group], alpha**2 * kernel) < 1e-12, group


def test_f_vanishes_where_the_head_is_zero() -> None:
    model, rows = ZOO["bert"].build(), ragged_rows(ZOO["bert"])
    before = exact(model, rows)
    with torch.no_grad():
        head_of(model).weight.zero_()
    after = exact(model, rows)
    assert not after.ft_effective.any()
    assert torch.equal(after.feature_kernel, before.feature_kernel)


@pytest.mark.parametrize("precision", ["float64", "float32"])
@pytest.mark.parametrize("name", HANDFUL)
def test_kernels_are_positive_semidefinite_to_rounding(name: str, precision: str) -> None:
    model, rows = ZOO[name].build(), ragged_rows(ZOO[name])
    ntk = compute_ntk(model, rows, precision=precision)
    rounding = {"float64": 1e-13, "float32": 1e-5}[precision]
    for kernel in (ntk.pretrain_effective, ntk.ft_effective, *ntk.ft_groups.values()):
        eigenvalues = torch.linalg.eigvalsh(matrix(kernel).double())
        # A float64 model may compute in float32 inside, but a Gram matrix of inexact gradients is a Gram matrix.
        assert eigenvalues[0] >= -rounding * max(eigenvalues[-1], 1e-3 * float(ntk.total.norm()))


def test_frozen_parameters_leave_their_group() -> None:
    model, rows = ZOO["bert"].build(), ragged_rows(ZOO["bert"])
    plain = exact(model, rows)
    attention = model.bert.encoder.layer[1].attention
    attention.requires_grad_(False)
    attention.output.dense.weight.requires_grad_(True)
    frozen = exact(model, rows)
    assert frozen.parameter_groups["layer.1.attention"] == ["bert.encoder.layer.1.attention.output.dense.weight"]
    assert (
        frozen.ft_groups["layer.1.attention"].diagonal().sum() < plain.ft_groups["layer.1.attention"].diagonal().sum()
    )
    for group in plain.ft_groups.keys() - {"layer.1.attention", "layer.1.norm"}:
        assert error(frozen.ft_groups[group], plain.ft_groups[group]) < 1e-12
    model.bert.encoder.requires_grad_(False)
    assert [group for group in plain.ft_groups if not group.startswith("layer")] == list(exact(model, rows).ft_groups)


def test_a_frozen_head_has_no_p_and_a_frozen_bias_no_one() -> None:
    model, rows = ZOO["bert"].build(), ragged_rows(ZOO["bert"])
    plain, head = exact(model, rows), head_of(model)
    head.bias.requires_grad_(False)
    without_bias = exact(model, rows)
    assert torch.allclose(without_bias.feature_kernel, plain.feature_kernel - 1, rtol=0, atol=1e-12)
    head.weight.requires_grad_(False)
    frozen = exact(model, rows)
    assert not frozen.feature_kernel.any()
    assert_close(
        NTKDecomposition(plain.feature_kernel, frozen.ft_groups, frozen.row_logits, frozen.column_logits), plain
    )
    head.bias.requires_grad_(True)
    assert torch.equal(exact(model, rows).feature_kernel, torch.ones(5, 5, dtype=torch.float64))


def test_a_frozen_body_has_no_f() -> None:
    model, rows = ZOO["bert"].build(), ragged_rows(ZOO["bert"])
    model.bert.requires_grad_(False)
    ntk = exact(model, rows)
    assert ntk.ft_groups == {}
    assert ntk.ft_effective.shape == (5, 3, 5, 3)
    assert not ntk.ft_effective.any()
    assert exact(model, rows, groups=False).ft_groups == {}


@pytest.mark.parametrize("name", HANDFUL)
def test_reduced_outputs_are_sums_of_the_full_kernel(name: str) -> None:
    model, rows, other = ZOO[name].build(), ragged_rows(ZOO[name]), ragged_rows(ZOO[name], n=2, seed=4)
    for columns in ((), (other,)):
        full = exact(model, rows, *columns)
        for outputs, equation in (("class_trace", "ncmc->nm"), ("pseudo", "ncmd->nm")):
            reduced = exact(model, rows, *columns, outputs=outputs)
            assert reduced.divisor == 3
            for group, kernel in full.ft_groups.items():
                expected = torch.einsum(equation, kernel) / 3
                bound = 1e-9 * max(float(expected.norm()), 1e-6 * float(full.total.norm()))
                assert float((reduced.ft_groups[group] - expected).norm()) <= bound, (outputs, group)
            assert error(reduced.pretrain_effective, torch.einsum(equation, full.pretrain_effective) / 3) < 1e-12


def test_precisions_differ_by_their_rounding_and_are_recorded() -> None:
    entry = ZOO["bert"]
    rows = ragged_rows(entry)
    kernels = {p: compute_ntk(entry.build(), rows, precision=p) for p in ("float64", "float32", "bfloat16")}
    assert {p: k.metadata["precision"] for p, k in kernels.items()} == {p: p for p in kernels}
    assert [k.ft_effective.dtype for k in kernels.values()] == [torch.float64, torch.float32, torch.float32]
    truth = kernels["float64"].ft_effective
    assert 1e-9 < error(kernels["float32"].ft_effective, truth) < 1e-5
    assert 1e-5 < error(kernels["bfloat16"].ft_effective, truth) < 1e-2


@pytest.mark.parametrize("name", FEW)
def test_two_runs_give_the_same_bits(name: str) -> None:
    model, rows = ZOO[name].build(dtype=torch.float32), ragged_rows(ZOO[name])
    assert_identical(compute_ntk(model, rows), compute_ntk(model, rows))


def test_the_number_of_threads_does_not_matter() -> None:
    model, rows = ZOO["bert"].build(), ragged_rows(ZOO["bert"])
    one, before = exact(model, rows), torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert_close(exact(model, rows), one, 1e-12)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("engine", ["structured", "functional", "per_example"])
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_the_model_is_left_as_it_was(engine: str, precision: str) -> None:
    model, rows = ZOO["bert"].build(dtype=torch.float32), ragged_rows(ZOO["bert"], n=2)
    model.train()
    model.bert.pooler.eval()
    model.bert.embeddings.requires_grad_(False)
    objects = [(id(p), p.data_ptr(), p.requires_grad, p.grad) for p in model.parameters()]
    state = {key: value.clone() for key, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    config, hooks = model.config.to_dict(), [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]
    compute_ntk(model, rows, engine=engine, precision=precision)
    assert objects == [(id(p), p.data_ptr(), p.requires_grad, p.grad) for p in model.parameters()]
    assert all(
        torch.equal(value, state[key]) and value.dtype == torch.float32 for key, value in model.state_dict().items()
    )
    assert modes == [module.training for module in model.modules()]
    assert config == model.config.to_dict()
    assert hooks == [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]


@pytest.mark.parametrize("name", FEW)
def test_training_mode_and_its_dropout_do_not_matter(name: str) -> None:
    model, rows = ZOO[name].build(), ragged_rows(ZOO[name])
    assert (
        any(isinstance(m, nn.Dropout) and m.p > 0 for m in model.modules()) or "attention_dropout" in ZOO[name].options
    )
    quiet = exact(model, rows)
    model.train()
    assert_identical(exact(model, rows), quiet)


@pytest.mark.parametrize("name", ["bert", "gpt2", "t5"])
def test_gradient_checkpointing_does_not_matter(name: str) -> None:
    model, rows = ZOO[name].build(), ragged_rows(ZOO[name])
    plain = exact(model, rows)
    model.activation_checkpointing_enable()
    model.train()
    assert_close(exact(model, rows), plain)


def test_a_single_sample_is_enough() -> None:
    model, rows = ZOO["bert"].build(), ragged_rows(ZOO["bert"])
    one, all_rows = exact(model, rows[:1]), exact(model, rows)
    assert {name: tuple(part.shape) for name, part in parts_of(one).items()}["P"] == (1, 1)
    assert error(one.total, all_rows.total[:1, :, :1]) < 1e-12
