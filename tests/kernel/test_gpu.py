"""CUDA against the CPU, its memory, and how often it is waited for."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from helpers.agreement import assert_close, assert_identical, error, least_budget, replanned
from helpers.zoo import ENTRIES, LORA_ENTRIES, ZOO, Entry, ragged_rows

from ntk_lpft.choices import ENGINES, OUTPUTS
from ntk_lpft.classifier import extract_features
from ntk_lpft.devices import float32_products
from ntk_lpft.kernel import compute_ntk, compute_train_eval_ntk, passes
from ntk_lpft.kernel.layout import Layout, batch_product
from ntk_lpft.kernel.passes import PassRunner
from ntk_lpft.kernel.settings import KernelSettings
from ntk_lpft.kernel.split import SUM_BOUND, TERM_BOUND, add_split_product_, split_errors

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

# Relative to float64 on the CPU. What the model itself rounds in float32 is amplified by its layers.
TOLERANCES = {
    "float64": 1e-10, "float32": 1e-4, "tf32": 2e-2, "bfloat16": 2e-2, "bfloat16x3": 3e-4, "bfloat16x6": 1e-4,
}  # fmt: skip


@pytest.mark.parametrize("name", ["bert", "gpt2", "deberta-v2"])
def test_precisions_and_outputs_agree_with_the_cpu(name: str) -> None:
    model, rows = ZOO[name].build(), ragged_rows(ZOO[name])
    for outputs in OUTPUTS:
        exact = compute_ntk(model, rows, precision="float64", outputs=outputs)
        for precision, tolerance in TOLERANCES.items():
            ntk = compute_ntk(model, rows, precision=precision, outputs=outputs, device="cuda")
            assert ntk.metadata["device"] == "cuda"
            assert ntk.metadata["device_name"] == torch.cuda.get_device_name()
            assert ntk.metadata["precision"] == precision
            assert not ntk.feature_kernel.is_cuda
            for found, expected in (
                (ntk.ft_effective, exact.ft_effective),
                (ntk.feature_kernel, exact.feature_kernel),
                (ntk.row_logits, exact.row_logits),
            ):
                assert error(found.double(), expected) <= tolerance, (precision, outputs)
    assert all(parameter.device.type == "cpu" for parameter in model.parameters())


@pytest.mark.parametrize("precision", ["float64", "float32", "bfloat16x6"])
@pytest.mark.parametrize("engine", [engine for engine in ENGINES if engine != "structured"])
def test_engines_agree_with_the_cpu(engine: str, precision: str) -> None:
    model, rows = ZOO["bert"].build(), ragged_rows(ZOO["bert"])
    exact = compute_ntk(model, rows, precision="float64").ft_effective
    ntk = compute_ntk(model, rows, precision=precision, engine=engine, device="cuda")
    assert error(ntk.ft_effective.double(), exact) <= TOLERANCES[precision]


@pytest.mark.parametrize("entry", [*ENTRIES, *LORA_ENTRIES], ids=lambda e: e.name)
def test_every_architecture_agrees_with_the_cpu(entry: Entry) -> None:
    """In float64, where only what a model computes in float32 inside may differ."""
    model, rows = entry.build(), ragged_rows(entry, n=4)
    ntk = compute_ntk(model, rows, device="cuda")
    assert error(ntk.total, compute_ntk(model, rows).total) <= 10 * entry.tolerance


def test_train_and_evaluation_kernels_in_small_batches_agree_with_the_cpu() -> None:
    entry = ZOO["roberta"]
    model, rows, others = entry.build(), ragged_rows(entry, n=7), ragged_rows(entry, n=3, seed=1)
    expected = compute_train_eval_ntk(model, rows, others)
    with replanned(max_cells=25):
        found = compute_train_eval_ntk(model, rows, others, settings=KernelSettings(device="cuda"))
    for part, ntk in found.items():
        assert_close(ntk, expected[part], 1e-9)


def test_features_agree_with_the_cpu() -> None:
    model, rows = ZOO["gpt2"].build(), ragged_rows(ZOO["gpt2"], n=6)
    expected = extract_features(model, rows)
    found = extract_features(model.to("cuda"), rows)
    assert error(found.features, expected.features) <= 1e-10


@pytest.mark.parametrize("precision", ["float32", "float64", "tf32", "bfloat16", "bfloat16x6"])
@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_two_runs_on_cuda_give_the_same_bits(name: str, precision: str) -> None:
    model, rows = ZOO[name].build(dtype=torch.float32).cuda(), ragged_rows(ZOO[name], n=40)
    first, second = (compute_ntk(model, rows, precision=precision) for _ in range(2))
    assert_identical(first, second)


def test_two_runs_of_a_model_that_gathers_agree_to_rounding() -> None:
    """PyTorch adds gradients of ``gather``, of which DeBERTa's attention is made, on CUDA in no fixed order."""
    model, rows = ZOO["deberta-v2"].build(dtype=torch.float32).cuda(), ragged_rows(ZOO["deberta-v2"])
    one, two = compute_ntk(model, rows), compute_ntk(model, rows)
    assert torch.equal(one.feature_kernel, two.feature_kernel)
    assert error(one.ft_effective.double(), two.ft_effective.double()) < 1e-5


