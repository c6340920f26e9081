"""What ``python -m analysis.report`` does."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from analysis.report.options import ReportOptions
from analysis.report.page import build_page
from analysis.suite.results import read_results
from ntk_lpft.errors import InputError
from ntk_lpft.storage import whole_file

# By which a page is told from other files; page.html has it.
_TITLE = b"<title>LP-FT from the NTK perspective: results of suite "
_HEAD = 1000  # bytes within which it stands


def write_report(options: ReportOptions) -> Path:
    """Write the page.

    Args:
        options: Checked options.

    Returns:
        Its file.

    Raises:
        InputError: No results, or a file that cannot be written.
    """
    results = read_results(options.results[0])
    folder = results.folder
    path = Path(options.output).expanduser() if options.output else folder.path / folder.REPORT
    _check_place(path)
    try:
        with whole_file(path) as partial:
            partial.touch()  # before the work: what cannot be written is said at once
            partial.write_text(build_page(results, progress=True), encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror})") from error
    missing = f"; {len(results.problems)} of {len(results.entries)} jobs have no results" if results.problems else ""
    print(f"{path} ({path.stat().st_size / 1e6:.1f} MB){missing}")
    return path


def _check_place(path: Path) -> None:
    """Refuse to replace anything but an earlier page, which says what it is.

    Raises:
        InputError: Something else is there, or no folder to put the page into.
    """
    if path.is_dir() or not path.parent.is_dir():
        raise InputError(f"--output {path} is no file in a folder that exists")
    if not os.path.lexists(path):
        return
    regular = stat.S_ISREG(os.lstat(path).st_mode)
    if not (regular and _TITLE in _head_of(path)):
        raise InputError(
            f"--output {path} is there, and is no page of this command; move it away, or give another file"
        )


def _head_of(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_HEAD)
