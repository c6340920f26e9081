"""The bundled tasks: sentences with human sentiment scores, the paper's Amazon experiment in small.

Hutto and Gilbert (ICWSM 2014) had sentences of Amazon reviews, film reviews, New York Times editorials and tweets
rated from -4 to 4. Those of a mean score of at least 1 in absolute value are kept, positive as 1 and negative as 0.
"""

import html
from functools import lru_cache, partial
from pathlib import Path

import numpy as np

from ntk_lpft.bundled import data_folder
from ntk_lpft.errors import InputError
from ntk_lpft.tasks.sampling import hash_order, tail_size
from ntk_lpft.tasks.tables import Record, at_row, read_unquoted
from ntk_lpft.tasks.task import Split, Task

SNIPPETS = {
    "amazon-snippets": "amazonReviewSnippets_GroundTruth.txt",
    "movie-snippets": "movieReviewSnippets_GroundTruth.txt",
    "nyt-snippets": "nytEditorialSnippets_GroundTruth.txt",
    "tweet-snippets": "tweets_GroundTruth.txt",
}
LABEL_NAMES = ("negative", "positive")
THRESHOLD = 1.0


def load_snippets(name: str) -> Task:
    """Make one of the bundled tasks; its data is fetched at the first split asked for.

    Of a text that occurs more than once (HTML entities resolved, letter case and runs of white space ignored) the first
    row is kept; if its rows differ in label, none is. The rest is divided by the sha256 of the text: the first tenth in
    that order, rounded up, is the test, the next tenth the validation split and all else the training split, each in
    file order. The OOD tests of ``amazon-snippets`` are the other three in full, less the texts that it has itself.

    Args:
        name: A key of ``SNIPPETS``.

    Returns:
        The task, with two classes and a training, validation and test split.
    """
    loaders = {split: partial(_part, name, split) for split in ("train", "validation", "test")}
    others = [other for other in SNIPPETS if other != name] if name == "amazon-snippets" else []
    ood = {other: partial(_unseen, other, name) for other in others}
    return Task(name, LABEL_NAMES, "vaderSentiment 3.3.2, hutto_ICWSM_2014", loaders, ood)


def normalised(text: str) -> str:
    """Return the form in which two texts count as the same."""
    return " ".join(text.casefold().split())


@lru_cache(maxsize=len(SNIPPETS))
def _cached(path: Path) -> Split:
    return read_snippets(path)


def _whole(name: str) -> Split:
    return _cached(data_folder("vader") / SNIPPETS[name])


def read_snippets(path: Path) -> Split:
    """Read a file of id, mean score and text, tab-separated, and drop weak scores and duplicates.

    Args:
        path: The file.

    Returns:
        The rows that are kept, in file order, labelled 0 (negative) or 1 (positive).

    Raises:
        InputError: A row of another form.
    """
    rows = read_unquoted(path, ("id", "score", "text"))
    scores = [_score(record, path, row) for row, record in enumerate(rows)]
    kept = [row for row, score in enumerate(scores) if abs(score) >= THRESHOLD]
    texts = {row: _plain(rows[row]["text"]) for row in kept}
    copies: dict[str, list[int]] = {}
    for row in kept:
        copies.setdefault(normalised(texts[row]), []).append(row)
    unique = sorted(same[0] for same in copies.values() if len({scores[row] > 0 for row in same}) == 1)
    return Split(
        texts=tuple((texts[row],) for row in unique),
        labels=np.array([int(scores[row] > 0) for row in unique]),
        indices=np.array(unique),
        name="all",
        source=str(path),
    )


def _plain(text: str) -> str:
    # Some entities are escaped twice, such as &amp;amp;.
    while (resolved := html.unescape(text)) != text:
        text = resolved
    return text.strip()


def _score(record: Record, path: Path, row: int) -> float:
    try:
        return float(record["score"])
    except ValueError as error:
        raise InputError(f"{at_row(path, row)}: score {record['score']!r} is no number; fetch the file anew") from error


def divide(whole: Split, name: str) -> Split:
    """Return the ``"train"``, ``"validation"`` or ``"test"`` part of a split by the sha256 of its texts."""
    order = hash_order([normalised(text) for (text,) in whole.texts])
    tenth = tail_size(len(whole))
    parts = {"test": order[:tenth], "validation": order[tenth : 2 * tenth], "train": order[2 * tenth :]}
    return whole.take(np.sort(np.array(parts[name], dtype=np.int64)), name)


def _part(task: str, name: str) -> Split:
    return divide(_whole(task), name)


def _unseen(other: str, task: str) -> Split:
    """Return the whole of another task without the texts of this one."""
    seen = {normalised(text) for (text,) in _whole(task).texts}
    whole = _whole(other)
    return whole.take(np.array([i for i, (text,) in enumerate(whole.texts) if normalised(text) not in seen]), other)
