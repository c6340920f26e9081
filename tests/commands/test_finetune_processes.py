"""Fine-tuning that is killed, and goes on to the same end; and in several processes at once."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import torch
from helpers.separate import launch, launch_together
from helpers.small import save_model
from helpers.tiny_runs import contents, make_place, metrics_of, words_of
from safetensors.torch import load_file

from ntk_lpft.commands.finetune import main

pytestmark = pytest.mark.slow

# 8 optimizer steps, with a checkpoint after the 4th and the 8th.
STEPS = {"ft": ("--per_device_train_batch_size", 8),
         "lora": ("--per_device_train_batch_size", 4, "--gradient_accumulation_steps", 2)}  # fmt: skip
PICKLES = {".bin", ".pt", ".pth", ".pkl"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_place(tmp_path_factory.mktemp("place"))


def killed(words: list[str], folder: Path, moment: str) -> None:
    """Run the command until it kills itself, and look at what it leaves."""
    process = launch(words, folder.with_suffix(".log"), moment)
    process.join(120)
    assert process.exitcode == -signal.SIGKILL, folder.with_suffix(".log").read_text()
    assert not [path for path in folder.rglob("*") if path.suffix in PICKLES]


@pytest.mark.parametrize(
    ("method", "moments"),
    [
        # From "step" on there is a first checkpoint, which is the best; the second is written, torn, removed, written.
        ("ft", ["start", "weights", "step:6", "state:2", "last file", "removal", "predictions"]),
        ("lora", ["step:13", "state:1", "predictions"]),
    ],
)
def test_a_run_killed_at_any_moment_goes_on_to_the_same_end(
    place: Path, tmp_path: Path, method: str, moments: list[str]
) -> None:
    words = words_of(place, "--method", method, *STEPS[method])
    assert main([*words, "--output_dir", str(tmp_path / "whole")]) == 0
    words += ["--output_dir", str(tmp_path / "run")]
    for number, moment in enumerate(moments):
        killed([*words, *(["--resume"] if number else [])], tmp_path / "run", moment)
        assert not (tmp_path / "run" / "metrics.json").exists()
    assert main([*words, "--resume"]) == 0
    assert contents(tmp_path / "run") == contents(tmp_path / "whole")
    whole, found = metrics_of(tmp_path / "whole"), metrics_of(tmp_path / "run")
    assert (whole["splits"], whole["head"]) == (found["splits"], found["head"])
    assert whole["training"]["best_step"] == found["training"]["best_step"]
    names = [{path.name for path in (tmp_path / name).iterdir()} for name in ("whole", "run")]
    assert names[0] == names[1]  # nothing is left of files that were being written


def test_a_run_killed_after_its_last_file_is_finished(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = words_of(place, "--method", "ft", "--no_track", "--output_dir", tmp_path / "run")
    killed(words, tmp_path / "run", "end")
    assert (tmp_path / "run" / "metrics.json").exists()
    assert (tmp_path / "run" / "checkpoints").exists()
    assert main([*words, "--resume"]) == 0
    assert "finished run" in capsys.readouterr().out
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.parametrize("method", ["ft", "lp-lora"])
def test_two_processes_train_as_one(place: Path, tmp_path: Path, method: str) -> None:
    save_model(tmp_path / "still", config={"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0})
    # Every batch is whole, as a second process fills up the last one.
    words = words_of(place, "--method", method, "--model", tmp_path / "still", "--use_cpu", "--n_train", 24)
    one, two = tmp_path / "one", tmp_path / "two"
    assert main([*words, "--per_device_train_batch_size", "8", "--output_dir", str(one)]) == 0
    words += ["--per_device_train_batch_size", "4", "--output_dir", str(two)]
    processes = launch_together(words, tmp_path / "log", 2)
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0], (tmp_path / "log.0").read_text()
    assert (tmp_path / "log.1").read_text().count("data:") == 0
    found, expected = (load_file(folder / "predictions.safetensors") for folder in (two, one))
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-5)
    assert metrics_of(two)["training"]["steps"] == metrics_of(one)["training"]["steps"] == 6
    assert not [path for path in two.rglob("*") if path.suffix in PICKLES]


def test_of_two_in_one_folder_one_trains_and_the_other_is_told(place: Path, tmp_path: Path) -> None:
    out, log = tmp_path / "out", tmp_path / "log"
    words = words_of(place, "--method", "lora", "--output_dir", out)
    pair = [launch(words, log.with_suffix(f".{number}")) for number in range(2)]
    for process in pair:
        process.join()
    said = [log.with_suffix(f".{number}").read_text() for number in range(2)]
    statuses = sorted(process.exitcode for process in pair)
    loser = next((text for process, text in zip(pair, said, strict=True) if process.exitcode == 2), None)
    if loser is None:  # the other had already come to its end
        assert any("holds a finished run of these settings" in text for text in said)
    else:
        assert statuses == [0, 2]
        assert "is in use by `python -m ntk_lpft.finetune` (process " in loser.splitlines()[-1]
    assert main([*map(str, words[:-1]), str(tmp_path / "alone")]) == 0
    assert contents(out) == contents(tmp_path / "alone")
