"""F of LoRA against F of fine-tuning: the proposition in float64, kernels by plain autograd, the command."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.referee import referee
from helpers.tiny_runs import make_place
from helpers.zoo import HIDDEN, ZOO, ragged_rows
from torch import Tensor, nn

from analysis.experiments.lora_scaling import main
from analysis.experiments.scaling import (
    adapted,
    adapter_matrices,
    bound,
    compare,
    layer_gradients,
    lora_kernels,
    measure_scaling,
)
from ntk_lpft.classifier import find_head
from ntk_lpft.classifier.head import Head

pytestmark = pytest.mark.slow

FILES = {"config.json", "scaling.csv", "summary.json"}


def error(found: Tensor, expected: Tensor) -> float:
    """Return ‖found − expected‖ / ‖expected‖, in Frobenius norms."""
    return float((found - expected).norm() / expected.norm())


def head_of(model: nn.Module, rows: Sequence[dict[str, list[int]]]) -> Head:
    return find_head(model, {name: torch.tensor([values]) for name, values in rows[0].items()})


def ft_kernel(model: nn.Module, rows: Sequence[dict[str, list[int]]], ends: tuple[str, ...]) -> Tensor:
    """F of fine-tuning some weights, by plain autograd."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.endswith(ends))
    return sum(referee(model, rows, attention="sdpa").values(), torch.tensor(0.0))


@pytest.mark.parametrize(
    ("name", "targets", "ends"),
    [("bert", (), ("query.weight", "value.weight")), ("gpt2", (), ("c_attn.weight",)),
     ("distilbert", ("k_lin",), ("k_lin.weight",))],
)  # fmt: skip
def test_kernels_are_those_of_adapted_models(name: str, targets: tuple[str, ...], ends: tuple[str, ...]) -> None:
    entry = ZOO[name]
    rows, model = ragged_rows(entry, n=3), entry.build()
    head = head_of(model, rows)
    adapters = [adapted(model, head, rank, 5.0, targets, seed).double().eval() for rank, seed in ((1, 0), (3, 1))]
    draws = [adapter_matrices(adapter) for adapter in adapters]
    gradients = layer_gradients(model, rows, list(draws[0]), "float64")
    found = lora_kernels(gradients, draws, len(rows))
    for rank, adapter, kernel in zip((1, 3), adapters, found, strict=True):
        parts = referee(adapter, rows, attention="sdpa")
        up = [value for key, value in parts.items() if "lora_B" in key]
        down = [value for key, value in parts.items() if "lora_A" in key]
        assert len(up) == len(down) == len(draws[0]) == len(parts) / 2
        assert not any(bool(value.any()) for value in down)  # as B = 0
        assert error(kernel * (5 / rank) ** 2, sum(up, torch.tensor(0.0))) < 1e-9
    # With the identity for A, it is the kernel of fine-tuning.
    width = next(iter(draws[0].values())).shape[1]
    whole = lora_kernels(gradients, [{layer: torch.eye(width) for layer in draws[0]}], len(rows))[0]
    assert error(whole, ft_kernel(model, rows, ends)) < 1e-9


@pytest.fixture(scope="module")
def proposition() -> tuple[pd.DataFrame, dict]:
    rows = ragged_rows(ZOO["bert"], n=3)
    return measure_scaling(
        ZOO["bert"].build(), rows, ranks=[1, 8, 64], draws=60, alpha=3.0, epsilons=[0.2, 0.5], precision="float64"
    )


def test_the_mean_converges_and_the_error_falls_like_the_root_of_the_rank(
    proposition: tuple[pd.DataFrame, dict],
) -> None:
    table, summary = proposition
    assert summary["variance"]["expected"] == 1 / (3 * HIDDEN)
    assert summary["variance"]["drawn"] == pytest.approx(1 / (3 * HIDDEN), rel=0.02)
    assert max(summary["difference_to_adapted_model"].values()) < 1e-9
    assert set(summary["difference_to_adapted_model"]) == {"1", "64"}
    squares = table.assign(square=table.relative_error**2).groupby("rank").square.mean()
    constant = np.sqrt(squares * squares.index)
    assert constant.max() / constant.min() < 1.6
    assert summary["slope"] == pytest.approx(-0.5, abs=0.15)
    for row in summary["ranks"]:
        # The mean of 60 draws, of which each is √60 times as far away.
        assert row["error_of_mean_kernel"] < 3 * math.sqrt(squares[row["rank"]] / 60)
        assert row["relative_error"]["mean"] > 0.2 / row["rank"] ** 0.5
        assert row["trace_ratio"]["mean"] == pytest.approx(1, abs=4 * row["trace_ratio"]["std"] / 60**0.5)


