"""Kernels under peft: adapters, prompts, and the hooks that peft leaves in a model."""

from __future__ import annotations

import warnings

import peft
import pytest
from helpers.agreement import assert_agrees_with_referee, error
from helpers.linear_heads import linear_head
from helpers.zoo import ZOO, ragged_rows, randomise
from torch import nn

from ntk_lpft.classifier import Classifier, apply_lora
from ntk_lpft.errors import InputError
from ntk_lpft.kernel import compute_ntk

ENGINES = ("structured", "functional", "per_example")
PROMPTS = {
    "prompt tuning": peft.PromptTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=4),
    "p-tuning": peft.PromptEncoderConfig(task_type="SEQ_CLS", num_virtual_tokens=4, encoder_hidden_size=12),
    "p-tuning, LSTM": peft.PromptEncoderConfig(
        task_type="SEQ_CLS", num_virtual_tokens=4, encoder_hidden_size=12, encoder_reparameterization_type="LSTM"
    ),
    "prefix tuning": peft.PrefixTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=4),
}


def prompted(name: str, config: peft.PeftConfig) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = peft.get_peft_model(ZOO[name].build(), config)
    randomise(model, 0)
    return model.double().eval()


def adapted(name: str, head: str) -> nn.Module:
    model = linear_head(name, head) if head != "native" else ZOO[name].build()
    model = apply_lora(model, Classifier.of(model, ragged_rows(ZOO[name], n=2)).head, rank=2)
    randomise(model, 0)
    return model.double().eval()


@pytest.mark.parametrize("kind", PROMPTS)
@pytest.mark.parametrize("name", ["bert", "roberta", "gpt2"])
def test_prompts_have_the_right_kernel(name: str, kind: str) -> None:
    """An encoder's prompt is looked up once and repeated for each sample by peft itself."""
    model, rows = prompted(name, PROMPTS[kind]), ragged_rows(ZOO[name])
    assert_agrees_with_referee(compute_ntk(model, rows, precision="float64"), model, rows, attention="eager")


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("name", "head"), [("bert", "native"), ("bert", "first"), ("gpt2", "last"), ("gpt2", "mean")])
def test_lora_has_the_right_kernel_on_every_engine(name: str, head: str, engine: str) -> None:
    """Peft hangs a hook behind the embeddings of what is no model of transformers, which torch.func refuses."""
    model, rows = adapted(name, head), ragged_rows(ZOO[name], n=4)
    ntk = compute_ntk(model, rows, precision="float64", engine=engine)
    assert float(ntk.ft_effective.norm()) > 0
    assert error(ntk.total, compute_ntk(model, rows, precision="float64", engine="per_example").total) <= 1e-9


@pytest.mark.parametrize("head", ["native", "first"])
def test_checkpointing_for_training_does_not_stand_in_the_way(head: str) -> None:
    """The hook is taken off while kernels are computed, and is there again for the next step of training."""
    model, rows = adapted("bert", head), ragged_rows(ZOO["bert"], n=4)
    expected = compute_ntk(model, rows, precision="float64", engine="per_example")
    model.base_model.model.activation_checkpointing_enable()
    model._prepare_model_for_gradient_checkpointing(model)
    table = model.get_input_embeddings()
    before = list(table._forward_hooks)
    assert before
    ntk = compute_ntk(model, rows, precision="float64", engine="functional")
    assert list(table._forward_hooks) == before
    assert error(ntk.total, expected.total) <= 1e-9


@pytest.mark.parametrize("engine", ENGINES)
def test_an_adapter_that_takes_no_part_is_refused(engine: str) -> None:
    """T5 looks its tokens up in the encoder's copy of the table, which peft does not adapt."""
    config = peft.TrainableTokensConfig(task_type="SEQ_CLS", token_indices=[60])
    model, rows = prompted("t5", config), ragged_rows(ZOO["t5"], n=2)
    with pytest.raises(InputError, match="takes no part in it"):
        compute_ntk(model, rows, precision="float64", engine=engine)


def test_what_torch_func_cannot_differentiate_is_refused_in_one_line() -> None:
    config = peft.LoHaConfig(task_type="SEQ_CLS", target_modules=["query", "value"], r=2)
    model, rows = prompted("bert", config), ragged_rows(ZOO["bert"], n=3)
    with pytest.raises(InputError, match="use engine structured or per_example") as refusal:
        compute_ntk(model, rows, precision="float64", engine="functional")
    assert "\n" not in str(refusal.value)
    assert_agrees_with_referee(compute_ntk(model, rows, precision="float64"), model, rows)
