"""The calibrate command on run folders and on files from anywhere."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from ntk_lpft.calibration import TemperatureScaledClassifier, fit_temperature
from ntk_lpft.commands.calibrate import main
from ntk_lpft.storage import write_tensors

pytestmark = pytest.mark.slow


def drawn(n: int, seed: int, factor: float) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    logits = rng.standard_normal((n, 3)) * 1.5
    return factor * logits, np.array([rng.choice(3, p=p) for p in softmax(logits, axis=1)])


def save_run(folder: Path, method: str = "lp-ft", seed: int = 0, factor: float = 3.0) -> Path:
    """Write a run folder as `finetune` does."""
    folder.mkdir(parents=True)
    tensors = {}
    for number, (split, n) in enumerate((("train", 40), ("validation", 200), ("test", 150), ("ood.other", 120))):
        logits, labels = drawn(n, 10 * seed + number, factor)
        tensors[f"{split}/logits"] = torch.tensor(logits, dtype=torch.float32)
        tensors[f"{split}/labels"] = torch.tensor(labels)
    write_tensors(folder / "predictions.safetensors", tensors, {"method": method})
    head = {"norm_before": 0.5, "norm_after": 6.0} | ({"norm_after_lp": 5.0} if "lp" in method else {})
    metrics = {"method": method, "dataset": "cb", "model": "minilm", "seed": seed, "head": head, "splits": {}}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    return folder


def test_a_run_is_calibrated_on_validation_and_reported_on_the_tests(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = save_run(tmp_path / "run")
    assert main([str(run), "--resamples", "100"]) == 0
    out = run / "calibration"
    names = {path.name for path in out.iterdir()}
    assert {"config.json", "temperature.json", "calibration.csv"} <= names
    pictures = list(out.glob("*.png"))
    assert len(pictures) >= 2
    assert all(path.stat().st_size > 5000 for path in pictures)
    logits, labels = drawn(200, 1, 3.0)
    expected = fit_temperature(logits.astype(np.float32), labels).temperature
    found = json.loads((out / "temperature.json").read_text())
    assert found["temperature"] == pytest.approx(expected, rel=1e-9)
    table = pd.read_csv(out / "calibration.csv")
    accuracy = table[table["measure"] == "accuracy"].set_index(["split", "stage"])["value"]
    for split in ("test", "ood.other"):
        assert accuracy[split, "before"] == accuracy[split, "after"]
    printed = capsys.readouterr().out
    assert "test" in printed
    assert "ood.other" in printed
    assert "nan" not in printed.lower()


def test_temperature_mends_logits_that_were_multiplied(tmp_path: Path) -> None:
    run = save_run(tmp_path / "run")
    assert main([str(run), "--resamples", "0", "--output_dir", str(tmp_path / "out")]) == 0
    table = pd.read_csv(tmp_path / "out" / "calibration.csv")
    values = table[table["split"] == "test"].set_index(["measure", "stage"])["value"]
    assert values["ece", "after"] < values["ece", "before"] / 2
    assert values["nll", "after"] < values["nll", "before"]
    logits, labels = drawn(150, 2, 3.0)
    log_p = np.log(softmax(logits.astype(np.float32).astype(np.float64), axis=1))
    assert values["nll", "before"] == pytest.approx(-log_p[np.arange(150), labels].mean(), rel=1e-6)


def test_runs_are_put_together_over_seeds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [save_run(tmp_path / f"{method}-{seed}", method, seed, factor) for seed in (1, 2)
            for method, factor in (("ft", 1.0), ("lp-ft", 4.0))]  # fmt: skip
    assert main([*map(str, runs), "--resamples", "0", "--output_dir", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    temperatures = []
    for seed in (1, 2):
        logits, labels = drawn(200, 10 * seed + 1, 4.0)
        temperatures.append(fit_temperature(logits.astype(np.float32), labels).temperature)
    norms = pd.read_csv(tmp_path / "out" / "head_norms.csv")
    rows = norms[norms["method"] == "lp-ft"].sort_values("seed")
    assert rows["temperature"].tolist() == pytest.approx(temperatures, rel=1e-9)
    assert rows["effective_norm"].tolist() == pytest.approx([6.0 / t for t in temperatures], rel=1e-9)
    assert f"{np.mean(temperatures):.3g}"[:3] in printed
    assert "±" in printed


def ece_and_mce(logits: np.ndarray, labels: np.ndarray, bins: int = 15) -> tuple[float, float]:
    """ECE and MCE in percent, sample by sample."""
    gaps: list[list[float]] = [[] for _ in range(bins)]
    for row, label in zip(softmax(logits, axis=1), labels, strict=True):
        number = next(m for m in range(bins) if m / bins < row.max() <= (m + 1) / bins)
        gaps[number].append(float(row.argmax() == label) - row.max())
    return (100 * sum(abs(sum(gap)) for gap in gaps) / len(labels),
            100 * max(abs(float(np.mean(gap))) for gap in gaps if gap))  # fmt: skip


def nll(logits: np.ndarray, labels: np.ndarray) -> float:
    return float(-log_softmax(logits, axis=1)[np.arange(len(labels)), labels].mean())


def test_the_table_over_seeds_is_the_one_computed_by_hand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seeds = (1, 2, 3)
    runs = [save_run(tmp_path / f"{method}-{seed}", method, seed, factor) for seed in seeds
            for method, factor in (("ft", 2.0), ("lp-ft", 5.0))]  # fmt: skip
    assert main([*map(str, runs), "--resamples", "0", "--output_dir", str(tmp_path / "out")]) == 0
    table = pd.read_csv(tmp_path / "out" / "table.csv").set_index(["method", "split"])
    printed = [line.split() for line in capsys.readouterr().out.splitlines()]
    for method, factor in (("ft", 2.0), ("lp-ft", 5.0)):
        for split, number, n in (("test", 2, 150), ("ood.other", 3, 120)):
            columns: dict[str, list[float]] = {}
            for seed in seeds:
                # A run folder holds float32.
                fitted_on, fitted_labels = drawn(200, 10 * seed + 1, factor)
                logits, labels = drawn(n, 10 * seed + number, factor)
                fitted_on, logits = (x.astype(np.float32).astype(np.float64) for x in (fitted_on, logits))
                best = minimize_scalar(lambda t, f=fitted_on, y=fitted_labels: nll(f / t, y), bounds=(0.1, 50),
                                       method="bounded", options={"xatol": 1e-9})  # fmt: skip
                before, after = ece_and_mce(logits, labels), ece_and_mce(logits / best.x, labels)
                values = {"accuracy": 100 * (logits.argmax(1) == labels).mean(), "ece": before[0], "mce": before[1],
                          "ece_scaled": after[0], "mce_scaled": after[1]}  # fmt: skip
                for name, value in values.items():
                    columns.setdefault(name, []).append(float(value))
            row = table.loc[(method, split)]
            assert (row["runs"], row["n"]) == (3, n)
            for name, values in columns.items():
                assert row[f"{name}_pct"] == pytest.approx(np.mean(values), abs=1e-4), (method, split, name)
                assert row[f"{name}_pct_std"] == pytest.approx(np.std(values, ddof=1), abs=1e-4), (method, split, name)
            shown = next(words for words in printed if words[:2] == [method, split])
            accuracy = columns["accuracy"]
            assert shown[3:6] == [f"{np.mean(accuracy):.1f}", "±", f"{np.std(accuracy, ddof=1):.1f}"]


def test_notes_speak_of_what_the_table_has(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, two, alone = (save_run(tmp_path / name, method, seed) for name, method, seed in
                       (("one", "ft", 1), ("two", "ft", 2), ("alone", "lp-ft", 1)))  # fmt: skip
    for runs, resamples, intervals, deviations in (
        ((one,), 0, False, False),
        ((one, two), 40, False, True),
        ((two, alone), 40, True, False),
        ((one, two, alone), 40, True, True),
    ):
        words = [*map(str, runs), "--resamples", str(resamples), "--output_dir", str(tmp_path / "out"), "--overwrite"]
        assert main(words) == 0
        printed = capsys.readouterr().out
        cells = printed.split("accuracy")[1].split("In %")[0]
        assert ("95 % bootstrap intervals" in printed) == intervals == ("[" in cells)
        assert ("standard deviation over runs" in printed) == deviations == ("±" in cells)


def test_the_temperature_file_serves_a_scaled_classifier(tmp_path: Path) -> None:
    run = save_run(tmp_path / "run")
    assert main([str(run), "--resamples", "0"]) == 0
    plain = torch.nn.Linear(4, 3)
    scaled = TemperatureScaledClassifier.load(plain, run / "calibration")
    logits, labels = drawn(200, 1, 3.0)
    assert scaled.temperature == pytest.approx(fit_temperature(logits.astype(np.float32), labels).temperature, rel=1e-9)


def test_pictures_can_be_opened(tmp_path: Path) -> None:
    runs = [save_run(tmp_path / method, method, 1) for method in ("ft", "lp-ft")]
    assert main([*map(str, runs), "--resamples", "0", "--output_dir", str(tmp_path / "out")]) == 0
    names = {f"reliability_cb_minilm_{method}_{split}.png" for method in ("ft", "lp-ft")
             for split in ("validation", "test", "ood.other")}  # fmt: skip
    assert {path.name for path in (tmp_path / "out").glob("*.png")} == names | {"confidence_against_head_norm.png"}
    for path in (tmp_path / "out").glob("*.png"):
        with Image.open(path) as picture:
            picture.load()
            assert min(picture.size) >= 600
            colours = picture.convert("RGB").getcolors(maxcolors=1 << 24)
        assert colours is not None
        assert len(colours) > 10  # something is drawn
    left = (tmp_path / "out" / "reliability_cb_minilm_ft_test.png").read_bytes()
    assert left != (tmp_path / "out" / "reliability_cb_minilm_lp-ft_test.png").read_bytes()


def test_files_from_anywhere(tmp_path: Path) -> None:
    words = []
    for flag, seed, n, kind in (("", 1, 200, "npy"), ("test-", 2, 150, "csv")):
        logits, labels = drawn(n, seed, 3.0)
        for what, values in (("logits", logits), ("labels", labels)):
            path = tmp_path / f"{flag}{what}.{kind}"
            if kind == "npy":
                np.save(path, values, allow_pickle=False)
            else:
                np.savetxt(path, values, delimiter=",", fmt="%.17g")
            words += [f"--{flag}{what}", str(path)]
    assert main([*words, "--resamples", "0", "--output_dir", str(tmp_path / "files")]) == 0
    save_run(tmp_path / "run")
    assert main([str(tmp_path / "run"), "--resamples", "0", "--output_dir", str(tmp_path / "folder")]) == 0
    left, right = (pd.read_csv(tmp_path / name / "calibration.csv") for name in ("files", "folder"))
    for measure in ("ece", "nll", "brier"):
        values = [t[(t["split"] == "test") & (t["measure"] == measure) & (t["stage"] == "after")]["value"].item()
                  for t in (left, right)]  # fmt: skip
        assert values[0] == pytest.approx(values[1], rel=1e-4)  # the run folder holds float32