def test_an_interrupted_run_goes_on_to_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, rows = ZOO["bert"].build(dtype=torch.float32).cuda(), ragged_rows(ZOO["bert"], n=9)
    budget = least_budget(model, rows)
    whole = compute_ntk(model, rows, memory_budget=budget)
    assert whole.metadata["plan"]["passes"] > 1
    save = PassRunner._save

    def stop(runner: PassRunner, checkpoint: object) -> None:
        save(runner, checkpoint)
        if runner.progress.passes == 1:
            raise KeyboardInterrupt

    options = {"memory_budget": budget, "checkpoint": tmp_path / "partial"}
    with monkeypatch.context() as patch:
        patch.setattr(PassRunner, "_save", stop)
        with pytest.raises(KeyboardInterrupt):
            compute_ntk(model, rows, **options)
    ntk = compute_ntk(model, rows, **options)
    assert ntk.metadata["this_run"]["resumed_after_passes"] == 1
    assert_identical(ntk, whole)


def test_tf32_is_used_only_where_it_is_asked_for() -> None:
    before = torch.backends.cuda.matmul.allow_tf32
    model, rows = ZOO["bert"].build().cuda(), ragged_rows(ZOO["bert"])
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        plain = compute_ntk(model, rows, precision="float32")
        assert torch.backends.cuda.matmul.allow_tf32
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
    exact = compute_ntk(model, rows, precision="float64")
    assert error(plain.ft_effective.double(), exact.ft_effective) < 1e-4


@pytest.mark.parametrize("products", [3, 6])
@pytest.mark.parametrize("terms", [1, 7, 256, 3000, 100_000])
def test_split_products_keep_their_bounds(terms: int, products: int) -> None:
    """All terms positive, where tensor cores, which cut off, err most; and of both signs and many sizes."""
    generator = torch.Generator().manual_seed(terms)
    positive = torch.rand(300, terms, generator=generator) + 0.5
    mixed = torch.randn(300, terms, generator=generator) * 10.0 ** torch.linspace(-15, 15, terms)
    for factor in (positive.cuda(), mixed.cuda()):
        sums, single = split_errors(factor, products).tolist()
        assert sums <= SUM_BOUND[products]
        assert single <= TERM_BOUND[products]


def test_six_products_sum_as_exactly_as_float32_does() -> None:
    left = (torch.rand(400, 50_000, generator=torch.Generator().manual_seed(0)) + 0.5).cuda()
    exact = left.double() @ left.double().T
    out = torch.zeros(400, 400, device="cuda")
    add_split_product_(out, left, left, 6)
    with float32_products():
        plain = error((left @ left.T).double(), exact)
    assert error(out.double(), exact) <= max(5e-7, 2 * plain)


@pytest.mark.parametrize("products", [1, 3, 6])
@pytest.mark.parametrize(("symmetric", "extra"), [(True, 0), (True, 50), (False, 50)])
def test_products_of_all_layouts(symmetric: bool, extra: int, products: int) -> None:
    layout = Layout(600, extra, symmetric, 1, products=products)
    jacobian = torch.randn(layout.samples, 1000, generator=torch.Generator().manual_seed(1))
    out = layout.zeros(torch.float32, torch.device("cuda"))
    with float32_products():
        layout.add_gram_(out, jacobian.cuda())
    expected = (jacobian.double() @ jacobian.double().T)[0 if symmetric else 600 :, :600]
    assert error(layout.complete(out).cpu().double(), expected) <= {1: 1e-6, 3: 2.0**-14, 6: 1e-6}[products]


