"""The task that options ask for."""

from __future__ import annotations

from ntk_lpft.options import DataOptions
from ntk_lpft.tasks import Task, load_files, load_task


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
    )
