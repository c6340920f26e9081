"""The command as a user runs it, what it says of missing jobs, and the look of what it writes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import matplotlib
import pytest
from helpers.drawn_results import Folder, everything
from matplotlib.figure import Figure
from PIL import Image

from analysis.catalogue import FIGURES as CATALOGUE
from analysis.suite.results import Results
from figures import FIGURES, caption, draw
from figures.__main__ import main
from figures.command import save
from figures.style import CLASSES, METHODS, P_LOOK, number
from ntk_lpft.errors import InputError


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return everything(tmp_path_factory.mktemp("figures") / "results").read()


def words_in(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(matplotlib.text.Text) if text.get_visible() and text.get_text()]


def width_of(path: Path) -> int:
    with Image.open(path) as image:
        return image.size[0]


def test_there_is_one_for_each_figure_of_the_paper() -> None:
    assert list(FIGURES) == [item.name for item in CATALOGUE] == [f"figure{number}" for number in range(1, 12)]


@pytest.mark.parametrize("name", FIGURES)
def test_nothing_is_cut_off_and_no_setting_changes(results: Results, name: str) -> None:
    with matplotlib.rc_context({"font.size": 17.0, "axes.spines.top": True, "axes.linewidth": 3.0}):
        before = dict(matplotlib.rcParams)
        figure = draw(results, name)
        assert dict(matplotlib.rcParams) == before
    figure.draw_without_rendering()
    box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    assert min(box.x0, box.y0) > -0.02
    assert box.x1 < width + 0.02
    assert box.y1 < height + 0.02
    assert width <= 5.5
    sizes = [text.get_fontsize() for text in figure.findobj(matplotlib.text.Text) if text.get_text().strip()]
    assert min(sizes) >= 5
    assert caption(results, name).endswith(".")
    assert "Missing" not in caption(results, name)


def test_a_picture_is_the_same_whatever_the_user_has_set(results: Results, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    save(draw(results, "figure3"), tmp_path / "a", "x")
    mine = {"font.size": 30, "axes.facecolor": "black", "xtick.labelsize": 40, "lines.linewidth": 9, "pdf.fonttype": 3}
    with matplotlib.rc_context(mine):
        save(draw(results, "figure3"), tmp_path / "b", "x")
    for name in ("x.png", "x.pdf"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_large_picture_stays_small_on_disk(tmp_path: Path) -> None:
    figure = Figure(figsize=(5.5, 9))
    figure.add_subplot().imshow([[(i * j * 7919) % 997 for i in range(300)] for j in range(300)], interpolation="none")
    png, pdf = save(figure, tmp_path, "noise")
    assert png.stat().st_size <= 300_000
    assert width_of(png) >= 5.5 * 150
    assert pdf.read_bytes().startswith(b"%PDF")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["noise.pdf", "noise.png"]


def test_methods_differ_by_more_than_colour() -> None:
    looks = [*METHODS.values(), P_LOOK]
    for what in ("colour", "line", "marker", "name"):
        assert len({getattr(look, what) for look in looks}) == len(looks)
    assert len({marker for _, marker in CLASSES}) == len(CLASSES)


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [(0.02, 2, "0.02"), (132.5834, 6, "132.583"), (2.0e5, 3, "2·10⁵"), (1e-5, 2, "10⁻⁵"), (0, 3, "0"),
     (1234, 2, "1234"), (-3.21e-7, 3, "-3.21·10⁻⁷")],
)  # fmt: skip
def test_numbers_are_short(value: float, digits: int, text: str) -> None:
    assert number(value, digits) == text


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_without_results_names_jobs_and_command(tmp_path: Path, name: str) -> None:
    folder = Folder(tmp_path / "results")
    for kind in ("finetune", "probe", "kernel", "features", "head_scale"):
        folder.add(kind, "cb", "lp" if kind == "probe" else "ft", 1, state="failed" if kind == "probe" else "waiting")
    kinds = [kind for item in CATALOGUE if item.name == name for kind in item.kinds]
    for make in (draw, caption):
        with pytest.raises(InputError) as error:
            make(folder.read(), name)
        said = str(error.value)
        assert f"{kinds[-1]}/cb/{'lp' if kinds[-1] == 'probe' else 'ft'}, seed 1" in said
        assert f"python -m analysis.run --suite smoke --only {name} --output-dir {folder.path}" in said
        assert ("--retry" in said) == ("probe" in kinds)  # it failed, the others were not run


def test_a_kind_that_was_never_asked_for_is_named(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "results")
    folder.training("finetune", "cb", "ft", 1, {0.0: 1.0, 1.0: 2.0})
    with pytest.raises(InputError, match="the results list no kernel jobs of cb"):
        draw(folder.read(), "figure2")
    with pytest.raises(InputError, match="unknown figure 'figure12'"):
        draw(folder.read(), "figure12")


def test_fewer_seeds_than_asked_for_are_said(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "results")
    folder.training("probe", "cb", "lp", 1, {0: 1.0, 1: 2.0})
    folder.training("probe", "cb", "lp", 2, {0: 1.0, 1: 2.0})
    (folder.path / "probe/cb/lp/seed-2/probe.csv").write_text("no table\n")
    folder.training("finetune", "cb", "ft", 1, {0.0: 1.0, 1.0: 2.0})
    folder.add("finetune", "cb", "ft", 2, state="failed")
    folder.add("finetune", "cb", "lora", 2, state="failed")  # not in this figure
    results = folder.read()
    (said,) = [text for text in words_in(draw(results, "figure1")) if text.startswith("Incomplete")]
    assert " ".join(said.split()) == "Incomplete. cb: 1 of 2 seeds of LP, FT"
    below = caption(results, "figure1")
    assert "finetune/cb/ft, seed 2: failed" in below
    assert "probe/cb/lp, seed 2" in below
    assert "lora" not in below


def test_half_a_figure_says_which_half(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "results")
    folder.training("probe", "cb", "lp", 1, {0: 1.0, 1: 2.0})
    folder.add("finetune", "cb", "ft", 1, state="waiting")
    figure = draw(folder.read(), "figure1")
    assert words_in(figure).count("FT: no results") == 2
    figure.draw_without_rendering()
    norm, _, accuracy, _ = figure.axes
    assert norm.get_ylim()[1] > 2
    assert [text.get_text() for text in accuracy.get_xticklabels() if text.get_text()][:2] == ["0", "1"]
    assert "0" in [text.get_text() for text in norm.get_yticklabels()]


@pytest.mark.parametrize("damage", ["gone", "cut", "something else"])
def test_a_damaged_kernel_is_said_and_not_drawn(tmp_path: Path, damage: str) -> None:
    folder = everything(tmp_path / "results")
    file = folder.path / "kernel/cb/ft/seed-1/kernel.safetensors"
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-4] if damage == "cut" else b"nothing")
    for name in ("figure2", "figure8"):
        assert any(text.startswith("Incomplete") for text in words_in(draw(folder.read(), name)))
        assert "kernel/cb/ft, seed 1" in caption(folder.read(), name)


def test_as_a_user_runs_it(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "results")
    folder.training("probe", "cb", "lp", 1, {0: 1.0, 1: 2.0})
    folder.training("finetune", "cb", "ft", 1, {0.0: 1.0, 1.0: 2.0})
    folder.add("kernel", "cb", "ft", 1, state="waiting")
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-m", "figures", str(folder.path), "--only", "figure1", "figure2"],
        cwd=root, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(root)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "left out: figure2 has no results (kernel/cb/ft, seed 1: not run)" in done.stdout
    assert "1 figure in" in done.stdout
    out = folder.path / "figures"
    assert sorted(path.name for path in out.glob("[!.]*")) == ["figure1.pdf", "figure1.png"]
    assert width_of(out / "figure1.png") == pytest.approx(5.5 * 200, abs=1)


def test_nothing_is_written_where_nothing_can_be_drawn(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = Folder(tmp_path / "results")
    folder.add("kernel", "cb", "ft", 1, state="waiting")
    for words, said in (
        ([str(folder.path)], "no figure can be drawn: figure1 has no results"),
        ([str(folder.path), "--only", "figure99"], "unknown figure 'figure99'"),
        ([str(folder.path), "--output-dir", str(tmp_path / "out")], "no figure can be drawn"),
        ([str(tmp_path)], "holds no results of a suite"),
        ([str(tmp_path / "none")], "does not exist; make it by python -m analysis.run"),
        ([], "give one results folder"),
    ):
        assert main(words) == 2
        error = capsys.readouterr().err
        assert error.count("error: ") == 1
        assert said in error
    assert not (folder.path / "figures").exists()
    assert not (tmp_path / "out").exists()
