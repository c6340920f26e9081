"""Options that several commands share, in groups, each declared once. Nothing heavy is imported, for ``--help``."""

import dataclasses
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from ntk_lpft.choices import HEADS, LOGISTIC, POOLINGS, choose
from ntk_lpft.disk_errors import check_is_file
from ntk_lpft.errors import InputError
from ntk_lpft.model_sources import check_source, model_places

Group = TypeVar("Group")

MOST_FOLD_DRAWS = 1000


def option(default: Any, text: str, *, aliases: tuple[str, ...] = ()) -> Any:
    """Declare an option of a command as a field of a dataclass.

    Args:
        default: Its value where none is given; a list is copied for each use.
        text: What ``--help`` says.
        aliases: Earlier names of it, which are still taken.

    Returns:
        A dataclass field.
    """
    metadata: dict[str, Any] = {"help": text}
    if aliases:
        metadata["aliases"] = [f"--{name.replace('_', sign)}" for name in aliases for sign in ("_", "-")]
        metadata["aliases"] = list(dict.fromkeys(metadata["aliases"]))
    return _field(default, metadata)


def flag_of(name: str) -> str:
    """How help and messages spell an option."""
    return f"--{name.replace('_', '-')}"


def _field(default: Any, metadata: Any) -> Any:
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def with_default(group: type, name: str, default: Any) -> Any:
    """Declare an option of a group again, with another default and all else as it is there."""
    declared = {each.name: each for each in dataclasses.fields(group)}[name]
    return _field(default, declared.metadata)


def part_of(options: Any, group: type[Group], **changes: Any) -> Group:
    """Return those of a command's options that belong to a group.

    Args:
        options: Options of a command, which inherit the group.
        group: The group.
        **changes: Values that differ.

    Returns:
        The options of the group.
    """
    values = {each.name: getattr(options, each.name) for each in dataclasses.fields(group)}  # type: ignore[arg-type]
    return group(**{**values, **changes})


def check_file(flag: str, name: str | None) -> None:
    """Refuse a file that is not there.

    Args:
        flag: How messages name the option.
        name: Path of the file; None passes.

    Raises:
        InputError: There is none of that name.
    """
    if name is not None:
        check_is_file(Path(name).expanduser(), flag)


def check_filled(options: Any, *names: str) -> None:
    """Refuse a path that is empty, which would stand for the current folder.

    Args:
        options: Options of a command.
        *names: Options that hold a path or None, or a list of paths.

    Raises:
        InputError: One of them is empty, or blank.
    """
    for name in names:
        value = getattr(options, name)
        if any(not path.strip() for path in ([value] if isinstance(value, str) else value or [])):
            raise InputError(f"{flag_of(name)} is empty; give a path, or leave it out")


def check_least(options: Any, **bounds: int) -> None:
    """Refuse numbers that are too small.

    Args:
        options: Options of a command.
        **bounds: The least value of each option, by its name; a value of None passes.

    Raises:
        InputError: The option of some name is below its bound.
    """
    for name, bound in bounds.items():
        number = getattr(options, name)
        if number is not None and number < bound:
            raise InputError(f"{flag_of(name)} {number} must be {bound} or more")


def check_idle(given: Collection[str], *idle: Mapping[str, str]) -> None:
    """Refuse options on the command line that would do nothing.

    Args:
        given: Names of those that are on the command line; in a config they are left from other settings.
        *idle: Options that do nothing as the others are, each with the reason.

    Raises:
        InputError: One of them is given.
    """
    for name, why in (pair for each in idle for pair in each.items()):
        if name in given:
            raise InputError(f"{flag_of(name)} does nothing {why}; leave it out")


def check_seed(seed: int) -> None:
    """Refuse what no generator of random numbers takes.

    Args:
        seed: The seed.

    Raises:
        InputError: The seed is negative or has more than 63 bits.
    """
    if not 0 <= seed < 2**63:
        raise InputError(f"--seed {seed} is not from 0 to 2**63 - 1")


def inputs_of(options: Any) -> list[tuple[str, Path]]:
    """List the files and folders that options name to be read, as far as they are there; none of them is replaced.

    Args:
        options: Options of a command; each class that they are made of names its own as ``INPUTS``.

    Returns:
        Each with the flag that names it. Of a model these are its folder, that of a run's model in it, and the one that
        an adapter in it belongs to.
    """
    names = dict.fromkeys(name for kind in type(options).__mro__ for name in vars(kind).get("INPUTS", ()))
    found: list[tuple[str, Path]] = []
    for name in names:
        value = getattr(options, name)
        for text in [value] if isinstance(value, str) else value or []:
            path = Path(text).expanduser()
            if not path.exists():
                path = Path(text.partition("=")[2] or text).expanduser()  # NAME=FILE
            if path.exists():
                places = [path, *model_places(path)] if name == "model" else [path]
                found += [(flag_of(name), each) for each in places]
    return found


