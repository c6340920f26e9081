"""Names for data by their content: equal content has an equal fingerprint on every machine."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int


def canonical(value: Any) -> bytes:
    """Bytes of a JSON value that depend on neither the order of keys nor the machine."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode("ascii")


def digest(values: Iterable[Any]) -> str:
    """Return the sha256 over JSON values, one a line."""
    hasher = hashlib.sha256()
    for value in values:
        hasher.update(canonical(value) + b"\n")
    return hasher.hexdigest()


def content_fingerprint(
    texts: Sequence[tuple[str, ...]], labels: Int[np.ndarray, " n"], template: Sequence[str]
) -> str:
    """Fingerprint of labelled texts.

    Args:
        texts: The segments of each example, template applied.
        labels: Class numbers, (N,).
        template: The format strings that made the segments.

    Returns:
        A sha256 that changes with any text, label, their order, or the template; where the rows were read does not
        enter.
    """
    rows = ([list(segments), int(label)] for segments, label in zip(texts, labels, strict=True))
    return digest([{"template": list(template)}, *rows])


def tokenizer_fingerprint(tokenizer: Any) -> str:
    """Fingerprint of how a Hugging Face tokenizer turns text into tokens.

    Its class, vocabulary, merges, normaliser, pre-tokeniser, post-processor and special tokens enter; its path does
    not, nor do the truncation and padding that earlier calls have left in its backend.

    Args:
        tokenizer: A tokenizer with or without a backend of the ``tokenizers`` library.

    Returns:
        A sha256.
    """
    facts: dict[str, Any] = {
        "class": type(tokenizer).__name__,
        "truncation_side": str(getattr(tokenizer, "truncation_side", "right")),
        "special_tokens": {name: str(token) for name, token in tokenizer.special_tokens_map.items()},
    }
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None and hasattr(backend, "to_str"):
        serialised = json.loads(backend.to_str())
        facts["backend"] = {key: serialised[key] for key in serialised if key not in ("truncation", "padding")}
    else:
        facts["vocabulary"] = tokenizer.get_vocab()
        ranks: dict[tuple[str, ...], int] = getattr(tokenizer, "bpe_ranks", None) or {}
        facts["merges"] = [list(pair) for pair in sorted(ranks, key=lambda pair: ranks[pair])]
        # Strings among the options may be paths, so only flags and numbers count; special tokens are taken elsewhere.
        options = getattr(tokenizer, "init_kwargs", {})
        facts["options"] = {name: value for name, value in options.items() if isinstance(value, (bool, int, float))}
    return digest([facts])
