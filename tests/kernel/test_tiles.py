"""Kernels in tiles of samples: every entry once, and the same kernel whatever the tiles."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers.agreement import assert_agrees_with_referee, assert_close, assert_identical, replanned
from helpers.zoo import ZOO, ragged_rows
from hypothesis import given, settings
from hypothesis import strategies as st

from ntk_lpft.kernel import compute_ntk, compute_train_eval_ntk, passes
from ntk_lpft.kernel.capture import CaptureError
from ntk_lpft.kernel.layout import Layout
from ntk_lpft.kernel.settings import KernelSettings
from ntk_lpft.kernel.tiles import tiles_of

many = settings(max_examples=100, deadline=None, derandomize=True)
few = settings(max_examples=6, deadline=None, derandomize=True)


@st.composite
def layouts(draw: st.DrawFn) -> Layout:
    extra = draw(st.integers(0, 7))
    symmetric = draw(st.booleans()) or not extra
    return Layout(draw(st.integers(1, 9)), extra, symmetric, draw(st.integers(1, 3)), traced=draw(st.booleans()))


@many
@given(layout=layouts(), columns=st.integers(1, 10), rows=st.integers(1, 20))
def test_tiles_cover_what_is_needed_once(layout: Layout, columns: int, rows: int) -> None:
    counts = torch.zeros(layout.samples, layout.columns)
    for block in tiles_of(layout, columns, rows):
        assert len({tile.columns for tile in block}) == 1
        for number, tile in enumerate(block):
            assert tile.diagonal is (layout.symmetric and number == 0)
            assert tile.width <= columns
            assert tile.height <= rows
            # Rows that are columns as well, and rows that are not, are not mixed.
            assert tile.rows[1] <= layout.columns or tile.rows[0] >= layout.columns
            counts[slice(*tile.rows), slice(*tile.columns)] += 1
            if tile.diagonal:
                square = counts[slice(*tile.columns), slice(*tile.columns)]
                square += torch.ones_like(square).triu()
    needed = torch.ones(layout.samples, layout.columns)
    needed[: layout.columns] = needed[: layout.columns].triu() if layout.symmetric else 0
    assert torch.equal(counts, needed)


@many
@given(layout=layouts(), columns=st.integers(1, 10), rows=st.integers(1, 20), seed=st.integers(0, 99))
def test_blocks_of_tiles_go_where_they_belong(layout: Layout, columns: int, rows: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    jacobian = torch.randn(layout.samples, layout.channels, 4, generator=generator, dtype=torch.float64)
    whole, tiled = (layout.zeros(torch.float64, torch.device("cpu")) for _ in range(2))
    layout.add_gram_(whole, layout.matrix(jacobian))
    for block in tiles_of(layout, columns, rows):
        for tile in block:
            own = tile.layout(layout)
            out = own.zeros(torch.float64, torch.device("cpu"))
            members = torch.cat([jacobian[slice(*tile.columns)], jacobian[slice(*tile.rows)]])
            own.add_gram_(out, own.matrix(members))
            tile.add_(tiled, out, layout)
    torch.testing.assert_close(layout.complete_(tiled), layout.complete_(whole), rtol=0, atol=1e-12)


# Batched rules, shared layers, one sample at a time, plain autograd, adapters.
NAMES = ["bert", "albert", "deberta-v2", "t5", "gpt2"]


@pytest.mark.parametrize(
    ("name", "outputs"), [*((name, "full") for name in NAMES), ("bert", "class_trace"), ("bert", "pseudo")]
)
@pytest.mark.parametrize(("columns", "rows"), [(1, 1), (2, 3), (4, 100)])
def test_tiles_do_not_matter(name: str, outputs: str, columns: int, rows: int) -> None:
    model, data = ZOO[name].build(), ragged_rows(ZOO[name], n=7)
    settings = KernelSettings(precision="float64", outputs=outputs)
    whole = compute_train_eval_ntk(model, data[:4], data[4:], settings=settings)
    with replanned(columns=columns, rows=rows):
        tiled = compute_train_eval_ntk(model, data[:4], data[4:], settings=settings)
        rectangular = compute_ntk(model, data[4:], data[:4], precision="float64", outputs=outputs)
    assert_close(tiled["train"], whole["train"])
    assert_close(tiled["eval"], whole["eval"])
    assert_close(rectangular, whole["eval"])


@few
@given(columns=st.integers(1, 6), rows=st.integers(1, 6), budget=st.sampled_from([1.2, 3.0]))
def test_tiles_agree_with_the_referee(columns: int, rows: int, budget: float) -> None:
    model, data = ZOO["roberta"].build(), ragged_rows(ZOO["roberta"], n=6)
    with replanned(columns=columns, rows=rows):
        ntk = compute_ntk(model, data, precision="float64")
    assert ntk.metadata["plan"]["columns"] == columns
    assert_agrees_with_referee(ntk, model, data)


def test_all_engines_take_tiles() -> None:
    model, data = ZOO["bert"].build(), ragged_rows(ZOO["bert"])
    expected = compute_ntk(model, data, precision="float64")
    for engine in ("functional", "per_example"):
        with replanned(columns=2, rows=2):
            assert_close(compute_ntk(model, data, precision="float64", engine=engine), expected)


def test_a_rule_that_fails_in_a_later_tile_leaves_the_earlier_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    model, data = ZOO["bert"].build(), ragged_rows(ZOO["bert"], n=6)
    expected = compute_ntk(model, data, precision="float64")
    name = expected.parameter_groups["layer.1.mlp"][0]
    capture, calls = passes.capture, []

    def failing(model_: object, parameters: object, batch: object, *rest: object) -> dict:
        records = capture(model_, parameters, batch, *rest)
        calls.append(name)
        if len(calls) > 3:
            records[name] = CaptureError("this module was called in another way")
        return records

    monkeypatch.setattr(passes, "capture", failing)
    with replanned(columns=2, rows=2):
        ntk = compute_ntk(model, data, precision="float64")
    assert len(calls) > 4
    assert ntk.metadata["self_check"]["rerouted"] == [name]
    assert_close(ntk, expected)


@pytest.mark.parametrize("stop", [1, 30, 61, 100, 140])
def test_a_run_goes_on_from_any_tile(stop: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, data = ZOO["bert"].build(), ragged_rows(ZOO["bert"], n=6)
    path = tmp_path / "partial.safetensors"
    monkeypatch.setattr(passes.Checkpoint, "due", True)
    add, done = passes.PassRunner._add, []

    def stops(self: passes.PassRunner, *arguments: object) -> None:
        if len(done) == stop:
            raise KeyboardInterrupt
        done.append(1)
        add(self, *arguments)

    with replanned(columns=2, rows=3):
        expected = compute_ntk(model, data, precision="float64")
        monkeypatch.setattr(passes.PassRunner, "_add", stops)
        with pytest.raises(KeyboardInterrupt):
            compute_ntk(model, data, precision="float64", checkpoint=path)
        monkeypatch.setattr(passes.PassRunner, "_add", add)
        ntk = compute_ntk(model, data, precision="float64", checkpoint=path)
    assert ntk.metadata["this_run"]["resumed_after_parameters"] > 0
    assert_identical(ntk, expected)
