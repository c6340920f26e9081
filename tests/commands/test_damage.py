"""Nothing is lost that a command did not write: nothing of the user's, nothing that is read, nothing behind a link."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.folders import contents, fill
from helpers.messages import matches
from helpers.small import save_csv, save_model
from helpers.tiny_runs import TEXTS, make_place, words_of

from ntk_lpft.commands.calibrate import main as calibrate
from ntk_lpft.commands.compute import main as compute
from ntk_lpft.commands.finetune import main as finetune
from ntk_lpft.runs.lock import folder_lock

Refused = Callable[..., str]
SHORT = ("--method", "lora", "--no_track", "--num_train_epochs", 1)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_place(tmp_path_factory.mktemp("place"))


@pytest.fixture(scope="module")
def made(place: Path) -> Path:
    """Make a run of each command, which tests copy before they touch it."""
    made = place / "made"
    assert finetune(words_of(place, *SHORT, "--output_dir", made / "run")) == 0
    assert compute([*kernel_words(place), "--output-dir", str(made / "kernel")]) == 0
    assert calibrate([str(made / "run"), "--resamples", "0"]) == 0
    return made


@pytest.fixture
def own(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "own")
    return tmp_path / "own"


def kernel_words(place: Path, model: Path | None = None) -> list[str]:
    words = ["--model", model or place / "bert", "--train-file", place / "train.csv", "--test-file", place / "test.csv",
             "--n-train", 5, "--n-eval", 3, "--max-length", 20, "--head-init", "random",
             "--no-kernel-classifier"]  # fmt: skip
    return [str(word) for word in words]


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Refused:
    """Run a command, see to it that it refuses in one line and changes nothing in a folder, and return the line."""

    def call(main: Callable[..., int], folder: Path, *words: object) -> str:
        def state() -> dict[str, object]:
            paths = [path for path in folder.rglob("*") if not path.is_file() or path.is_symlink()]
            return {**contents(folder), **{str(path): os.lstat(path).st_ino for path in paths}}

        before = state()
        capsys.readouterr()
        assert main([str(word) for word in words]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: ")
        assert state() == before
        return line.removeprefix("error: ")

    return call


@pytest.mark.parametrize("how", [(), ("--overwrite",)])
@pytest.mark.parametrize("name", ["model/weights.bin", "adapter/mine", "checkpoints/checkpoint-1/x", "metrics.json",
                                  "training.png", "tracking.csv"])  # fmt: skip
def test_finetune_leaves_a_users_own_files(
    place: Path, tmp_path: Path, refused: Refused, name: str, how: tuple[str, ...]
) -> None:
    fill(tmp_path, name)
    said = refused(finetune, tmp_path, *words_of(place, *SHORT, "--output_dir", tmp_path, *how))
    matches(said, rf"holds {name}, which no run of `python -m ntk_lpft.finetune` wrote", "choose another --output-dir")


@pytest.mark.parametrize("name", ["groups.csv", "partial.safetensors", "group_shares.png"])
def test_compute_leaves_a_users_own_files(place: Path, tmp_path: Path, refused: Refused, name: str) -> None:
    save_csv(tmp_path / name, TEXTS["train"])
    words = (
        [*kernel_words(place), "--train-file", str(tmp_path / name)] if name.endswith(".csv") else kernel_words(place)
    )
    matches(refused(compute, tmp_path, *words, "--output-dir", tmp_path, "--overwrite"), f"holds {name}, which no run")


def test_a_folder_that_is_read_is_not_written_into(place: Path, own: Path, tmp_path: Path, refused: Refused) -> None:
    model = save_model(tmp_path / "mine")
    for main, words in ((compute, kernel_words(place, model)), (finetune, words_of(place, *SHORT, "--model", model))):
        said = refused(main, tmp_path, *words, "--output-dir", model, "--overwrite")
        matches(said, f"output folder {model} is what --model names")
    link = tmp_path / "link"
    link.symlink_to(model)
    matches(refused(compute, tmp_path, *kernel_words(place, model), "--output-dir", link), "is what --model names")
    matches(refused(calibrate, own, own / "run", "--output-dir", own / "run", "--overwrite"), "is what --runs names")
    said = refused(
        compute, own, *kernel_words(place, own / "run"), "--output-dir", own / "run" / "model", "--overwrite"
    )
    matches(said, "is what --model names")


@pytest.mark.parametrize("option", ["--model", "--head_init", "--config"])
def test_what_is_read_is_not_replaced(place: Path, own: Path, refused: Refused, option: str) -> None:
    """A run's own files are its own, but not while another of its runs reads them."""
    run = own / "run"
    adapter = own / "adapted"
    shutil.copytree(place / "bert", adapter)
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(run / "model")}))
    files = {
        "--model": [run / "model", adapter],
        "--head_init": [run / "model" / "head.safetensors"],
        "--config": [run / "config.json"],
    }
    for file in files[option]:
        said = refused(finetune, own, *words_of(place, *SHORT, option, file, "--output_dir", run, "--overwrite"))
        matches(said, f"{option.replace('_', '-')} .* is a part of the earlier results in {run}")
    kernel = own / "kernel"
    save_csv(kernel / "groups.csv", TEXTS["train"])
    words = [*kernel_words(place), "--train-file", kernel / "groups.csv", "--output-dir", kernel, "--overwrite"]
    matches(refused(compute, own, *words), f"--train-file .* is a part of the earlier results in {kernel}")


