"""The five methods: what each starts from, and what each trains."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.logistic_reference import probe as reference_probe
from helpers.probe_samples import drawn_split, linear_classifier
from helpers.zoo import ZOO
from torch import Tensor, nn
from transformers import TrainingArguments

from ntk_lpft.classifier import Classifier, LinearHeadClassifier, extract_features, head_norm
from ntk_lpft.classifier.head_file import save_head
from ntk_lpft.errors import InputError
from ntk_lpft.finetuning.defaults import training_defaults
from ntk_lpft.finetuning.methods import HeadStart, Start, check_start, fine_tune, prepare_start
from ntk_lpft.finetuning.settings import Method, MethodSettings
from ntk_lpft.finetuning.trainer import ClassifierTrainer
from ntk_lpft.runs import FinetuneRun

RANDOM = HeadStart()
SPLITS = {"train": drawn_split(18), "validation": drawn_split(9, seed=3, name="validation")}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NTK_LPFT_FEATURE_CACHE", str(tmp_path / "cache"))


def classifier() -> LinearHeadClassifier:
    return linear_classifier(dtype=torch.float32)


def opened(model: nn.Module) -> Classifier:
    return Classifier.of(model, SPLITS["train"])


def start_of(
    folder: Path,
    *,
    model: nn.Module | None = None,
    seed: int = 4,
    head: HeadStart = RANDOM,
    **given: Any,
) -> Start:
    found = opened(classifier() if model is None else model)
    return prepare_start(found, SPLITS, MethodSettings(**given), head, seed, FinetuneRun(folder))


def arguments(folder: Path, **given: object) -> TrainingArguments:
    chosen = {**training_defaults("ft", "mine"), "output_dir": str(folder), "use_cpu": True, "disable_tqdm": True,
              "remove_unused_columns": False, "label_names": ["labels"], "learning_rate": 0.01,
              "num_train_epochs": 1, **given}  # fmt: skip
    return TrainingArguments(**chosen)


def train(start: Start, folder: Path, **given: object) -> dict:
    return fine_tune(
        start, SPLITS, MethodSettings(), arguments(folder, **given), "accuracy", resume=False, progress=False
    )


def naive_logits(model: nn.Module, split: str = "validation") -> Tensor:
    model.eval()
    with torch.no_grad():
        return torch.cat([model(**{k: torch.tensor([v]) for k, v in row.items()}).logits for row in SPLITS[split]])


def copies(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.named_parameters()}


@pytest.mark.parametrize(
    ("name", "probes", "trains", "adapts"),
    [
        ("lp", True, False, False),
        ("ft", False, True, False),
        ("lp-ft", True, True, False),
        ("lora", False, True, True),
        ("lp-lora", True, True, True),
    ],
)
def test_what_a_name_stands_for(name: str, probes: bool, trains: bool, adapts: bool) -> None:
    method = Method.of(name)
    assert (method.probes, method.trains, method.adapts) == (probes, trains, adapts)
    if trains:
        assert method.stage.startswith(f"stage {2 if probes else 1} of {2 if probes else 1}")


def test_unknown_names_are_refused() -> None:
    with pytest.raises(InputError, match="unknown method 'LP'; choose one of lp, ft, lp-ft, lora, lp-lora"):
        Method.of("LP")


def test_a_random_head_depends_on_the_seed_alone(tmp_path: Path) -> None:
    one, two, other = (start_of(tmp_path, method="ft", seed=seed) for seed in (4, 4, 5))
    first, second, third = (start.classifier.head for start in (one, two, other))
    assert torch.equal(first.module.weight, second.module.weight)
    assert not torch.equal(first.module.weight, third.module.weight)
    assert not first.module.bias.any()
    assert float(first.module.weight.detach().std()) == pytest.approx(0.02, rel=0.4)
    assert one.norms == {"norm_before": head_norm(first), "norm_at_start": head_norm(first)}
    assert list(tmp_path.glob("*.safetensors")) == []


def test_keep_leaves_the_head(tmp_path: Path) -> None:
    model = classifier()
    before = copies(model)
    start_of(tmp_path, model=model, method="ft", head=HeadStart("keep"))
    assert all(torch.equal(before[name], value) for name, value in model.named_parameters())


@pytest.mark.parametrize("bias", [False, True])
def test_head_scale_comes_last(tmp_path: Path, bias: bool) -> None:
    model = classifier()
    with torch.no_grad():
        model.classifier.bias.copy_(torch.tensor([1.0, 2.0, 3.0]))
    weight = model.classifier.weight.detach().clone()
    start = start_of(tmp_path, model=model, method="ft", head=HeadStart("keep", -2.5, bias))
    assert torch.equal(model.classifier.weight, weight * -2.5)
    assert model.classifier.bias.tolist() == ([-2.5, -5.0, -7.5] if bias else [1.0, 2.0, 3.0])
    assert start.norms["norm_before"] == pytest.approx(float(weight.norm()))
    assert start.norms["norm_at_start"] == pytest.approx(2.5 * start.norms["norm_before"])


def test_the_probe_is_logistic_regression_on_the_body(tmp_path: Path) -> None:
    model = classifier()
    start = start_of(tmp_path, model=model, method="lp", head=HeadStart(scale=2.0))
    hidden = []
    with torch.no_grad():
        for row in SPLITS["train"]:
            given = {name: torch.tensor([ids]) for name, ids in row.items()}
            hidden.append(model.body(**given).last_hidden_state[0, 0].double().numpy())
    features = np.stack(hidden)
    weight, bias = reference_probe(features, SPLITS["train"].labels, fold_seed=4)
    # Features and head are of float32, and the optimum is continuous in them: about 1e-7 times its condition.
    found = model.classifier.weight.detach().double().numpy() / 2
    assert np.linalg.norm(found - weight) <= 1e-3 * np.linalg.norm(weight)
    np.testing.assert_allclose(model.classifier.bias.detach(), bias, rtol=0, atol=1e-3 * np.linalg.norm(weight))
    assert start.norms["norm_at_start"] == pytest.approx(2 * start.norms["norm_after_lp"])
    assert start.norms["norm_before"] < 1
    assert (tmp_path / "probe_head.safetensors").is_file()
    assert not (tmp_path / "probe.csv").exists()


def test_the_folds_of_a_probe_are_shuffled_by_the_runs_seed(tmp_path: Path) -> None:
    start = start_of(tmp_path, method="lp", seed=7, fold_draws=2)
    assert start.probe is not None
    assert start.probe.settings["fold_seed"] == 7
    assert [draw["fold_seed"] for draw in start.probe.settings["fold_draws"]] == [7, 8]


def test_the_published_probe_is_there_by_name(tmp_path: Path) -> None:
    start = start_of(tmp_path, method="lp", lp_solver="logistic-published", fold_draws=1)
    assert start.probe is not None
    assert start.probe.solver == start.probe.settings["solver"] == "logistic-published"


def test_a_probe_along_a_path_leaves_its_iterations(tmp_path: Path) -> None:
    start = start_of(tmp_path, method="lp-ft", lp_solver="adam", lp_iterations=5)
    assert start.probe is not None
    assert start.probe.settings["iterations"] == 5
    assert (tmp_path / "probe.csv").is_file()


def test_a_head_of_a_file(tmp_path: Path) -> None:
    model = classifier()
    weight, bias = torch.randn(3, 20), torch.randn(3)
    head = HeadStart(str(save_head(tmp_path / "h", weight, bias)))
    start = start_of(tmp_path, model=model, method="ft", head=head)
    assert torch.equal(model.classifier.weight, weight)
    assert torch.equal(model.classifier.bias, bias)
    assert start.norms["norm_before"] == pytest.approx(float(weight.norm()))


@pytest.mark.parametrize("name", ["bert", "gpt2", "llama", "roberta"])
def test_lora_begins_as_the_model_it_adapts_and_trains_adapters_and_head_alone(tmp_path: Path, name: str) -> None:
    entry = ZOO[name]
    model = entry.build(dtype=torch.float32)
    splits = {"train": drawn_split(12, entry=entry), "validation": drawn_split(6, seed=1, entry=entry)}
    head = Classifier.of(model, splits["train"]).head
    reference = entry.build(dtype=torch.float32)
    start = prepare_start(
        Classifier.of(model, splits["train"]),
        splits,
        MethodSettings(method="lora", lora_rank=2),
        HeadStart("keep"),
        0,
        FinetuneRun(tmp_path),
    )
    adapted = start.classifier.module
    for row in splits["validation"]:
        given = {key: torch.tensor([ids]) for key, ids in row.items()}
        with torch.no_grad():
            assert torch.equal(adapted.eval()(**given).logits, reference.eval()(**given).logits)
    trained = {key for key, value in adapted.named_parameters() if value.requires_grad}
    of_head = {key for key in trained if f"{head.name}.modules_to_save.default." in key}
    assert {key.rsplit(".", 1)[1] for key in of_head} == {key for key, _ in head.module.named_parameters()}
    assert all("lora_A" in key or "lora_B" in key for key in trained - of_head)
    before = copies(adapted)
    fine_tune(start, splits, MethodSettings(method="lora"), arguments(tmp_path / "c"), "accuracy", resume=False,
              progress=False)  # fmt: skip
    changed = {key for key, value in adapted.named_parameters() if not torch.equal(value, before[key])}
    assert changed <= trained
    assert any("lora_B" in key for key in changed)
    assert of_head & changed
    assert not adapted.training


def test_fine_tuning_moves_body_and_head(tmp_path: Path) -> None:
    start = start_of(tmp_path, method="ft")
    model = start.classifier.module
    before = copies(model)
    facts = train(start, tmp_path / "c", num_train_epochs=2)
    moved = {name for name, value in model.named_parameters() if not torch.equal(value, before[name])}
    assert {"classifier.weight", "body.encoder.layer.0.attention.self.query.weight"} <= moved
    assert facts["steps"] == 4
    assert facts["best_step"] in (2, 4)
    accuracy = float((naive_logits(model).argmax(1) == torch.tensor(SPLITS["validation"].labels)).double().mean())
    assert facts["best_validation"] == pytest.approx(accuracy)


def test_mixed_precision_ends_with_a_float32_model(tmp_path: Path) -> None:
    start, plain = start_of(tmp_path, method="ft"), start_of(tmp_path, method="ft")
    train(start, tmp_path / "c", bf16=True)
    train(plain, tmp_path / "d")
    model = start.classifier.module
    assert all(value.dtype == torch.float32 for value in model.parameters())
    heads = [one.classifier.head.module.weight for one in (start, plain)]
    assert not torch.equal(*heads)  # trained in bfloat16
    assert "forward" not in vars(model)
    found = extract_features(model, SPLITS["validation"]).logits
    fresh = classifier()
    fresh.load_state_dict(model.state_dict())
    torch.testing.assert_close(found, naive_logits(fresh), rtol=1e-5, atol=1e-5)


def test_weights_that_break_in_the_last_step_are_not_handed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = ClassifierTrainer.train

    def train_and_break(self: ClassifierTrainer, *args: object, **kwargs: object) -> object:
        result = real(self, *args, **kwargs)
        with torch.no_grad():
            self.model.classifier.weight[0, 0] = math.nan
        return result

    monkeypatch.setattr(ClassifierTrainer, "train", train_and_break)
    with pytest.raises(InputError, match="training ended with weights that are NaN or infinite; lower --learning-rate"):
        train(start_of(tmp_path, method="ft"), tmp_path / "c")


@pytest.mark.parametrize("method", ["ft", "lora", "lp-lora"])
def test_checking_a_start_changes_nothing(tmp_path: Path, method: str) -> None:
    model = classifier()
    before, modes = copies(model), [module.training for module in model.modules()]
    file = save_head(tmp_path / "h", torch.randn(3, 20), torch.randn(3))
    torch.manual_seed(3)
    expected = float(torch.rand(()))
    torch.manual_seed(3)
    check_start(opened(model), SPLITS, MethodSettings(method=method), HeadStart(str(file)))
    assert float(torch.rand(())) == expected
    assert {name for name, _ in model.named_parameters()} == set(before)
    assert all(torch.equal(before[name], value) for name, value in model.named_parameters())
    assert all(value.requires_grad for value in model.parameters())
    assert modes == [module.training for module in model.modules()]


def test_checking_a_start_finds_what_would_fail_later(tmp_path: Path) -> None:
    model = classifier()
    other = save_head(tmp_path / "h", torch.randn(2, 20), None)
    found = opened(model)
    for settings, head, message in (
        (MethodSettings(method="ft"), HeadStart(str(other)), r"head\.safetensors: .*\(2, 20\)"),
        (
            MethodSettings(method="lora", lora_targets=["query", "quarry"]),
            HeadStart(),
            "quarry matches no layer; this ",
        ),
        (MethodSettings(method="lora", lora_rank=0), HeadStart(), "rank 0"),
    ):
        with pytest.raises(InputError, match=message):
            check_start(found, SPLITS, settings, head)
    broken = drawn_split(3, name="test")
    broken.rows[1]["input_ids"][0] = 4000
    with pytest.raises(InputError, match="test, row 1 has a token id outside"):
        check_start(found, {**SPLITS, "test": broken}, MethodSettings(method="ft"), HeadStart())
