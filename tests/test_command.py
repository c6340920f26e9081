"""What the commands share: options, config files, output folders, exit statuses."""

from __future__ import annotations

import dataclasses
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ntk_lpft.command import open_output, parse_options, run_command, write_json
from ntk_lpft.compute import DESCRIPTION, ComputeOptions
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
        ("--n-train five", "argument --n_train/--n-train: invalid int value: 'five'"),
        ("--n-train", "argument --n_train/--n-train: expected one argument"),
        ("--with-lora maybe", "--with_lora/--with-lora: .*maybe"),
        ("--colour red", "unknown option '--colour'"),
        ("--mod x", "unknown option '--mod'"),
        ("stray", "unknown option 'stray'"),
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


def test_help_explains_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse_options(ComputeOptions, DESCRIPTION, ["--help"], "python -m ntk_lpft.compute")
    assert caught.value.code == 0
    text = "".join(capsys.readouterr().out.split())  # argparse breaks lines at hyphens as well
    assert text.startswith("usage:python-mntk_lpft.compute")
    assert "pre-train-effectivecomponentP" in text
    for option in dataclasses.fields(ComputeOptions):
        about = option.metadata["help"]
        assert len(about.split()) > 1, option.name
        assert "".join(about.split()) in text
        assert f"--{option.name.replace('_', '-')}" in text


def test_output_folder(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    open_output(folder, ["x.csv"], overwrite=False)
    assert list(folder.iterdir()) == []
    (folder / "mine.txt").touch()
    open_output(folder, ["x.csv"], overwrite=False)
    (folder / "x.csv").write_text("earlier")
    with pytest.raises(InputError, match=r"already holds x.csv; choose another --output-dir, or give --overwrite"):
        open_output(folder, ["x.csv", "y.csv"], overwrite=False)
    open_output(folder, ["x.csv"], overwrite=True)
    assert (folder / "x.csv").read_text() == "earlier"
    with pytest.raises(InputError, match=r"x.csv cannot be written \(File exists\)"):
        open_output(folder / "x.csv", [], overwrite=True)
    with pytest.raises(InputError, match=r"below cannot be written \(Not a directory\)"):
        open_output(folder / "x.csv" / "below", [], overwrite=True)


def test_json_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_json(path, {"α": 1})
    assert json.loads(path.read_text(encoding="utf-8")) == {"α": 1}
    with pytest.raises(TypeError):
        write_json(path, {"β": object()})
    assert json.loads(path.read_text(encoding="utf-8")) == {"α": 1}
    assert [found.name for found in tmp_path.iterdir()] == ["x.json"]


def fail(problem: BaseException) -> None:
    raise problem


def test_exit_statuses(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(lambda: None) == 0
    assert capsys.readouterr().err == ""
    assert run_command(lambda: fail(InputError("two\n  lines"))) == 2
    assert capsys.readouterr().err == "error: two lines\n"
    assert run_command(lambda: fail(KeyboardInterrupt())) == 130
    assert capsys.readouterr().err == "stopped; the same command goes on where it was\n"
    # A fault of the program is none of the input's.
    with pytest.raises(ZeroDivisionError):
        run_command(lambda: fail(ZeroDivisionError()))
