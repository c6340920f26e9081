"""Folders of results: what is refused, what is removed, and what is checked before it is believed."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from helpers.folders import contents, fill

from ntk_lpft.errors import InputError
from ntk_lpft.runs import CalibrationRun, FinetuneRun, HeadScaleGrid, KernelRun, RunFolder

KINDS = (KernelRun, FinetuneRun, HeadScaleGrid, CalibrationRun)


class Small(RunFolder):
    """A command's folder with two results."""

    RESULTS = (RunFolder.CONFIG, "table.csv")
    MARKER = "table.csv"
    COMMAND = "python -m small"


def visible(folder: Path) -> dict[str, bytes]:
    """Read what lies in a folder, without the list of who wrote what."""
    return {name: data for name, data in contents(folder).items() if not name.startswith(".ntk_lpft")}


def written_by(run: RunFolder, *names: str) -> None:
    """Let files be there as if a run had written them."""
    with run.opened(overwrite=True):
        run.claim()
        fill(run.path, *names)


def test_opening_makes_the_folder_and_writes_nothing(tmp_path: Path) -> None:
    run = Small(tmp_path / "a" / "b")
    assert not run.begun
    with run.opened(overwrite=False):
        assert run.path.is_dir()
    assert not run.path.exists()  # as it was
    fill(run.path, "mine.txt")
    with run.opened(overwrite=False):
        pass
    assert contents(run.path) == {"mine.txt": b"mine.txt"}


def test_results_are_not_overwritten_unasked(tmp_path: Path) -> None:
    run = Small(tmp_path)
    written_by(run, "table.csv")
    message = r"already holds table\.csv; choose another --output-dir, or give --overwrite$"
    with pytest.raises(InputError, match=message) as caught, run.opened(overwrite=False):
        pass
    assert str(tmp_path) in str(caught.value)
    with run.opened(overwrite=True):
        assert visible(run.path) == {"table.csv": b"table.csv"}


def test_what_the_same_command_left_undone_is_done_without_leave(tmp_path: Path) -> None:
    run = Small(tmp_path)
    with run.opened(overwrite=False, options={"seed": 1}):
        run.claim()
        run.write_config({"options": {"seed": 1}})
    with run.opened(overwrite=False, options={"seed": 1}):
        pass
    for options in ({"seed": 2}, None):
        with (
            pytest.raises(InputError, match=r"already holds config\.json"),
            run.opened(overwrite=False, options=options),
        ):
            pass
    with run.opened(overwrite=False, options={"seed": 1}):
        run.claim()
        fill(tmp_path, "table.csv")
    with run.opened(overwrite=False, options={"seed": 1}):  # all was written, but for what says so
        run.claim()
        run.seal()
    with run.opened(overwrite=False, options={"seed": 1}):
        assert run.holds({"seed": 1})
    fill(tmp_path, "table.csv")
    (tmp_path / "table.csv").write_text("altered")
    with pytest.raises(InputError, match="was altered"), run.opened(overwrite=False, options={"seed": 1}):
        pass


def test_more_names_than_a_commands_own_can_be_guarded(tmp_path: Path) -> None:
    run = Small(tmp_path)
    fill(run.path, "diagram.png")
    with run.opened(overwrite=False):
        pass
    with (
        pytest.raises(InputError, match=r"holds diagram\.png, which no run"),
        run.opened(overwrite=True, more=["diagram.png"]),
    ):
        pass
    (run.path / "diagram.png").unlink()
    with run.opened(overwrite=True, more=["diagram.png"]):
        run.claim()
        fill(run.path, "diagram.png")
    with (
        pytest.raises(InputError, match=r"already holds diagram\.png;"),
        run.opened(overwrite=False, more=["diagram.png"]),
    ):
        pass
    with run.opened(overwrite=True, more=["diagram.png"]):
        pass


def test_folders_that_cannot_be_written(tmp_path: Path) -> None:
    fill(tmp_path, "file")
    for name, reason in (("file", "File exists"), ("file/below", "Not a directory")):
        message = rf"output folder \S*{name} cannot be written \({reason}\)"
        with pytest.raises(InputError, match=message), Small(tmp_path / name).opened(overwrite=True):
            pass
    assert contents(tmp_path) == {"file": b"file"}


def test_a_home_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Small("~/out").path == tmp_path / "out"


