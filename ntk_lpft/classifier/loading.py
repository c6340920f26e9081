"""Classifiers by name, from a folder, or as they are."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedTokenizerBase,
)
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, cached_file

from ntk_lpft.arguments import checked
from ntk_lpft.choices import HEADS, WEIGHT_DTYPES, choose
from ntk_lpft.classifier.classes import arrange_head, match_classes, name_classes, names_of_classes
from ntk_lpft.classifier.classifier import Classifier
from ntk_lpft.classifier.head import Head, number_of_labels
from ntk_lpft.classifier.head_file import FILE_NAME as HEAD_FILE
from ntk_lpft.classifier.head_weights import initialise_head, set_head
from ntk_lpft.classifier.linear_head import LinearHeadClassifier, resolve_pooling
from ntk_lpft.classifier.model_size import check_memory
from ntk_lpft.classifier.prepare import check_finite
from ntk_lpft.classifier.saving import saved_head
from ntk_lpft.devices import resolve_device
from ntk_lpft.errors import InputError
from ntk_lpft.library_errors import told_as_bad_input
from ntk_lpft.model_sources import check_index, resolve_source

_NUMBERED = re.compile(r"\.\d+\.")  # one of a stack of layers, within a weight's name


@checked
def load_tokenizer(name: str | Path, *, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """Load the tokenizer that belongs to a model.

    Args:
        name: As for ``load_classifier``.
        trust_remote_code: Whether to run code that the model's repository ships.

    Returns:
        The tokenizer; where it has no padding token, it pads with its end-of-text token.

    Raises:
        InputError: None is there, or the Hub cannot be reached.
    """
    source = resolve_source(name)
    if Path(source).is_dir():
        kinds = ("tokenizer*", "vocab*", "*.model", "spiece*", "merges.txt")
        if not any(path for kind in kinds for path in Path(source).glob(kind)):
            raise InputError(f"model folder {name} has no tokenizer; save it there with tokenizer.save_pretrained")
    with told_as_bad_input(f"cannot load a tokenizer for {name}"):
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=trust_remote_code)
        _check_tokenizer(tokenizer)
    if tokenizer.pad_token is None and tokenizer.eos_token is not None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _check_tokenizer(tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse a tokenizer that does not make tokens of a word, or does not say how many of them are allowed."""
    limit: object = tokenizer.model_max_length
    if not isinstance(limit, int | float) or limit < 1:
        raise InputError(f"its model_max_length is {limit!r}, no number of tokens; correct tokenizer_config.json")
    tokenizer("a", "word", padding=False, verbose=False)


