import math

import numpy as np
import pytest
import torch
from tqdm import tqdm

from ntk_lpft.errors import InputError
from ntk_lpft.statistics import KernelClassifierResult, statistics_table, summarise, summary

COLUMNS = [
    "kernel",
    "rank",
    "effective_rank",
    "frobenius_norm",
    "trace_norm",
    "smallest_eigenvalue",
    "condition_number",
    "alignment",
    "centred_alignment",
    "train_pair_accuracy",
    "eval_pair_accuracy",
    "pair_base_rate",
    "train_accuracy",
    "eval_accuracy",
    "unconverged_fits",
    "ft_ratio",
    "median_ft_ratio",
    "rank_tolerance",
]


@pytest.fixture(scope="module")
def tensors(make_case):
    case = make_case(n=10, parameters=40)
    k, f, labels = torch.from_numpy(case.k), torch.from_numpy(case.f), torch.from_numpy(case.labels)
    return {
        "feature_kernel": k[:7, :7],
        "ft_effective": f[:7, :, :7],
        "labels": labels[:7],
        "residual": torch.nn.functional.one_hot(labels[:7], 3).double() - 1 / 3,
        "eval_feature_kernel": k[7:, :7],
        "eval_ft_effective": f[7:, :, :7],
        "eval_labels": labels[7:],
    }


def test_the_rows_describe_p_f_and_their_sum(tensors):
    p = np.kron(tensors["feature_kernel"].numpy(), np.eye(3))
    f = tensors["ft_effective"].numpy().reshape(21, 21)
    table = statistics_table(summarise(**tensors, kernel_classifier=False)).set_index("kernel")
    assert list(table.index) == ["P", "F", "P+F"]
    for name, matrix in (("P", p), ("F", f), ("P+F", p + f)):
        row, values = table.loc[name], np.linalg.svd(matrix)[1]
        assert row["rank"] == np.linalg.matrix_rank(matrix)
        assert row["frobenius_norm"] == pytest.approx(np.linalg.norm(matrix))
        assert row["trace_norm"] == pytest.approx(np.trace(matrix))  # positive semi-definite
        assert row["smallest_eigenvalue"] == pytest.approx(np.linalg.eigvalsh(matrix)[0], abs=1e-11)
        assert row["condition_number"] == (math.inf if name == "P" else pytest.approx(values[0] / values[-1]))
        assert row["effective_rank"] == pytest.approx(
            math.exp(-sum(v * math.log(v) for v in values / values.sum() if v > 1e-15)), rel=1e-6
        )
        y = np.eye(3)[tensors["labels"].numpy()].reshape(-1)
        assert row["alignment"] == pytest.approx(y @ matrix @ y / np.linalg.norm(matrix) / 7)
        h = np.eye(21) - 1 / 21
        assert row["centred_alignment"] == pytest.approx(
            (h @ y) @ matrix @ (h @ y) / np.linalg.norm(h @ matrix @ h) / (7 * 2 / 3)
        )
    change_f = np.einsum("ncmd,md->nc", tensors["ft_effective"].numpy(), tensors["residual"].numpy())
    change_p = tensors["feature_kernel"].numpy() @ tensors["residual"].numpy()
    ratios = np.linalg.norm(change_f, axis=1) / np.linalg.norm(change_p + change_f, axis=1)
    assert table.loc["F", "ft_ratio"] == pytest.approx(np.mean(ratios))
    assert table.loc["F", "median_ft_ratio"] == pytest.approx(sorted(ratios)[3])  # the middle one of seven
    assert table["ft_ratio"].isna().tolist() == [True, False, True]


def test_the_table_has_the_same_numeric_columns_with_and_without_classifier(tensors):
    without = statistics_table(summarise(**tensors, kernel_classifier=False))
    assert list(without.columns) == COLUMNS
    assert without["train_accuracy"].isna().all()
    alone = {name: tensors[name] for name in ("feature_kernel", "ft_effective", "labels")}
    with_classifier = statistics_table(summarise(**alone, max_iter=20))
    assert list(with_classifier.columns) == COLUMNS
    assert with_classifier["train_accuracy"].notna().all()
    assert with_classifier["eval_accuracy"].isna().all()
    assert with_classifier["ft_ratio"].isna().all()
    for table in (without, with_classifier):
        assert all(np.issubdtype(kind, np.number) for kind in table.dtypes.drop("kernel"))


def test_each_row_is_classified_by_its_own_kernel(tensors, monkeypatch):
    seen = []

    def record(train, labels, evaluation, eval_labels, *, max_iter):
        seen.append((train, evaluation, max_iter))
        return KernelClassifierResult(0.5, 0.25, 0.125, 0.75, 2 / 3, 1.0, 5, False, 3, 9)

    monkeypatch.setattr("ntk_lpft.statistics.summary.fit_kernel_classifier", record)
    table = statistics_table(summarise(**tensors, max_iter=77))
    eye = np.eye(3)
    p = np.einsum("nm,cd->ncmd", tensors["feature_kernel"], eye)
    eval_p = np.einsum("nm,cd->ncmd", tensors["eval_feature_kernel"], eye)
    f, eval_f = tensors["ft_effective"].numpy(), tensors["eval_ft_effective"].numpy()
    expected = [(p, eval_p), (f, eval_f), (p + f, eval_p + eval_f)]
    assert len(seen) == 3
    for (train, evaluation, max_iter), (want_train, want_evaluation) in zip(seen, expected, strict=True):
        np.testing.assert_allclose(train.numpy(), want_train, rtol=1e-15)
        np.testing.assert_allclose(evaluation.numpy(), want_evaluation, rtol=1e-15)
        assert max_iter == 77
    numbers = ["train_pair_accuracy", "eval_pair_accuracy", "train_accuracy", "eval_accuracy", "unconverged_fits"]
    assert table.loc[1, numbers].tolist() == [0.5, 0.25, 0.125, 0.75, 3]


