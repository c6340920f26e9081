"""Named tasks: the paper's, from original release files or the Hub, and the bundled ones."""

import difflib
import os
import re
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path

import numpy as np

from ntk_lpft.errors import InputError
from ntk_lpft.tasks.formats import DROPPED
from ntk_lpft.tasks.hub import HubSource, read_hub
from ntk_lpft.tasks.registry import PAPER_TASKS, PaperTask
from ntk_lpft.tasks.snippets import SNIPPETS, load_snippets
from ntk_lpft.tasks.tables import Record, at_row, text_of
from ntk_lpft.tasks.task import Split, Task, tail, without_tail

TASK_NAMES: tuple[str, ...] = (*PAPER_TASKS, *SNIPPETS)
DATA_VARIABLE = "NTK_LPFT_DATA"
COLUMN = re.compile(r"{(\w+)}")


def load_task(name: str = "amazon-snippets", data_dir: str | Path | None = None) -> Task:
    """Load a task by name; its splits are read when they are first asked for.

    Training and validation rows of the paper's tasks are the original training split without and with only its last
    tenth, unshuffled; the test is the original validation split (Tomihari and Sato, NeurIPS 2024, appendix on
    settings). PubMed 20k, DynaSent, SemEval and SST-5 keep their official three splits. Row numbers (``indices``) count
    within the original split. :func:`ntk_lpft.tasks.sampling.tail_size` says where the sizes differ from those
    printed.

    Args:
        name: One of ``TASK_NAMES``; ``amazon-snippets`` and its kin need no data folder and no Hub.
        data_dir: A folder that holds one folder per data set, each in its original release format or as a copy of its
            Hub repository at ``owner/name``. Where None, the environment variable ``NTK_LPFT_DATA`` names it; without
            either, the Hub is read.

    Returns:
        The task.

    Raises:
        InputError: Unknown name, or no files of this task in the data folder.
    """
    if not isinstance(name, str) or not isinstance(data_dir, str | os.PathLike | None):
        raise InputError(f"task {name!r:.60} in {data_dir!r:.60}: give the name as text, and the folder as a path")
    if name in SNIPPETS:
        return load_snippets(name)
    if name not in PAPER_TASKS:
        close = difflib.get_close_matches(name, TASK_NAMES, n=1, cutoff=0.4)
        hint = f"did you mean {close[0]}? " if close else ""
        raise InputError(f"unknown task {name!r}; {hint}choose one of {', '.join(TASK_NAMES)}")
    chosen = data_dir if data_dir is not None else os.environ.get(DATA_VARIABLE) or None
    root = None if chosen is None else Path(chosen)
    if root is not None and not root.is_dir():
        raise InputError(f"data folder {root} is no folder; check --data-dir or {DATA_VARIABLE}")

    spec = PAPER_TASKS[name]
    read, source = _open(name, root)
    ood = {other: partial(_test_of, other, root) for other in spec.ood}
    return Task(name, spec.label_names, source, _loaders(spec, read), ood, spec.metric)


def _loaders(spec: PaperTask, read: Callable[[str], Split]) -> dict[str, Callable[[], Split]]:
    if "validation" in spec.releases:
        return {name: partial(read, name) for name in ("train", "validation", "test")}
    whole = lru_cache(maxsize=1)(partial(read, "train"))
    return {
        "train": lambda: without_tail(whole()),
        "validation": lambda: tail(whole()),
        "test": partial(read, "test"),
    }


def _test_of(name: str, root: Path | None) -> Split:
    read, _ = _open(name, root)
    return read("test")


def _open(name: str, root: Path | None) -> tuple[Callable[[str], Split], str]:
    """Find out where a task's splits are; return a function that reads one, and the place in words."""
    spec = PAPER_TASKS[name]
    if root is not None:
        folders = _folders(spec, root)
        if folders:
            return partial(_read_release, name, folders), f"files in {', '.join(map(str, folders))}"
        if spec.hub is None or not (root / spec.hub.repository).is_dir():
            copy = f" or {spec.hub.repository}" if spec.hub else ""
            raise InputError(
                f"task {name}: {root} has no folder {' or '.join(spec.folders)}{copy}; put the files of the original "
                f"release there, or name another folder by --data-dir or {DATA_VARIABLE}"
            )
    if spec.hub is None:
        raise InputError(
            f"task {name} cannot be read from the Hub; name a folder with its files by --data-dir or {DATA_VARIABLE}"
        )
    return partial(_read_from_hub, spec, spec.hub, root), spec.hub.describe(root)


def _folders(spec: PaperTask, root: Path) -> list[Path]:
    """Folders of a data set, in the order of ``spec.folders``; the data folder itself where it bears such a name."""
    inside = sorted(path for path in root.iterdir() if path.is_dir())
    candidates = [path for name in spec.folders for path in inside if _plain(path.name) == name]
    return candidates or [root for name in spec.folders if _plain(root.resolve().name) == name]


def _plain(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "")


def _read_release(name: str, folders: list[Path], split: str) -> Split:
    spec = PAPER_TASKS[name]
    releases = spec.releases[split]
    for folder in folders:
        for release in releases:
            paths = tuple(folder / file for file in release.files)
            if all(path.is_file() for path in paths):
                return _to_split(spec, release.read(paths), split, " + ".join(map(str, paths)))
    looked_for = ", ".join(" + ".join(release.files) for release in releases)
    raise InputError(
        f"task {name}: no {split} files in {', '.join(map(str, folders))}; looked for {looked_for}; add one of them"
    )


def _read_from_hub(spec: PaperTask, hub: HubSource, root: Path | None, split: str) -> Split:
    where = f"{hub.describe(root)}, {hub.splits[split]}"
    return _to_split(spec, read_hub(hub, split, root), split, where)


def _to_split(spec: PaperTask, records: list[Record], name: str, where: str) -> Split:
    numbers = {str(number): number for number in range(len(spec.label_names))}
    numbers.update({label.lower(): number for number, label in enumerate(spec.label_names)})
    texts, labels, indices = [], [], []
    for row, record in enumerate(records):
        label = str(record.get("label")).lower()
        if label == DROPPED:
            continue
        if label not in numbers:
            raise InputError(
                f"{at_row(where, row)}: label {record.get('label')!r:.60} is not one of {', '.join(spec.label_names)}; "
                "give the labelled original release"
            )
        texts.append(tuple(_fill(segment, record, where, row) for segment in spec.template))
        labels.append(numbers[label])
        indices.append(row)
    return Split(tuple(texts), np.array(labels), np.array(indices), name, spec.template, where)


def _fill(segment: str, record: Record, where: str, row: int) -> str:
    return segment.format_map({column: text_of(record, column, where, row) for column in COLUMN.findall(segment)})
