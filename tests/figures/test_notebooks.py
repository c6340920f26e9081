"""The notebooks: stored without outputs, and run from top to bottom on small results."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
from helpers.small_results import small_results
from nbmake.nb_run import NotebookRun

from analysis import catalogue
from analysis.suite.results import read_results
from figures import caption

pytestmark = pytest.mark.slow

FOLDER = Path(__file__).parents[2] / "figures" / "notebooks"
NAMES = [f"figure{number:02}" for number in range(1, 12)]
NOTEBOOKS = sorted(path.stem for path in FOLDER.glob("*.ipynb"))


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_results(tmp_path_factory)


def test_there_is_one_for_each_figure_and_an_overview() -> None:
    assert [*NAMES, "overview"] == NOTEBOOKS
    assert len(catalogue.FIGURES) == len(NAMES)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_it_is_stored_as_source_alone(name: str) -> None:
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [(cell.outputs, cell.execution_count) for cell in code] == [([], None)] * len(code)
    assert notebook.cells[0].cell_type == "markdown"
    assert not re.search(r"/(home|root|tmp|work|Users)/", (FOLDER / f"{name}.ipynb").read_text(encoding="utf-8"))


def run(name: str, results: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict]:
    """Run a notebook as ``pytest --nbmake`` does, and return what its cells showed."""
    monkeypatch.setenv("NTK_LPFT_RESULTS", str(results))
    found = NotebookRun(FOLDER / f"{name}.ipynb", default_timeout=600).execute()
    assert found.error is None, found.error.trace
    return [output for cell in found.nb.cells for output in cell.get("outputs", [])]


@pytest.mark.parametrize("name", NAMES)
def test_a_figure_s_notebook_shows_its_figure_and_caption(
    name: str, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = run(name, results, monkeypatch)
    pictures = [output.data["image/png"] for output in shown if "image/png" in output.get("data", {})]
    assert len(pictures) == 1
    assert len(pictures[0]) > 10_000
    item = catalogue.item_of(f"figure{int(name[-2:])}")
    texts = [output.text.strip() for output in shown if output.get("name") == "stdout"]
    assert "".join(texts[-1].split()) == "".join(caption(read_results(results), item.name).split())  # wrapped
    assert not [output for output in shown if output.get("name") == "stderr"]


def test_the_overview_comes_to_the_paper_s_conclusions(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = run("overview", results, monkeypatch)
    text = "\n".join(output.text for output in shown if output.get("name") == "stdout")
    ratios = dict(re.findall(r"(random|LP) head: .*FT ratio = ([\d.]+)", text))
    assert float(ratios["random"]) < 0.5
    assert float(ratios["LP"]) > 0.9
    error = re.search(r"F\(αV\) against α²F\(V\), relative error: (\S+)", text)
    assert error is not None
    assert float(error[1]) < 1e-5
    assert len(re.findall(r"T = [\d.]+, ECE on test [\d.]+ → [\d.]+", text)) == 2
    assert any("feature_difference" in output.data.get("text/html", "") for output in shown if "data" in output)


def test_a_notebook_without_results_says_what_to_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NTK_LPFT_RESULTS", str(tmp_path))
    found = NotebookRun(FOLDER / "figure01.ipynb", default_timeout=600).execute()
    assert found.error is not None
    assert "make them by python -m analysis.run" in found.error.summary
