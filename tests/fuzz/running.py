"""Runs one case after another: whatever is given, there is a result or one line, soon, and nothing is harmed."""

from __future__ import annotations

import contextlib
import faulthandler
import hashlib
import io
import os
import random
import shutil
import signal
import stat
import traceback
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from fuzz.targets import Target, targets
from ntk_lpft.errors import InputError

LIMIT = 25.0  # seconds for one case, on a machine that does other things as well


class Hang(BaseException):
    """A case took too long."""


@dataclass(frozen=True)
class Failure:
    """A case that went wrong.

    Attributes:
        target: Its target's name.
        number: Which of the target's cases.
        done: How the input was spoilt.
        how: What happened instead of a result or a line.
    """

    target: str
    number: int
    done: str
    how: str

    def __str__(self) -> str:
        return f"{self.target} #{self.number} | {ascii(self.done)[1:-1]} | {ascii(self.how)[1:-1]}"


def cases(count: int, only: str = "") -> list[tuple[Target, int]]:
    """Share a number of cases out between the targets whose names begin with a word."""
    chosen = [target for target in targets() if target.name.startswith(only)]
    whole = sum(target.share for target in chosen)
    return [(target, number) for target in chosen for number in range(max(1, round(count * target.share / whole)))]


def run_case(target: Target, number: int, seed: int, world: Path, scratch: Path) -> Failure | None:
    """Run one case.

    Args:
        target: What is fed.
        number: Which of its cases.
        seed: Of the whole.
        world: Sound inputs, see ``make_world``.
        scratch: A folder that is emptied.

    Returns:
        What went wrong, if anything did.
    """
    shutil.rmtree(scratch, ignore_errors=True)
    (scratch / "in").mkdir(parents=True)
    if target.world:
        shutil.copytree(world / target.world, scratch / "in", dirs_exist_ok=True, symlinks=True)
    mine = ["out/mine.txt", "out/model/mine.txt"]
    if number % 8 == 7:  # where commands may refuse to write at all
        mine += ["out/new/mine.txt", "out/new/model/mine.txt", "out/new/config.json"]
    for name in mine:
        (scratch / name).parent.mkdir(parents=True, exist_ok=True)
        (scratch / name).write_text("a file of the user's")
    rng = random.Random(f"{seed} {target.name} {number}")
    done, call = target.prepare(rng, scratch)
    before = _state(scratch)
    how = _outcome(call)
    if how is None:
        after = _state(scratch)
        harmed = sorted(name for name in before if after.get(name) != before[name])
        how = f"harmed {harmed[0]}" if harmed else None
    return None if how is None else Failure(target.name, number, done, how)


def _outcome(call: object) -> str | None:
    """Call, and say what went wrong: anything but a status of success, or one line and the status of bad input."""
    said, shown = io.StringIO(), io.StringIO()
    try:
        with _limited(), warnings.catch_warnings(), contextlib.redirect_stderr(said), contextlib.redirect_stdout(shown):
            warnings.simplefilter("ignore")
            status = call()  # type: ignore[operator]
    except InputError as error:
        return None if "\n" not in str(error).strip() or len(str(error)) < 2000 else "message of many lines"
    except SystemExit as error:
        return None if error.code in (0, 2) else f"exit {error.code}"
    except Hang:
        return "HANG"
    except BaseException as error:  # noqa: BLE001 - whatever it is, it is what is looked for
        last = traceback.extract_tb(error.__traceback__)
        own = [
            frame for frame in last if any(part in frame.filename for part in ("ntk_lpft/", "analysis/", "figures/"))
        ]
        place = f" @ {'/'.join(own[-1].filename.split('/')[-3:])}:{own[-1].lineno}" if own else ""
        return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}{place}"
    errors = [line for line in said.getvalue().splitlines() if line.startswith("error: ")]
    if status == 0:
        return None
    if status == 2 and len(errors) == 1 and said.getvalue().rstrip().endswith(errors[0].rstrip()):
        return None if len(errors[0]) < 2000 else f"a line of {len(errors[0])} letters"
    return f"status {status} with {len(errors)} lines of error: {said.getvalue()[-200:]}"


@contextlib.contextmanager
def _limited() -> Iterator[None]:
    """Raise `Hang` after a while; where C code does not return, end the process with a traceback."""

    def late(number: int, frame: FrameType | None) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, LIMIT)
    faulthandler.dump_traceback_later(4 * LIMIT, exit=True)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        faulthandler.cancel_dump_traceback_later()


def _state(folder: Path) -> dict[str, str]:
    """Return what every file is and holds, by its path."""
    found = {}
    for base, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(base) / name
            mode = path.lstat().st_mode
            if stat.S_ISLNK(mode):
                found[str(path)] = f"link to {os.readlink(path)}"
            elif stat.S_ISREG(mode):
                found[str(path)] = hashlib.sha256(path.read_bytes()).hexdigest()
            else:
                found[str(path)] = str(stat.S_IFMT(mode))
    return found