@checked
def load_classifier(
    name: str | Path | nn.Module,
    num_labels: int | None = None,
    *,
    head: str = "linear",
    pooling: str = "auto",
    seed: int = 0,
    keep_head: bool = False,
    label_names: Sequence[str] | None = None,
    device: str | torch.device = "cpu",
    dtype: str | None = None,
    trust_remote_code: bool = False,
    say: Callable[[str], object] = print,
) -> nn.Module:
    """Load a sequence classifier, f = Vφ + b, in eval mode.

    A padding token that its config names outside the vocabulary, such as -1, counts as none.

    Args:
        name: A Hub name, a folder, also that of a fine-tuning run, a bundled name (``minilm``), or a loaded
            classifier, which is returned as it is.
        num_labels: C; needed unless a classifier is given or a folder holds a classifier's config or head.
        head: ``linear``, the paper's: dropout and one linear layer on the pooled feature; or ``native``: the
            head of transformers, whose last linear layer is V and whose rest belongs to the body.
        pooling: For ``linear``: ``first`` or ``last`` token, ``mean``, or ``auto`` (last token for decoders).
        seed: For what the checkpoint does not hold, the head above all.
        keep_head: Take the head from the checkpoint, and refuse one that has none. A linear head, with its
            pooling, is what fine-tuning saved beside the body.
        label_names: Classes of the data in the order of their numbers, such as a task's. With ``keep_head`` the rows of
            the head are matched with them by the names in the checkpoint's config, see ``match_classes``.
        device: Where to put it.
        dtype: ``float32``, ``float64``, ``bfloat16`` or ``float16``; ``auto`` for that of the checkpoint's weights, the
            widest of them; None for float64 where the checkpoint is, else float32. A linear head is float32 at least.
            A kernel is computed in float32 at least whatever a model is loaded in; frozen weights stay narrow.
        trust_remote_code: Whether to run code that the model's repository ships.
        say: Called with a line on how classes were matched, where it is not as plain as equal names.

    Returns:
        A module whose ``forward`` returns ``logits``.

    Raises:
        InputError: Unknown or unusable model, or one that cannot be reached; or classes that do not match.
    """
    if label_names is not None and num_labels is None:
        num_labels = len(label_names)
    if isinstance(name, nn.Module):
        if num_labels is not None and number_of_labels(name) != num_labels:
            raise InputError(f"the model has {number_of_labels(name)} labels, not {num_labels}")
        return name
    place = resolve_device(str(device), torch.device("cpu"))
    choose("head", head, HEADS)
    if dtype is not None:
        choose("dtype", dtype, WEIGHT_DTYPES)
    if num_labels is not None and num_labels < 2:
        raise InputError(f"num_labels is {num_labels}; a classifier has 2 or more")
    source = resolve_source(name)
    saved = saved_head(Path(source), num_labels) if head == "linear" and keep_head else None
    if head == "linear" and keep_head:
        if saved is None:
            raise InputError(f"model {name} has no saved linear head to keep; use --head native, or make a new head")
        num_labels, pooling = len(saved.weight), saved.metadata.get("pooling", pooling)
    with told_as_bad_input(f"cannot load model {name}", "load a sound checkpoint"):
        config = AutoConfig.from_pretrained(source, trust_remote_code=trust_remote_code)
        _check_remote_index(source)
        _drop_unknown_padding(config)
        labels = int(getattr(config, "num_labels", 0)) if num_labels is None else num_labels
        kind = _dtype(source, config, dtype)
        check_memory(config, labels, f"model {name}", kind, trust_remote_code=trust_remote_code)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = _build(source, config, labels, head, pooling, keep_head, trust_remote_code, kind)
    _check_plain(model, name)
    check_finite(model)
    if isinstance(model, LinearHeadClassifier):
        head_layer = Head("classifier", model.classifier)
        initialise_head(head_layer, seed)
        if saved is not None:
            set_head(head_layer, saved.weight, saved.bias)
            model.dropout.p = float(saved.metadata.get("dropout", model.dropout.p))
    if keep_head and label_names is not None:
        _match(model, label_names, source, trust_remote_code, say)
    return model.to(place).eval()


def _drop_unknown_padding(config: Any) -> None:
    """Take a padding token outside the vocabulary for none: no table has its row, or, for -1, its last would freeze."""
    pad_id, size = getattr(config, "pad_token_id", None), getattr(config, "vocab_size", None)
    if isinstance(pad_id, int) and isinstance(size, int) and not 0 <= pad_id < size:
        config.pad_token_id = None


def _match(
    model: Any, label_names: Sequence[str], source: str, trust_remote_code: bool, say: Callable[[str], object]
) -> None:
    """Put the rows of a kept head into the data's order, and name them."""
    match = match_classes(label_names, names_of_classes(model.config))
    if match.said:
        say(f"head:   {match.said}")
    if isinstance(model, LinearHeadClassifier):
        arrange_head(Head("classifier", model.classifier), match)
    elif not match.is_same:
        sample = load_tokenizer(source, trust_remote_code=trust_remote_code)("a")
        arrange_head(Classifier.of(model, [dict(sample)]).head, match)
    name_classes(model.config, match.names)


def _build(
    source: str,
    config: object,
    labels: int,
    head: str,
    pooling: str,
    keep_head: bool,
    trust_remote_code: bool,
    dtype: torch.dtype,
) -> nn.Module:
    common: dict[str, Any] = {
        "trust_remote_code": trust_remote_code,
        "use_safetensors": True,
        "dtype": dtype,
        # What is random then, is looked at here.
        "ignore_mismatched_sizes": True,
        "output_loading_info": True,
    }
    if getattr(config, "pad_token_id", 0) is None:
        common["pad_token_id"] = None  # whatever the file says, see `_drop_unknown_padding`
    if head == "native":
        # A regression or multi-label checkpoint must not be turned into a classifier in silence.
        problem = getattr(config, "problem_type", None)
        if problem is None and getattr(config, "num_labels", 0) == 1:
            problem = "regression"
        if problem in ("regression", "multi_label_classification"):
            raise InputError(f"the checkpoint is a {problem.replace('_', ' ')} model; use --head linear for a new head")
        model, report = AutoModelForSequenceClassification.from_pretrained(source, num_labels=labels, **common)
        new = _random_weights(report)
        _check_layers(model, report)
        _check_body([key for key in new if key.startswith(f"{model.base_model_prefix}.")])
        if keep_head and new:
            raise InputError(
                f"the checkpoint has no head of {labels} classes to keep (it lacks {', '.join(new)}); make a new head"
            )
        return model
    if getattr(config, "is_encoder_decoder", False):
        raise InputError("head linear needs an encoder or a decoder, not both; use --head native for this model")
    try:
        # Without the pooler that some bodies put behind the last layer: φ is the hidden state itself.
        body, report = AutoModel.from_pretrained(source, add_pooling_layer=False, **common)
    except TypeError:
        body, report = AutoModel.from_pretrained(source, **common)
    _check_body(_random_weights(report))
    _check_layers(body, report)
    body.config.problem_type = None
    classifier = LinearHeadClassifier(body, labels, resolve_pooling(body, pooling))
    # Of the body, transformers decides what keeps a wider dtype, such as the frequencies of rotary embeddings.
    classifier.classifier.to(torch.promote_types(dtype, torch.float32))
    return classifier


