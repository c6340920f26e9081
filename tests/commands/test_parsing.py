"""What the commands share: options, config files, exit statuses."""

from __future__ import annotations

import dataclasses
import importlib
import json
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ntk_lpft.commands.calibrate.options import CalibrateOptions
from ntk_lpft.commands.compute.options import ComputeOptions
from ntk_lpft.commands.finetune.options import FinetuneOptions
from ntk_lpft.commands.parsing import given_flags, parse_options
from ntk_lpft.commands.running import run_command
from ntk_lpft.errors import InputError


@dataclass
class Options:
    """Options of every kind that commands have."""

    model: str = field(default="minilm", metadata={"help": "which model"})
    n_train: int = field(default=3, metadata={"help": "how many"})
    head_scale: float = field(default=1.0, metadata={"help": "how large"})
    with_lora: bool = field(default=False, metadata={"help": "whether to"})
    all_groups: bool = field(default=True, metadata={"help": "whether not to"})
    text_columns: list[str] = field(default_factory=lambda: ["text"], metadata={"help": "which columns"})
    device: str | None = field(default=None, metadata={"help": "where"})
    output_dir: str | None = field(default=None, metadata={"help": "where to"})
    overwrite: bool = field(default=False, metadata={"help": "whether to replace"})


def parse(*words: str) -> Options:
    return parse_options(Options, "Does something.", words, "command")


def changed(options: Options) -> dict[str, object]:
    return {k: v for k, v in dataclasses.asdict(options).items() if v != getattr(Options(), k)}


def save(path: Path, **options: object) -> str:
    path.write_text(json.dumps({"options": options}))
    return str(path)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("", {}),
        ("--n-train 5", {"n_train": 5}),
        ("--n_train 5", {"n_train": 5}),
        ("--n-train=5 --n_train 6", {"n_train": 6}),
        ("--head-scale 1e-3", {"head_scale": 1e-3}),
        ("--head-scale -2", {"head_scale": -2.0}),
        ("--with-lora", {"with_lora": True}),
        ("--with_lora True", {"with_lora": True}),
        ("--no-all-groups", {"all_groups": False}),
        ("--no_all_groups", {"all_groups": False}),
        ("--all-groups false", {"all_groups": False}),
        ("--text-columns a b --device cpu", {"text_columns": ["a", "b"], "device": "cpu"}),
    ],
)
def test_spellings(words: str, expected: dict) -> None:
    assert changed(parse(*words.split())) == expected


def test_words_come_from_the_process_where_none_are_given(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # Beside a script, transformers would also read a file of arguments; nobody asked for that.
    (tmp_path / "script.args").write_text("--n-train 9")
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "script.py"), "--model", "mine"])
    assert changed(parse_options(Options, "", None, "command")) == {"model": "mine"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--n-train five", "^argument --n-train: invalid int value: 'five'"),
        ("--n_train five", "^argument --n-train: invalid int value: 'five'"),
        ("--n-train", "^argument --n-train: expected one argument"),
        ("--n-train --a_b/c", "^argument --n-train: expected one argument"),
        ("--n-train=--a_b/c", "^argument --n-train: invalid int value: '--a_b/c'"),
        ("--with-lora maybe", "^argument --with-lora: .*maybe"),
        ("--colour red", "^unrecognized arguments: --colour"),
        ("--mod x", "^unrecognized arguments: --mod"),
        ("stray", "^unrecognized arguments: stray"),
        ("--config", "argument --config: expected one argument"),
    ],
)
def test_bad_words(words: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match=f"{message}.*--help lists the options"):
        parse(*words.split())
    assert capsys.readouterr() == ("", "")


def test_config_gives_what_the_words_do_not(tmp_path: Path) -> None:
    path = save(tmp_path / "c.json", n_train=7, with_lora=True, all_groups=False, text_columns=["a"], device=None,
                head_scale=2)  # fmt: skip
    options = parse("--n-train", "8", "--config", path)
    expected = {"n_train": 8, "with_lora": True, "all_groups": False, "text_columns": ["a"], "head_scale": 2}
    assert changed(options) == expected
    assert changed(parse(f"--config={path}")) == {**expected, "n_train": 7}


