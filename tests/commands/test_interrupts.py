"""Ctrl-C at any moment of a command, while it imports above all, is one line and exit status 130."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

# Sends Ctrl-C to its own process when a module is looked for, from within whatever imports it.
CUSTOMISE = """
import os, signal, sys

class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == os.environ["INTERRUPTED_AT"]:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupt())
"""
DOORS = (
    "ntk_lpft.compute",
    "ntk_lpft.finetune",
    "ntk_lpft.calibrate",
    "analysis.run",
    "analysis.tables",
    "analysis.claims",
    "analysis.report",
    "analysis.experiments.features",
    "analysis.experiments.lora_scaling",
    "analysis.experiments.embedding_sampling",
    "figures",
)


def as_in_a_terminal() -> None:
    """Let Ctrl-C be heard, also where these tests run in a background that ignores it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def interrupted(
    folder: Path, moment: str, *words: str, before: Callable[[], None] = as_in_a_terminal
) -> subprocess.CompletedProcess[str]:
    (folder / "sitecustomize.py").write_text(CUSTOMISE)
    path = os.pathsep.join([str(folder), *(entry or os.getcwd() for entry in sys.path)])
    environment = os.environ | {"PYTHONPATH": path, "INTERRUPTED_AT": moment}
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-m", *words],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
        preexec_fn=before,
    )


@pytest.mark.parametrize("module", DOORS)
def test_while_options_are_imported(tmp_path: Path, module: str) -> None:
    ended = interrupted(tmp_path, "ntk_lpft.commands.parsing", module)
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "stopped\n")


@pytest.mark.parametrize("moment", ["numpy._core._multiarray_umath", "torch", "transformers.trainer"])
def test_while_libraries_are_imported(tmp_path: Path, moment: str) -> None:
    ended = interrupted(tmp_path, moment, "ntk_lpft.finetune")
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "stopped\n")


def test_a_process_that_ignores_it_goes_on(tmp_path: Path) -> None:
    def ignore() -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    ended = interrupted(tmp_path, "ntk_lpft.commands.parsing", "ntk_lpft.compute", "--model=", before=ignore)
    assert ended.returncode == 2
    assert ended.stderr == "error: --model is empty; give a path, or leave it out\n"