_OF_FILES = ("text_columns", "label_column", "label_names", "stratified_validation")  # say how files are read


@dataclass(frozen=True)
class TrainDataOptions:
    """Which training samples: of a task by name, or of a file."""

    TITLE: ClassVar[str] = "data"
    INPUTS: ClassVar[tuple[str, ...]] = ("train_file",)

    dataset: str = option("amazon-snippets", "task by name; see --train-file for your own data")
    data_dir: str | None = option(None, "folder with original releases (default: $NTK_LPFT_DATA, else the Hub)")
    train_file: str | None = option(None, "your own training data: csv, tsv, jsonl or parquet, instead of --dataset")
    text_columns: list[str] = option(["text"], "one or two text columns of your own data")
    label_column: str = option("label", "label column of your own data")
    label_names: list[str] = option(
        [],
        "classes of your own data in the order of their numbers (default: their own numbers from 0, or sorted)",
    )
    max_length: int = option(128, "longest row in tokens")
    n_train: int | None = option(
        None, "training rows to draw (default: 250 for a kernel; all for fine-tuning, drawn class-balanced if fewer)"
    )

    def idle_data(self) -> dict[str, str]:
        """Options on the data that do nothing, with the reason."""
        if self.train_file is not None:
            return dict.fromkeys(("dataset", "data_dir"), "beside --train-file")
        own = [each.name for each in dataclasses.fields(self) if each.name in _OF_FILES]
        return dict.fromkeys(own, "without --train-file")

    @property
    def data_name(self) -> str:
        """What folders of results are called by."""
        return Path(self.train_file).stem if self.train_file else self.dataset


@dataclass(frozen=True)
class DataOptions(TrainDataOptions):
    """Which samples: of all splits of a task by name, or of files."""

    TITLE: ClassVar[str] = "data"
    INPUTS: ClassVar[tuple[str, ...]] = ("validation_file", "test_file")

    validation_file: str | None = option(None, "your own validation data (default: the last tenth of training)")
    test_file: str | None = option(None, "your own test data", aliases=("eval_file",))
    stratified_validation: bool = option(
        False, "without --validation-file: a tenth of each class for validation, for a training file sorted by class"
    )
    n_eval: int | None = option(
        None,
        "rows to draw of each other split (default: 250 for a kernel; all for fine-tuning, but 500 of bundled data)",
    )

    def check_data(self) -> None:
        """Refuse what can be seen to be wrong without reading anything.

        Raises:
            InputError: Some option makes no sense, or a file is not there.
        """
        check_filled(self, "data_dir", "train_file", "validation_file", "test_file")
        if self.train_file is None and (self.validation_file or self.test_file):
            raise InputError("--validation-file and --test-file need --train-file")
        if self.stratified_validation and self.validation_file:
            raise InputError("--stratified-validation does nothing beside --validation-file; leave one of them out")
        for name in ("train_file", "validation_file", "test_file"):
            check_file(flag_of(name), getattr(self, name))
        check_least(self, max_length=1)


@dataclass(frozen=True)
class ModelOptions:
    """Which classifier, and what its head begins with."""

    TITLE: ClassVar[str] = "model"
    INPUTS: ClassVar[tuple[str, ...]] = ("model", "head_init")

    model: str = option("minilm", "model: a Hub name, a folder, also that of a finetune run, or the bundled 'minilm'")
    head: str = option(
        "linear",
        "'linear': one layer on the pooled feature (the paper's); 'native': the model's own; for a kernel also 'auto': "
        "what --head-init keeps, else 'linear'",
    )
    pooling: str = option("auto", "feature of a linear head: first, last, mean, or auto (last for decoders)")
    head_init: str = option(
        "auto",
        "V: 'random', 'keep' (as saved), or a file that a linear probe wrote; for a kernel also 'lp' (logistic "
        "regression on all training data) or 'auto' ('keep' where the model has a trained head for as many classes, "
        "else 'lp')",
    )
    trust_remote_code: bool = option(False, "run code that the model's repository ships")

    def check_model(self, head_inits: tuple[str, ...], heads: tuple[str, ...] = HEADS) -> None:
        """Refuse what can be seen to be wrong without loading anything.

        Args:
            head_inits: What ``--head-init`` may be besides a file.
            heads: What ``--head`` may be.

        Raises:
            InputError: Some option makes no sense, or a folder or file is not there.
        """
        check_filled(self, "model", "head_init")
        check_source(self.model)
        choose("--head", self.head, heads)
        choose("--pooling", self.pooling, POOLINGS)
        if self.head_init not in head_inits and not Path(self.head_init).is_file():
            raise InputError(
                f"unknown --head-init {self.head_init!r}; choose one of {', '.join(head_inits)}, or a file that exists"
            )

    def idle_model(self) -> dict[str, str]:
        """Options on the model that do nothing, with the reason."""
        if self.head == "native":
            return {"pooling": "for --head native, which pools as the model does"}
        return (
            {"pooling": "with --head-init keep, as a saved head comes with its pooling"}
            if self.head_init == "keep"
            else {}
        )

    @property
    def model_name(self) -> str:
        """What folders of results are called by."""
        return Path(self.model).name


