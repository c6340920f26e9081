"""The task, and the model, that options ask for."""

from torch import device as Device
from torch import nn

from ntk_lpft.classifier import load_classifier
from ntk_lpft.options import DataOptions, ModelOptions
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


def model_of(options: ModelOptions, num_labels: int, seed: int, device: Device, *, keep_head: bool) -> nn.Module:
    """Load the model.

    Args:
        options: Which.
        num_labels: C of the data.
        seed: For what the checkpoint does not hold.
        device: Where to put it.
        keep_head: Whether its head is taken from the checkpoint.

    Returns:
        The model, with a head of that many classes.

    Raises:
        InputError: As for ``load_classifier``.
    """
    return load_classifier(
        options.model,
        num_labels,
        head=options.head,
        pooling=options.pooling,
        seed=seed,
        keep_head=keep_head,
        device=device,
        trust_remote_code=options.trust_remote_code,
    )