def test_a_base_model_in_the_place_of_the_new_one(place: Path, tmp_path: Path, refused: Refused) -> None:
    shutil.copytree(place / "bert", tmp_path / "out" / "model")
    words = words_of(place, *SHORT, "--model", tmp_path / "out" / "model", "--output_dir", tmp_path / "out")
    matches(refused(finetune, tmp_path, *words), "holds model/config.json|holds model/", "which no run")


def test_links_are_not_written_through(place: Path, made: Path, own: Path, tmp_path: Path, refused: Refused) -> None:
    elsewhere = tmp_path / "elsewhere"
    fill(elsewhere, "model.safetensors", "metrics.json")
    for target in ("fresh", "own/run"):
        for name in ("model", "checkpoints"):
            out = tmp_path / target
            out.mkdir(exist_ok=True)
            shutil.rmtree(out / name, ignore_errors=True)
            (out / name).symlink_to(elsewhere)
            said = refused(finetune, tmp_path, *words_of(place, *SHORT, "--output_dir", out, "--overwrite"))
            matches(said, f"holds {name}, a symbolic link")
            (out / name).unlink()
    (own / "kernel" / "summary.json").unlink()
    (own / "kernel" / "summary.json").symlink_to(tmp_path / "nowhere")  # dangling
    said = refused(compute, tmp_path, *kernel_words(place), "--output-dir", own / "kernel", "--overwrite")
    matches(said, "holds summary.json, a symbolic link")
    run = tmp_path / "again"
    shutil.copytree(made / "run", run)
    (run / "model" / "config.json").unlink()
    (run / "model" / "config.json").symlink_to(elsewhere / "metrics.json")
    said = refused(finetune, tmp_path, *words_of(place, *SHORT, "--output_dir", run, "--overwrite"))
    matches(said, "holds model/config.json, a symbolic link")


def test_devices_and_pipes_are_not_written_to(place: Path, own: Path, refused: Refused) -> None:
    (own / "kernel" / "groups.csv").unlink()
    os.mkfifo(own / "kernel" / "groups.csv")
    said = refused(compute, own, *kernel_words(place), "--output-dir", own / "kernel", "--overwrite")
    matches(said, "holds groups.csv, a device or a pipe; choose another")


def test_what_a_user_puts_into_a_runs_folder_stays(place: Path, own: Path, refused: Refused) -> None:
    run = own / "run"
    words = words_of(place, *SHORT, "--output_dir", run, "--overwrite")
    fill(run, "notes.txt", "model/notes.txt")
    matches(refused(finetune, own, *words), "holds model/notes.txt, which no run")
    (run / "model" / "notes.txt").unlink()
    assert finetune(words) == 0
    assert (run / "notes.txt").read_text() == "notes.txt"
    assert (run / "calibration" / "calibration.csv").is_file()


def test_results_of_another_command_are_not_replaced(place: Path, own: Path, refused: Refused) -> None:
    said = refused(compute, own, *kernel_words(place), "--output-dir", own / "run", "--overwrite")
    matches(said, "holds config.json, which `python -m ntk_lpft.finetune` wrote")
    said = refused(finetune, own, *words_of(place, *SHORT, "--output_dir", own / "kernel", "--overwrite"))
    matches(said, "holds config.json, which `python -m ntk_lpft.compute` wrote")


