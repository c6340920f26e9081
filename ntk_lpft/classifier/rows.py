"""Inputs in any padding become ragged rows, and ragged rows become trimmed batches of similar length."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from ntk_lpft.classifier.inputs import samples_of, whole_numbers
from ntk_lpft.classifier.wrappers import forward_names, innermost
from ntk_lpft.errors import InputError

Row = dict[str, list[int]]

# The first two have their own place; the last two say nothing of a token that a row could.
_SET_APART = ("input_ids", "attention_mask", "labels", "inputs_embeds")


def token_table(model: nn.Module) -> nn.Embedding | None:
    """Return the table of token embeddings, where the model, or the one inside it, says which one it is."""
    getters = (getattr(module, "get_input_embeddings", None) for module in (model, innermost(model)))
    getter: Any = next((getter for getter in getters if getter is not None), None)
    try:
        table = None if getter is None else getter()
    except NotImplementedError:  # CANINE hashes characters into several tables
        return None
    return table if isinstance(table, nn.Embedding) else None


def to_rows(
    inputs: Any, model: nn.Module, what: str = "inputs", *, first: bool = False, unnamed: bool = False
) -> list[Row]:
    """Strip the padding from a batch or a data set and keep what the model's ``forward`` takes.

    Args:
        inputs: A mapping from names to (N, T) tensors, arrays or nested lists, in any padding, such as a tokenizer
            returns or a data frame is; a sequence of rows, each a mapping from names to lists of equal length, or to
            tensors (1, T); a ``DataLoader`` of such batches that does not shuffle; or token ids alone. ``input_ids``
            is required; where ``attention_mask`` is missing every position counts, save that of ids alone the model's
            padding token at either end does not.
        model: The model whose ``forward`` decides which names are kept. Where it takes any and does not say which it
            hands on, whatever gives one number for each token is kept.
        what: How messages name these inputs.
        first: Whether the first row is enough.
        unnamed: Whether to keep whatever gives one number for each token, also what ``forward`` does not name.

    Returns:
        One dict per sample; every value has the sample's own length, and ``attention_mask`` is dropped, as it
        would be all ones.

    Raises:
        InputError: No ``input_ids``, an empty data set or row, columns of different lengths, a mask with holes, numbers
            that are not whole, or what holds no tokens.
    """
    samples = samples_of(inputs, model, what, first=first)
    if not samples:
        raise InputError(f"{what} are empty; at least one sample is needed")
    accepted = None if unnamed else forward_names(model)
    return [_strip(sample, accepted, f"{what}, row {i}") for i, sample in enumerate(samples)]


def _of_tokens(values: Any, length: int) -> bool:
    """Whether values are as many whole numbers as there are tokens."""
    if isinstance(values, str | bytes) or not hasattr(values, "__len__"):
        return False
    listed = values.tolist() if hasattr(values, "tolist") else list(values)
    return isinstance(listed, list) and len(listed) == length and all(isinstance(value, int) for value in listed)


def _strip(row: Mapping[str, Any], accepted: set[str] | None, where: str) -> Row:
    if "input_ids" not in row:
        raise InputError(f"{where} has no input_ids; give what a tokenizer returns (got {sorted(row)})")
    ids = whole_numbers(row["input_ids"], f"{where}: input_ids", axes=1)
    mask = [1] * len(ids)
    if "attention_mask" in row:
        mask = whole_numbers(row["attention_mask"], f"{where}: attention_mask", axes=1)
    if len(mask) != len(ids):
        raise InputError(f"{where}: attention_mask has length {len(mask)}, input_ids {len(ids)}")
    if not {*mask} <= {0, 1}:
        raise InputError(f"{where}: attention_mask holds {max(mask, key=abs)}; write 1 for text, 0 for padding")
    kept = [position for position, value in enumerate(mask) if value]
    if not kept:
        raise InputError(f"{where} has no token (every position is masked)")
    if kept[-1] - kept[0] + 1 != len(kept):
        raise InputError(f"{where}: attention_mask has a hole; padding may stand on the left or the right only")
    first, last = kept[0], kept[-1] + 1
    stripped: Row = {"input_ids": ids[first:last]}
    for name in row:
        if name in _SET_APART or (accepted is not None and name not in accepted):
            continue
        if accepted is None and not _of_tokens(row[name], len(ids)):
            continue
        values = whole_numbers(row[name], f"{where}: {name}", axes=1)
        if len(values) != len(ids):
            raise InputError(f"{where}: {name} has length {len(values)}, input_ids {len(ids)}")
        stripped[name] = values[first:last]
    return stripped


def fingerprint_rows(rows: Sequence[Row]) -> str:
    """Return a sha256 over the rows' names and numbers, in order."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(row, sort_keys=True, separators=(",", ":")).encode())
    return digest.hexdigest()