def _check_remote_index(source: str) -> None:
    """Refuse weights on the Hub whose index names pickles; that of a folder has been looked at."""
    if not Path(source).is_dir():
        index = cached_file(source, SAFE_WEIGHTS_INDEX_NAME, _raise_exceptions_for_missing_entries=False)
        if index is not None:
            check_index(Path(index), whole=False)


def _check_plain(model: nn.Module, name: str | Path) -> None:
    """Refuse a model into which transformers has put an adapter that lies beside its weights."""
    if any(getattr(module, "_hf_peft_config_loaded", False) for module in model.modules()):
        raise InputError(
            f"model {name} holds an adapter beside its weights, which transformers has put in unasked, frozen as all "
            "else; give a model that it is merged into (peft: merge_and_unload, then save_pretrained)"
        )


# How safetensors calls the dtypes of weights.
_KINDS = {"F64": torch.float64, "F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}


def _dtype(source: str, config: object, asked: str | None) -> torch.dtype:
    """Return the dtype asked for; for ``auto`` the checkpoint's, for None that or float32, whichever is wider."""
    if asked not in (None, "auto"):
        return getattr(torch, asked)
    found: set[torch.dtype] = set()
    files = [path for path in Path(source).glob("*.safetensors") if path.name != HEAD_FILE]
    for path in files:
        with safe_open(path, "pt") as content:
            kinds = {content.get_slice(name).get_dtype() for name in content.keys()}  # noqa: SIM118
        found |= {_KINDS[kind] for kind in kinds & _KINDS.keys()}
    if not files:
        said = getattr(config, "dtype", None)
        found = {kind for kind in _KINDS.values() if said in (kind, str(kind).removeprefix("torch."))}
    if asked is None:
        found.add(torch.float32)
    return reduce(torch.promote_types, found) if found else torch.float32


def _random_weights(report: Mapping[str, Iterable[Any]]) -> list[str]:
    """Weights that the checkpoint does not hold, or not in the model's shape."""
    return sorted({str(key) for key in report["missing_keys"]} | {str(key[0]) for key in report["mismatched_keys"]})


def _check_layers(model: nn.Module, report: Mapping[str, Iterable[Any]]) -> None:
    """Refuse a config that leaves out layers which the checkpoint has: the rest would pass for the model."""
    prefix = f"{getattr(model, 'base_model_prefix', '')}."  # which a checkpoint's names may have, and a body's have not
    parts = {name.rpartition(".")[0].removeprefix(prefix) for name, _ in model.named_parameters()}
    stacks = {part[: match.start()] for part in parts for match in _NUMBERED.finditer(part)}
    for key in sorted(str(key).removeprefix(prefix) for key in report["unexpected_keys"]):
        for match in _NUMBERED.finditer(key):
            stack = key[: match.start()]
            if stack in stacks and not any(part.startswith(key[: match.end()]) for part in parts):
                raise InputError(
                    f"the checkpoint has layers that its config.json leaves out, such as that of {key}; correct the "
                    "number of layers, or save the smaller model"
                )


def _check_body(new: Sequence[str]) -> None:
    """Refuse a body of random weights; a pooler is part of the head."""
    lost = [key for key in new if "pooler" not in key]
    if lost:
        raise InputError(
            f"the checkpoint's weights do not fit its config.json ({len(lost)} of the body are missing or of another "
            f"shape, such as {lost[0]}); load a sound checkpoint"
        )