@dataclass(frozen=True)
class ScaleOptions:
    """What the factor on the head, ``--head-scale``, is applied to."""

    TITLE: ClassVar[str] = "model"

    scale_bias: bool = option(False, "whether --head-scale multiplies b as well")


@dataclass(frozen=True)
class ProbeOptions:
    """How a linear probe fits V.

    Attributes:
        lp_solver: ``logistic`` (the paper's), ``logistic-published`` (as their code scales binary heads), ``adam`` or
            ``lbfgs``.
        fold_draws: Shuffles of the cross-validation's folds that are tried, the run's own among them.
    """

    TITLE: ClassVar[str] = "linear probe"

    lp_solver: str = option(
        LOGISTIC,
        "'logistic' (cross-validated, the paper's), 'logistic-published' (as the published code scales binary heads), "
        "or for fine-tuning 'adam' or 'lbfgs', which record every iteration",
    )
    fold_draws: int = option(
        5, "shuffles of the cross-validation's folds to try, from the seed on, to see how far C and ‖V‖ depend on them"
    )

    def check_probe(self, solvers: tuple[str, ...]) -> None:
        """Refuse what makes no sense.

        Args:
            solvers: What ``--lp-solver`` may be.

        Raises:
            InputError: An unknown solver, no shuffle at all, or too many.
        """
        choose("--lp-solver", self.lp_solver, solvers)
        check_least(self, fold_draws=1)
        if self.fold_draws > MOST_FOLD_DRAWS:
            raise InputError(
                f"--fold-draws {self.fold_draws} is more than {MOST_FOLD_DRAWS}; each costs a cross-validation, and a "
                "hundred tell all there is to tell"
            )


@dataclass(frozen=True)
class LoraOptions:
    """LoRA adapters."""

    TITLE: ClassVar[str] = "LoRA"

    lora_rank: int = option(8, "rank r of the adapters")
    lora_alpha: float = option(8.0, "α; adapters are scaled by α / r")
    lora_targets: list[str] = option([], "layers to adapt (default: peft's choice, mostly query and value)")

    def check_lora(self) -> None:
        """Refuse numbers that make no sense.

        Raises:
            InputError: A rank below one, or an α that is not finite.
        """
        check_least(self, lora_rank=1)
        if not abs(self.lora_alpha) < float("inf"):
            raise InputError(f"--lora-alpha {self.lora_alpha} is not a finite number")


@dataclass(frozen=True)
class DeviceOptions:
    """Where to compute."""

    TITLE: ClassVar[str] = "computation"

    device: str | None = option(None, "cpu, cuda, cuda:1 (default: cuda where there is one)")


@dataclass(frozen=True)
class SeedOptions:
    """What is random."""

    TITLE: ClassVar[str] = "computation"

    seed: int = option(0, "seed of all that is drawn at random")


@dataclass(frozen=True)
class OutputOptions:
    """Where results go. They say nothing of what the results are, so that a config file does not carry them over."""

    TITLE: ClassVar[str] = "results"

    INPUTS: ClassVar[tuple[str, ...]] = ("config",)

    config: str | None = option(None, "config.json of an earlier run; other options override what it says")
    output_dir: str | None = option(None, "folder for the results (default: below runs, by model, data and method)")
    overwrite: bool = option(False, "replace results in the output folder, and start an interrupted run anew")

    def check_output(self) -> None:
        """Refuse what is no folder.

        Raises:
            InputError: An empty path.
        """
        check_filled(self, "output_dir")
