"""Options that commands share: each declared once, in a group, and checked before anything is loaded."""

from __future__ import annotations

import dataclasses
import importlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest

from ntk_lpft import options
from ntk_lpft.commands.calibrate.options import CalibrateOptions
from ntk_lpft.commands.compute.options import ComputeOptions
from ntk_lpft.commands.finetune.options import FinetuneOptions
from ntk_lpft.commands.parsing import parse_options
from ntk_lpft.errors import InputError
from ntk_lpft.finetuning.settings import MethodSettings
from ntk_lpft.kernel.settings import KernelSettings
from ntk_lpft.options import (
    DataOptions,
    DeviceOptions,
    LoraOptions,
    ModelOptions,
    OutputOptions,
    ProbeOptions,
    ScaleOptions,
    SeedOptions,
    TrainDataOptions,
    check_file,
    check_least,
    check_seed,
    option,
    part_of,
    with_default,
)

GROUPS = (
    TrainDataOptions,
    DataOptions,
    ModelOptions,
    ScaleOptions,
    LoraOptions,
    ProbeOptions,
    DeviceOptions,
    SeedOptions,
    OutputOptions,
)
COMMANDS = (ComputeOptions, FinetuneOptions, CalibrateOptions)
DECLARING = (*GROUPS, KernelSettings, MethodSettings, *COMMANDS)


def own_fields(kind: type) -> list[str]:
    """Names that a dataclass declares itself, and none that it inherits."""
    inherited = {field.name for base in kind.__bases__ if dataclasses.is_dataclass(base) for field in fields(base)}
    declared = vars(kind).get("__annotations__", {})
    return [field.name for field in fields(kind) if field.name in declared and field.name not in inherited]


def declared_again(kind: type) -> list[str]:
    """Names that a dataclass inherits, and declares nevertheless."""
    inherited = {field.name for base in kind.__bases__ if dataclasses.is_dataclass(base) for field in fields(base)}
    return [name for name in vars(kind).get("__annotations__", {}) if name in inherited]


def fields(kind: Any) -> tuple[dataclasses.Field, ...]:
    return dataclasses.fields(kind)


def test_the_list_of_groups_is_complete() -> None:
    kinds = [kind for kind in vars(options).values() if isinstance(kind, type) and dataclasses.is_dataclass(kind)]
    assert set(kinds) == set(GROUPS)


def test_each_option_is_declared_once() -> None:
    """But for a command's one that another calls alike; then the commands share no group that could hold it."""
    counts = Counter(name for kind in DECLARING for name in own_fields(kind))
    assert [name for name, count in counts.items() if count > 1] == ["head_scale"]  # one factor, and a grid of them
    commands_of = [kind for kind in DECLARING if "head_scale" in own_fields(kind)]
    assert commands_of == [ComputeOptions, FinetuneOptions]


@pytest.mark.parametrize("kind", DECLARING)
def test_an_option_that_is_declared_again_differs_by_its_default_alone(kind: type) -> None:
    inherited = {
        field.name: field for base in kind.__bases__ if dataclasses.is_dataclass(base) for field in fields(base)
    }
    for field in fields(kind):
        if field.name in declared_again(kind):
            before = inherited[field.name]
            assert field.metadata is before.metadata or field.metadata == before.metadata
            # An annotation is a text in files that put its evaluation off.
            assert getattr(field.type, "__name__", field.type) == getattr(before.type, "__name__", before.type)
            assert field.default != before.default
    assert declared_again(kind) == {FinetuneOptions: ["head_init"], ComputeOptions: ["head"]}.get(kind, [])


@pytest.mark.parametrize("kind", DECLARING)
def test_groups_are_frozen_titled_and_explained(kind: type) -> None:
    assert isinstance(vars(kind)["TITLE"], str)
    default = kind()
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(default, fields(kind)[0].name, None)
    for field in fields(kind):
        assert len(field.metadata["help"].split()) > 1, field.name


def test_lists_are_nobodys_but_their_own() -> None:
    one, two = DataOptions(), DataOptions()
    assert one.text_columns == two.text_columns == ["text"]
    assert one.text_columns is not two.text_columns


@dataclass(frozen=True)
class Small:
    """A group."""

    TITLE: ClassVar[str] = "small"

    size: int = option(3, "how many there are", aliases=("old_size", "count"))
    names: list[str] = option(["a"], "what they are called")


@dataclass(frozen=True)
class Command(Small, SeedOptions):
    """A command."""

    TITLE: ClassVar[str] = "command"

    size: int = with_default(Small, "size", 5)
    names: list[str] = with_default(Small, "names", ["b", "c"])


def parse(*words: str) -> Command:
    return parse_options(Command, "Does something.", words, "command")


def test_a_default_can_be_another() -> None:
    assert (Small(), Command()) == (Small(3, ["a"]), Command(seed=0, size=5, names=["b", "c"]))
    assert Command().names is not Command().names
    assert fields(Command)[1].metadata == fields(Small)[0].metadata


@pytest.mark.parametrize("flag", ["--size", "--old_size", "--old-size", "--count"])
def test_earlier_names_are_taken(flag: str) -> None:
    assert parse(flag, "7") == Command(size=7)


