"""Ways to spoil a file, by what it holds: bytes, JSON, tables, tensors; and what may stand in its place."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import save_file

Random = random.Random

# Names and numbers that something fails on somewhere.
TEXTS = ("", " ", "x", "\0", "a\0b", "\ud800", "$20_$50", r"$\frac{$", "n" * 300, "é" * 200, "../up", "/", "=1+1",
         "nan", "NULL", "?", "-1", "01", "1.0", "1e400", "9" * 25, "None", "two\nlines", "'; --", "<b>", "\u202eback",
         "_x", "{x}", "%s", "~", ".", "..")  # fmt: skip
NUMBERS = (0, -1, 1, 2**31, 2**63 - 1, -(2**63), 10**25, 0.5, -0.0, 1e308, 1e-320, float("nan"), float("inf"),
           float("-inf"))  # fmt: skip
VALUES: tuple[Any, ...] = (*TEXTS, *NUMBERS, None, True, [], {}, [[]], [None], {"": ""}, [1, "x"], {"x": {"y": 1}})


def spoil(rng: Random, path: Path) -> str:
    """Spoil one file; returns in a few words how."""
    ways: list[Callable[[Random, Path], str]] = [_bytes, _bytes, _place]
    if path.suffix in (".json", ".jsonl"):
        ways += [_json] * 6 + [_json_text] * 2
    if path.suffix in (".csv", ".tsv", ".txt"):
        ways += [_table] * 6
    if path.suffix == ".safetensors":
        ways += [_tensors] * 6
    return rng.choice(ways)(rng, path)


def _bytes(rng: Random, path: Path) -> str:
    data = bytearray(path.read_bytes())
    way = rng.choice(("empty", "cut", "flip", "insert", "zeros", "doubled", "bom", "utf-16", "noise", "long"))
    place = rng.randrange(len(data) + 1)
    if way == "empty":
        data = bytearray()
    elif way == "cut":
        del data[place:]
    elif way == "flip" and data:
        data[place % len(data)] ^= 1 << rng.randrange(8)
    elif way == "insert":
        data[place:place] = rng.choice((b"\0", b"\xff\xfe", b'"', b"\n", b"\r", b",", b"{", "é".encode("latin-1")))
    elif way == "zeros":
        data[place : place + 8] = bytes(8)
    elif way == "doubled":
        data = data + data
    elif way == "bom":
        data[:0] = b"\xef\xbb\xbf"
    elif way == "utf-16":
        data = bytearray(bytes(data).decode("utf-8", "replace").encode("utf-16"))
    elif way == "noise":
        data = bytearray(rng.randbytes(rng.choice((1, 7, 100, 5000))))
    else:
        data[place:place] = b"x" * 300_000
    path.write_bytes(data)
    return f"bytes {way}"


def _place(rng: Random, path: Path) -> str:
    way = rng.choice(("missing", "folder", "dangling", "loop", "device", "pipe", "linked"))
    kept = path.with_name(f"{path.name}.kept")
    shutil.move(path, kept)
    if way == "folder":
        path.mkdir()
    elif way == "dangling":
        path.symlink_to("nowhere")
    elif way == "loop":
        path.symlink_to(path.name)
    elif way == "device":
        path.symlink_to(rng.choice(("/dev/zero", "/dev/null", "/dev/full")))
    elif way == "pipe":
        os.mkfifo(path)
    elif way == "linked":
        path.symlink_to(kept.name)
    return f"place {way}"


def _json(rng: Random, path: Path) -> str:
    """Change, rename or remove one entry, however deep it lies."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.suffix == ".jsonl" else [path.read_text("utf-8")]
    line = rng.randrange(len(lines))
    value = json.loads(lines[line])
    places = list(_places(value, ()))
    if not places:
        path.write_text(json.dumps(rng.choice(VALUES)))
        return "json whole"
    place = rng.choice(places)
    inside = value
    for key in place[:-1]:
        inside = inside[key]
    way = rng.choice(("value", "value", "value", "remove", "rename", "deep"))
    if way == "remove":
        del inside[place[-1]]
    elif way == "rename" and isinstance(inside, dict):
        inside[rng.choice(TEXTS)] = inside.pop(place[-1])
    else:
        inside[place[-1]] = rng.choice(VALUES)
    lines[line] = json.dumps(value)
    if way == "deep":
        lines[line] = lines[line].replace(json.dumps(inside[place[-1]]), "[" * 5000 + "]" * 5000, 1)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return f"json {way} {'.'.join(map(str, place))}"


