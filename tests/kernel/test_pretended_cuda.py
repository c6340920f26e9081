"""Kernels on a pretended CUDA device: nothing else meets what is on it, and it is seldom waited for."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.agreement import assert_close, error, replanned
from helpers.pretended_cuda import Waits, on_device, pretended_cuda
from helpers.zoo import ZOO, Entry, ragged_rows
from torch import nn

from ntk_lpft.choices import ENGINES, OUTPUTS, PRECISION_NAMES
from ntk_lpft.classifier.rows import Batch
from ntk_lpft.kernel import compute_ntk, compute_train_eval_ntk, passes
from ntk_lpft.kernel.free_memory import default_budget
from ntk_lpft.kernel.gradients import OuterGradients, SampleGradients
from ntk_lpft.kernel.layout import add_product_
from ntk_lpft.kernel.passes import PassRunner
from ntk_lpft.kernel.settings import KernelSettings

# Of a batch, what the capture waits for: active positions, for all layers at once.
OF_LAYERS = ("kernel/capture.py", "kernel/rules.py", "kernel/passes.py")


@pytest.fixture
def waits() -> Iterator[Waits]:
    with pretended_cuda() as waits:
        yield waits


def test_what_is_pretended(waits: Waits) -> None:
    here, there = torch.ones(3), torch.ones(3, device="cuda")
    assert (here.device.type, there.device.type, there.is_cuda) == ("cpu", "cuda", True)
    assert not waits.total
    for mixture in (
        lambda: here + there,
        lambda: torch.stack([here, there]),
        lambda: here[torch.tensor([0, 1], device="cuda")],
        lambda: there.add_(here),
        lambda: nn.Linear(3, 2)(there),
        lambda: nn.Linear(3, 2).to("cuda")(here),
        lambda: (there * 2).view(3, 1) @ here[None],
    ):
        with pytest.raises(RuntimeError, match="same device"):
            mixture()
    with pytest.raises(TypeError, match="to numpy"):
        there.numpy()
    with pytest.raises(RuntimeError, match="for generator"):
        torch.randn(3, generator=torch.Generator(), device="cuda")
    for fits in (there + torch.tensor(2.0), there * 2, there[torch.tensor([0, 2])], torch.zeros_like(there), there[:1]):
        assert on_device(fits)
    assert not on_device(there.cpu() + here)
    layer = nn.Linear(3, 2).to("cuda")
    (gradient,) = torch.autograd.grad(layer(there).square().sum(), layer.weight)
    assert on_device(gradient)
    assert on_device(torch.func.vmap(torch.func.grad(lambda x: (x * x).sum()))(there[:, None]))


def test_what_is_counted(waits: Waits) -> None:
    here, there = torch.ones(3), torch.ones(3, device="cuda")
    questions = [
        lambda: float(there[0]), lambda: bool(there.any()), lambda: there.tolist(), lambda: there.cpu(),
        lambda: there[there > 0], lambda: there.nonzero(), lambda: torch.unique(there), lambda: here.to("cuda"),
        lambda: here.copy_(there), lambda: torch.equal(there, there),
    ]  # fmt: skip
    for number, question in enumerate(questions, start=1):
        question()
        assert waits.total == number
    here.to("cuda", non_blocking=True)
    here.tolist()
    bool(here.any())
    assert waits.total == len(questions)


NAMES = ["bert", "roberta", "albert", "deberta-v2", "gpt2", "opt", "llama", "modernbert", "t5", "bert-lora"]


@pytest.mark.parametrize("name", NAMES)
def test_the_structured_engine(name: str, waits: Waits) -> None:
    """Train and evaluation kernels, in small batches; on the device they agree with those of the processor."""
    entry = ZOO[name]
    rows, others = ragged_rows(entry, n=7), ragged_rows(entry, n=3, seed=1)
    model = entry.build(dtype=torch.float32)
    with replanned(max_cells=25):
        expected = compute_train_eval_ntk(model, rows, others)
        found = compute_train_eval_ntk(model, rows, others, settings=KernelSettings(device="cuda"))
    assert not any(on_device(parameter) for parameter in model.parameters())
    for part, ntk in found.items():
        assert (ntk.metadata["device"], ntk.metadata["device_name"]) == ("cuda", "pretended")
        assert not on_device(ntk.ft_effective)
        assert_close(ntk, expected[part], 1e-4)


CASES = [
    *((engine, "float32", outputs) for engine in ENGINES for outputs in OUTPUTS),
    *(("structured", precision, "full") for precision in PRECISION_NAMES if precision != "float32"),
    ("functional", "bfloat16x6", "class_trace"),
    ("per_example", "bfloat16", "full"),
]


@pytest.mark.parametrize(("engine", "precision", "outputs"), CASES)
def test_engines_precisions_and_outputs(engine: str, precision: str, outputs: str, waits: Waits) -> None:
    model, rows = ZOO["bert"].build(), ragged_rows(ZOO["bert"])
    exact = compute_ntk(model, rows, precision="float64", outputs=outputs)
    model.to("cuda")
    ntk = compute_ntk(model, rows, engine=engine, precision=precision, outputs=outputs)
    coarse = {"float64": 1e-10, "bfloat16": 1e-2}
    assert error(ntk.ft_effective.double(), exact.ft_effective) <= coarse.get(precision, 1e-4)
    assert error(ntk.feature_kernel.double(), exact.feature_kernel) <= coarse.get(precision, 1e-4)


@pytest.mark.parametrize("engine", ["structured", "functional"])
def test_a_run_that_was_interrupted(engine: str, waits: Waits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, rows = ZOO["bert"].build(dtype=torch.float32), ragged_rows(ZOO["bert"])
    budget = "600KiB" if engine == "structured" else None
    options = {"engine": engine, "device": "cuda", "memory_budget": budget, "checkpoint": tmp_path / "partial"}
    expected = compute_ntk(model, rows, **(options | {"checkpoint": None}))
    save = PassRunner._save

    def stop(runner: PassRunner, checkpoint: object) -> None:
        save(runner, checkpoint)
        if runner.progress.passes == 1:  # and not where a slow machine saves within the pass
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(PassRunner, "_save", stop)
        with pytest.raises(KeyboardInterrupt):
            compute_ntk(model, rows, **options)
    ntk = compute_ntk(model, rows, **options)
    assert ntk.metadata["this_run"]["resumed_after_passes"] == 1
    assert_close(ntk, expected, 1e-6)


def deep(layers: int) -> Entry:
    """Return the zoo's BERT with so many layers."""
    return replace(ZOO["bert"], options={**ZOO["bert"].options, "num_hidden_layers": layers})


