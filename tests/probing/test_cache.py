"""Features and heads in the cache: found again when nothing changed, and never when something did."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from helpers.probe_samples import counted_rows, drawn_split, linear_classifier, split_of
from helpers.zoo import ZOO, ragged_rows
from torch import nn

from ntk_lpft.classifier import Classifier, apply_lora, extract_features, set_head
from ntk_lpft.classifier.head import Head
from ntk_lpft.classifier.head_file import head_from_file
from ntk_lpft.classifier.linear_head import LinearHeadClassifier
from ntk_lpft.errors import InputError
from ntk_lpft.probing import cache as caches
from ntk_lpft.probing.cache import cached_features, cached_logistic_head, cached_logistic_heads
from ntk_lpft.probing.logistic import fit_logistic_head
from ntk_lpft.storage import write_tensors


def refuse(line: str) -> None:
    raise AssertionError(f"unexpected notice: {line}")


def files(cache: Path) -> list[Path]:
    return sorted(path for path in cache.rglob("*") if path.is_file())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_features_are_those_of_the_model(dtype: torch.dtype, tmp_path: Path) -> None:
    model, split = linear_classifier(), drawn_split(9)
    expected = extract_features(model, split, dtype=dtype)
    first, second = (cached_features(model, split, dtype=dtype, cache=tmp_path, say=refuse) for _ in range(2))
    for cached in (first, second):
        assert torch.equal(cached.features, expected.features)
        torch.testing.assert_close(cached.logits, expected.logits, rtol=1e-5, atol=1e-6)
        assert cached.head.module is model.classifier
        assert cached.features.dtype == cached.logits.dtype == dtype
    assert torch.equal(first.logits, second.logits)
    assert len(files(tmp_path)) == 1
    assert {p.dtype for p in model.parameters()} == {torch.float64}


def test_a_hit_runs_no_forward_pass(tmp_path: Path) -> None:
    model, split = linear_classifier(), drawn_split(9)
    classifier = Classifier.of(model, split)
    with counted_rows(model.body) as rows:
        cached_features(classifier, split, cache=tmp_path)
        assert sum(rows) == 9
        rows.clear()
        cached_features(classifier, split, cache=tmp_path, say=refuse)
        assert rows == []


@pytest.mark.parametrize("name", ["linear", "roberta", "gpt2", "t5", "bert-lora"])
def test_a_hit_whose_head_is_to_be_found_runs_one_row_alone(name: str, tmp_path: Path) -> None:
    model = linear_classifier(dtype=torch.float32) if name == "linear" else ZOO[name].build(dtype=torch.float32)
    split = drawn_split(9, entry=ZOO.get(name, ZOO["bert"]))
    expected = extract_features(model, split)
    for hit in (False, True):
        with counted_rows(model) as rows:
            cached = cached_features(model, split, cache=tmp_path, say=refuse)
        assert (set(rows) == {1}) == hit
        assert torch.equal(cached.features, expected.features)
        torch.testing.assert_close(cached.logits, expected.logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["linear", "roberta", "gpt2"])
def test_another_head_shares_the_features(name: str, tmp_path: Path) -> None:
    model = linear_classifier(dtype=torch.float32) if name == "linear" else ZOO[name].build(dtype=torch.float32)
    split = drawn_split(9, entry=ZOO.get(name, ZOO["bert"]))
    before = cached_features(model, split, cache=tmp_path)
    weight = torch.randn(before.head.module.weight.shape, generator=torch.Generator().manual_seed(1))
    set_head(before.head, weight, torch.tensor([1.0, 2.0, 3.0]))
    with counted_rows(model) as rows:
        after = cached_features(model, split, cache=tmp_path, say=refuse)
    assert set(rows) <= {1}
    assert torch.equal(after.features, before.features)
    assert len(files(tmp_path)) == 1
    torch.testing.assert_close(after.logits, extract_features(model, split).logits, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(after.logits, before.logits)


def test_a_classifier_shares_the_cache_with_its_model(tmp_path: Path) -> None:
    """And what of a native head's model is one row alone, to find head and padding, is nothing at all."""
    model, split = ZOO["gpt2"].build(dtype=torch.float32), drawn_split(9, entry=ZOO["gpt2"])
    before = cached_features(model, split, cache=tmp_path)
    classifier = Classifier.of(model, split, dtype=torch.float64)
    with counted_rows(model) as rows:
        after = cached_features(classifier, split, dtype=torch.float32, cache=tmp_path, say=refuse)
    assert rows == []
    assert torch.equal(after.features, before.features)
    assert torch.equal(after.logits, before.logits)
    assert after.head is classifier.head


