"""Trained classifiers as folders that plain transformers and peft can load."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from peft import PeftModel, get_peft_model_state_dict
from safetensors.torch import save_file
from torch import nn
from transformers import PreTrainedTokenizerBase

from ntk_lpft.classifier.classes import name_classes
from ntk_lpft.classifier.head_file import FILE_NAME, HeadFile, load_head, save_head
from ntk_lpft.classifier.linear_head import LinearHeadClassifier
from ntk_lpft.errors import InputError
from ntk_lpft.runs.finetuning import FinetuneRun
from ntk_lpft.storage import let_umask_decide


def save_classifier(
    model: nn.Module,
    run: FinetuneRun,
    tokenizer: PreTrainedTokenizerBase | None,
    label_names: Sequence[str],
    base: str,
) -> None:
    """Write a classifier as the folder ``model`` of a run, and LoRA adapters, if it has any, as the folder ``adapter``.

    ``model`` holds the whole network, adapters merged in. With the linear head it is a body for
    ``AutoModel.from_pretrained``, and ``head.safetensors`` beside it holds V, b and how features are pooled:
    logits = pool(last_hidden_state) Vᵀ + b. With a native head it is a classifier for
    ``AutoModelForSequenceClassification.from_pretrained``. ``adapter`` is what peft puts on the base model.

    Args:
        model: The classifier; nothing of it is changed but the names of classes in its config.
        run: Where the two folders go.
        tokenizer: Saved along with the model.
        label_names: Names of the classes.
        base: What the body was loaded from, for the adapter's config.
    """
    if isinstance(model, PeftModel):
        _save_adapter(model, run.file(run.ADAPTER), base)
        model = copy.deepcopy(model).merge_and_unload()
    target = run.file(run.MODEL)
    name_classes(model.config, label_names)
    if isinstance(model, LinearHeadClassifier):
        model.body.save_pretrained(target)
        _save_linear_head(model, target / FILE_NAME)
    else:
        model.save_pretrained(target)  # type: ignore[operator]
    if tokenizer is not None:
        tokenizer.save_pretrained(target)
    let_umask_decide(target)


def _save_linear_head(model: LinearHeadClassifier, path: Path) -> None:
    bias = model.classifier.bias
    weight = model.classifier.weight.detach().cpu()
    metadata = {"pooling": model.pooling, "dropout": str(model.dropout.p)}
    save_head(path, weight, None if bias is None else bias.detach().cpu(), metadata)


def _save_adapter(model: PeftModel, folder: Path, base: str) -> None:
    inner = model.get_base_model()
    config = copy.deepcopy(model.peft_config["default"])
    config.base_model_name_or_path = base
    config.inference_mode = True
    state = {name: value.detach().cpu().contiguous() for name, value in get_peft_model_state_dict(model).items()}
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(inner, LinearHeadClassifier):
        # As adapters of the body alone, so that peft can put them on what AutoModel loads; V and b stand beside them.
        inside = "base_model.model.body."
        state = {
            name.replace(inside, "base_model.model.", 1): value
            for name, value in state.items()
            if name.startswith(inside)
        }
        config.modules_to_save = None
        _save_linear_head(_with_plain_head(inner), folder / FILE_NAME)
    save_file(state, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config.save_pretrained(folder)
    let_umask_decide(folder)


def _with_plain_head(model: LinearHeadClassifier) -> LinearHeadClassifier:
    """Return the classifier with the trained copy of its head that peft keeps inside a wrapper."""
    wrapped: Any = model.classifier
    if isinstance(wrapped, nn.Linear):
        return model
    plain = copy.copy(model)
    plain._modules = {**model._modules, "classifier": wrapped.modules_to_save["default"]}
    return plain


def saved_head(folder: Path, num_labels: int | None) -> HeadFile | None:
    """Read the linear head that was saved beside a body.

    Args:
        folder: The model's folder.
        num_labels: C of the data; None takes any.

    Returns:
        The head; None where no file of one is there.

    Raises:
        InputError: It has another number of classes than asked for.
    """
    path = folder / FILE_NAME
    if not path.is_file():
        return None
    saved = load_head(path)
    if num_labels is not None and len(saved.weight) != num_labels:
        raise InputError(f"the head in {path} has {len(saved.weight)} classes, the data has {num_labels}")
    return saved
