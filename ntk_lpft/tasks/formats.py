"""Readers of the data sets' original release files.

A reader is given the files of one split and returns its records in file order, each with the columns that the task's
template names and a ``label``: a class name, a class number, or ``DROPPED`` where the benchmark leaves the row out.
"""

import re
from collections.abc import Callable
from pathlib import Path

from ntk_lpft.errors import InputError
from ntk_lpft.tasks.tables import (
    Record,
    at_row,
    read_jsonl,
    read_lines,
    read_table,
    read_unquoted,
    text_of,
)

Reader = Callable[[tuple[Path, ...]], list[Record]]

DROPPED = "(dropped)"
TERNARY = ("negative", "neutral", "positive")
SST_BINS = {"0": "negative", "1": DROPPED, "2": "neutral", "3": DROPPED, "4": "positive"}


def read_plain_jsonl(paths: tuple[Path, ...]) -> list[Record]:
    """SuperGLUE's JSON lines, whose keys are the template's columns."""
    return [record for path in paths for record in read_jsonl(path)]


def read_wsc(paths: tuple[Path, ...]) -> list[Record]:
    """SuperGLUE's WSC, whose spans lie one level down in ``target``."""
    return [{**record, **_mapping(record.get("target"))} for record in read_plain_jsonl(paths)]


def _mapping(value: object) -> Record:
    return value if isinstance(value, dict) else {}


def read_boolq(paths: tuple[Path, ...]) -> list[Record]:
    """BoolQ in Google's or SuperGLUE's form; SuperGLUE writes the title in front of the passage, and so does this."""
    return [_boolq(record) for record in read_plain_jsonl(paths)]


def _boolq(record: Record) -> Record:
    if not {"answer", "title", "passage"} <= record.keys():
        return record
    return {**record, "passage": f"{record['title']} -- {record['passage']}", "label": record["answer"]}


def read_wic(paths: tuple[Path, ...]) -> list[Record]:
    """WiC's own release: a file of sentences and a file of T or F, line by line."""
    data, gold = paths
    rows = read_unquoted(data, ("word", "part_of_speech", "positions", "sentence1", "sentence2"))
    answers = read_lines(gold)
    _check_lengths(data, rows, gold, answers)
    names = {"T": "True", "F": "False"}
    return [{**row, "label": names.get(answer.strip(), answer)} for row, answer in zip(rows, answers, strict=True)]


def read_cola(paths: tuple[Path, ...]) -> list[Record]:
    """CoLA's tab-separated files without header; several are joined (in-domain, then out-of-domain, as GLUE does)."""
    return [record for path in paths for record in read_unquoted(path, ("source", "label", "mark", "sentence"))]


def read_glue(paths: tuple[Path, ...]) -> list[Record]:
    """GLUE's tab-separated files with header."""
    return [record for path in paths for record in read_unquoted(path)]


def read_glue_rte(paths: tuple[Path, ...]) -> list[Record]:
    """GLUE's RTE, whose columns go by other names than SuperGLUE's."""
    return [_renamed(row, {"sentence1": "premise", "sentence2": "hypothesis"}) for row in read_glue(paths)]


MRPC_COLUMNS = {"Quality": "label", "#1 String": "sentence1", "#2 String": "sentence2"}


def read_mrpc(paths: tuple[Path, ...]) -> list[Record]:
    """MRPC with the columns of its first release, which GLUE kept."""
    return [_renamed(row, MRPC_COLUMNS) for row in read_glue(paths)]


def read_mrpc_train(paths: tuple[Path, ...]) -> list[Record]:
    """GLUE's training split from the first release: its training rows without those of GLUE's ``dev_ids.tsv``."""
    return [row for row, is_dev in _mrpc_by_dev(paths) if not is_dev]


def read_mrpc_dev(paths: tuple[Path, ...]) -> list[Record]:
    """GLUE's development split from the first release: the training rows that GLUE's ``dev_ids.tsv`` names."""
    return [row for row, is_dev in _mrpc_by_dev(paths) if is_dev]


def _mrpc_by_dev(paths: tuple[Path, ...]) -> list[tuple[Record, bool]]:
    rows, ids = paths
    pairs = {tuple(line.split("\t")[:2]) for line in read_lines(ids)}
    return [(row, (row.get("#1 ID"), row.get("#2 ID")) in pairs) for row in read_mrpc((rows,))]


def _renamed(row: Record, names: dict[str, str]) -> Record:
    return {names.get(column, column): value for column, value in row.items()}


def one_space(text: str) -> str:
    """Tabs and runs of spaces become one space, as BOSS prepares its texts."""
    return re.sub(r"[ \t]+", " ", text).strip()