def body_weight(model: LinearHeadClassifier) -> None:
    with torch.no_grad():
        model.body.encoder.layer[1].output.dense.bias[3] += 1e-3


def pooled_otherwise(model: LinearHeadClassifier) -> None:
    model.pooling = "mean"


def other_epsilon(model: LinearHeadClassifier) -> None:
    model.body.encoder.layer[1].output.LayerNorm.eps = 1e-2


def other_buffer(model: LinearHeadClassifier) -> None:
    model.body.embeddings.token_type_ids[0, 3] = 1


@pytest.mark.parametrize("change", [body_weight, pooled_otherwise, other_epsilon, other_buffer])
def test_another_body_has_features_of_its_own(change: Callable[[LinearHeadClassifier], None], tmp_path: Path) -> None:
    model, split = linear_classifier(), drawn_split(9)
    cached_features(model, split, cache=tmp_path)
    change(model)
    cached = cached_features(model, split, cache=tmp_path, say=refuse)
    assert torch.equal(cached.features, extract_features(model, split).features)
    assert len(files(tmp_path)) == 2


def test_what_stands_in_front_of_a_native_heads_last_layer_counts(tmp_path: Path) -> None:
    model, split = ZOO["roberta"].build(), drawn_split(9, entry=ZOO["roberta"])
    before = cached_features(model, split, cache=tmp_path).features
    with torch.no_grad():
        model.classifier.dense.weight[0, 0] += 0.5
    after = cached_features(model, split, cache=tmp_path).features
    assert torch.equal(after, extract_features(model, split).features)
    assert not torch.allclose(after, before)


def test_adapters_count(tmp_path: Path) -> None:
    model, split = linear_classifier(), drawn_split(9)
    cached_features(model, split, cache=tmp_path)
    adapted = apply_lora(model, Head("classifier", model.classifier))
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.3)
    cached = cached_features(adapted, split, cache=tmp_path, say=refuse)
    assert torch.equal(cached.features, extract_features(adapted, split).features)
    assert len(files(tmp_path)) == 2


def test_other_data_has_features_of_its_own(tmp_path: Path) -> None:
    model, rows = linear_classifier(), ragged_rows(ZOO["bert"], n=7)
    changed = [dict(row) for row in rows]
    changed[2]["input_ids"] = [*changed[2]["input_ids"][:-2], 50, changed[2]["input_ids"][-1]]
    typed = [dict(row) for row in rows]
    typed[0]["token_type_ids"] = [1 - kind for kind in typed[0]["token_type_ids"]]
    for count, variant in enumerate((rows, changed, typed, rows[::-1], rows[:-1]), start=1):
        # One fingerprint and one set of indices for all: the rows themselves decide.
        split = replace(split_of(variant), fingerprint="same")
        cached = cached_features(model, split, cache=tmp_path, say=refuse)
        assert torch.equal(cached.features, extract_features(model, split).features)
        assert len(files(tmp_path)) == count


def test_another_dtype_has_features_of_its_own(tmp_path: Path) -> None:
    model, split = linear_classifier(), drawn_split(5)
    for dtype in (torch.float32, torch.float64):
        assert cached_features(model, split, dtype=dtype, cache=tmp_path).features.dtype == dtype
    assert len(files(tmp_path)) == 2


def test_neither_labels_nor_names_nor_modes_matter(tmp_path: Path) -> None:
    model, rows = linear_classifier(), ragged_rows(ZOO["bert"], n=7)
    cached_features(model, split_of(rows), cache=tmp_path)
    model.train()
    model.body.requires_grad_(False)
    classifier = Classifier.of(model, rows)
    with counted_rows(model.body) as seen:
        cached_features(classifier, split_of(rows, shift=1, name="other"), cache=tmp_path, say=refuse)
    assert seen == []
    assert model.training


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def flip(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:-3] + bytes([content[-3] ^ 1]) + content[-2:])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def of_another_key(path: Path) -> None:
    write_tensors(path, {"features": torch.zeros(9, 20)}, {"format": caches.FEATURES, "identity": {"body": "x"}})


@pytest.mark.parametrize("damage", [cut, flip, empty, of_another_key])
def test_damaged_features_are_computed_again(damage: Callable[[Path], None], tmp_path: Path) -> None:
    model, split = linear_classifier(), drawn_split(9)
    expected = cached_features(model, split, cache=tmp_path).features
    (path,) = files(tmp_path)
    damage(path)
    said: list[str] = []
    assert torch.equal(cached_features(model, split, cache=tmp_path, say=said.append).features, expected)
    assert len(said) == 1
    assert "computed again" in said[0]
    assert str(path) in said[0]
    cached_features(model, split, cache=tmp_path, say=refuse)


