"""Options of ``TrainingArguments``, whose names are known without importing it."""

from __future__ import annotations

import dataclasses

from transformers import HfArgumentParser, TrainingArguments

from ntk_lpft.commands.finetune.training_flags import training_flags


def test_the_names_are_those_of_the_fields() -> None:
    assert list(training_flags()) == [field.name for field in dataclasses.fields(TrainingArguments) if field.init]


def test_every_flag_of_transformers_parser_is_known() -> None:
    """Those that begin with ``no_`` belong to an option that is on by default."""
    taken = {word[2:].replace("-", "_") for action in HfArgumentParser(TrainingArguments)._actions
             for word in action.option_strings if word.startswith("--")}  # fmt: skip
    known = set(training_flags())
    assert {name for name in taken - known if name.removeprefix("no_") not in known} <= {"help"}
