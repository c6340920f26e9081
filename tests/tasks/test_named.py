"""Named tasks: where they are looked for, and the real files' counts."""

import csv
from collections import Counter
from pathlib import Path

import pytest

from ntk_lpft.errors import InputError
from ntk_lpft.tasks import TASK_NAMES, load_task


def test_the_paper_s_tasks_and_the_bundled_ones_have_names():
    sentences = ["cola", "sst2", "mrpc", "amazon", "dynasent", "semeval", "sst5", "pubmed20k"]
    paper = ["cb", "rte", "boolq", "wic", "wsc", *sentences]
    bundled = ["amazon-snippets", "movie-snippets", "nyt-snippets", "tweet-snippets"]
    assert sorted(TASK_NAMES) == sorted(paper + bundled)


@pytest.mark.parametrize(
    ("name", "close"), [("sst-2", "sst2"), ("amazon-snippet", "amazon-snippets"), ("mprc", "mrpc")]
)
def test_an_unknown_name_is_answered_with_the_closest(name, close):
    with pytest.raises(InputError, match=f"unknown task '{name}'; did you mean {close}. choose one of cb, rte"):
        load_task(name)


def test_a_data_folder_must_exist(tmp_path):
    with pytest.raises(InputError, match="is no folder; check --data-dir or NTK_LPFT_DATA"):
        load_task("cb", tmp_path / "nowhere")


def test_the_environment_names_the_data_folder(tmp_path, monkeypatch):
    (tmp_path / "cb").mkdir()
    monkeypatch.setenv("NTK_LPFT_DATA", str(tmp_path))
    assert str(tmp_path / "cb") in load_task("cb").source
    other = tmp_path / "other"
    (other / "cb").mkdir(parents=True)
    assert str(other / "cb") in load_task("cb", other).source


def test_the_data_folder_may_be_the_data_set_s_own(tmp_path):
    (tmp_path / "CB").mkdir()
    assert str(tmp_path / "CB") in load_task("cb", tmp_path / "CB").source


def test_a_task_without_files_says_where_it_looked(tmp_path):
    with pytest.raises(InputError, match=r"task mrpc: .* has no folder mrpc or msrparaphrasecorpus or nyu-mll/glue"):
        load_task("mrpc", tmp_path)


def test_a_task_that_no_hub_repository_holds_says_so(monkeypatch):
    monkeypatch.delenv("NTK_LPFT_DATA", raising=False)
    with pytest.raises(InputError, match="cannot be read from the Hub; name a folder"):
        load_task("amazon")


def test_an_unreachable_hub_is_one_line_of_advice(monkeypatch):
    import datasets

    monkeypatch.delenv("NTK_LPFT_DATA", raising=False)

    def unreachable(*arguments, **options):
        raise ConnectionError("no\nroute")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    task = load_task("cb")
    with pytest.raises(InputError, match=r"aps/super_glue \(cb\) .*ConnectionError: no route.*--data-dir") as caught:
        task.split("train")
    assert "\n" not in str(caught.value)


def test_the_hub_is_asked_for_a_pinned_revision(monkeypatch):
    import datasets

    monkeypatch.delenv("NTK_LPFT_DATA", raising=False)
    asked = []

    def remembered(place, config, **options):
        asked.append((place, config, options))
        return datasets.Dataset.from_dict({"sentence": ["a", "b"], "label": [1, 0]})

    monkeypatch.setattr(datasets, "load_dataset", remembered)
    assert load_task("sst2").split("test").labels.tolist() == [1, 0]
    ((place, config, options),) = asked
    assert (place, config, options["split"]) == ("nyu-mll/glue", "sst2", "validation")
    assert len(options["revision"]) == 40
    assert "trust_remote_code" not in options


README = """---
configs:
- config_name: {config}
  data_files:
  - split: train
    path: {config}/train-*
  - split: validation
    path: {config}/validation-*
---
"""


def hub_copy(root: Path, repository: str, config: str, columns: dict, names: list[str] | None) -> None:
    """Write a repository as the Hub lays it out: a card that names the configurations, and parquet files."""
    from datasets import ClassLabel, Dataset, Features, Value

    folder = root / repository
    (folder / config).mkdir(parents=True)
    (folder / "README.md").write_text(README.format(config=config), encoding="utf-8")
    kinds = {name: Value("string") for name in columns}
    kinds["label"] = ClassLabel(names=names) if names else Value("int64")
    for split in ("train", "validation"):
        Dataset.from_dict(columns, Features(kinds)).to_parquet(folder / config / f"{split}-00000-of-00001.parquet")


@pytest.fixture
def offline(tmp_path, monkeypatch):
    import datasets

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


def test_a_copy_of_a_hub_repository_is_read_by_class_name(tmp_path, offline):
    columns = {"premise": list("abcd"), "hypothesis": list("ABCD"), "label": [0, 1, 2, 0]}
    # The classes stand in another order than in the task, so numbers taken as they are would be wrong.
    hub_copy(tmp_path, "aps/super_glue", "cb", columns, ["neutral", "contradiction", "entailment"])
    task = load_task("cb", tmp_path)
    assert task.split("test").labels.tolist() == [2, 1, 0, 2]
    assert task.split("test").texts[1] == ("b", "B")
    assert task.split("train").indices.tolist() == [0, 1, 2]
    assert "super_glue (cb)" in task.source


