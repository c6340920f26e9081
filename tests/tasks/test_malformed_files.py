"""Files with random faults are read or refused in one line; nothing else is raised."""

from __future__ import annotations

import json
import random
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ntk_lpft.calibration import read_predictions
from ntk_lpft.errors import InputError
from ntk_lpft.tasks import load_files

ROWS = [(f'a, "{i}"', i % 2) for i in range(12)]
FILES = {
    "csv": "text,label\n" + "".join(f'"a, ""{i}""",{label}\n' for i, (_, label) in enumerate(ROWS)),
    "tsv": "text\tlabel\n" + "".join(f'a "{i}"\t{"xy"[label]}\n' for i, (_, label) in enumerate(ROWS)),
    "jsonl": "".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in ROWS),
    "json": json.dumps([{"text": text, "label": bool(label)} for text, label in ROWS]),
}
NUMBERS = "0,1,2\n" + "".join(f"{i}.5,{-i}e-1,{i % 3}.25\n" for i in range(12))
PIECES = [
    *(b'"', b",", b"\t", b"\n", b"\r", b"\0", b"nan", b"1e999", b"-1", b"[", b"{", b"}", b"null", b"\xff", b"'"),
    *(b"\xe2\x80\x8b", b'"label"', b"9" * 50, b"Infinity", b"\\ud800", b"1e999999", b"true", b"0x1", b"1_0", b"label"),
    *(b"text", b"\xef\xbb\xbf", b"1.0", b":", b'"text":', b"\xd9\xa1", b"-0", b"9" * 5000),
]


def damaged(content: str, rng: random.Random) -> bytes:
    """Put pieces into a file, over what is there."""
    changed = bytearray(content.encode())
    for _ in range(rng.randint(1, 5)):
        begin = rng.randrange(len(changed) + 1)
        changed[begin : begin + rng.choice([0, 0, 1, 2, 8])] = (
            rng.choice(PIECES) if rng.random() < 0.8 else rng.randbytes(1)
        )
    return bytes(changed)


def read_or_refuse(read: Callable[[], object]) -> bool:
    try:
        read()
    except InputError as error:
        if len(str(error)) > 1000 or "\n" in str(error).strip():
            raise
        return False
    return True


@pytest.mark.parametrize("kind", FILES)
def test_files_of_a_task(tmp_path: Path, kind: str) -> None:
    rng = random.Random(0)
    path = tmp_path / f"t.{kind}"
    found = []
    for _ in range(300):
        path.write_bytes(damaged(FILES[kind], rng))
        validation = path if rng.random() < 0.5 else None
        found.append(read_or_refuse(lambda given=validation: load_files(path, given)))
    assert 0 < sum(found) < 300


@pytest.mark.unchecked
def test_files_of_numbers(tmp_path: Path) -> None:
    rng = random.Random(0)
    logits, labels = tmp_path / "f.csv", tmp_path / "y.csv"
    labels.write_text("".join(f"{i % 3}\n" for i in range(12)))
    whole = tmp_path / "f.npy"
    np.save(whole, np.random.default_rng(0).standard_normal((12, 3)))
    for _ in range(300):
        logits.write_bytes(damaged(NUMBERS, rng))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            read_or_refuse(lambda: read_predictions(logits, labels, "validation"))
    sound = labels.read_text()
    for _ in range(300):
        labels.write_bytes(damaged(sound, rng))
        read_or_refuse(lambda: read_predictions(whole, labels, "validation"))
    labels.write_text(sound)
    for _ in range(300):
        content = bytearray(whole.read_bytes())
        for _ in range(rng.randint(1, 3)):
            content[rng.randrange(140)] = rng.randrange(256)
        (tmp_path / "g.npy").write_bytes(content[: rng.choice([len(content), rng.randrange(len(content))])])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            read_or_refuse(lambda: read_predictions(tmp_path / "g.npy", labels, "validation"))
