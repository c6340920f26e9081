"""Whether results were made with the settings that their job asks for, and are not those of another job."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from analysis.suite.job import RESULTS_WORD, Job
from ntk_lpft.runs import RunFolder

_POSITIONAL = "runs"  # what words before the first flag are called in a config


def other_settings(job: Job, run: RunFolder) -> str:
    """Compare a job's options with those that its results were made with.

    Args:
        job: The job.
        run: The folder of its results.

    Returns:
        The first that differs, in a few words; empty where none does, or where the results do not say.

    Raises:
        InputError: The config of the results is damaged or was altered.
    """
    if not run.file(run.CONFIG).is_file() and run.CONFIG not in run.sealed_names():
        return ""
    config = run.config()
    command, stored = config.get("command", run.COMMAND), config.get("options", {})
    if command != run.COMMAND:
        return f"its results are of `{command}`"
    for name, words in _given(job.arguments).items():
        key, value = _stored(name, stored)
        if key is not None and not _fits(words, value):
            return f"its results have {key} {value} instead of {' '.join(words)}"
    return ""


def _given(arguments: Sequence[str]) -> Mapping[str, list[str]]:
    """Words of a command line by the option that they belong to."""
    given: dict[str, list[str]] = {}
    name = _POSITIONAL
    for word in arguments:
        if word.startswith("--"):
            flag, equals, value = word[2:].partition("=")
            name = flag.replace("-", "_")
            given[name] = [value] if equals else []
        else:
            given.setdefault(name, []).append(word)
    return given


def _stored(name: str, stored: Mapping[str, Any]) -> tuple[str | None, Any]:
    """Find an option in a config; one that an earlier version did not have cannot be compared."""
    if name in stored:
        return name, stored[name]
    plain = name.removeprefix("no_")
    return (plain, not stored[plain]) if plain != name and plain in stored else (None, None)


def _fits(words: Sequence[str], value: Any) -> bool:
    if isinstance(value, list | tuple):
        return len(words) == len(value) and all(_same(word, item) for word, item in zip(words, value, strict=True))
    if not words:
        return value is True
    return len(words) == 1 and _same(words[0], value)


def _same(word: str, value: Any) -> bool:
    if word.startswith(RESULTS_WORD):  # the folder may have been moved since
        return str(value).endswith(word.removeprefix(RESULTS_WORD))
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return float(word) == value
        except ValueError:
            return False
    return word == str(value)
