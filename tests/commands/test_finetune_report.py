"""The closing table of ``finetune``, and its numbers as JSON has them."""

from __future__ import annotations

import math

from ntk_lpft.commands.finetune.report import closing_table, without_nan


def metrics(**head: float) -> dict:
    measured = {"rows": 12, "accuracy": 0.875, "loss": 0.25, "ece": 0.0316, "cosine_similarity": 0.5,
                "feature_difference": 1234.5, "fisher_discriminant_ratio": math.inf}  # fmt: skip
    found = {"method": "lp-ft", "model": "minilm", "dataset": "cb", "head": head, "splits": {"train": measured}}
    return without_nan(found)


def test_the_closing_table() -> None:
    norms = {"norm_before": 0.9, "norm_after_lp": 24.8, "norm_at_start": 24.8, "norm_after": 25.01}
    title, header, _, row = closing_table(metrics(**norms)).splitlines()
    assert title == "lp-ft of minilm on cb; head norm 0.9 → 24.8 (LP) → 25"
    drawn = {"fold_draws": [{"head_norm": 24.8}, {"head_norm": 0.37}]}
    shown = closing_table({**metrics(**norms), "probe": drawn}).splitlines()[0]
    assert shown.endswith("head norm 0.9 → 24.8 (LP; 0.37 to 24.8 over 2 shuffles of its folds) → 25")
    assert header.split() == ["split", "rows", "accuracy", "%", "loss", "ECE", "%", "CS", "Diff", "FDR"]
    assert row.split() == ["train", "12", "87.5", "0.250", "3.2", "0.500", "1.23e+03", "–"]
    assert len(row) == len(header)
    scaled = closing_table(metrics(**{**norms, "norm_at_start": 2.48}))
    assert "24.8 (LP) → 2.48 (scaled) → 25" in scaled
    assert "0 (scaled)" in closing_table(metrics(norm_before=0.9, norm_at_start=0.0, norm_after=0.1))


def test_json_has_no_nan() -> None:
    value = {"a": [1.0, math.nan, {"b": -math.inf}], "c": "NaN", "d": 3, "e": None}
    assert without_nan(value) == {"a": [1.0, None, {"b": None}], "c": "NaN", "d": 3, "e": None}
