"""The bundled tasks, on a small file of the same form and on the real ones."""

import sys
from pathlib import Path
from subprocess import run

import numpy as np
import pytest

from ntk_lpft import bundled
from ntk_lpft.errors import InputError
from ntk_lpft.tasks import load_task
from ntk_lpft.tasks.snippets import divide, read_snippets

# Kept rows of |score| >= 1 and the copies among them: the data's own counts.
REAL = {
    "amazon-snippets": (1514, 941, 8),
    "movie-snippets": (4598, 4575, 2),
    "nyt-snippets": (558, 996, 19),
    "tweet-snippets": (1830, 837, 60),
}


def test_weak_scores_and_duplicates_are_dropped(tmp_path):
    rows = [
        "1_1\t1\tI like it!",
        "1_2\t-0.99\tso so",
        "1_3\t-1\tyou &amp;amp; I  hate it",
        "1_4\t2\ti LIKE  it!",
        "1_5\t3\tunclear",
        "1_6\t-3\tUnclear",
        "1_7\t0.5\tYou & I hate it",
        '1_8\t4\t"Great" they say',
    ]
    path = tmp_path / "x.txt"
    path.write_bytes("\r\n".join(rows).encode() + b"\r\n")
    split = read_snippets(path)
    assert split.texts == (("I like it!",), ("you & I  hate it",), ('"Great" they say',))
    assert split.labels.tolist() == [1, 0, 1]
    assert split.indices.tolist() == [0, 2, 7]


def test_a_broken_score_is_refused(tmp_path):
    path = tmp_path / "x.txt"
    path.write_text("1\thigh\ttext\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"row 0 .* score 'high' is no number"):
        read_snippets(path)


def test_the_parts_follow_the_text_and_not_the_order(tmp_path):
    rows = [f"{i}\t{2 if i % 3 else -2}\ttext number {i}\n" for i in range(45)]
    parts = []
    for name, lines in (("a.txt", rows), ("b.txt", rows[::-1])):
        (tmp_path / name).write_text("".join(lines), encoding="utf-8")
        whole = read_snippets(tmp_path / name)
        parts.append([set(divide(whole, part).texts) for part in ("train", "validation", "test")])
    assert parts[0] == parts[1]
    assert [len(part) for part in parts[0]] == [35, 5, 5]
    assert len(set.union(*parts[0])) == 45


@pytest.mark.parametrize("name", REAL)
def test_real_counts(vader, name):
    task = load_task(name)
    splits = [task.split(part) for part in ("train", "validation", "test")]
    positive, negative, copies = REAL[name]
    sizes = [len(split) for split in splits]
    assert sum(sizes) == positive + negative - copies
    assert sizes[1] == sizes[2] == -(-sum(sizes) // 10)
    texts = [text.casefold() for split in splits for (text,) in split.texts]
    assert len(set(texts)) == len(texts)
    assert not any("&amp;" in text or "&lt;" in text for text in texts)


def test_real_scores_agree_with_the_file(vader):
    lines = (vader / "amazonReviewSnippets_GroundTruth.txt").read_text(encoding="utf-8").splitlines()
    scores = np.array([float(line.split("\t")[1]) for line in lines])
    assert ((scores >= 1).sum(), (scores <= -1).sum()) == REAL["amazon-snippets"][:2]
    for part in ("train", "validation", "test"):
        split = load_task().split(part)
        assert (np.sign(scores[split.indices]) == 2 * split.labels - 1).all()
        assert (np.abs(scores[split.indices]) >= 1).all()


def test_the_others_are_tests_of_amazon_s_and_share_no_text_with_it(vader):
    task = load_task()
    assert task.name == "amazon-snippets"
    assert task.ood == ("movie-snippets", "nyt-snippets", "tweet-snippets")
    own = {text.casefold() for part in ("train", "validation", "test") for (text,) in task.split(part).texts}
    # One film sentence also stands among the Amazon reviews.
    for name, shared in zip(task.ood, (1, 0, 0), strict=True):
        other = task.ood_split(name)
        assert not own & {text.casefold() for (text,) in other.texts}
        positive, negative, copies = REAL[name]
        assert len(other) == positive + negative - copies - shared
    assert load_task("movie-snippets").ood == ()


def test_the_parts_are_the_same_on_every_machine(vader):
    prints = [load_task().split(part).fingerprint[:16] for part in ("train", "validation", "test")]
    assert prints == ["78a17ee458e17cc9", "251025c4afcb7de9", "d1283ef61cd27ec9"]


def test_the_datasets_library_is_not_needed(vader):
    program = (
        "import sys, types\n"
        "sys.modules['datasets'] = None\n"
        "package = sys.modules['ntk_lpft'] = types.ModuleType('ntk_lpft')\n"
        f"package.__path__ = {[str(Path(bundled.__file__).parent)]!r}\n"
        "from ntk_lpft.tasks import load_task\n"
        "print(len(load_task('amazon-snippets').split('train')))"
    )
    result = run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert int(result.stdout) == 1957
