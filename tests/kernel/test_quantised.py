"""Adapters beside layers that bitsandbytes has quantised: the kernel of the weights that they stand for."""

from __future__ import annotations

import sys
import types
import warnings
from types import SimpleNamespace

import peft
import pytest
import torch
from helpers.agreement import error
from helpers.zoo import ZOO, ragged_rows, randomise
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, LlamaConfig

from ntk_lpft.errors import InputError
from ntk_lpft.kernel import compute_ntk

ROWS = ragged_rows(ZOO["llama"], n=4)
CODE = torch.arange(-8, 8) / 8.0


class Linear4bit(nn.Linear):
    """Stands in for the layer of that name: two entries a byte, scaled by rows, and no gradient of its own."""

    __module__ = "bitsandbytes.nn.modules"

    def quantise(self) -> None:
        weight = self.weight.detach().float()
        absmax = weight.abs().amax(dim=1)
        numbers = ((weight / absmax[:, None] * 7).round() + 8).to(torch.uint8)
        packed = nn.Parameter(numbers[:, ::2] * 16 + numbers[:, 1::2], requires_grad=False)
        packed.quant_state = SimpleNamespace(absmax=absmax, code=CODE)
        self.weight = packed

    def forward(self, x: Tensor) -> Tensor:
        raise RuntimeError("its own code is not run")


class Linear8bitLt(nn.Linear):
    """Stands in for the layer of that name: entries of 8 bits, scaled by rows, activations rounded."""

    __module__ = "bitsandbytes.nn.modules"

    def quantise(self) -> None:
        weight = self.weight.detach().float()
        scale = weight.abs().amax(dim=1)
        packed = nn.Parameter((weight / scale[:, None] * 127).round().to(torch.int8), requires_grad=False)
        packed.SCB = scale
        self.state = SimpleNamespace(SCB=None, CB=None)
        self.weight = packed

    def forward(self, x: Tensor) -> Tensor:
        raise RuntimeError("its own code is not run")


