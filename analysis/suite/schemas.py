"""What the files of a suite may say: its description, and the records of its jobs."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from ntk_lpft.runs.schemas import Count, NotNegative, Seed, Text

State = Literal["waiting", "running", "finished", "failed", "blocked"]

_MOST_BYTES = 200  # of a folder's name; the file system takes 255, and endings come to it


def _folder_name(text: str) -> str:
    """Refuse what would lead out of the results, or could not be a folder's name."""
    if text in ("", ".", "..") or "/" in text or "\\" in text or not text.isprintable():
        raise ValueError("cannot be the name of a folder")
    if len(text.encode()) > _MOST_BYTES:
        raise ValueError(f"is longer than {_MOST_BYTES} bytes")
    return text


FolderName = Annotated[str, AfterValidator(_folder_name)]
Rows = Annotated[list[Count], Field(min_length=2, max_length=2)]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")


class StoredJob(BaseModel):
    """A job in ``suite.json``."""

    model_config = ConfigDict(strict=True, extra="forbid")

    kind: FolderName
    dataset: FolderName
    method: FolderName
    seed: Seed
    arguments: list[str]
    needs: list[str]
    flops: NotNegative = 0.0


class StoredUse(_Strict):
    """How a data set is used."""

    rows: Rows | None = None
    epochs: NotNegative | None = None
    kernel_rows: Rows | None = None
    scale_rows: Rows | None = None
    scale_epochs: NotNegative | None = None
    scale_seeds: Count | None = None


class StoredSettings(_Strict):
    """Settings of a suite."""

    model: Text = "unknown"
    datasets: dict[str, StoredUse] = {}


class StoredSuite(BaseModel):
    """``suite.json``."""

    model_config = ConfigDict(strict=True, extra="forbid")

    name: Text
    says: str
    settings: StoredSettings
    versions: dict[str, Any]
    machine: Any = None
    jobs: list[StoredJob]


class StoredRecord(BaseModel):
    """How a job went, in ``jobs/``."""

    model_config = ConfigDict(strict=True, extra="forbid")

    state: State
    arguments: list[str] = []
    host: str = ""
    pid: Count = 0
    began: NotNegative = 0.0
    launcher: str = ""
    job_id: str = ""
    seconds: NotNegative = 0.0
    error: str = ""
