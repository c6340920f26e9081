"""Sampled word-embedding blocks: theory by enumeration, blocks by plain autograd, the command as a user runs it."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.referee import referee, referee_jacobian
from helpers.tiny_runs import TEXTS, make_place
from helpers.zoo import ZOO, ragged_rows
from torch import Tensor, nn

from analysis.experiments.embedding_estimates import (
    EmbeddingGradients,
    draw_masks,
    draw_outputs,
    embedding_gradients,
    sampling_variance,
)
from analysis.experiments.embedding_sampling import main
from ntk_lpft.commands.compute import main as compute

pytestmark = pytest.mark.slow

FILES = {"config.json", "draws.csv", "summary.json"}
ESTIMATES = ("scaled", "unscaled", "published")


def error(found: Tensor, expected: Tensor) -> float:
    """Return ‖found − expected‖ / ‖expected‖, in Frobenius norms."""
    return float((found - expected).norm() / expected.norm())


def small_gradients() -> EmbeddingGradients:
    """Gradients of three samples and two classes at two of three tokens, with two entries each."""
    values = torch.randn(4, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    owners, places = torch.tensor([0, 1, 1, 2]), torch.tensor([0, 0, 1, 1])
    return EmbeddingGradients(owners, places, values, torch.tensor([0, 2]), samples=3, entries=6, width=5)


def dense(gradients: EmbeddingGradients) -> Tensor:
    """Lay the same out as (N, C, U, d), entry by entry."""
    result = torch.zeros(gradients.samples, 2, *gradients.present, dtype=torch.float64)
    for owner, place, value in zip(gradients.owners, gradients.places, gradients.values, strict=True):
        result[owner, :, place] = value
    return result


@pytest.mark.parametrize("sampled", [1, 2, 5, 6])
def test_mean_and_variance_over_all_samples_there_are(sampled: int) -> None:
    gradients = small_gradients()
    masks = torch.zeros(math.comb(6, sampled), 6, dtype=torch.bool)
    for mask, chosen in zip(masks, itertools.combinations(range(6), sampled), strict=True):
        mask[list(chosen)] = True
    # The last two parameters are those of the token that no sample holds.
    blocks = gradients.sampled_blocks(masks[:, :4].reshape(-1, 2, 2)) * 6 / sampled
    jacobian = dense(gradients).flatten(2)
    exact = torch.einsum("ncp,mdp->ncmd", jacobian, jacobian)
    assert torch.allclose(gradients.block(), exact)
    assert torch.allclose(blocks.mean(0), exact)
    variance = sampling_variance(gradients.block(), gradients.block(2), 6, sampled)
    assert torch.allclose(variance, blocks.var(0, correction=0), atol=1e-12)
    assert bool(variance.any()) == (sampled < 6)


def test_chunks_do_not_change_the_sum() -> None:
    gradients = small_gradients()
    parts = list(gradients.chunks(limit=1))
    assert [part.shape[0] for _, part in parts] == [2, 2]
    assert torch.allclose(torch.cat([part for _, part in parts]), dense(gradients).flatten(2).flatten(0, 1).T)


def test_draws_are_uniform_over_the_whole_matrix() -> None:
    masks = draw_masks((4, 5), entries=60, sampled=15, draws=4000, rng=np.random.default_rng(0)).flatten(1).double()
    # 20 of the 60 are present: a hypergeometric number of hits, of mean 5 and variance 15·(1/3)(2/3)(45/59).
    counts = masks.sum(1)
    assert float(counts.mean()) == pytest.approx(5, abs=0.12)
    assert float(counts.var()) == pytest.approx(15 * 2 / 9 * 45 / 59, rel=0.1)
    assert masks.mean(0).sub(0.25).abs().max() < 0.03
    joint = (masks[:, 0] * masks[:, 1]).mean()
    assert float(joint) == pytest.approx(15 * 14 / (60 * 59), abs=0.015)
    assert draw_masks((4, 5), 20, 20, 3, np.random.default_rng(0)).all()
    assert (draw_masks((4, 5), 20, 7, 30, np.random.default_rng(0)).flatten(1).sum(1) == 7).all()


def test_entries_of_the_feature_are_drawn_for_every_sample() -> None:
    weights = draw_outputs(500, 15, 0.3, np.random.default_rng(0))
    assert (weights.gt(0).sum(1) == 4).all()
    assert set(weights.unique().tolist()) == {0.0, 1 / 0.3}
    assert float((weights[:, 3] > 0).double().mean()) == pytest.approx(4 / 15, abs=0.06)
    assert len(weights.unique(dim=0)) > 300


def only_word_embeddings(model: nn.Module) -> str:
    table = model.get_input_embeddings().weight  # type: ignore[operator]
    for parameter in model.parameters():
        parameter.requires_grad_(parameter is table)
    return next(name for name, parameter in model.named_parameters() if parameter is table)


@pytest.mark.parametrize("name", ["bert", "roberta", "gpt2"])
def test_exact_block_is_that_of_plain_autograd(name: str) -> None:
    entry = ZOO[name]
    rows = ragged_rows(entry, n=4)
    model = entry.build()
    found = embedding_gradients(model, rows, precision="float64")
    assert all(parameter.requires_grad for parameter in model.parameters())
    expected = referee(model, rows, attention="sdpa")[only_word_embeddings(model)]
    assert error(found.block(), expected) < 1e-9


def test_published_estimate_is_that_of_plain_autograd() -> None:
    entry = ZOO["bert"]
    rows, model = ragged_rows(entry, n=3), entry.build()
    name = only_word_embeddings(model)
    head = next(m for m in model.modules() if isinstance(m, nn.Linear) and m.out_features == model.config.num_labels)
    rng = np.random.default_rng(1)
    weights = draw_outputs(3, head.in_features, 0.25, rng)
    found = embedding_gradients(model, rows, precision="float64", output_weights=weights)
    mask = draw_masks(found.present, found.entries, found.entries // 4, 1, rng)[0]
    whole = torch.zeros(found.entries // mask.shape[1], mask.shape[1], dtype=torch.bool)
    whole[found.tokens] = mask
    jacobian = []
    before = head.weight.detach().clone()
    for row, factors in zip(rows, weights, strict=True):
        with torch.no_grad():
            head.weight.copy_(before * factors)
        jacobian.append(referee_jacobian(model, [row], attention="sdpa")[name][0])
    with torch.no_grad():
        head.weight.copy_(before)
    drawn = torch.stack(jacobian)[:, :, whole.flatten()]
    assert error(found.sampled_blocks(mask[None])[0], torch.einsum("ncp,mdp->ncmd", drawn, drawn)) < 1e-9


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_place(tmp_path_factory.mktemp("place"))


def words_of(place: Path, *more: object) -> list[str]:
    given = ["--model", place / "bert", "--train-file", place / "train.csv", "--max-length", 20, "--n-train", 6,
             "--head-init", "random", "--seed", 4]  # fmt: skip
    return [str(word) for word in (*given, *more)]


@pytest.fixture(scope="module")
def done(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sampling") / "out"
    more = ("--precision", "float64", "--fraction", 0.2, "--draws", 150, "--published-draws", 60)
    assert main(words_of(place, *more, "--output-dir", folder)) == 0
    return folder


def test_files_and_summary_follow_from_the_draws(done: Path) -> None:
    assert {path.name for path in done.glob("[!.]*")} == FILES | {"checksums.json"}
    table, summary = pd.read_csv(done / "draws.csv"), json.loads((done / "summary.json").read_text())
    assert table.estimate.value_counts().to_dict() == {"scaled": 150, "unscaled": 150, "published": 60}
    for name in ESTIMATES:
        part, rows = summary["measured"][name], table[table.estimate == name]
        assert part["draws"] == len(rows)
        for column in ("relative_error", "f_rank", "f_frobenius_norm", "f_ft_ratio", "pf_frobenius_norm"):
            assert part[column]["mean"] == pytest.approx(rows[column].mean())
            assert part[column]["std"] == pytest.approx(rows[column].std())
        # Mean squared error is variance and squared bias.
        both = part["std"] ** 2 * (1 - 1 / part["draws"]) + part["bias"] ** 2
        assert (rows.relative_error**2).mean() == pytest.approx(both)
    config = json.loads((done / "config.json").read_text())
    assert config["data"]["train"]["labels"] == [TEXTS["train"][i][1] for i in config["data"]["train"]["indices"]]


def test_bias_and_spread_are_those_of_theory(done: Path) -> None:
    summary = json.loads((done / "summary.json").read_text())
    measured, expected = summary["measured"], summary["expected"]
    assert summary["exact"]["difference_to_kernel_engine"] < 1e-9
    assert expected["scaled"]["std"] > 0.05
    for name in ("scaled", "unscaled"):
        assert measured[name]["std"] == pytest.approx(expected[name]["std"], rel=0.15)
    assert measured["scaled"]["bias"] < 2.5 * measured["scaled"]["bias_of_chance"]
    assert measured["unscaled"]["bias"] == pytest.approx(0.8, abs=0.03)
    assert measured["scaled"]["projection"]["mean"] == pytest.approx(1, abs=0.05)
    # One draw of the feature meets itself in a sample's own block, which makes that too large, and no other.
    published = measured["published"]
    assert published["projection_same_sample"]["mean"] > 1.5
    chance = published["projection_other_samples"]["std"] / 60**0.5
    share = (int(0.2 * 20) / (0.2 * 20)) ** 2
    assert published["projection_other_samples"]["mean"] == pytest.approx(share, abs=4 * chance)


def test_exact_table_is_that_of_the_compute_command(done: Path, place: Path, tmp_path: Path) -> None:
    words = words_of(place, "--eval-split", "validation", "--n-eval", 2, "--no-kernel-classifier", "--precision",
                     "float64", "--output-dir", tmp_path)  # fmt: skip
    assert compute(words) == 0
    table = pd.read_csv(tmp_path / "statistics.csv").set_index("kernel")
    exact = json.loads((done / "summary.json").read_text())["exact"]
    assert exact["f_rank"] == table["rank"]["F"]
    assert exact["pf_rank"] == table["rank"]["P+F"]
    assert exact["f_frobenius_norm"] == pytest.approx(table.frobenius_norm["F"])
    assert exact["pf_frobenius_norm"] == pytest.approx(table.frobenius_norm["P+F"])
    assert exact["f_ft_ratio"] == pytest.approx(table.ft_ratio["F"])


def test_all_parameters_and_entries_make_the_exact_block(place: Path, tmp_path: Path) -> None:
    more = ("--precision", "float64", "--fraction", 1, "--draws", 2, "--published-draws", 1, "--head-init", "lp")
    assert main(words_of(place, *more, "--output-dir", tmp_path / "out")) == 0
    table = pd.read_csv(tmp_path / "out" / "draws.csv")
    assert (table.relative_error < 1e-12).all()
    exact = json.loads((tmp_path / "out" / "summary.json").read_text())["exact"]
    assert np.allclose(table.f_ft_ratio, exact["f_ft_ratio"])


def test_the_config_replays_the_run(place: Path, tmp_path: Path) -> None:
    assert main(words_of(place, "--draws", 4, "--output-dir", tmp_path / "one")) == 0
    assert main(["--config", str(tmp_path / "one" / "config.json"), "--output-dir", str(tmp_path / "two")]) == 0
    assert (tmp_path / "two" / "draws.csv").read_bytes() == (tmp_path / "one" / "draws.csv").read_bytes()


def test_bad_input_is_one_line_and_writes_nothing(
    place: Path, done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    for words, part in (
        (["--fraction", 0], "--fraction"),
        (["--fraction", 1.5], "--fraction"),
        (["--draws", 1], "--draws"),
        (["--draws", 5, "--published-draws", 6], "--published-draws"),
        (["--head-init", "keep"], "--head-init"),
        (["--precision", "bfloat16"], "--precision"),
        (["--n-train", 1], "--n-train"),
        (["--model", tmp_path / "no"], "does not exist"),
        (["--train-file", tmp_path / "no.csv"], "no.csv"),
    ):
        capsys.readouterr()
        assert main(words_of(place, *words, "--output-dir", out)) == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1, lines
        assert part in lines[0]
        assert not out.exists()
    before = (done / "draws.csv").read_bytes()
    assert main(words_of(place, "--output-dir", done)) == 2
    assert (done / "draws.csv").read_bytes() == before
