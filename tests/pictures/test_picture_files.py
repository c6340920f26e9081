"""Pictures on disk are small, valid and whole."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from ntk_lpft import pictures
from ntk_lpft.errors import InputError

LIMIT = 300_000


def noisy_heat_maps() -> Figure:
    random = np.random.default_rng(0)
    labels = torch.from_numpy(np.arange(250) % 3)
    names = ["entailment", "contradiction", "neutral"]
    return pictures.block_heat_maps(random.uniform(size=(250, 250)), random.uniform(size=(250, 250)), labels, names)


def too_large() -> Figure:
    figure = Figure(figsize=(7, 7))
    figure.figimage(np.random.default_rng(0).uniform(size=(1400, 1400)))
    return figure


@pytest.mark.parametrize(
    "draw",
    [
        lambda: pictures.singular_values({"P": np.geomspace(1, 1e-20, 750), "F": np.geomspace(1, 1e-9, 750)}),
        noisy_heat_maps,
        lambda: pictures.group_shares({f"layer.{index}.attention": 1 / 75 for index in range(75)}),
    ],
)
def test_saved_pictures_are_small_valid_pngs(tmp_path: Path, draw: Callable[[], Figure]) -> None:
    path = pictures.save(draw(), tmp_path / "a folder" / "picture.png")
    assert path == tmp_path / "a folder" / "picture.png"
    assert 1_000 < path.stat().st_size <= LIMIT
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert image.width >= 700
        colours = image.convert("RGB").getcolors(maxcolors=2**24)
    assert len(colours) > 20  # not blank


def test_a_picture_replaces_the_one_before(tmp_path: Path) -> None:
    before = pictures.save(pictures.group_shares({"a": 1.0}), tmp_path / "picture.png").read_bytes()
    after = pictures.save(pictures.group_shares({"a": 0.5, "b": 0.5}), tmp_path / "picture.png").read_bytes()
    assert after != before
    assert [path.name for path in tmp_path.iterdir()] == ["picture.png"]


def test_a_picture_too_large_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    before = pictures.save(pictures.group_shares({"a": 1.0}), tmp_path / "old.png").read_bytes()
    for name in ("large.png", "old.png"):
        with pytest.raises(InputError, match="bytes"):
            pictures.save(too_large(), tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["old.png"]
    assert (tmp_path / "old.png").read_bytes() == before


def test_other_formats_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"\.png"):
        pictures.save(Figure(), tmp_path / "picture.pdf")
