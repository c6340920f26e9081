"""What compute_ntk and stored kernels are given wrong is refused in one line, before any long work."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.zoo import ZOO, ragged_rows
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ntk_lpft.classifier import Classifier, apply_lora, load_classifier, load_tokenizer
from ntk_lpft.errors import InputError
from ntk_lpft.kernel import NTKDecomposition, compute_ntk, compute_train_eval_ntk
from ntk_lpft.prediction import kernel_gradient_flow, largest_eigenvalue
from ntk_lpft.probing import fit_logistic_head
from ntk_lpft.storage import tensor_digest, write_tensors

pytestmark = pytest.mark.unchecked
ENTRY = ZOO["bert"]
ROWS = ragged_rows(ENTRY, n=3)
MODEL = ENTRY.build()
ONES = torch.ones(2, dtype=torch.int64)


def refused(message: str, call: Callable[[], object]) -> None:
    with pytest.raises(InputError, match=message) as refusal:
        call()
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (None, "model is None; give a torch module"),
        ("roberta-base", r"model is 'roberta-base', a name; load it first: load_classifier"),
        (5, "model is of type int"),
        (nn.Identity(), "the model has no parameters"),
        (ENTRY.build().to("meta"), "weight bert.embeddings.* is not in memory"),
    ],
    ids=["None", "name", "number", "no weights", "meta"],
)
def test_what_is_no_model(model: Any, message: str) -> None:
    refused(message, lambda: compute_ntk(model, ROWS))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"report": 5}, "report is of type int; pass a function"),
        ({"checkpoint": 5}, "checkpoint is of type int; pass a path"),
        ({"checkpoint": "/proc/x"}, r"checkpoint /proc/x cannot be written \(.+\); give another path"),
        ({"checkpoint": "a" * 300 + "/x"}, r"checkpoint a+ cannot be written \(File name too long\)"),
        ({"checkpoint": "/tmp"}, "checkpoint /tmp is a folder"),
        ({"device": 5}, "device is of type int; write cpu"),
        ({"device": "x"}, "unknown device 'x'"),
        ({"engine": None}, "unknown engine None"),
        ({"precision": 64}, "unknown precision 64"),
        ({"outputs": ["full"]}, "unknown outputs"),
        ({"memory_budget": "9" * 400}, "beyond every machine"),
        ({"memory_budget": [1]}, "cannot read memory budget"),
    ],
)
def test_settings(options: dict[str, Any], message: str) -> None:
    refused(message, lambda: compute_ntk(ENTRY.build(), ROWS, **options))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_labels": "3"}, "num_labels is '3'; pass a whole number"),
        ({"num_labels": 3.0}, "num_labels is 3.0; pass a whole number"),
        ({"num_labels": True}, "num_labels is True; pass a whole number"),
        ({"seed": "x"}, "seed is 'x'; pass a whole number"),
        ({"device": "x"}, "unknown device 'x'"),
        ({"device": "meta"}, "device meta is not supported"),
        ({"device": 3}, "device is 3; pass text or"),
        ({"head": 3}, "head is 3; pass text"),
        ({"keep_head": "no"}, "keep_head is 'no'; pass True or False"),
        ({"name": 5}, "name is 5; pass text or a path"),
        ({"name": None}, "name is None; pass text or a path"),
    ],
)
def test_load_classifier(options: dict[str, Any], message: str) -> None:
    refused(message, lambda: load_classifier(**{"name": "minilm", "num_labels": 3} | options))


def test_other_functions() -> None:
    refused(
        "settings is of type str; pass KernelSettings", lambda: compute_train_eval_ntk(MODEL, ROWS, settings="fast")
    )
    head = Classifier.of(MODEL, ROWS).head
    refused("rank is '8'; pass a whole number", lambda: apply_lora(MODEL, head, rank="8"))
    refused("targets is 'query'; pass a list", lambda: apply_lora(MODEL, head, targets="query"))
    refused("head is None; pass of type Head", lambda: apply_lora(MODEL, None))
    refused("name is None; pass text or a path", lambda: load_tokenizer(None))
    refused("ntk is of type Tensor; pass of type NTK", lambda: largest_eigenvalue(torch.ones(2, 2)))
    refused(
        r"kernels\['train'\] is None", lambda: kernel_gradient_flow({"train": None}, ONES, learning_rate=1, steps=1)
    )
    refused("labels is of type list; pass a torch", lambda: kernel_gradient_flow({}, [0], learning_rate=1, steps=1))
    refused("labels is of type list; pass a numpy", lambda: fit_logistic_head(torch.ones(2, 2), [0, 1], 2))


def kernel(n: int = 2, c: int = 3) -> NTKDecomposition:
    generator = torch.Generator().manual_seed(0)
    group = torch.rand((n, c, n, c), generator=generator)
    logits = torch.rand((n, c), generator=generator)
    return NTKDecomposition(torch.rand((n, n), generator=generator), {"a": group, "b": group}, logits, logits,
                            symmetric=True, parameter_groups={"a": ["x"], "b": ["y"]})  # fmt: skip


def forge(path: Path, change: Callable[[dict[str, Tensor], dict[str, Any]], Any]) -> Path:
    """Alter a stored kernel so that its checksum is right all the same."""
    written = kernel().save(path)
    tensors = load_file(written)
    part = {"outputs": "full", "symmetric": True, "groups": ["a", "b"], "metadata": {}}
    part["parameter_groups"] = {"a": ["x"], "b": ["y"]}
    about: dict[str, Any] = {"format": "ntk_lpft kernel 1", "parts": ["ntk"], "ntk": {"ntk": part}}
    replaced = change(tensors, about)
    write_tensors(written, tensors, about if replaced is None else replaced)
    return written


DESCRIPTIONS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "parts empty": lambda d: d.update(parts=[]),
    "parts missing": lambda d: d.pop("parts") and None,
    "parts unknown": lambda d: d.update(parts=["other"]),
    "parts a number": lambda d: d.update(parts=5),
    "ntk missing": lambda d: d.pop("ntk") and None,
    "ntk a list": lambda d: d.update(ntk=[1]),
    "part null": lambda d: d["ntk"].update(ntk=None),
    "groups missing": lambda d: d["ntk"]["ntk"].pop("groups") and None,
    "groups unknown": lambda d: d["ntk"]["ntk"].update(groups=["nope"]),
    "groups fewer": lambda d: d["ntk"]["ntk"].update(groups=["a"]),
    "groups a number": lambda d: d["ntk"]["ntk"].update(groups=5),
    "groups of numbers": lambda d: d["ntk"]["ntk"].update(groups=[1, 2]),
    "parameter groups": lambda d: d["ntk"]["ntk"].update(parameter_groups={"a": 5}),
    "outputs foo": lambda d: d["ntk"]["ntk"].update(outputs="foo"),
    "outputs pseudo": lambda d: d["ntk"]["ntk"].update(outputs="pseudo"),
    "symmetric text": lambda d: d["ntk"]["ntk"].update(symmetric="yes"),
    "metadata": lambda d: d["ntk"]["ntk"].update(metadata=None),
    "a list": lambda d: [d],
    "null": lambda d: {},
    "other format": lambda d: d.update(format=[]),
}  # fmt: skip


@pytest.mark.parametrize("name", DESCRIPTIONS)
def test_forged_descriptions(tmp_path: Path, name: str) -> None:
    path = forge(tmp_path / "k.safetensors", lambda tensors, about: DESCRIPTIONS[name](about))
    refused(r"damaged|holds no kernel|unknown outputs|expected numbers of", lambda: NTKDecomposition.load(path))


def test_an_unaltered_forgery_is_read(tmp_path: Path) -> None:
    """The forgeries above are refused for what was changed in them, and nothing else."""
    read = NTKDecomposition.load(forge(tmp_path / "k.safetensors", lambda tensors, about: None))
    assert torch.equal(read.total, kernel().total)


TENSORS: dict[str, tuple[str, Tensor | None]] = {
    "feature kernel (2, 3)": ("feature_kernel", torch.ones(2, 3)),
    "feature kernel (1, 1)": ("feature_kernel", torch.ones(1, 1)),
    "feature kernel 1-d": ("feature_kernel", torch.ones(2)),
    "feature kernel missing": ("feature_kernel", None),
    "logits missing": ("row_logits", None),
    "logits a number": ("row_logits", torch.tensor(1.0)),
    "logits whole numbers": ("column_logits", torch.ones(2, 3, dtype=torch.int64)),
    "group of another shape": ("ft/a", torch.ones(2, 2)),
    "group a number": ("ft/a", torch.tensor(1.0)),
    "group of truths": ("ft/a", torch.ones(2, 3, 2, 3, dtype=torch.bool)),
    "one too many": ("ft/c", torch.ones(2, 3, 2, 3)),
}


@pytest.mark.parametrize("name", TENSORS)
def test_forged_tensors(tmp_path: Path, name: str) -> None:
    key, value = TENSORS[name]

    def change(tensors: dict[str, Tensor], about: dict[str, Any]) -> None:
        tensors.pop(f"ntk/{key}", None)
        if value is not None:
            tensors[f"ntk/{key}"] = value

    path = forge(tmp_path / "k.safetensors", change)
    refused("damaged|expected numbers of shape|not symmetric", lambda: NTKDecomposition.load(path))


@pytest.mark.parametrize("text", ["{nonsense", "[" * 100_000, "null", "5"])
def test_a_description_that_is_no_object(tmp_path: Path, text: str) -> None:
    path = kernel().save(tmp_path / "k.safetensors")
    tensors = load_file(path)
    checksum = hashlib.sha256((tensor_digest(tensors) + text).encode()).hexdigest()
    save_file(tensors, path, metadata={"description": text, "sha256": checksum})
    refused("JSON|nested|holds no kernel", lambda: NTKDecomposition.load(path))


@pytest.mark.parametrize("path", [None, 5, "x" * 300, "x" * 300 + ".safetensors", "no\0such", "missing"])
def test_paths_that_hold_no_kernel(path: Any) -> None:
    refused("path is|too long|no such file|embedded|does not exist", lambda: NTKDecomposition.load(path))


def test_paths_that_no_kernel_can_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "k.safetensors").mkdir()
    (tmp_path / "file").write_text("x")
    refused("is a folder", lambda: kernel().save(tmp_path / "k.safetensors"))
    refused("path is None; pass text or a path", lambda: kernel().save(None))
    refused("too long", lambda: kernel().save("x" * 300))
    with pytest.raises(OSError, match="file"):
        kernel().save(tmp_path / "file" / "k.safetensors")
    assert (tmp_path / "file").read_text() == "x"


def test_parts_that_are_no_tensors() -> None:
    whole = kernel()
    refused("feature_kernel is of type ndarray; pass a torch tensor", lambda: NTKDecomposition(
        np.ones((2, 2)), whole.ft_groups, whole.row_logits, whole.column_logits))  # fmt: skip
    refused("2 rows and 3 columns, which is not symmetric", lambda: NTKDecomposition(
        torch.ones(2, 3), {}, torch.ones(2, 2), torch.ones(3, 2), symmetric=True))  # fmt: skip