def test_config_does_not_say_where_results_go(tmp_path: Path) -> None:
    path = save(tmp_path / "c.json", output_dir="elsewhere", overwrite=True, model="mine")
    assert changed(parse("--config", path)) == {"model": "mine"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "does not exist"),
        ("", "is no config.json that this command wrote"),
        ("null", "is no config.json"),
        ("[]", "is no config.json"),
        ("{}", "is no config.json"),
        ('{"options": "n_train"}', "is no config.json"),
        ("\udcff", "is no config.json"),
        ('{"options": ' + "[" * 100_000 + "]" * 100_000 + "}", "nested too deeply"),
        ('{"options": {"n_train": ' + "9" * 5000 + "}}", "has 5000 digits"),
        ('{"options": {"b": 1, "a": 2}}', "holds options that this command does not have: a, b"),
        ('{"options": {"n_train": "3"}}', "option n_train cannot be '3'; correct it"),
        ('{"options": {"n_train": 2.5}}', "option n_train cannot be 2.5"),
        ('{"options": {"n_train": null}}', "option n_train cannot be None"),
        ('{"options": {"with_lora": 1}}', "option with_lora cannot be 1"),
        ('{"options": {"device": 0}}', "option device cannot be 0"),
        ('{"options": {"text_columns": "text"}}', "option text_columns cannot be 'text'"),
    ],
)
def test_bad_configs(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "c.json"
    if content is not None:
        path.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError, match=message) as caught:
        parse("--config", str(path))
    assert str(path) in str(caught.value)
    with pytest.raises(InputError, match=r"is no config.json"):
        parse("--config", str(tmp_path))


@pytest.mark.parametrize("path", ["/dev/zero", "a\0b", "x" * 300])
def test_configs_that_are_no_files(path: str) -> None:
    with pytest.raises(InputError, match=r"is no config\.json that this command wrote|has a NUL"):
        parse("--config", path)


def squeezed(text: str) -> str:
    """Leave spaces out, as argparse breaks lines at hyphens as well."""
    return "".join(text.split())


@pytest.mark.parametrize(
    ("kind", "name", "part"),
    [
        (ComputeOptions, "compute", "pre-train-effective component P"),
        (FinetuneOptions, "finetune", "linear probing (lp), fine-tuning (ft)"),
        (CalibrateOptions, "calibrate", "Fit a temperature on validation logits"),
    ],
)
def test_help_explains_every_option(capsys: pytest.CaptureFixture[str], kind: type, name: str, part: str) -> None:
    command = importlib.import_module(f"ntk_lpft.{name}")
    with pytest.raises(SystemExit) as caught:
        command.main(["--help"])
    assert caught.value.code == 0
    lines = capsys.readouterr().out
    text = squeezed(lines)
    assert text.startswith(f"usage:python-mntk_lpft.{name}")
    assert squeezed(part) in text
    for option in dataclasses.fields(kind):
        about = option.metadata["help"]
        assert len(about.split()) > 1, option.name
        assert squeezed(about) in text
        assert f"--{option.name.replace('_', '-')}" in text
    assert re.findall(r"--[a-z]+_\w+", lines) == []  # one spelling, with dashes


def test_flags_that_words_give() -> None:
    words = ["--learning-rate", "0.1", "--max_steps=3", "stray", "--", "-x", "--bf16"]
    assert given_flags(words) == {"learning_rate": "--learning-rate", "max_steps": "--max_steps=3", "bf16": "--bf16"}


def fail(error: BaseException) -> None:
    raise error


def test_exit_statuses(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(lambda: lambda: None) == 0
    assert capsys.readouterr().err == ""
    assert run_command(lambda: fail(InputError("two\n  lines"))) == 2
    assert capsys.readouterr().err == "error: two lines\n"
    for prepare in (lambda: fail(KeyboardInterrupt()), lambda: lambda: fail(KeyboardInterrupt())):
        assert run_command(prepare) == 130
        assert capsys.readouterr().err == "stopped; the same command begins again\n"
    # A fault of the program is none of the input's.
    with pytest.raises(ZeroDivisionError):
        run_command(lambda: fail(ZeroDivisionError()))