def test_bfloat16_is_summed_in_float32() -> None:
    factor = torch.randn(60, 40, 70, generator=torch.Generator().manual_seed(2)).to(torch.bfloat16)
    expected = factor.double() @ factor.double().transpose(1, 2)
    assert error(batch_product(factor.cuda(), factor.cuda(), torch.float32).cpu().double(), expected) < 1e-6


def waits_of_one_kernel(layers: int, cells: int) -> tuple[int, int]:
    """How often the processor waited for the device, as PyTorch itself says, and the number of batches."""
    entry = Entry(**{**vars(ZOO["bert"]), "options": {**ZOO["bert"].options, "num_hidden_layers": layers}})
    model, rows = entry.build(dtype=torch.float32).cuda(), ragged_rows(entry, n=12)
    batches, capture = 0, passes.capture

    def counted(*args: object) -> object:
        nonlocal batches
        batches += 1
        return capture(*args)

    with (
        pytest.MonkeyPatch.context() as patch,
        replanned(max_cells=cells),
        warnings.catch_warnings(record=True) as caught,
    ):
        warnings.simplefilter("always")
        patch.setattr(passes, "capture", counted)
        torch.cuda.set_sync_debug_mode("warn")
        try:
            compute_ntk(model, rows)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(warning.message) for warning in caught), batches


def test_waits_of_a_batch_do_not_grow_with_layers() -> None:
    waits_of_one_kernel(1, 20)  # what is set up once for the process
    of_a_batch = {}
    for layers in (1, 4):
        (few, short), (many, long) = (waits_of_one_kernel(layers, cells) for cells in (10**4, 20))
        of_a_batch[layers] = (many - few) / (long - short)
    assert of_a_batch[4] == of_a_batch[1] <= 20


def test_memory_is_that_of_the_plan() -> None:
    """Beside the model; where many samples are held, a plan's parts outweigh what is allocated beside them."""
    entry = ZOO["bert"]
    model, rows = entry.build(dtype=torch.float32).cuda(), ragged_rows(entry, n=7, max_len=20) * 60
    compute_ntk(model, rows[:9])
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    ntk = compute_ntk(model, rows, outputs="class_trace", memory_budget="1GiB")
    assert torch.cuda.max_memory_allocated() - before <= 1.2 * ntk.metadata["plan"]["budget"]


def test_a_run_goes_on_where_the_gpus_memory_runs_out() -> None:
    """The plan allows one large batch; the process may only take the memory of a small one."""
    entry = ZOO["bert"]
    model, rows = entry.build().cuda(), ragged_rows(entry, n=7, max_len=20) * 60
    with replanned(max_cells=20):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        small = compute_ntk(model, rows, precision="float64", outputs="class_trace")
        allowed = 1.5 * torch.cuda.max_memory_reserved() / torch.cuda.get_device_properties(0).total_memory
    with replanned(max_cells=10**6):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        compute_ntk(model, rows, precision="float64", outputs="class_trace")
        wanted = torch.cuda.max_memory_reserved() / torch.cuda.get_device_properties(0).total_memory
        assert wanted > allowed
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction(allowed)
        try:
            ntk = compute_ntk(model, rows, precision="float64", outputs="class_trace", memory_budget="8GiB")
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
    assert error(ntk.ft_effective, small.ft_effective) < 1e-10


@pytest.mark.parametrize("precision", ["float32", "bfloat16x6"])
def test_chunks_that_do_not_fit_are_made_smaller(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the device had no room for the first two chunks."""
    entry = ZOO["bert"]
    model, rows = entry.build(dtype=torch.float32).cuda(), ragged_rows(entry, n=9)
    expected = compute_ntk(model, rows, precision=precision)
    failures, add_gram = [], Layout.add_gram_

    def scarce(layout: Layout, out: torch.Tensor, jacobian: torch.Tensor) -> None:
        if layout.samples == 9 and len(failures) < 2:
            failures.append(1)
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB")
        add_gram(layout, out, jacobian)

    monkeypatch.setattr(Layout, "add_gram_", scarce)
    ntk = compute_ntk(model, rows, precision=precision)
    assert len(failures) == 2
    assert_close(ntk, expected, 1e-5)