def test_folders_of_earlier_versions_are_known_by_their_config(place: Path, own: Path, refused: Refused) -> None:
    for folder in (own / "run", own / "kernel", own / "run" / "calibration"):
        (folder / ".ntk_lpft.json").unlink()
    assert finetune(words_of(place, *SHORT, "--output_dir", own / "run", "--overwrite")) == 0
    assert compute([*kernel_words(place), "--output-dir", str(own / "kernel"), "--overwrite"]) == 0
    assert calibrate([str(own / "run"), "--resamples", "0", "--overwrite"]) == 0
    assert finetune(words_of(place, *SHORT, "--output_dir", own / "run", "--overwrite")) == 0
    for name in ("run", "kernel"):
        (own / name / ".ntk_lpft.json").unlink()
        (own / name / "config.json").write_text('{"command": "make"}')
    said = refused(finetune, own, *words_of(place, *SHORT, "--output_dir", own / "run", "--overwrite"))
    matches(said, "which no run")


FORGED = b'{"format": "ntk_lpft files 1", "writers": {"x": ["%s"]}}'


@pytest.mark.parametrize("content", [b"{", b"[]", FORGED % b"../y", FORGED % b"/etc/passwd"])
def test_a_damaged_or_forged_ledger_is_not_believed(place: Path, own: Path, refused: Refused, content: bytes) -> None:
    (own / "kernel" / ".ntk_lpft.json").write_bytes(content)
    said = refused(compute, own, *kernel_words(place), "--output-dir", own / "kernel", "--overwrite")
    matches(
        said, r"\.ntk_lpft\.json is damaged, so that it cannot be told whose files are there; choose another folder"
    )


def test_the_same_command_sees_that_it_is_done(
    place: Path, own: Path, capsys: pytest.CaptureFixture[str], refused: Refused
) -> None:
    before = contents(own)
    for main, words in (
        (compute, [*kernel_words(place), "--output-dir", str(own / "kernel")]),
        (compute, ["--config", str(own / "kernel" / "config.json"), "--output-dir", str(own / "kernel")]),
        (finetune, words_of(place, *SHORT, "--output_dir", own / "run")),
        (finetune, words_of(place, *SHORT, "--output_dir", own / "run", "--resume")),
        (finetune, ["--config", str(own / "run" / "config.json"), "--output_dir", str(own / "run"), "--resume"]),
    ):
        capsys.readouterr()
        assert main(words) == 0
        printed = capsys.readouterr().out
        assert "holds a finished run of these settings" in printed
        assert "Results in" in printed
        assert contents(own) == before
    copy = own / "copied"
    shutil.copytree(place / "bert", copy)
    words = words_of(place, *SHORT, "--model", copy, "--output_dir", own / "tuned")
    assert finetune(words) == 0
    save_model(copy, weights={"bert.embeddings.word_embeddings.weight": 0.5}, config={"hidden_dropout_prob": 0.1})
    for more in ([], ["--resume"]):  # as by another training of the base model
        matches(refused(finetune, own, *words, *more), "began with other model: model.safetensors was")
    assert "already holds" in refused(compute, own, *kernel_words(place), "--seed", "3", "--output-dir", own / "kernel")
    other = save_model(own / "bert", weights={"bert.embeddings.word_embeddings.weight": 0.5})
    shutil.copytree(place / "bert", own / "same")
    words = [word.replace(str(place / "bert"), str(own / "same")) for word in kernel_words(place)]
    assert compute([*words, "--output-dir", str(own / "another")]) == 0
    shutil.copytree(other, own / "same", dirs_exist_ok=True)
    said = refused(compute, own, *words, "--output-dir", own / "another")
    matches(said, "already holds a finished run of these options, in which weights_sha256 differed")


def test_a_folder_in_use_is_left_alone(place: Path, own: Path, refused: Refused) -> None:
    run, kernel, grid = own / "run", own / "kernel", own / "grid"
    for folder, main, words in (
        (kernel, compute, [*kernel_words(place), "--output-dir", kernel, "--overwrite"]),
        (kernel, compute, [*kernel_words(place), "--output-dir", kernel]),
        (run, finetune, words_of(place, *SHORT, "--output_dir", run, "--resume")),
        (grid, finetune, words_of(place, *SHORT, "--head-scale", 1, 2, "--output_dir", grid)),
        (run / "calibration", calibrate, [run, "--overwrite"]),
    ):
        with folder_lock(folder, "python -m another"):
            said = refused(main, own, *words)
        matches(said, rf"^output folder {folder} is in use by `python -m another` \(process {os.getpid()} on ")
