"""The folder of a suite: where everything is, and what is read back."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from analysis.suite.folder import SuiteFolder
from ntk_lpft.errors import InputError


def test_a_suites_folder_says_where_everything_is(tmp_path: Path) -> None:
    suite = SuiteFolder(tmp_path)
    assert suite.job("cb-ft-1") == tmp_path / "cb-ft-1"
    places = [suite.record("a"), suite.log("a"), suite.job_lock("a"), suite.launcher]
    assert [str(path.relative_to(tmp_path)) for path in places] == [
        os.path.join("jobs", name) for name in ("a.json", "a.log", "a.lock", ".submitit")]  # fmt: skip


def test_a_suite_comes_back_or_is_refused(tmp_path: Path) -> None:
    suite = SuiteFolder(tmp_path / "results")
    assert not suite.begun
    with pytest.raises(
        InputError, match=r"holds no results of a suite \(no suite\.json\); make them by python -m anal"
    ):
        suite.read()
    suite.write({"name": "smoke", "jobs": []})
    assert suite.begun
    assert suite.read() == {"name": "smoke", "jobs": []}
    (suite.path / "suite.json").write_text("{")
    with pytest.raises(InputError, match=r"suite\.json cannot be read as JSON"):
        suite.read()


def test_a_tilde_is_the_users_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert SuiteFolder("~/out").path == tmp_path / "out"