def test_clearing_removes_a_commands_own_files_alone(tmp_path: Path) -> None:
    run = Small(tmp_path)
    written_by(run, "table.csv", "config.json")
    fill(tmp_path, "mine.csv", "other/table.csv", "mine.partial", ".mine.csv.12.partial", ".table.csv.12.partial")
    with run.opened(overwrite=True):  # what a killed process left goes at once
        assert ".table.csv.12.partial" not in contents(tmp_path)
        run.clear()
        assert set(visible(tmp_path)) == {"mine.csv", "other/table.csv", "mine.partial", ".mine.csv.12.partial"}
        run.clear()  # nothing is there any more


def test_what_is_there_is_named_in_the_order_of_the_results(tmp_path: Path) -> None:
    run = Small(tmp_path)
    assert run.written() == []
    fill(tmp_path, "table.csv", "mine.csv")
    assert run.written() == ["table.csv"]
    fill(tmp_path, "config.json")
    assert run.written() == ["config.json", "table.csv"]


def test_a_run_has_begun_with_its_config_and_ends_with_its_marker(tmp_path: Path) -> None:
    run = Small(tmp_path)
    run.write_config({"options": {"seed": 3}})
    assert (run.begun, run.finished) == (True, False)
    assert run.config() == {"command": "python -m small", "checksums": "checksums.json", "options": {"seed": 3}}
    fill(tmp_path, "table.csv")
    assert not run.finished
    run.seal()
    assert run.finished
    fill(tmp_path, "config.json")
    with pytest.raises(InputError, match=r"config\.json was altered"):
        run.config()


def test_a_run_goes_on_under_the_same_settings_alone(tmp_path: Path) -> None:
    run = Small(tmp_path)
    before = {"options": {"seed": 3, "columns": ("a", "b")}, "data": {"train": {"rows": 7}}, "source": "here"}
    run.write_config(before)
    run.check_same(before, ["options", "data"])
    run.check_same({**before, "source": "there"}, ["options", "data"])  # is none of the parts
    for part, content, message in (
        (
            "options",
            {"seed": 4, "columns": ["a", "b"]},
            "other options: seed was 3, is now 4; use the same, another --output-dir, or --over",
        ),
        ("options", {"seed": 3, "columns": ["b", "a"]}, r"columns was \['a', 'b'\], is now \['b', 'a'\]"),
        ("options", {"seed": 3}, r"columns was \['a', 'b'\], is now None"),
        ("options", {**before["options"], "new": 1}, "new was None, is now 1"),
        ("data", {"train": {"rows": 8}}, r"other data: train was \{'rows': 7\}, is now \{'rows': 8\}"),
    ):
        with pytest.raises(InputError, match=f"^the run in .* began with .*{message}"):
            run.check_same({**before, part: content}, ["options", "data"])


@pytest.mark.parametrize("content", [None, "", "{", "[]", "{}", '{"options": 3}', '{"options": [3]}'])
def test_a_damaged_config_is_not_gone_on_with(tmp_path: Path, content: str | None) -> None:
    run = Small(tmp_path)
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(InputError, match=r"^\S*config\.json is damaged; start anew with --overwrite$"):
        run.check_same({"options": {}}, ["options"])


@pytest.mark.parametrize("kind", KINDS)
def test_every_file_that_a_run_names_is_one_of_its_results(kind: type[RunFolder]) -> None:
    files = {value for name, value in vars(kind).items()
             if name.isupper() and isinstance(value, str) and "." in value and " " not in value}  # fmt: skip
    assert files <= {*kind.RESULTS, *kind.SCRATCH}
    assert len(set(kind.RESULTS)) == len(kind.RESULTS)
    assert kind.MARKER in kind.RESULTS
    assert kind.COMMAND.startswith("python -m ntk_lpft.")


