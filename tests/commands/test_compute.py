"""The compute command as a user runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch
from helpers.logistic_reference import probe as reference_probe
from helpers.referee import referee, referee_logits
from helpers.small import examples, save_csv, save_jsonl, save_model, tokens_of
from scipy.special import softmax
from torch import Tensor
from transformers import AutoModel, AutoModelForSequenceClassification

from ntk_lpft import NTKDecomposition, bundled
from ntk_lpft.commands.compute import main, report
from ntk_lpft.errors import InputError
from ntk_lpft.kernel.passes import PassRunner
from ntk_lpft.tasks import load_task

TRAIN, EVALUATION = examples(40), examples(9, seed=1)
FILES = {"config.json", "kernel.safetensors", "summary.json", "statistics.csv", "groups.csv", "singular_values.png",
         "block_norms.png", "group_shares.png"}  # fmt: skip
Run = Callable[..., Path]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("place")
    save_model(folder / "bert")
    save_csv(folder / "train.csv", TRAIN)
    save_jsonl(folder / "eval.jsonl", EVALUATION)
    return folder


@pytest.fixture
def run(place: Path, tmp_path: Path) -> Run:
    """Run the command on the small model and files, and return its output folder."""

    def call(*words: str, out: str = "out") -> Path:
        given = ["--model", place / "bert", "--train-file", place / "train.csv", "--eval-file", place / "eval.jsonl",
                 "--max-length", 20, "--n-train", 7, "--n-eval", 4, "--head-init", "random",
                 "--no-kernel-classifier"]  # fmt: skip
        assert main([str(word) for word in (*given, "--output-dir", tmp_path / out, *words)]) == 0
        return tmp_path / out

    return call


def tensors(folder: Path) -> dict[str, Tensor]:
    return safetensors.torch.load_file(folder / "kernel.safetensors")


def assert_identical(one: Path, two: Path) -> None:
    first, second = tensors(one), tensors(two)
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


def chosen(folder: Path, part: str, source: list[tuple[str, int]]) -> list[dict[str, list[int]]]:
    """Rows of a kernel, tokenised by hand from what config.json says of them."""
    about = json.loads((folder / "config.json").read_text())["data"][part]
    assert about["labels"] == [source[i][1] for i in about["indices"]]
    return [tokens_of(source[i][0]) for i in about["indices"]]


def distance(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def test_files_and_table(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    folder = run()
    assert {path.name for path in folder.glob("[!.]*")} == FILES | {"checksums.json"}
    lines = capsys.readouterr().out.splitlines()
    start = next(i for i, line in enumerate(lines) if line.split()[:1] == ["kernel"])
    assert [line.split()[0] for line in lines[start + 2 : start + 5]] == ["P", "F", "P+F"]
    assert lines[-1].startswith(f"Results in {folder}: ")
    assert all(name in lines[-1] for name in FILES)
    for name in ("singular_values.png", "block_norms.png", "group_shares.png"):
        assert (folder / name).read_bytes().startswith(b"\x89PNG")
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["samples"] == {"train": 7, "eval": 4}
    assert [row["kernel"] for row in summary["statistics"]] == ["P", "F", "P+F"]
    assert summary["kernel"]["self_check"]["parameters"] > 0


def test_the_summary_states_the_norm_of_the_head(place: Path, run: Run) -> None:
    weight = safetensors.torch.load_file(place / "bert" / "model.safetensors")["classifier.weight"]
    folder = run("--head", "native", "--head-init", "keep", "--head-scale", "3")
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["head_norm"] == pytest.approx(3 * float(weight.square().sum().sqrt()), rel=1e-6)


def test_statistics_are_those_of_the_stored_kernel(run: Run) -> None:
    folder = run()
    table = pd.read_csv(folder / "statistics.csv").set_index("kernel")
    ntk = NTKDecomposition.load(folder, part="train")
    n, c = ntk.row_logits.shape
    gram = ntk.feature_kernel.double().numpy()
    f = sum(group.double().numpy() for group in ntk.ft_groups.values()).reshape(n * c, n * c)
    kernels = {"P": np.kron(gram, np.eye(c)), "F": f, "P+F": np.kron(gram, np.eye(c)) + f}
    for name, kernel in kernels.items():
        values = np.linalg.svd(kernel, compute_uv=False)
        assert table.frobenius_norm[name] == pytest.approx(np.sqrt((kernel**2).sum()), rel=1e-5)
        assert table.trace_norm[name] == pytest.approx(values.sum(), rel=1e-5)
        assert table.effective_rank[name] == pytest.approx(
            np.exp(-(values / values.sum() * np.log(values / values.sum() + 1e-300)).sum()), rel=1e-4
        )
        assert table.smallest_eigenvalue[name] == pytest.approx(
            np.linalg.eigvalsh((kernel + kernel.T) / 2)[0], abs=1e-6 * values[0]
        )
    labels = np.array(json.loads((folder / "config.json").read_text())["data"]["train"]["labels"])
    delta = (np.eye(c)[labels] - torch.softmax(ntk.row_logits.double(), 1).numpy()).reshape(-1)
    by_f, by_both = ((kernels[name] @ delta).reshape(n, c) for name in ("F", "P+F"))
    ratios = np.linalg.norm(by_f, axis=1) / np.linalg.norm(by_both, axis=1)
    assert table.ft_ratio["F"] == pytest.approx(ratios.mean(), rel=1e-5)
    groups = pd.read_csv(folder / "groups.csv").set_index("group")
    for name, group in ntk.ft_groups.items():
        share = np.trace(group.double().numpy().reshape(n * c, n * c)) / np.trace(f)
        assert groups.trace_share[name] == pytest.approx(share, rel=1e-4)


def test_kernel_of_a_native_head_is_the_referees(run: Run, place: Path) -> None:
    folder = run("--head", "native", "--head-init", "keep", "--precision", "float64")
    model = AutoModelForSequenceClassification.from_pretrained(place / "bert").double().eval()
    rows, others = chosen(folder, "train", TRAIN), chosen(folder, "eval", EVALUATION)
    for part, left in (("train", rows), ("eval", others)):
        ntk = NTKDecomposition.load(folder, part=part)
        blocks = referee(model, left, rows, attention="sdpa")
        p = blocks.pop("classifier.weight") + blocks.pop("classifier.bias")
        assert distance(ntk.pretrain_effective, p) < 1e-9
        assert distance(ntk.ft_effective, sum(blocks.values())) < 1e-9
        assert distance(ntk.row_logits, referee_logits(model, left, "sdpa")) < 1e-9
        for group, names in ntk.parameter_groups.items():
            assert distance(ntk.ft_groups[group], sum(blocks[name] for name in names)) < 1e-8


def test_head_is_logistic_regression_on_the_first_token(
    run: Run, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run("--precision", "float64", "--head-init", "lp", "--fold-draws", "3")
    printed = capsys.readouterr().out
    probe = json.loads((folder / "summary.json").read_text())["probe"]
    assert (probe["solver"], probe["fold_seed"], probe["intercept"], probe["samples"]) == ("logistic", 0, True, 36)
    assert probe["gradient_norm"] <= probe["gradient_bound"]
    assert max(probe["cross_validation"], key=lambda point: point["mean"])["mean"] == pytest.approx(
        next(point["mean"] for point in probe["cross_validation"] if point["strength"] == probe["strength"])
    )
    assert [draw["fold_seed"] for draw in probe["fold_draws"]] == [0, 1, 2]
    assert f"C = {probe['strength']:.3g}, ‖V‖ {probe['fold_draws'][0]['head_norm']:.3f}" in printed
    assert printed.count("3 shuffles of the folds: ") == 2  # where the head is made, and under the table
    body = AutoModel.from_pretrained(place / "bert", add_pooling_layer=False).eval()

    def feature(row: dict[str, list[int]]) -> np.ndarray:
        with torch.no_grad():
            return body(**{k: torch.tensor([v]) for k, v in row.items()}).last_hidden_state[0, 0].double().numpy()

    train = TRAIN[:36]  # the last tenth is the validation split
    x, y = np.stack([feature(tokens_of(text)) for text, _ in train]), [label for _, label in train]
    ntk = NTKDecomposition.load(folder, part="eval")
    z = np.stack([feature(row) for row in chosen(folder, "eval", EVALUATION)])
    found = torch.softmax(ntk.row_logits, 1).numpy()
    weight, bias = reference_probe(x, np.array(y))
    np.testing.assert_allclose(found, softmax(z @ weight.T + bias, axis=1), rtol=0, atol=1e-4)
    columns = np.stack([feature(row) for row in chosen(folder, "train", TRAIN)])
    np.testing.assert_allclose(ntk.feature_kernel.numpy(), z @ columns.T + 1, rtol=1e-4)


def test_the_same_command_gives_the_same_bits(run: Run) -> None:
    assert_identical(run(out="one"), run(out="two"))


def test_config_replays_the_run(run: Run, tmp_path: Path) -> None:
    first = run("--head-init", "random", "--seed", "3", "--no-groups", "--head-scale", "2", "--balanced")
    again = tmp_path / "again"
    assert main(["--config", str(first / "config.json"), "--output-dir", str(again)]) == 0
    assert_identical(first, again)
    for name in ("statistics.csv", "groups.csv"):
        assert (first / name).read_bytes() == (again / name).read_bytes()
    one, two = (json.loads((folder / "config.json").read_text()) for folder in (first, again))
    assert one == two


def test_command_line_overrides_a_config(run: Run, tmp_path: Path) -> None:
    first = run()
    words = ["--config", str(first / "config.json"), "--n_train", "5", "--output_dir", str(tmp_path / "other")]
    assert main(words) == 0
    assert NTKDecomposition.load(tmp_path / "other", part="eval").feature_kernel.shape == (4, 5)


def test_head_scale_multiplies_f_by_its_square(run: Run) -> None:
    words = ("--precision", "float64", "--head", "native", "--head-init", "keep")
    one, two = run(*words, out="one"), run(*words, "--head-scale", "3", out="two")
    three = run(*words, "--head-scale", "3", "--scale-bias", out="three")
    small, large, both = (NTKDecomposition.load(folder, part="eval") for folder in (one, two, three))
    assert torch.equal(small.feature_kernel, large.feature_kernel)
    assert distance(large.ft_effective, 9 * small.ft_effective) < 1e-6
    assert distance(large.row_logits, 3 * small.row_logits) > 1e-2  # b stays
    assert distance(both.row_logits, 3 * small.row_logits) < 1e-6


def test_lora(run: Run) -> None:
    folder, whole = run("--lora", "--lora-rank", "2", "--head", "native", "--head-init", "keep"), run(out="whole")
    ntk = NTKDecomposition.load(folder, part="train")
    names = [name for group in ntk.parameter_groups.values() for name in group]
    assert len(names) == 2 * 2 * 2  # A and B of query and value in two layers
    assert all("lora_" in name for name in names)
    assert float(ntk.ft_effective.abs().max()) > 0
    assert len(names) < sum(map(len, NTKDecomposition.load(whole, part="train").parameter_groups.values()))


@pytest.mark.parametrize("outputs", ["class_trace", "pseudo"])
def test_reduced_outputs(run: Run, outputs: str) -> None:
    full = NTKDecomposition.load(run(out="full"), part="eval")
    folder = run("--outputs", outputs)
    reduced = NTKDecomposition.load(folder, part="eval")
    how = "ncmc->nm" if outputs == "class_trace" else "ncmd->nm"
    assert reduced.ft_effective.shape == (4, 7)
    assert distance(reduced.ft_effective, torch.einsum(how, full.ft_effective) / 3) < 1e-4
    assert distance(reduced.pretrain_effective, torch.einsum(how, full.pretrain_effective) / 3) < 1e-5
    assert not (folder / "block_norms.png").exists()
    assert pd.read_csv(folder / "statistics.csv").kernel.tolist() == ["P", "F", "P+F"]


def test_evaluation_splits(run: Run, place: Path) -> None:
    folder = run("--eval-split", "validation")
    assert chosen(folder, "eval", TRAIN) == [tokens_of(text) for text, _ in TRAIN[36:]]


def test_kernel_classifier_and_both_spellings_of_options(run: Run) -> None:
    folder = run("--kernel_classifier", "--n_train", "12", "--no_groups", "--max_iter", "20")
    table = pd.read_csv(folder / "statistics.csv")
    assert (
        table[["train_pair_accuracy", "eval_pair_accuracy", "train_accuracy", "eval_accuracy"]].notna().to_numpy().all()
    )
    assert list(NTKDecomposition.load(folder, part="train").ft_groups) == ["body"]


def test_overwrite_replaces_everything(run: Run) -> None:
    run()
    folder = run("--outputs", "pseudo", "--overwrite")
    assert_identical(folder, run("--outputs", "pseudo", out="fresh"))
    assert {path.name for path in folder.glob("[!.]*")} == FILES - {"block_norms.png"} | {"checksums.json"}


def crash(*_: object, **__: object) -> None:
    raise RuntimeError("the machine went down")


def test_a_run_that_crashed_goes_on(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = run(out="plain")
    with monkeypatch.context() as patch:
        patch.setattr(report, "analyse", crash)
        with pytest.raises(RuntimeError, match="went down"):
            run()
    folder = plain.parent / "out"
    assert_identical(plain, folder)  # not lost
    assert (folder / "config.json").exists()
    before = (folder / "partial.safetensors").read_bytes()
    # Other settings are refused and touch nothing.
    with pytest.raises(AssertionError):
        run("--head-scale", "2")
    message = capsys.readouterr().err.splitlines()[-1]
    assert message.startswith("error: ")
    assert "weights_sha256" in message
    assert "--overwrite" in message
    assert (folder / "partial.safetensors").read_bytes() == before
    for name in ("_structured_pass", "_dense_pass"):
        monkeypatch.setattr(PassRunner, name, crash)
    assert_identical(plain, run())
    assert {path.name for path in folder.glob("[!.]*")} == FILES | {"checksums.json"}
    assert (folder / "statistics.csv").read_bytes() == (plain / "statistics.csv").read_bytes()


def test_a_head_of_zeros_has_all_but_the_shares_of_f(run: Run) -> None:
    """Seen through it, F is zero, which has no place on a logarithmic scale and no shares."""
    folder = run("--head-scale", "0")
    assert {path.name for path in folder.iterdir()} >= FILES - {"group_shares.png"}
    summary = json.loads((folder / "summary.json").read_text(), parse_constant=pytest.fail)
    rows = {row["kernel"]: row for row in summary["statistics"]}
    assert (rows["F"]["frobenius_norm"], rows["F"]["rank"]) == (0, 0)
    assert rows["P"]["frobenius_norm"] == pytest.approx(rows["P+F"]["frobenius_norm"], rel=1e-12)


def test_a_run_that_stopped_between_passes_goes_on(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("--engine", "per_example", "--memory-budget", "1MB")
    plain = run(*words, out="plain")
    passes, real = [], PassRunner._dense_pass

    def stop_at_the_second(self: PassRunner, *args: object) -> None:
        if passes:
            raise KeyboardInterrupt
        passes.append(self)
        real(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(PassRunner, "_dense_pass", stop_at_the_second)
        with pytest.raises(AssertionError):
            run(*words)
    assert {path.name for path in (plain.parent / "out").glob("[!.]*")} == {"partial.safetensors"}
    folder = run(*words)
    assert NTKDecomposition.load(folder).metadata["this_run"]["resumed_after_passes"] == 1
    summaries = [json.loads((each / "summary.json").read_text()) for each in (plain, folder)]
    timings = [summary["kernel"].pop("this_run") for summary in summaries]
    assert [timing["resumed_after_passes"] for timing in timings] == [0, 1]
    assert summaries[0] == summaries[1]
    for name in ("config.json", "statistics.csv", "groups.csv"):
        contents = [(each / name).read_text().replace(str(each), "") for each in (plain, folder)]
        assert contents[0] == contents[1], name
    assert_identical(plain, folder)


def test_bad_input_with_overwrite_loses_nothing(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(report, "analyse", crash)
        with pytest.raises(RuntimeError, match="went down"):
            run()
    before = {path: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    with pytest.raises(AssertionError):
        run("--overwrite", "--label-column", "no")
    assert "no column 'no'" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_as_a_module(place: Path, tmp_path: Path) -> None:
    words = ["--model", "bert", "--train-file", "train.csv", "--eval-file", "eval.jsonl", "--max-length", "20",
             "--n-train", "5", "--n-eval", "3", "--no-kernel-classifier", "--output-dir", str(tmp_path)]  # fmt: skip
    result = subprocess.run(
        [sys.executable, "-m", "ntk_lpft.compute", *words],
        cwd=place,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "arning" not in result.stderr
    assert "P+F" in result.stdout
    assert {path.name for path in tmp_path.glob("[!.]*")} == FILES | {"checksums.json"}


def test_bundled_model_and_task(tmp_path: Path) -> None:
    try:
        bundled.fetch_all()
    except InputError as error:
        pytest.skip(str(error))
    words = ["--n-train", "12", "--n_eval", "6", "--no_kernel_classifier", "--no-groups", "--max_length", "24",
             "--head-init", "random", "--output-dir", str(tmp_path)]  # fmt: skip
    assert main(words) == 0
    ntk = NTKDecomposition.load(tmp_path, part="eval")
    assert ntk.total.shape == (6, 2, 12, 2)
    assert torch.isfinite(ntk.total).all()
    assert list(ntk.ft_groups) == ["body"]


def test_default_folder(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["--model", str(place / "bert"), "--train-file", str(place / "train.csv"), "--eval-split", "validation",
             "--n-train", "5", "--n-eval", "3", "--max-length", "20", "--no-kernel-classifier"]  # fmt: skip
    assert main([*words, "--head-init", "random"]) == 0
    assert (tmp_path / "runs" / "bert-train-random" / "statistics.csv").exists()


def test_evaluation_on_a_test_from_elsewhere(place: Path, tmp_path: Path) -> None:
    try:
        bundled.data_folder()
    except InputError as error:
        pytest.skip(str(error))
    words = ["--model", str(place / "bert"), "--eval-split", "movie-snippets", "--n-train", "5", "--n-eval", "3"]
    others = ["--max-length", "9", "--head-init", "random", "--no-kernel-classifier", "--output-dir", str(tmp_path)]
    assert main([*words, *others]) == 0
    about = json.loads((tmp_path / "config.json").read_text())
    assert about["options"]["dataset"] == "amazon-snippets"
    expected = load_task("amazon-snippets").ood_split("movie-snippets")
    places = [expected.indices.tolist().index(i) for i in about["data"]["eval"]["indices"]]
    assert about["data"]["eval"]["labels"] == expected.labels[places].tolist()
    assert about["data"]["eval"]["fingerprint"] != about["data"]["train"]["fingerprint"]