def position_limit(model: nn.Module) -> int | None:
    """Longest row for which the model has learned position embeddings, or None where positions are not learned."""
    for name, module in model.named_modules():
        leaf = name.rsplit(".", 1)[-1]
        if leaf in ("position_embeddings", "wpe", "embed_positions") and isinstance(module, nn.Embedding):
            # RoBERTa and its kin start counting behind the padding index; OPT keeps an explicit offset.
            skipped = 0 if module.padding_idx is None else module.padding_idx + 1
            return module.num_embeddings - skipped - int(getattr(module, "offset", 0))
    return None


def check_rows(rows: Sequence[Row], model: nn.Module, what: str = "inputs") -> None:
    """Refuse rows that the model cannot take.

    Args:
        rows: Rows without padding.
        model: The model that they are for.
        what: How messages name the rows.

    Raises:
        InputError: Rows with different columns, a token id outside the vocabulary, a token type that the model has
            not, or a row longer than its positions.
    """
    limit = position_limit(model)
    table = token_table(model)
    vocabulary = None if table is None else table.num_embeddings
    segments = {
        module.num_embeddings
        for name, module in model.named_modules()
        if name.rsplit(".", 1)[-1] == "token_type_embeddings" and isinstance(module, nn.Embedding)
    }
    for index, row in enumerate(rows):
        ids = row["input_ids"]
        if row.keys() != rows[0].keys():
            raise InputError(f"{what}, row {index} has columns {sorted(row)}, row 0 {sorted(rows[0])}; give all alike")
        if limit is not None and len(ids) > limit:
            raise InputError(
                f"{what}, row {index} has {len(ids)} tokens but the model has positions for {limit}; "
                f"tokenise with max_length={limit} or less"
            )
        if vocabulary is not None and not 0 <= min(ids) <= max(ids) < vocabulary:
            raise InputError(
                f"{what}, row {index} has a token id outside 0…{vocabulary - 1}; use the tokenizer of this model"
            )
        types = row.get("token_type_ids")
        if types and segments and not 0 <= min(types) <= max(types) < min(segments):
            raise InputError(
                f"{what}, row {index} has a token type outside 0…{min(segments) - 1}; use the tokenizer of this model, "
                "or leave token_type_ids out"
            )


@dataclass(frozen=True)
class Batch:
    """Neighbouring samples of the internal order, right-padded to the longest of them.

    Attributes:
        start: Internal number of the first sample.
        tensors: What the model's ``forward`` is given, each (n, T).
    """

    start: int
    tensors: dict[str, Tensor]

    @property
    def size(self) -> int:
        """Number of samples."""
        return self.tensors["input_ids"].shape[0]

    @property
    def length(self) -> int:
        """Number of positions, padding included."""
        return self.tensors["input_ids"].shape[1]


def collate(rows: Sequence[Row], pad_id: int, device: torch.device, start: int = 0) -> Batch:
    """Right-pad rows to their longest and add the attention mask, always as one (n, T) integer tensor.

    Args:
        rows: Ragged rows with the same columns.
        pad_id: Token id to pad with.
        device: Where the tensors go.
        start: Internal number of the first row.

    Returns:
        The batch, its tensors of shape (n, T) on the device, T being the length of the longest row.
    """
    columns = {name: [torch.tensor(row[name], device="cpu") for row in rows] for name in rows[0]}
    columns["attention_mask"] = [torch.ones_like(ids) for ids in columns["input_ids"]]
    fills = {"input_ids": pad_id}
    return Batch(
        start,
        {
            # Onto a GPU without waiting for it: CUDA reads all of a tensor in ordinary memory before it goes on.
            name: pad_sequence(values, batch_first=True, padding_value=fills.get(name, 0)).to(
                device, non_blocking=device.type == "cuda"
            )
            for name, values in columns.items()
        },
    )


def by_length(rows: Sequence[Row]) -> list[int]:
    """Numbers of the rows, longest first, so that memory runs out at once if it does."""
    return sorted(range(len(rows)), key=lambda i: -len(rows[i]["input_ids"]))