def _places(value: Any, above: tuple[Any, ...]) -> Any:
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield (*above, key)
            yield from _places(value[key], (*above, key))


def _json_text(rng: Random, path: Path) -> str:
    texts = {
        "nested list": "[" * 100_000,
        "nested object": '{"a":' * 100_000,
        "digits": '{"options": {"seed": ' + "9" * 5000 + "}}",
        "twice": '{"options": {"seed": 1, "seed": 2}}',
        "list": "[1, 2]",
        "null": "null",
        "text": '"x"',
        "number": "5",
        "nan": "NaN",
        "object": "{}",
    }
    way = rng.choice(list(texts))
    path.write_text(texts[way])
    return f"json {way}"


def _table(rng: Random, path: Path) -> str:
    sign = "\t" if path.suffix == ".tsv" else ","
    rows = [line.split(sign) for line in path.read_text(encoding="utf-8").splitlines()]
    way = rng.choice(("cell", "cell", "cell", "header", "column", "ragged", "twice", "quote", "no rows", "no header"))
    row, column = rng.randrange(len(rows)), rng.randrange(len(rows[0]))
    if way == "cell":
        rows[row][column % len(rows[row])] = str(rng.choice(VALUES))
    elif way == "header":
        rows[0][column] = rng.choice(TEXTS)
    elif way == "column":
        rows = [cells[:column] + cells[column + 1 :] for cells in rows]
    elif way == "ragged":
        rows[row].append("more")
    elif way == "twice":
        rows[0][column] = rows[0][0]
    elif way == "quote":
        rows[row][column % len(rows[row])] = '"' + rows[row][column % len(rows[row])]
    else:
        rows = rows[:1] if way == "no rows" else rows[1:]
    path.write_bytes("\n".join(sign.join(cells) for cells in rows).encode("utf-8", "surrogatepass"))
    return f"table {way}"


def _tensors(rng: Random, path: Path) -> str:
    with safetensors.safe_open(path, framework="pt") as handle:
        about = handle.metadata() or {}
        tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
    name = rng.choice(sorted(tensors))
    value = tensors[name]
    way = rng.choice(
        ("remove", "rename", "nan", "inf", "shape", "rows", "dtype", "none", "scalar", "negative", "about")
    )
    if way == "remove":
        del tensors[name]
    elif way == "rename":
        tensors["other"] = tensors.pop(name)
    elif way in ("nan", "inf") and value.is_floating_point() and value.numel():
        value.view(-1)[0] = float(way)
    elif way == "shape":
        tensors[name] = value.reshape(-1).clone()
    elif way == "rows" and value.dim():
        tensors[name] = value[: len(value) // 2].clone()
    elif way == "dtype":
        kinds = (torch.float64, torch.float16, torch.int64, torch.bool, torch.uint8, torch.bfloat16)
        tensors[name] = value.to(rng.choice(kinds))
    elif way == "none":
        tensors[name] = value.new_zeros((0, *value.shape[1:]))
    elif way == "scalar":
        tensors[name] = value.new_zeros(())
    elif way == "negative":
        tensors[name] = -value if value.dtype != torch.bool else ~value
    elif about:
        key = rng.choice(sorted(about))
        about[key] = rng.choice(("", "x", "{", "[" * 100_000, "null", "[]", "{}", '{"parts": 5}'))
    save_file(tensors, path, metadata=about or None)
    return f"tensors {way} {name}"
