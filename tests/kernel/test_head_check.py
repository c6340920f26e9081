"""P is held against plain autograd, as F is; a head that it does not hold for is refused, and the reason said."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from helpers.agreement import error
from helpers.referee import referee
from helpers.zoo import ENTRIES, LORA_ENTRIES, ZOO, Entry, ragged_rows
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

from ntk_lpft.calibration import TemperatureScaledClassifier
from ntk_lpft.classifier import Classifier, extract_features
from ntk_lpft.errors import InputError
from ntk_lpft.kernel import compute_ntk

ENGINES = pytest.mark.parametrize("engine", ["structured", "functional", "per_example"])


def bert() -> Any:
    return ZOO["bert"].build()


def rows(n: int = 4) -> list[dict[str, list[int]]]:
    return ragged_rows(ZOO["bert"], n=n)


def older_weight_norm(model: Any) -> None:
    with pytest.warns(FutureWarning):
        nn.utils.weight_norm(model.classifier)


CHANGED: dict[str, tuple[Callable[[Any], Any], str]] = {
    "weight norm": (lambda m: parametrizations.weight_norm(m.classifier), "computes its weight from parametrizations"),
    "orthogonal": (lambda m: parametrizations.orthogonal(m.classifier), "computes its weight from parametrizations"),
    "spectral norm": (lambda m: parametrizations.spectral_norm(m.classifier), "computes its weight from parametriz"),
    "older weight norm": (older_weight_norm, "computes its weight from weight_g, weight_v"),
    "pruned": (lambda m: prune.l1_unstructured(m.classifier, "weight", 0.4), "computes its weight from weight_orig"),
    "bias of another": (
        lambda m: setattr(m.classifier, "bias", m.bert.embeddings.extra.bias),
        "shares its weights with bert.embeddings.extra",
    ),
}


@pytest.mark.parametrize("name", list(CHANGED))
def test_a_head_whose_weights_are_not_its_own_is_refused(name: str) -> None:
    model = bert()
    model.bert.embeddings.extra = nn.Linear(2, 3).double()
    change, reason = CHANGED[name]
    change(model)
    with pytest.raises(InputError, match=f"the head classifier .*{reason}"):
        compute_ntk(model.eval(), rows())
    with pytest.raises(InputError, match=reason):
        extract_features(model.eval(), rows())


def test_a_head_that_is_tied_to_the_embeddings_is_refused() -> None:
    model = ZOO["bert"].build(num_labels=61)
    model.classifier.weight = model.bert.embeddings.word_embeddings.weight
    with pytest.raises(InputError, match=r"the head classifier shares its weights with bert\.embeddings\.word_embedd"):
        compute_ntk(model, rows())


@ENGINES
def test_a_parametrised_body_is_computed(engine: str) -> None:
    model = bert()
    parametrizations.weight_norm(model.bert.encoder.layer[0].intermediate.dense)
    parametrizations.orthogonal(model.bert.pooler.dense)
    ntk = compute_ntk(model.eval(), rows(3), engine=engine)
    assert error(ntk.total, sum(referee(model, rows(3)).values())) < 1e-9


class Twice(nn.Module):
    """The head's weights make an auxiliary feature as well, by a function that no module shows."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model, self.config = model, model.config

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Any:
        states = self.model.bert(input_ids=input_ids, attention_mask=attention_mask).pooler_output
        weight = self.model.classifier.weight
        return (self.model.classifier(torch.tanh(states + 0.1 * (states @ weight.T) @ weight)),)


class Detached(nn.Module):
    """Its gradient is not that of its value."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model, self.config = model, model.config

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Any:
        logits = self.model(input_ids=input_ids, attention_mask=attention_mask).logits
        return (2 * logits - logits.detach(),)


class Frozen(Detached):
    """Its author froze it by taking the graph away, and forgot ``requires_grad``."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Any:
        with torch.no_grad():
            pooled = self.model.bert(input_ids=input_ids, attention_mask=attention_mask).pooler_output
        return (self.model.classifier(pooled),)


class WithoutGraph(Detached):
    @torch.no_grad()
    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Any:
        return (self.model(input_ids=input_ids, attention_mask=attention_mask).logits,)