@pytest.mark.parametrize("kind", KINDS)
def test_all_results_are_guarded_and_cleared(tmp_path: Path, kind: type[RunFolder]) -> None:
    for name in (*kind.RESULTS, *kind.FOLDERS):
        run = kind(tmp_path / name)
        file = f"{name}/inside" if name in kind.FOLDERS else name
        written_by(run, file)
        with pytest.raises(InputError, match=rf"already holds {name}"), run.opened(overwrite=False):
            pass
        assert visible(run.path) == {file: file.encode()}
        with run.opened(overwrite=True):
            run.clear()
        assert visible(run.path) == {}
        assert not (run.path / name).exists()


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_not_a_runs_own_is_never_replaced(tmp_path: Path, kind: type[RunFolder]) -> None:
    for name in (*kind.RESULTS, *kind.FOLDERS, *kind.SCRATCH):
        run = kind(tmp_path / name)
        fill(run.path, f"{name}/mine" if name in kind.FOLDERS else name)
        before = contents(run.path)
        with (
            pytest.raises(InputError, match=rf"holds {name}\S*, which no run of `{kind.COMMAND}` wrote"),
            run.opened(overwrite=True),
        ):
            pass
        assert contents(run.path) == before


def test_a_kernel_run_keeps_its_partial_kernel_to_the_end(tmp_path: Path) -> None:
    run = KernelRun(tmp_path)
    assert not run.interrupted
    written_by(run, "partial.safetensors", "summary.json")
    assert run.interrupted
    with run.opened(overwrite=True):
        run.clear()
    assert visible(tmp_path) == {"partial.safetensors": b"partial.safetensors"}
    run.drop_partial_kernels()
    assert not run.interrupted
    run.drop_partial_kernels()


def test_tables_of_a_kernel_run(tmp_path: Path) -> None:
    run = KernelRun(tmp_path)
    statistics, groups = pd.DataFrame({"kernel": ["P"], "rank": [3]}), pd.DataFrame({"group": ["body"]})
    run.write_tables(statistics, groups, {"head_norm": 0.1})
    assert (tmp_path / "statistics.csv").read_text() == "kernel,rank\nP,3\n"
    assert (tmp_path / "groups.csv").read_text() == "group\nbody\n"
    assert run.summary() == {"head_norm": 0.1}
    assert run.finished
    (tmp_path / "summary.json").write_text("[")
    with pytest.raises(InputError, match=r"summary\.json cannot be read as JSON"):
        run.summary()


MEASURES = pd.DataFrame({"split": ["test"], "stage": ["after"], "measure": ["ece"], "value": [0.1 + 0.2]})


def test_tables_and_temperatures_of_a_calibration(tmp_path: Path) -> None:
    run = CalibrationRun(tmp_path)
    run.write_tables(MEASURES, pd.DataFrame({"method": ["ft"]}), pd.DataFrame({"norm": [2]}))
    pd.testing.assert_frame_equal(run.measures(), MEASURES, rtol=0, atol=0)
    assert (tmp_path / "table.csv").read_text() == "method\nft\n"
    assert (tmp_path / "head_norms.csv").read_text() == "norm\n2\n"
    run.write_temperatures([{"temperature": 2.0}])
    assert json.loads((tmp_path / "temperature.json").read_text()) == {"temperature": 2.0}
    run.write_temperatures([{"temperature": 2.0}, {"temperature": 3.0}])
    assert json.loads((tmp_path / "temperature.json").read_text()) == {
        "runs": [{"temperature": 2.0}, {"temperature": 3.0}]}  # fmt: skip


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is missing or damaged"),
        (b"", "is missing or damaged"),
        (b"\xff\xfe\x00", "is missing or damaged"),
        (b"split,stage\ntest,after\n", "is damaged: it needs the columns split, stage, measure, value"),
        (b"split,stage,measure,value\ntest,after,ece,x\n", "is damaged: it needs the columns"),
    ],
)
def test_damaged_measures_are_refused(tmp_path: Path, content: bytes | None, message: str) -> None:
    run = CalibrationRun(tmp_path)
    if content is not None:
        (tmp_path / "calibration.csv").write_bytes(content)
    with pytest.raises(InputError, match=rf"calibration\.csv {message}"):
        run.measures()


def test_a_calibration_clears_diagrams_of_other_splits_too(tmp_path: Path) -> None:
    run = CalibrationRun(tmp_path)
    with run.opened(overwrite=False, more=["reliability_ood.x.png", "reliability_test.png"]):
        run.claim()
        fill(tmp_path, "reliability_ood.x.png", "reliability_test.png", "calibration.csv")
    fill(tmp_path, "reliability.txt", "reliability_mine.png")
    with run.opened(overwrite=True, more=["reliability_test.png"]):
        run.clear()
    assert set(visible(tmp_path)) == {"reliability.txt", "reliability_mine.png"}