def test_earlier_names_are_not_advertised(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse("--help")
    text = capsys.readouterr().out
    assert "--size SIZE" in text
    assert "old" not in text
    assert "--count" not in text


def test_earlier_names_are_taken_in_config_files(tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text('{"options": {"old_size": 7, "seed": 2}}')
    assert parse("--config", str(config)) == Command(size=7, seed=2)
    assert parse("--config", str(config), "--size", "8") == Command(size=8, seed=2)


def test_the_test_file_was_called_eval_file() -> None:
    for command, kind in (("compute", ComputeOptions), ("finetune", FinetuneOptions)):
        module = importlib.import_module(f"ntk_lpft.commands.{command}.options")
        for flag in ("--test-file", "--test_file", "--eval-file", "--eval_file"):
            assert parse_options(kind, "", [flag, "x.csv"], module.PROG).test_file == "x.csv"


def test_part_of_a_commands_options() -> None:
    chosen = ComputeOptions(engine="per_example", groups=False, lora_rank=3, device="cpu", n_train=9)
    assert part_of(chosen, LoraOptions) == LoraOptions(lora_rank=3)
    expected = KernelSettings(engine="per_example", groups=False, device="cuda:1")
    assert part_of(chosen, KernelSettings, device="cuda:1") == expected
    assert type(part_of(chosen, KernelSettings)) is KernelSettings
    assert part_of(Command(size=9), Small) == Small(9, ["b", "c"])


def test_numbers_below_a_bound_are_refused() -> None:
    check_least(ComputeOptions(), n_train=2, max_length=128)  # None is none
    with pytest.raises(InputError, match=r"^--max-length 128 must be 129 or more$"):
        check_least(ComputeOptions(), lora_rank=1, max_length=129)


def test_seeds() -> None:
    for seed in (0, 2**63 - 1):
        check_seed(seed)
    for seed in (-1, 2**63):
        with pytest.raises(InputError, match=f"^--seed {seed} is not from 0 to"):
            check_seed(seed)


def test_files_that_are_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here.csv").touch()
    check_file("--train-file", None)
    check_file("--train-file", str(tmp_path / "here.csv"))
    monkeypatch.setenv("HOME", str(tmp_path))
    check_file("--train-file", "~/here.csv")
    for name, said in (("there.csv", ": no such file"), (str(tmp_path), " is not a file")):
        with pytest.raises(InputError, match=f"^--train-file {name}{said}; check the path$"):
            check_file("--train-file", name)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"test_file": "x.csv"}, "^--validation-file and --test-file need --train-file$"),
        ({"train_file": "x.csv"}, "^--train-file x.csv: no such file"),
        ({"max_length": 0}, "^--max-length 0 must be 1 or more"),
    ],
)
def test_data_that_cannot_be(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        DataOptions(**given).check_data()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"model": "./nowhere"}, "^model folder ./nowhere does not exist$"),
        ({"model": "~/nowhere"}, "^model folder ~/nowhere does not exist$"),
        ({"head": "cubic"}, "^unknown --head 'cubic'; choose one of linear, native$"),
        ({"pooling": "max"}, "^unknown --pooling 'max'; choose one of auto, first, last, mean$"),
        ({"head_init": "best"}, "^unknown --head-init 'best'; choose one of keep, or a file that exists$"),
    ],
)
def test_models_that_cannot_be(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ModelOptions(**{"head_init": "keep", **given}).check_model(("keep",))


def test_models_that_may_be(tmp_path: Path) -> None:
    (tmp_path / "head.safetensors").touch()
    for model in ("minilm", "roberta-base", "facebook/opt-125m", str(tmp_path)):
        ModelOptions(model=model, head_init=str(tmp_path / "head.safetensors")).check_model(("keep",))


def test_adapters_that_cannot_be() -> None:
    for given, message in (
        ({"lora_rank": 0}, "^--lora-rank 0 must be 1 or more$"),
        ({"lora_alpha": float("nan")}, "^--lora-alpha nan is not a finite number$"),
        ({"lora_alpha": float("-inf")}, "^--lora-alpha -inf is not a finite number$"),
    ):
        with pytest.raises(InputError, match=message):
            LoraOptions(**given).check_lora()


def test_folders_are_called_by_model_and_data() -> None:
    assert (ModelOptions(model="facebook/opt-125m").model_name, DataOptions(dataset="cb").data_name) == (
        "opt-125m", "cb")  # fmt: skip
    assert DataOptions(train_file="data/mine.csv").data_name == "mine"


def test_defaults_of_a_kernel_are_put_in(tmp_path: Path) -> None:
    found = ComputeOptions(head_init="random").resolved()
    assert (found.n_train, found.n_eval) == (250, 250)
    assert dataclasses.replace(found, n_train=None, n_eval=None) == ComputeOptions(head_init="random")
    assert ComputeOptions(n_train=7, n_eval=3).resolved().n_train == 7


def test_the_folder_of_a_kernel_is_named_by_its_head(tmp_path: Path) -> None:
    name = Path("runs") / f"{tmp_path.name}-amazon-snippets-keep-lora"
    assert ComputeOptions(model=str(tmp_path), head_init="keep", lora=True).folder() == name


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"fold_draws": 0}, "--fold-draws 0 must be 1 or more"),
        ({"fold_draws": 10**6}, "--fold-draws 1000000 is more than 1000; each costs a cross-validation"),
        ({"lp_solver": "newton"}, "unknown --lp-solver 'newton'; choose one of logistic, logistic-published$"),
    ],
)
def test_options_of_a_probe_that_make_no_sense(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ComputeOptions(**given).resolved()
    if "fold_draws" in given:
        with pytest.raises(InputError, match=message):
            FinetuneOptions(**given).check()


def test_a_kernels_head_is_probed_in_one_go() -> None:
    for solver in ("adam", "lbfgs"):
        with pytest.raises(InputError, match=f"unknown --lp-solver '{solver}'"):
            ComputeOptions(lp_solver=solver).resolved()