@ENGINES
@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Twice, r"P = ⟨φ, φ'⟩ ⊗ I does not hold for the head model.classifier: .* differs from it by .*used in more"),
        (Detached, r"does not hold for the head model.classifier"),
        (Frozen, r"no gradient reaches any of the \d+ trainable parameters of the body.*torch.no_grad"),
        (WithoutGraph, r"the model's logits carry no gradient: its forward runs without"),
    ],
)
def test_what_only_autograd_shows_is_refused(kind: type[nn.Module], message: str, engine: str) -> None:
    samples = [{"input_ids": row["input_ids"]} for row in rows()]
    with pytest.raises(InputError, match=message):
        compute_ntk(kind(bert()), samples, engine=engine)


def test_a_body_that_is_frozen_by_both_ways_has_a_kernel() -> None:
    model, samples = Frozen(bert()), [{"input_ids": row["input_ids"]} for row in rows()]
    model.model.bert.requires_grad_(False)
    ntk = compute_ntk(model, samples)
    assert not ntk.ft_groups
    assert error(ntk.total, sum(referee(model.model, samples).values())) < 1e-9


@pytest.mark.filterwarnings(
    "ignore:torch.ao.quantization is deprecated", "ignore:quantized", "ignore:torch.quantize_per"
)
@pytest.mark.parametrize("part", ["bert", "bert.encoder.layer.1"])
def test_quantised_layers_of_a_trained_body_are_refused(part: str) -> None:
    """Torch warns, and goes on without the gradients of all that lies before them."""
    model = ZOO["bert"].build(dtype=torch.float32)
    parent, _, name = part.rpartition(".")
    whole = model.get_submodule(part)
    quantised = torch.ao.quantization.quantize_dynamic(whole, {nn.Linear}, dtype=torch.qint8)
    setattr(model.get_submodule(parent), name, quantised)
    with pytest.raises(InputError, match=r"layers without gradients, such as quantised ones"):
        compute_ntk(model, rows())
    for parameter in model.bert.parameters():
        parameter.requires_grad_(False)
    assert not compute_ntk(model, rows()).ft_groups


def test_a_temperature_behind_the_head_is_refused_and_named() -> None:
    model = TemperatureScaledClassifier(bert(), 2.0)
    with pytest.raises(InputError, match=r"no head found.*classifier\.classifier.*must go into its weights"):
        compute_ntk(model, rows())
    model.into_head(rows())
    ntk = compute_ntk(model, rows())
    assert error(ntk.total, sum(referee(model.classifier, rows()).values())) < 1e-9


@pytest.mark.parametrize("trained", ["weight", "bias", "both", "neither"])
def test_p_by_which_of_v_and_b_is_trained(trained: str) -> None:
    model = bert()
    model.classifier.weight.requires_grad_(trained in ("weight", "both"))
    model.classifier.bias.requires_grad_(trained in ("bias", "both"))
    blocks = referee(model, rows())
    expected = sum(value for name, value in blocks.items() if name.startswith("classifier."))
    ntk = compute_ntk(model, rows())
    if trained == "neither":
        assert not ntk.pretrain_effective.any()
    else:
        assert error(ntk.pretrain_effective, expected) < 1e-12
    assert ntk.metadata["head_error"] < 1e-12


@pytest.mark.parametrize("entry", [*ENTRIES, *LORA_ENTRIES], ids=lambda e: e.name)
def test_every_head_of_the_zoo_passes(entry: Entry) -> None:
    ntk = compute_ntk(entry.build(), ragged_rows(entry, n=2), engine="per_example")
    assert ntk.metadata["head_error"] <= entry.tolerance_sdpa


def test_an_adapter_on_the_head_keeps_p_and_f_apart() -> None:
    """With B = 0 the head's adapter is part of the body, and V, frozen, has no part in P."""
    peft = pytest.importorskip("peft")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = peft.get_peft_model(bert(), peft.LoraConfig(target_modules=["query", "classifier"])).double().eval()
    ntk = compute_ntk(model, rows())
    assert not ntk.feature_kernel.any()
    assert error(ntk.ft_effective, sum(referee(model.get_base_model(), rows()).values())) < 1e-9


def test_a_classifier_made_before_its_head_was_changed_is_still_checked() -> None:
    model = bert()
    classifier = Classifier.of(model, rows())
    hook = model.classifier.register_forward_hook(lambda module, inputs, output: 2 * output - output.detach())
    with pytest.raises(InputError, match="does not hold"):
        compute_ntk(classifier, rows())
    hook.remove()
    compute_ntk(classifier, rows())