def dequantised(weight: Tensor, state: SimpleNamespace) -> Tensor:
    numbers = torch.stack([weight // 16, weight % 16], dim=-1).flatten(1).long()
    return state.code[numbers] * state.absmax[:, None]


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the one function of bitsandbytes that is used where it is looked for."""
    functional = types.ModuleType("bitsandbytes.functional")
    functional.dequantize_4bit = dequantised  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "bitsandbytes.functional", functional)


def replace_layers(model: nn.Module, make) -> nn.Module:
    """Put another layer in the place of each dense one of the body, behind the adapters if there are any."""
    for name, module in list(model.named_modules()):
        if type(module) is nn.Linear and not any(part in name for part in ("lora_", "score")):
            setattr(model.get_submodule(name.rpartition(".")[0]), name.rpartition(".")[2], make(module))
    return model


def from_kind(kind: type) -> object:
    def make(module: nn.Linear) -> nn.Linear:
        new = kind(module.in_features, module.out_features, bias=module.bias is not None)
        new.load_state_dict(module.state_dict())
        new.quantise()
        return new

    return make


@pytest.mark.parametrize("engine", ["structured", "functional", "per_example"])
@pytest.mark.parametrize(("kind", "held"), [(Linear4bit, "4 bits"), (Linear8bitLt, "int8")])
def test_the_kernel_is_that_of_the_dequantised_model(stand_in: None, kind: type, held: str, engine: str) -> None:
    model = replace_layers(ZOO["llama-lora"].build(dtype=torch.float32), from_kind(kind))
    plain = ZOO["llama-lora"].build(dtype=torch.float32)
    for name, module in model.named_modules():
        if isinstance(module, Linear4bit):
            plain.get_submodule(name).weight.data = dequantised(module.weight, module.weight.quant_state).float()
        elif isinstance(module, Linear8bitLt):
            weight = module.weight.to(torch.float64) * module.weight.SCB.double()[:, None] / 127
            plain.get_submodule(name).weight.data = weight.float()
    classes = [type(module) for module in model.modules()]
    ntk = compute_ntk(model, ROWS, engine=engine)
    assert ntk.metadata["frozen_weights"] == [held]
    assert [type(module) for module in model.modules()] == classes
    # The scales of 8 bits are multiplied in float32 here and in float64 there.
    assert error(ntk.total, compute_ntk(plain, ROWS).total) <= 1e-4


def test_scales_are_part_of_the_weights(stand_in: None) -> None:
    digests = set()
    for factor in (1.0, 2.0):
        model = replace_layers(ZOO["llama-lora"].build(dtype=torch.float32), from_kind(Linear8bitLt))
        layer = next(module for module in model.modules() if isinstance(module, Linear8bitLt))
        layer.weight.SCB *= factor
        digests.add(compute_ntk(model, ROWS).metadata["weights_sha256"])
    assert len(digests) == 2
    layer.weight.SCB[1] = torch.nan
    with pytest.raises(InputError, match=r"weight.SCB of the model holds NaN"):
        compute_ntk(model, ROWS)


def test_weights_rearranged_for_inference_are_refused(stand_in: None) -> None:
    model = replace_layers(ZOO["llama-lora"].build(dtype=torch.float32), from_kind(Linear4bit))
    layer = next(module for module in model.modules() if isinstance(module, Linear4bit))
    layer.weight.quant_state.packing_format_for_cpu = True
    with pytest.raises(InputError, match=r"rearranged for fast inference on this CPU; load the model again"):
        compute_ntk(model, ROWS)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("nested", [False, True])
def test_layers_of_the_library_itself(bits: int, nested: bool) -> None:
    library = pytest.importorskip("bitsandbytes")
    modules = library.nn

    def quantised(module: nn.Linear) -> nn.Module:
        value, size = module.weight.data, (module.in_features, module.out_features)
        if bits == 4:
            new = modules.Linear4bit(*size, bias=False, compute_dtype=torch.bfloat16)
            new.weight = modules.Params4bit(value, requires_grad=False, quant_type="nf4", compress_statistics=nested)
        else:
            new = modules.Linear8bitLt(*size, bias=False, has_fp16_weights=False, threshold=6.0)
            new.weight = modules.Int8Params(value, requires_grad=False, has_fp16_weights=False)
        return new.to("cpu")

    def dense(module: nn.Module) -> Tensor:
        if bits == 4:
            return library.functional.dequantize_4bit(module.weight.data, module.weight.quant_state)
        return module.weight.data * module.weight.SCB[:, None] / 127

    def base() -> nn.Module:
        config = LlamaConfig(vocab_size=61, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_labels=3,
                             num_attention_heads=4, num_key_value_heads=2, pad_token_id=0)  # fmt: skip
        model = AutoModelForSequenceClassification.from_config(config).to(torch.bfloat16).eval()
        randomise(model, 0)
        return model

    def adapted(model: nn.Module) -> nn.Module:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            settings = peft.LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["q_proj", "v_proj"])
            model = peft.get_peft_model(model, settings).eval()
        for name, module in model.named_modules():
            if "lora_" in name and isinstance(module, nn.Linear):
                randomise(module, 1)
        return model

    plain, narrow = base(), replace_layers(base(), quantised)
    for name, module in narrow.named_modules():
        if "bitsandbytes" in type(module).__module__:
            plain.get_submodule(name).weight = nn.Parameter(dense(module), requires_grad=False)
    setattr(narrow, f"is_loaded_in_{bits}bit", True)
    model, plain = adapted(narrow), adapted(plain)
    assert type(model.base_model.model.model.layers[0].self_attn.q_proj).__module__ == "peft.tuners.lora.bnb"
    ntk = compute_ntk(model, ROWS)
    assert ntk.metadata["frozen_weights"] == sorted(["bfloat16", "4 bits" if bits == 4 else "int8"])
    assert ntk.metadata["self_check"]["routes"] == {"single": [], "autograd": []}
    # Scales times numbers are rounded to bfloat16 in neither, and in 8 bits to float32 in another order.
    assert error(ntk.total, compute_ntk(plain, ROWS).total) <= 1e-4
