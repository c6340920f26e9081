"""Data sets from the Hugging Face Hub, or from a local copy of a Hub repository."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ntk_lpft.errors import InputError
from ntk_lpft.tasks.tables import Record


def unchanged(record: Record) -> Record:
    """Return the record as it is."""
    return record


@dataclass(frozen=True)
class HubSource:
    """Where a task lies on the Hub.

    Attributes:
        repository: ``owner/name`` of a repository that holds data files, no loading script.
        config: Configuration within it.
        revision: Commit to read; None for the newest.
        splits: The Hub's split for each of ours.
        adapt: Brings a Hub record to the template's columns.
        note: What differs from the data of the paper.
    """

    repository: str
    config: str | None = None
    revision: str | None = None
    splits: Mapping[str, str] = field(default_factory=lambda: {"train": "train", "test": "validation"})
    adapt: Callable[[Record], Record] = unchanged
    note: str = ""

    def describe(self, root: Path | None) -> str:
        """Say in words where the data is read."""
        place = f"Hub data set {self.repository}" if root is None else f"{root / self.repository}"
        config = f" ({self.config})" if self.config else ""
        revision = f" at {self.revision[:12]}" if self.revision and root is None else ""
        return f"{place}{config}{revision}{self.note}"


def read_hub(source: HubSource, split: str, root: Path | None = None) -> list[Record]:
    """Read one split as records, with class names in place of class numbers.

    Args:
        source: Where the task lies.
        split: Our name of the split, a key of ``source.splits``.
        root: A folder with copies of Hub repositories at ``owner/name``; None for the Hub itself.

    Returns:
        One record for each row, in the split's order.

    Raises:
        InputError: The library is missing, or the data set cannot be reached or read.
    """
    try:
        import datasets
    except ImportError as error:
        raise InputError(
            f"{source.repository} needs the datasets package; install it, or give --data-dir or NTK_LPFT_DATA"
        ) from error

    place = source.repository if root is None else str(root / source.repository)
    revision = source.revision if root is None else None
    try:
        rows = datasets.load_dataset(place, source.config, split=source.splits[split], revision=revision)
    except Exception as error:  # the library lets the errors of several network and file libraries through
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise InputError(
            f"{source.describe(root)}, split {source.splits[split]}, cannot be read ({reason}); connect to the Hub, or "
            "name a folder with the original files by --data-dir or NTK_LPFT_DATA"
        ) from error
    names = getattr(rows.features.get("label"), "names", None)
    return [source.adapt(_with_name(record, names)) for record in rows]


def _with_name(record: Record, names: list[str] | None) -> Record:
    label = record.get("label")
    if names is None or not isinstance(label, int) or not 0 <= label < len(names):
        return record
    return {**record, "label": names[label]}
