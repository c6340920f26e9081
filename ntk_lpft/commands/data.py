"""The task, and the model, that options ask for."""

from collections.abc import Callable, Sequence
from pathlib import Path

from torch import device as Device
from torch import nn

from ntk_lpft.checksums import file_checksum
from ntk_lpft.classifier import load_classifier
from ntk_lpft.model_sources import resolve_source
from ntk_lpft.options import DataOptions, ModelOptions
from ntk_lpft.tasks import Task, load_files, load_task
from ntk_lpft.tasks.describe import describe_classes, doubts


def task_of(options: DataOptions) -> Task:
    """Return the data, of a named task not read yet.

    Args:
        options: Which.

    Returns:
        The task, named or made of the user's files.

    Raises:
        InputError: No such task, or anything wrong with the user's own files.
    """
    if options.train_file is None:
        return load_task(options.dataset, options.data_dir)
    return load_files(
        options.train_file,
        options.validation_file,
        options.test_file,
        text_columns=tuple(options.text_columns),
        label_column=options.label_column,
        label_names=options.label_names or None,
        stratified_validation=options.stratified_validation,
    )


def model_of(
    options: ModelOptions,
    label_names: Sequence[str],
    seed: int,
    device: Device,
    *,
    keep_head: bool,
    dtype: str | None = None,
    say: Callable[[str], object] = print,
) -> nn.Module:
    """Load the model.

    Args:
        options: Which.
        label_names: Classes of the data, in the order of their numbers.
        seed: For what the checkpoint does not hold.
        device: Where to put it.
        keep_head: Whether its head is taken from the checkpoint.
        dtype: As for ``load_classifier``.
        say: Called with a line on how the classes of a kept head were matched.

    Returns:
        The model, with a head of that many classes.

    Raises:
        InputError: As for ``load_classifier``.
    """
    return load_classifier(
        options.model,
        len(label_names),
        head=options.head,
        pooling=options.pooling,
        seed=seed,
        keep_head=keep_head,
        label_names=label_names,
        dtype=dtype,
        say=say,
        device=device,
        trust_remote_code=options.trust_remote_code,
    )


def data_lines(task: Task) -> list[str]:
    """Lines for the user on the data that has been read: classes and their counts, and what looks odd."""
    return [f"labels: {describe_classes(task)}", *(f"note:   {line}" for line in doubts(task))]


def model_checksums(options: ModelOptions) -> dict[str, str]:
    """Tell a model, and a head's file, from others by the same name.

    Args:
        options: Which.

    Returns:
        A sha256 of each file in the model's folder that it is made of, and of the head's file; of a model on the Hub
        nothing, as its name stands for it.

    Raises:
        InputError: There is no such model, or a file cannot be read.
    """
    folder = Path(resolve_source(options.model))
    files = sorted([*folder.glob("*.safetensors"), folder / "config.json"]) if folder.is_dir() else []
    found = {path.name: file_checksum(path) for path in files}
    head = Path(options.head_init)
    return {**found, "head_init": file_checksum(head)} if head.is_file() else found
