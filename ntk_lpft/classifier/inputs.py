"""Samples in the forms that data come in, as one mapping of columns for each sample."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.utils.data import DataLoader, SequentialSampler

from ntk_lpft.errors import InputError

Sample = Mapping[str, Any]

_FORMS = "give what a tokenizer returns, a data set of such rows, or a DataLoader of such batches"


def samples_of(inputs: Any, model: nn.Module, what: str, *, first: bool = False) -> list[Sample]:
    """Take samples out of whatever holds them.

    Args:
        inputs: A mapping of columns (tensors, arrays or lists; a data frame is one), a sequence of rows or of batches,
            a ``DataLoader`` that does not shuffle, or token ids alone. Ids alone count as padding where they are the
            model's padding token, at either end.
        model: The model that they are for.
        what: How messages name the inputs.
        first: Whether the first sample is enough.

    Returns:
        The samples, or the first of them, with all their columns; padding may be part of them.

    Raises:
        InputError: Something else, or what has no order, no tokens or several meanings.
    """
    if _has_columns(inputs):
        return _of_columns(inputs, what, first)
    if isinstance(inputs, DataLoader):
        if not isinstance(inputs.sampler, SequentialSampler):
            raise InputError(f"{what} is a DataLoader that shuffles; give it shuffle=False, as rows need an order")
        batches = islice(inputs, 1) if first else inputs
        samples = [s for i, batch in enumerate(batches) for s in _of_row(batch, model, f"{what}, batch {i}")]
    elif isinstance(inputs, Tensor | np.ndarray):
        samples = [_of_ids(ids, model, what) for ids in whole_numbers(inputs, what, axes=2)]
    else:
        _check_rows_are_there(inputs, what)
        rows = (inputs[i] for i in range(min(len(inputs), 1) if first else len(inputs)))
        samples = [s for i, row in enumerate(rows) for s in _of_row(row, model, f"{what}, row {i}")]
    return samples[:1] if first else samples


def whole_numbers(values: Any, what: str, axes: int) -> Any:
    """Return token ids, or what else tells of tokens, as nested lists of whole numbers.

    Args:
        values: A tensor, an array, or nested lists.
        what: How messages name them.
        axes: How many axes they must have.

    Returns:
        Lists of as many levels.

    Raises:
        InputError: Numbers that are not whole, other shapes, or tensors without data.
    """
    if isinstance(values, Tensor):
        _check_dense(values, what)
        values = (values.double() if values.is_floating_point() else values).detach().cpu().numpy()
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise InputError(f"{what} holds lists of different lengths; give one for each sample") from error
    if array.ndim != axes:
        raise InputError(f"{what} has {array.ndim} axes instead of {axes}; give token numbers, (samples, tokens)")
    whole = array.dtype.kind in "biu" or (array.dtype.kind == "f" and bool((array == np.floor(array)).all()))
    if array.size and not whole:
        raise InputError(f"{what} holds what is no whole number; give token numbers")
    return array.tolist() if array.dtype.kind in "iu" else array.astype(np.int64).tolist()


def _check_dense(tensor: Tensor, what: str) -> None:
    if tensor.is_meta or tensor.is_sparse:
        kind = "on the meta device, without data" if tensor.is_meta else "sparse"
        raise InputError(f"{what} is a tensor that is {kind}; give a dense one with data")


def _has_columns(value: Any) -> bool:
    return isinstance(value, Mapping) or hasattr(value, "keys")


def _of_columns(inputs: Any, what: str, first: bool) -> list[Sample]:
    names = list(inputs.keys())
    if "input_ids" not in names:
        splits = any(hasattr(inputs[name], "column_names") for name in names)
        hint = "one of its splits" if splits else "what a tokenizer returns"
        raise InputError(f"{what} have no input_ids; give {hint} (got {sorted(map(str, names))})")
    columns = {name: _as_list(inputs[name], f"{what}: {name}") for name in names}
    ids = columns["input_ids"]
    if ids and not hasattr(ids[0], "__len__"):  # the tokens of one sample
        return [columns]
    uneven = sorted(name for name, values in columns.items() if len(values) != len(ids))
    if uneven:
        raise InputError(f"{what}: {', '.join(uneven)} and input_ids differ in their number of rows")
    count = min(len(ids), 1) if first else len(ids)
    return [{name: values[i] for name, values in columns.items()} for i in range(count)]


def _as_list(values: Any, what: str) -> Sequence[Any]:
    if isinstance(values, Tensor):
        _check_dense(values, what)
    if hasattr(values, "tolist"):
        values = values.tolist()
    if not isinstance(values, Iterable) or isinstance(values, str | bytes):
        raise InputError(f"{what} is of type {type(values).__name__}; give one row of token numbers for each sample")
    return list(values)


def _of_row(row: Any, model: nn.Module, where: str) -> list[Sample]:
    """Return the samples of a row: one, or more where it is a batch; ``return_tensors="pt"`` makes batches of one."""
    if not _has_columns(row):
        if isinstance(row, Tensor | np.ndarray) or (isinstance(row, list) and row and isinstance(row[0], int)):
            return [_of_ids(whole_numbers(row, where, axes=1), model, where)]
        raise InputError(f"{where} is of type {type(row).__name__}, no mapping with input_ids; {_FORMS}")
    names = list(row.keys())
    ids = row["input_ids"] if "input_ids" in names else []
    nested = getattr(ids, "ndim", 1) > 1 or (isinstance(ids, list) and bool(ids) and hasattr(ids[0], "__len__"))
    return _of_columns(row, where, False) if nested else [{name: row[name] for name in names}]


def _check_rows_are_there(inputs: Any, what: str) -> None:
    """Refuse what is no sequence of rows, with a hint where it is clear what was meant."""
    kind = type(inputs).__name__
    within = inputs if isinstance(inputs, list | tuple) else [inputs]
    if any(isinstance(part, str | bytes) for part in within):
        raise InputError(f"{what} are text; give what the tokenizer returns for it")
    if callable(getattr(inputs, "encode", None)):
        raise InputError(f"{what} is a {kind} that is not tokenised; give {kind.lower()}.encode(tokenizer)")
    if callable(getattr(inputs, "split", None)):
        raise InputError(f"{what} is a {kind}; give one of its splits, tokenised: .split('train').encode(tokenizer)")
    if not (hasattr(inputs, "__len__") and hasattr(inputs, "__getitem__")):
        hint = "it can be read once only, so make a list of it" if isinstance(inputs, Iterable) else _FORMS
        raise InputError(f"{what} is {'None' if inputs is None else f'of type {kind}'}; {hint}")


def _of_ids(ids: list[int], model: nn.Module, where: str) -> Sample:
    """Give token ids that come alone a mask, where the model's padding token tells padding from text."""
    config = getattr(model, "config", None)
    pad = getattr(config, "pad_token_id", None)
    if not ids or pad not in (ids[0], ids[-1]):
        return {"input_ids": ids}
    ends = getattr(config, "eos_token_id", None)
    if pad in (ends if isinstance(ends, list) else [ends]):
        raise InputError(
            f"{where}: token ids alone do not tell padding from text, as the model pads with its end-of-text token; "
            "give an attention_mask as well"
        )
    text = [i for i, token in enumerate(ids) if token != pad] or [-1]
    return {"input_ids": ids, "attention_mask": [int(text[0] <= i <= text[-1]) for i in range(len(ids))]}