def read_boss(paths: tuple[Path, ...]) -> list[Record]:
    """BOSS's prepared files: ``Text`` and ``Label`` (0 negative, 1 positive, 2 neutral); empty texts are dropped."""
    return [_boss(record, path, row) for path in paths for row, record in enumerate(read_table(path))]


def _boss(record: Record, path: Path, row: int) -> Record:
    if "Text" not in record or "Label" not in record:
        raise InputError(f"{at_row(path, row)} lacks Text or Label; its columns are {', '.join(record)}")
    text = record["Text"] if isinstance(record["Text"], str) else ""
    return {"text": one_space(text), "label": record["Label"] if text.strip() else DROPPED}


def read_dynasent(paths: tuple[Path, ...]) -> list[Record]:
    """DynaSent's rounds in the order given; rows without a positive, negative or neutral majority are dropped."""
    return [_dynasent(record, path, row) for path in paths for row, record in enumerate(read_jsonl(path))]


def _dynasent(record: Record, path: Path, row: int) -> Record:
    if "gold_label" not in record:
        raise InputError(f"{at_row(path, row)} has no column 'gold_label'; its columns are {', '.join(record)}")
    label = record["gold_label"]
    text = one_space(text_of(record, "sentence", str(path), row))
    return {"text": text, "label": label if label in TERNARY else DROPPED}


def read_semeval_2016(paths: tuple[Path, ...]) -> list[Record]:
    """SemEval-2016 task 4 A: id, label and tweet in a line; BOSS drops lines of another number of fields."""
    return [_tweet(line.strip().split("\t")) for path in paths for line in read_lines(path)]


def _tweet(fields: list[str]) -> Record:
    if len(fields) != 3:
        return {"text": " ".join(fields), "label": DROPPED}
    return {"text": one_space(fields[2]), "label": fields[1].strip()}


def read_semeval_2017(paths: tuple[Path, ...]) -> list[Record]:
    """SemEval-2017 task 4 A as TweetEval splits it: texts and labels (0 negative, 1 neutral, 2 positive) by line."""
    texts, labels = paths
    tweets, answers = read_lines(texts), read_lines(labels)
    _check_lengths(texts, tweets, labels, answers)
    names = dict(zip(("0", "1", "2"), TERNARY, strict=True))
    return [
        {"text": one_space(text), "label": names.get(answer.strip(), f"{answer} in {labels.name}")}
        for text, answer in zip(tweets, answers, strict=True)
    ]


def _check_lengths(first: Path, rows: list[Record] | list[str], second: Path, others: list[str]) -> None:
    if len(rows) != len(others):
        raise InputError(f"{first} has {len(rows)} lines but {second} has {len(others)}; they must go line by line")


def read_sst_trees(paths: tuple[Path, ...]) -> list[Record]:
    """Read the Stanford Sentiment Treebank's trees, one a line, in the three classes of BOSS.

    The root's bin 0 is negative, 2 neutral and 4 positive; bins 1 and 3 are dropped. That keeps 1067 of the 2210 test
    sentences, the number in Tomihari and Sato, NeurIPS 2024, table 7. Brackets are written as brackets again.
    """
    return [_tree(line, path, row) for path in paths for row, line in enumerate(read_lines(path))]


def _tree(line: str, path: Path, row: int) -> Record:
    root = re.match(r"\((\d) ", line)
    tokens = re.findall(r"\(\d ([^\s()]+)\)", line)
    if root is None or root.group(1) not in SST_BINS or not tokens:
        raise InputError(f"{at_row(path, row)} is no tree with a root of 0 to 4; give Penn trees, one a line")
    words = " ".join(tokens).replace("-LRB-", "(").replace("-RRB-", ")").replace("\\/", "/").replace("\\*", "*")
    return {"text": words, "label": SST_BINS[root.group(1)]}


def read_pubmed(paths: tuple[Path, ...]) -> list[Record]:
    """PubMed RCT: abstracts opened by ``###id``, then a line of role, tab and sentence each, in lower case.

    Every sentence is an example of its own, and its text is put in lower case as the paper's published code does.
    """
    return [
        _sentence(line, path, number)
        for path in paths
        for number, line in enumerate(read_lines(path))
        if line.strip() and not line.startswith("###")
    ]


def _sentence(line: str, path: Path, number: int) -> Record:
    role, tab, sentence = line.partition("\t")
    if not tab:
        raise InputError(f"{path}, line {number + 1} has no tab between role and sentence; give the original release")
    return {"text": sentence.lower(), "label": role}