def test_features_of_another_shape_are_computed_again(tmp_path: Path) -> None:
    model, split = linear_classifier(), drawn_split(9)
    expected = cached_features(model, split, cache=tmp_path).features
    (path,) = files(tmp_path)
    identity = caches.feature_key(model, split).identity
    write_tensors(path, {"features": expected[:-1]}, {"format": caches.FEATURES, "identity": identity})
    said: list[str] = []
    assert torch.equal(cached_features(model, split, cache=tmp_path, say=said.append).features, expected)
    assert len(said) == 1


def test_a_cache_that_cannot_be_written_costs_no_result(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    model, split = linear_classifier(), drawn_split(9)
    said: list[str] = []
    computed = cached_features(model, split, cache=tmp_path / "file", say=said.append)
    assert torch.equal(computed.features, extract_features(model, split).features)
    assert len(said) == 1
    assert "cannot be written" in said[0]
    assert "set NTK_LPFT_FEATURE_CACHE" in said[0]


def test_the_cache_folder_is_that_of_the_bundled_files_or_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NTK_LPFT_FEATURE_CACHE", raising=False)
    monkeypatch.setenv("NTK_LPFT_CACHE", str(tmp_path / "own"))
    model, split = linear_classifier(), drawn_split(9)
    cached_logistic_head(model, split, 3, max_iter=5)
    assert [path.parent.relative_to(tmp_path) for path in files(tmp_path)] == [Path("own/features"), Path("own/heads")]
    assert all(len(path.stem) == 64 and path.suffix == ".safetensors" for path in files(tmp_path))
    monkeypatch.setenv("NTK_LPFT_FEATURE_CACHE", str(tmp_path / "other"))
    cached_features(model, split)
    assert len(files(tmp_path / "other" / "features")) == 1


def test_features_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    model = linear_classifier()
    split = split_of([*ragged_rows(ZOO["bert"], n=7), {"input_ids": [3, 50, 4], "token_type_ids": [0, 0, 0]}])

    def broken(_: nn.Module, args: tuple[torch.Tensor], output: torch.Tensor) -> torch.Tensor:
        return output.masked_fill((args[0] == 50).unsqueeze(-1), torch.inf)

    model.body.embeddings.word_embeddings.register_forward_hook(broken)
    with pytest.raises(InputError, match="features are NaN or infinite"):
        cached_features(model, split, cache=tmp_path)
    assert files(tmp_path) == []


def test_models_without_a_head_and_rows_that_do_not_fit(tmp_path: Path) -> None:
    model = linear_classifier()
    with pytest.raises(InputError, match="row 0 has 24 tokens but the model has positions for 23"):
        cached_features(model, [{"input_ids": [5] * 24}], cache=tmp_path)
    native = ZOO["bert"].build()
    native.classifier = nn.Sequential(native.classifier, nn.Tanh())
    with pytest.raises(InputError, match="no head found"):
        cached_features(native, drawn_split(5), cache=tmp_path)


# The cache does not care whether a fit converges.
logistic_head = partial(cached_logistic_head, max_iter=5)


def never(*_: object, **__: object) -> None:
    raise AssertionError("not from the cache")


@pytest.mark.parametrize("num_labels", [2, 3])
def test_logistic_heads_are_fitted_once(num_labels: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, split = linear_classifier(num_labels), drawn_split(12, num_labels)
    expected = fit_logistic_head(extract_features(model, split).features, split.labels, num_labels, max_iter=5)
    first = logistic_head(model, split, num_labels, cache=tmp_path, say=refuse)
    monkeypatch.setattr(caches, "fit_logistic_head", never)
    set_head(Head("classifier", model.classifier), first.weight, first.bias)
    classifier = Classifier.of(model, split)
    with counted_rows(model.body) as rows:
        second = logistic_head(classifier, split, num_labels, cache=tmp_path, say=refuse)
    assert rows == []
    for head in (first, second):
        assert torch.equal(head.weight, expected.weight)
        assert torch.equal(head.bias, expected.bias)
        assert head.facts() == expected.facts()


def test_a_cached_head_is_a_heads_file(tmp_path: Path) -> None:
    model, split = linear_classifier(), drawn_split(12)
    fitted = logistic_head(model, split, 3, cache=tmp_path)
    (path,) = files(tmp_path / "heads")
    head_from_file(Head("classifier", model.classifier), path)
    assert torch.equal(model.classifier.weight, fitted.weight)


def test_other_labels_and_settings_have_heads_of_their_own(tmp_path: Path) -> None:
    model, rows = linear_classifier(), ragged_rows(ZOO["bert"], n=12)
    heads = [
        logistic_head(model, split_of(rows), 3, cache=tmp_path, say=refuse),
        logistic_head(model, split_of(rows, shift=1), 3, cache=tmp_path, say=refuse),
        logistic_head(model, split_of(rows), 3, max_iter=2, cache=tmp_path, say=refuse),
        logistic_head(model, split_of(rows), 3, fold_seed=1, cache=tmp_path, say=refuse),
        logistic_head(model, split_of(rows), 3, solver="logistic-published", cache=tmp_path, say=refuse),
    ]
    assert len(files(tmp_path / "heads")) == 5
    assert [head.fold_seed for head in heads] == [0, 0, 0, 1, 0]
    assert heads[0].curve != heads[3].curve
    assert heads[4].solver == "logistic-published"
    assert len(files(tmp_path / "features")) == 1
    assert not torch.allclose(heads[0].weight, heads[1].weight)
    assert heads[2].unconverged_fits > heads[0].unconverged_fits


@pytest.mark.parametrize("name", ["gpt2", "bert"])
def test_a_head_without_bias_is_fitted_without_intercept(name: str, tmp_path: Path) -> None:
    model, split = ZOO[name].build(dtype=torch.float32), drawn_split(24, entry=ZOO[name])
    for _ in range(2):
        fitted = cached_logistic_head(model, split, 3, cache=tmp_path, say=refuse)
        head = Classifier.of(model, split).head
        assert (fitted.bias is None) == (head.module.bias is None) == (name == "gpt2")
        set_head(head, fitted.weight, fitted.bias)
        right = extract_features(model, split).logits.argmax(1).numpy() == split.labels
        assert right.mean() == fitted.train_accuracy
    expected = fit_logistic_head(extract_features(model, split).features, split.labels, 3, intercept=name != "gpt2")
    assert torch.equal(fitted.weight, expected.weight)


def test_several_shuffles_of_the_folds_are_each_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, split = linear_classifier(), drawn_split(12)
    heads = cached_logistic_heads(model, split, 3, range(2, 5), max_iter=5, cache=tmp_path, say=refuse)
    assert [head.fold_seed for head in heads] == [2, 3, 4]
    assert len(files(tmp_path / "heads")) == 3
    monkeypatch.setattr(caches, "fit_logistic_head", never)
    again = logistic_head(model, split, 3, fold_seed=3, cache=tmp_path, say=refuse)
    assert torch.equal(again.weight, heads[1].weight)
    assert again.facts() == heads[1].facts()


@pytest.mark.parametrize("damage", [cut, flip, empty, of_another_key])
def test_damaged_heads_are_fitted_again(damage: Callable[[Path], None], tmp_path: Path) -> None:
    model, split = linear_classifier(), drawn_split(12)
    expected = logistic_head(model, split, 3, cache=tmp_path)
    (path,) = files(tmp_path / "heads")
    damage(path)
    said: list[str] = []
    assert torch.equal(logistic_head(model, split, 3, cache=tmp_path, say=said.append).weight, expected.weight)
    assert len(said) == 1
    assert "fitted again" in said[0]
    logistic_head(model, split, 3, cache=tmp_path, say=refuse)


def test_a_head_under_another_name_is_not_taken(tmp_path: Path) -> None:
    model, rows = linear_classifier(), ragged_rows(ZOO["bert"], n=12)
    one, other = (split_of(rows, shift=shift) for shift in (0, 1))
    expected = logistic_head(model, one, 3, cache=tmp_path)
    (path,) = files(tmp_path / "heads")
    logistic_head(model, other, 3, cache=tmp_path)
    (strange,) = set(files(tmp_path / "heads")) - {path}
    path.write_bytes(strange.read_bytes())
    said: list[str] = []
    assert torch.equal(logistic_head(model, one, 3, cache=tmp_path, say=said.append).weight, expected.weight)
    assert "does not hold the head that its name stands for" in said[0]


def test_too_few_samples_of_a_class(tmp_path: Path) -> None:
    split = drawn_split(5)
    with pytest.raises(InputError, match=r"2 or more samples of each of 3 classes; got \[2, 2, 1\]"):
        logistic_head(linear_classifier(), split, 3, cache=tmp_path)