def test_the_bound_holds_where_it_says_something(proposition: tuple[pd.DataFrame, dict]) -> None:
    _, summary = proposition
    assert bound(0.5, 64) == pytest.approx(1 - 4 * math.exp(-0.125 * 16))
    assert bound(0.5, 44) == 0 < bound(0.5, 45)
    assert summary["smallest_rank_of_a_bound"] == {"0.2": 174, "0.5": 45}
    for row in summary["ranks"]:
        assert row["bound"]["0.5"] == bound(0.5, row["rank"])
        assert row["share_of_norms_within_0.5"]["mean"] >= row["bound"]["0.5"]


def test_shares_and_ratios_by_hand() -> None:
    exact = torch.tensor([[4.0, -1.0], [-1.0, 1.0]], dtype=torch.float64).view(2, 1, 2, 1)
    found = torch.tensor([[4.2, -0.5], [-0.5, 1.2]], dtype=torch.float64).view(2, 1, 2, 1)
    result = compare(found, exact, [0.1, 0.25])
    assert result["relative_error"] == pytest.approx(math.sqrt((0.04 + 0.25 + 0.25 + 0.04) / 19))
    assert result["norm_ratio"] == pytest.approx(math.sqrt((4.2**2 + 0.5 + 1.44) / 19))
    assert result["trace_ratio"] == pytest.approx(5.4 / 5)
    # Errors 0.05, 0.5, 0.5 and 0.2 of the entries; 0.05, 0.25, 0.25 and 0.2 of the norms.
    assert (result["share_within_0.1"], result["share_within_0.25"]) == (0.25, 0.5)
    assert (result["share_of_norms_within_0.1"], result["share_of_norms_within_0.25"]) == (0.25, 1)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_place(tmp_path_factory.mktemp("place"))


def words_of(place: Path, *more: object) -> list[str]:
    given = ["--model", place / "bert", "--train-file", place / "train.csv", "--max-length", 20, "--n-train", 5,
             "--seed", 4, "--ranks", 2, 8, "--draws", 3]  # fmt: skip
    return [str(word) for word in (*given, *more)]


def test_files_and_summary_follow_from_the_draws(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main(words_of(place, "--output-dir", out)) == 0
    assert {path.name for path in out.glob("[!.]*")} == FILES | {"checksums.json"}
    table, summary = pd.read_csv(out / "scaling.csv"), json.loads((out / "summary.json").read_text())
    assert table["rank"].tolist() == [2, 2, 2, 8, 8, 8]
    assert table.seed.nunique() == 6
    assert len(summary["layers"]) == 4
    for row in summary["ranks"]:
        rows = table[table["rank"] == row["rank"]]
        for name in ("relative_error", "norm_ratio", "share_within_0.25"):
            assert row[name]["mean"] == pytest.approx(rows[name].mean())
            assert row[name]["std"] == pytest.approx(rows[name].std())
        assert row["error_times_sqrt_rank"] == pytest.approx(rows.relative_error.mean() * math.sqrt(row["rank"]))
    means = table.groupby("rank").relative_error.mean()
    assert summary["slope"] == pytest.approx(math.log(means[8] / means[2]) / math.log(4))
    assert len(json.loads((out / "config.json").read_text())["data"]["train"]["indices"]) == 5
    assert main(["--config", str(out / "config.json"), "--output-dir", str(tmp_path / "again")]) == 0
    assert (tmp_path / "again" / "scaling.csv").read_bytes() == (out / "scaling.csv").read_bytes()


def test_bad_input_is_one_line_and_writes_nothing(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    for words, part in (
        (["--ranks", 0, 2], "--ranks"),
        (["--ranks", 2, 2], "--ranks"),
        (["--draws", 0], "--draws"),
        (["--epsilons", 1.5], "--epsilons"),
        (["--lora-alpha", 0], "--lora-alpha"),
        (["--lora-alpha", "nan"], "--lora-alpha"),
        (["--precision", "tf32"], "--precision"),
        (["--model", tmp_path / "no"], "does not exist"),
    ):
        capsys.readouterr()
        assert main(words_of(place, *words, "--output-dir", out)) == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1, lines
        assert part in lines[0]
        assert not out.exists()
    for targets, part in ((["nothing"], "matches no layer"), (["query", "dense"], "no single variance")):
        assert main(words_of(place, "--lora-targets", *targets, "--output-dir", out)) == 2
        assert part in capsys.readouterr().err
        assert not out.exists()