def test_unlabelled_rows_of_the_hub_are_refused(tmp_path, offline):
    hub_copy(tmp_path, "nyu-mll/glue", "sst2", {"sentence": ["a", "b"], "label": [0, -1]}, ["negative", "positive"])
    with pytest.raises(InputError, match=r"row 1 .* label -1 is not one of negative, positive"):
        load_task("sst2", tmp_path).split("test")


def test_a_damaged_copy_is_one_line_of_advice(tmp_path, offline):
    (tmp_path / "nyu-mll/glue").mkdir(parents=True)
    with pytest.raises(InputError, match=r"glue \(sst2\), split validation, cannot be read"):
        load_task("sst2", tmp_path).split("test")


def test_sst5_of_the_hub_is_in_three_classes(monkeypatch):
    import datasets

    monkeypatch.delenv("NTK_LPFT_DATA", raising=False)
    rows = datasets.Dataset.from_dict({"text": list("abcde"), "label": [0, 1, 2, 3, 4]})
    monkeypatch.setattr(datasets, "load_dataset", lambda *arguments, **options: rows)
    split = load_task("sst5").split("test")
    assert split.indices.tolist() == [0, 2, 4]
    assert split.labels.tolist() == [0, 2, 1]


# Rows by class name, as the collections' own papers and the data folder's notes count them.
REAL = [
    ("cb", "test", {"contradiction": 28, "entailment": 23, "neutral": 5}),
    ("wsc", "test", {"False": 66, "True": 38}),
    ("wic", "test", {"False": 319, "True": 319}),
    ("boolq", "test", {"True": 2033, "False": 1237}),
    ("sst2", "test", {"positive": 444, "negative": 428}),
    ("cola", "test", {"acceptable": 719, "unacceptable": 324}),
    ("dynasent", "test", {"positive": 1440, "neutral": 1440, "negative": 1440}),
    ("dynasent", "validation", {"positive": 1440, "neutral": 1440, "negative": 1440}),
    ("sst5", "test", {"negative": 279, "neutral": 389, "positive": 399}),
]


@pytest.mark.data
@pytest.mark.parametrize(("name", "split", "counts"), REAL)
def test_real_counts(real_data, name, split, counts):
    task = load_task(name, real_data)
    found = Counter(task.label_names[label] for label in task.split(split).labels)
    assert found == counts


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("cb", {"contradiction": 119, "entailment": 115, "neutral": 16}),
        ("wsc", {"False": 295, "True": 259}),
        ("wic", {"False": 2714, "True": 2714}),
        ("sst2", {"positive": 37569, "negative": 29780}),
    ],
)
def test_real_training_counts(real_data, name, counts):
    task = load_task(name, real_data)
    parts = [task.split("train"), task.split("validation")]
    assert Counter(task.label_names[label] for part in parts for label in part.labels) == counts
    whole = [index for part in parts for index in part.indices.tolist()]
    assert whole == list(range(sum(counts.values())))


# Tomihari and Sato, NeurIPS 2024, table 7: training, validation and test rows. None where the print differs from the
# released data (CB has 56 test rows, WiC 5428 for training, CoLA 8551 and 1043).
TABLE_7 = {
    "cb": (225, 25, None),
    "wsc": (498, 56, 104),
    "wic": (None, None, 638),
    "cola": (7695, None, None),
    "sst2": (60614, 6735, 872),
    "boolq": (None, None, 3270),
    "dynasent": (None, None, 4320),
    "sst5": (None, None, 1067),
}


@pytest.mark.data
@pytest.mark.parametrize("name", TABLE_7)
def test_real_sizes_are_those_of_table_7(real_data, name):
    task = load_task(name, real_data)
    for split, size in zip(("train", "validation", "test"), TABLE_7[name], strict=True):
        if size is not None:
            assert len(task.split(split)) == size


@pytest.mark.data
def test_real_semeval_2017(real_data):
    task = load_task("semeval", real_data)
    assert (len(task.split("validation")), len(task.split("test"))) == (2000, 12284)
    with (real_data / "semeval2017/test_labels.txt").open(encoding="utf-8") as file:
        kept = Counter(line.strip() for line in file)
    found = Counter(task.label_names[label] for label in task.split("test").labels)
    assert found == {"negative": kept["0"], "neutral": kept["1"], "positive": kept["2"]}


@pytest.mark.data
def test_real_boolq_lacks_only_its_training_rows(real_data):
    task = load_task("boolq", real_data)
    assert len(task.split("test")) == 3270
    with pytest.raises(InputError, match="no train files"):
        task.split("validation")


@pytest.mark.data
def test_real_boolq_is_the_same_in_both_forms(real_data, tmp_path):
    (tmp_path / "boolq").mkdir()
    (tmp_path / "boolq/dev.jsonl").write_bytes((real_data / "boolq/google_dev.jsonl").read_bytes())
    google, super_glue = (load_task("boolq", root).split("test") for root in (tmp_path, real_data))
    assert google.fingerprint == super_glue.fingerprint


@pytest.mark.data
def test_real_sst2_texts_are_those_of_the_file(real_data):
    with (real_data / "sst2/dev.tsv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))[1:]
    split = load_task("sst2", real_data).split("test")
    assert [text for (text,) in split.texts] == [text for text, _ in rows]
    assert split.labels.tolist() == [int(label) for _, label in rows]