def counted(layers: int, cells: int) -> tuple[Waits, int]:
    """Count the waits of a kernel of 12 rows, and the batches in which it was captured."""
    entry = deep(layers)
    model, rows = entry.build(dtype=torch.float32), ragged_rows(entry, n=12)
    batches = 0
    capture = passes.capture

    def watched(*args: object) -> object:
        nonlocal batches
        batches += 1
        return capture(*args)

    with pytest.MonkeyPatch.context() as patch, replanned(max_cells=cells), pretended_cuda() as waits:
        patch.setattr(passes, "capture", watched)
        compute_ntk(model, rows, device="cuda")
    return waits, batches


def test_waits_of_a_batch_do_not_grow_with_layers() -> None:
    """One for the active positions of all layers, and two for each of the three tables of embeddings."""
    few, most = {}, {}
    for layers in (1, 4):
        few[layers], short = counted(layers, 10**4)
        most[layers], long = counted(layers, 20)
        more = long - short
        assert more >= 4
        library = [waits.within("kernel/gradients.py", *OF_LAYERS) for waits in (most[layers], few[layers])]
        assert library[0] - library[1] == more * (1 + 2 * 3)
        # What transformers itself asks about masks in a forward pass counts as well.
        assert most[layers].total - few[layers].total <= more * 9
    assert most[4].total - few[4].total == most[1].total - few[1].total


def test_waits_of_the_contraction_and_the_checks_do_not_grow_with_layers() -> None:
    """But for moving weights there and kernels back."""
    of_layers = {}
    for layers in (1, 4):
        waits, _ = counted(layers, 10**4)
        moves = {"to cuda", "to cpu", "copy", "index by the processor's indices"}
        of_layers[layers] = sum(count for (what, _), count in waits.at.items() if what not in moves)
    assert of_layers[4] == of_layers[1] <= 60


def test_parameters_without_a_gradient_are_asked_about_at_once() -> None:
    """BERT whose pooler takes nothing from the layers below: in a pass one answer tells of all of their parameters."""
    entry = ZOO["bert"]
    model, rows = entry.build(dtype=torch.float32), ragged_rows(entry, n=6)
    with torch.no_grad():
        model.bert.pooler.dense.weight.zero_()
    with replanned(max_cells=20), pretended_cuda() as waits:
        ntk = compute_ntk(model, rows, device="cuda")
    assert len(ntk.metadata["self_check"]["unused"]) == 37
    assert waits.within("kernel/passes.py") == ntk.metadata["plan"]["passes"] == 1


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("rows", "columns", "terms"), [(3, 5, 0), (3, 5, 40), (300, 200, 5000), (4, 2, 9_001), (1, 1, 2**16)]
)
def test_long_sums_on_a_device(rows: int, columns: int, terms: int, dtype: torch.dtype, waits: Waits) -> None:
    """They are cut into blocks, of which none is lost."""
    generator = torch.Generator().manual_seed(terms)
    left, right = (torch.randn(n, terms, generator=generator, dtype=torch.float64).to(dtype) for n in (rows, columns))
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    out = torch.ones(rows, columns, dtype=wide, device="cuda")
    add_product_(out, left.to("cuda"), right.to("cuda"))
    expected = 1 + left.double() @ right.double().T
    assert error(out.cpu().double(), expected) <= (1e-13 if dtype == torch.float64 else 1e-6)


def test_free_memory_is_also_what_torch_holds_in_reserve(waits: Waits, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1000, 16 << 30))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 800)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 300)
    assert default_budget(torch.device("cuda")) == 1200


def test_nothing_is_held_when_memory_has_run_out(waits: Waits, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was captured before is let go before torch is told to give its reserve back."""
    model, rows = ZOO["bert"].build(dtype=torch.float32), ragged_rows(ZOO["bert"], n=9)
    expected = compute_ntk(model, rows)
    held: list[weakref.ref[torch.Tensor]] = []
    left: list[bool] = []
    capture = passes.capture

    def scarce(model: nn.Module, parameters: list, batch: Batch, *rest: object) -> dict[str, SampleGradients]:
        if batch.size > 3 and held:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB")
        records = capture(model, parameters, batch, *rest)
        held.extend(weakref.ref(record.grads) for record in records.values() if isinstance(record, OuterGradients))
        return records

    monkeypatch.setattr(passes, "capture", scarce)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: left.append(any(ref() is not None for ref in held)))
    with replanned(max_cells=40):
        ntk = compute_ntk(model, rows, device="cuda")
    assert left
    assert not any(left)
    assert_close(ntk, expected, 1e-4)
