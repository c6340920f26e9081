"""Commands that have nothing to compute answer without waiting for torch, transformers or pandas."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HEAVY = ("torch", "transformers", "pandas", "scipy", "sklearn", "matplotlib", "peft", "datasets")
MISTYPED = (["--no-such-flag", "3"], 2, "unrecognized arguments: --no-such-flag; --help lists the options")
NO_CONFIG = (["--config", "nowhere.json"], 2, "config nowhere.json does not exist")
IDLE = "unrecognized arguments: "  # what such options would have no effect on is not there to be asked for
HELP = (["--help"], 0, "usage: python -m ")
EMPTY = (["--output-dir="], 2, "--output-dir is empty; give a path, or leave it out")
EMPTY_RESULTS = ([""], 2, "--results is empty; give a path, or leave it out")
NO_RESULTS = (["nowhere"], 2, "results folder nowhere does not exist")
NO_DATA = (["--train-file", "nowhere.csv"], 2, "--train-file nowhere.csv: no such file")
NO_MODEL = (["--model", "./nowhere"], 2, "model folder ./nowhere does not exist")
NO_HEAD = (["--head-init", "nowhere.safetensors"], 2, "unknown --head-init 'nowhere.safetensors'")
COMMANDS: dict[str, list[tuple[list[str], int, str]]] = {
    "ntk_lpft.compute": [HELP, MISTYPED, NO_CONFIG, NO_DATA, NO_MODEL, NO_HEAD, EMPTY],
    "ntk_lpft.finetune": [HELP, MISTYPED, NO_CONFIG, NO_DATA, NO_MODEL, NO_HEAD, EMPTY],
    "ntk_lpft.calibrate": [
        HELP,
        MISTYPED,
        NO_CONFIG,
        EMPTY,
        ([""], 2, "--runs is empty; give a path, or leave it out"),
        (["nowhere"], 2, "run folder nowhere does not exist"),
        (["--logits", "nowhere.npy", "--labels", "nowhere.npy"], 2, "--logits nowhere.npy: no such file"),
    ],
    "analysis.run": [
        HELP,
        MISTYPED,
        NO_CONFIG,
        EMPTY,
        (["--launcher", "cloud"], 2, "unknown --launcher 'cloud'"),
        (["--suite", "none"], 2, "unknown --suite 'none'"),
        (["--only", "table99"], 2, "unknown table or figure 'table99'"),
    ],
    "analysis.claims": [HELP, MISTYPED, NO_CONFIG, (["nowhere"], 2, "run folder nowhere does not exist")],
    "analysis.experiments.lora_scaling": [
        HELP,
        MISTYPED,
        NO_CONFIG,
        NO_DATA,
        EMPTY,
        (["--n-eval", "3"], 2, IDLE + "--n-eval"),
    ],
    "analysis.experiments.embedding_sampling": [
        HELP,
        MISTYPED,
        NO_MODEL,
        EMPTY,
        (["--test-file", "x.csv"], 2, IDLE + "--test-file"),
        (["--scale-bias"], 2, IDLE + "--scale-bias"),
    ],
    "analysis.experiments.features": [
        HELP,
        MISTYPED,
        EMPTY,
        (["--run", "nowhere", "--output-dir", "x"], 2, "run folder nowhere does not exist"),
    ],
    "analysis.tables": [HELP, MISTYPED, NO_CONFIG, NO_RESULTS, EMPTY_RESULTS, ([".", *EMPTY[0]], *EMPTY[1:])],
    "analysis.report": [
        HELP,
        MISTYPED,
        NO_CONFIG,
        NO_RESULTS,
        EMPTY_RESULTS,
        ([".", "--output", " "], 2, "--output is empty; give a path, or leave it out"),
    ],
    "figures": [HELP, MISTYPED, NO_CONFIG, NO_RESULTS, EMPTY_RESULTS, ([".", *EMPTY[0]], *EMPTY[1:])],
}
# Runs command lines one after another as `python -m` does, and notes what each has printed and imported.
SCRIPT = """
import contextlib, io, json, runpy, sys
module, lines, heavy = json.loads(sys.argv[1])
answers = []
for words in lines:
    sys.argv = [module, *words]
    out, err, status = io.StringIO(), io.StringIO(), None
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            runpy.run_module(module, run_name="__main__")
        except SystemExit as end:
            status = end.code
    loaded = [name for name in heavy if name in sys.modules]
    answers.append({"status": status, "out": out.getvalue(), "err": err.getvalue(), "loaded": loaded})
print(json.dumps(answers))
"""


def in_a_fresh_process(folder: Path, *words: str) -> str:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.mark.parametrize("module", COMMANDS)
def test_an_answer_waits_for_no_model(tmp_path: Path, module: str) -> None:
    cases = COMMANDS[module]
    given = json.dumps([module, [words for words, _, _ in cases], HEAVY])
    answers: list[dict[str, Any]] = json.loads(in_a_fresh_process(tmp_path, SCRIPT, given))
    for (words, status, part), answer in zip(cases, answers, strict=True):
        assert answer["loaded"] == [], words
        assert answer["status"] == status, (words, answer)
        if status == 0:
            assert answer["out"].startswith(part + module)
            continue
        (line,) = answer["err"].splitlines()
        assert line.startswith(f"error: {part}")
        assert answer["out"] == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("package", ["ntk_lpft", "ntk_lpft.runs", "ntk_lpft.calibration", "ntk_lpft.tasks"])
def test_a_package_imports_nothing_before_it_is_used(tmp_path: Path, package: str) -> None:
    script = f"import sys, {package}; print([name for name in {HEAVY} if name in sys.modules])"
    assert in_a_fresh_process(tmp_path, script).strip() == "[]"