def test_nothing_that_moves_leaves_the_ratio_missing_and_the_table_whole(tensors):
    tensors = tensors | {"residual": torch.zeros(7, 3)}
    table = statistics_table(summarise(**tensors, kernel_classifier=False))
    assert table[["ft_ratio", "median_ft_ratio"]].isna().all(axis=None)
    assert table["rank"].notna().all()


def test_a_zero_head_has_a_zero_f(tensors):
    tensors = tensors | {"ft_effective": torch.zeros(7, 3, 7, 3, dtype=torch.float64)}
    rows = statistics_table(summarise(**tensors, kernel_classifier=False)).set_index("kernel")
    assert (rows.loc["F", "rank"], rows.loc["F", "ft_ratio"], rows.loc["F", "alignment"]) == (0, 0, 0)
    assert rows.loc["P+F", "frobenius_norm"] == pytest.approx(rows.loc["P", "frobenius_norm"])


def test_the_dtype_computed_in_reaches_every_row(tensors):
    exact = summarise(**tensors, kernel_classifier=False)
    coarse = summarise(**tensors, computed_in=torch.float32, kernel_classifier=False)
    for one, other in zip(exact, coarse, strict=True):
        assert other.spectrum.rank_tolerance == pytest.approx(one.spectrum.rank_tolerance * 2**29)


def test_the_rank_of_the_sum_is_never_below_that_of_its_parts(tensors):
    """F so large that P's directions lie below its rounding."""
    large = tensors | {"ft_effective": tensors["ft_effective"] * 1e14}
    rows = {row.kernel: row.spectrum for row in summarise(**large, kernel_classifier=False)}
    assert rows["P"].rank == 3 * np.linalg.matrix_rank(tensors["feature_kernel"].numpy()) > 0
    assert rows["P+F"].rank >= max(rows["P"].rank, rows["F"].rank)
    small = tensors | {"ft_effective": tensors["ft_effective"] * 1e-30}
    rows = {row.kernel: row.spectrum for row in summarise(**small, kernel_classifier=False)}
    assert rows["P+F"].rank >= max(rows["P"].rank, rows["F"].rank)


def test_p_may_have_been_rounded_otherwise_than_f(tensors):
    exact = summarise(**tensors, kernel_classifier=False)
    mixed = summarise(
        **tensors, computed_in=torch.bfloat16, features_computed_in=torch.float32, kernel_classifier=False
    )
    # 21 rows; 2**-7 against 2**-52 in F, 2**-23 in P.
    for before, after, factor in zip(exact, mixed, (2.0**29, 2.0**45 / 21**0.5, 2.0**45 / 21**0.5), strict=True):
        assert after.spectrum.rank_tolerance == pytest.approx(before.spectrum.rank_tolerance * factor)


def test_progress_is_shown_on_request(tensors, capsys, monkeypatch):
    # Bars wait for a second before they show; here they do not.
    monkeypatch.setattr(summary, "tqdm", lambda *given, **options: tqdm(*given, **{**options, "delay": 0}))
    summarise(**tensors, kernel_classifier=False)
    assert capsys.readouterr().err == ""
    summarise(**tensors, kernel_classifier=False, progress=True)
    assert "3/3" in capsys.readouterr().err


@pytest.mark.unchecked
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"feature_kernel": torch.ones(7, 6)}, "shapes do not fit"),
        ({"ft_effective": torch.ones(6, 3, 6, 3)}, "shapes do not fit"),
        ({"ft_effective": torch.ones(7, 7)}, "shapes do not fit"),
        ({"ft_effective": torch.ones(7, 1, 7, 1)}, "two classes"),
        ({"labels": torch.full((7,), 3)}, "labels run"),
        ({"residual": torch.ones(7, 2)}, "residual"),
        ({"eval_labels": None}, "together"),
        ({"eval_ft_effective": torch.ones(7, 3, 3, 3)}, "evaluation rows"),
        ({"eval_labels": torch.zeros(4, dtype=torch.int64)}, "eval_labels"),
        ({"ft_effective": torch.arange(441.0).reshape(7, 3, 7, 3)}, "not symmetric"),
    ],
)
def test_refused_before_the_classifier_is_fitted(tensors, monkeypatch, changes, words):
    monkeypatch.setattr("ntk_lpft.statistics.summary.fit_kernel_classifier", lambda *_, **__: pytest.fail("fitted"))
    with pytest.raises(InputError, match=words):
        summarise(**(tensors | changes))
