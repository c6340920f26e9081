"""Original release files, written small: what a reader keeps, maps and refuses."""

import json
from pathlib import Path

import pytest

from ntk_lpft.errors import InputError
from ntk_lpft.tasks import load_task


def write(folder: Path, name: str, *lines: str | dict) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("\n".join(texts) + "\n", encoding="utf-8", newline="")
    return path


def read(task: str, root: Path, split: str = "test") -> list[tuple]:
    found = load_task(task, root).split(split)
    return [
        (*texts, int(label), int(i)) for texts, label, i in zip(found.texts, found.labels, found.indices, strict=True)
    ]


@pytest.mark.parametrize("name", ["val.jsonl", "dev.jsonl", "validation.jsonl"])
@pytest.mark.parametrize("folder", ["cb", "CB"])
def test_super_glue_pairs(tmp_path, name, folder):
    rows = [
        {"premise": f"P{i}", "hypothesis": "H", "label": name, "idx": i}
        for i, name in enumerate(("neutral", "entailment"))
    ]
    write(tmp_path / folder, name, *rows)
    assert read("cb", tmp_path) == [("P0", "H", 2, 0), ("P1", "H", 0, 1)]


def test_rte_of_super_glue_and_of_glue_are_the_same(tmp_path):
    row = {"premise": 'He said "yes".', "hypothesis": "H", "label": "not_entailment"}
    write(tmp_path / "one/rte", "val.jsonl", row)
    write(tmp_path / "two/RTE", "dev.tsv", "index\tsentence1\tsentence2\tlabel", '0\tHe said "yes".\tH\tnot_entailment')
    assert read("rte", tmp_path / "one") == read("rte", tmp_path / "two") == [('He said "yes".', "H", 1, 0)]


def test_boolq_of_google_and_of_super_glue_are_the_same(tmp_path):
    google = {"question": "is it", "title": "It", "answer": True, "passage": "It is."}
    write(tmp_path / "one/boolq", "dev.jsonl", google)
    write(tmp_path / "two/BoolQ", "val.jsonl", {"question": "is it", "passage": "It -- It is.", "label": True})
    write(tmp_path / "three/boolq", "val.jsonl", {"question": "is it", "passage": "It -- It is.", "label": "true"})
    for folder in ("one", "two", "three"):
        assert read("boolq", tmp_path / folder) == [("is it", "It -- It is.", 1, 0)]


@pytest.mark.parametrize("inside", ["", "dev/"])
def test_wic_of_its_own_release(tmp_path, inside):
    write(
        tmp_path / f"wic/{inside}",
        "dev.data.txt",
        "hook\tV\t0-1\tHook a fish .\tHe hooked it .",
        "go\tV\t0-0\tGo .\tGo on .",
    )
    write(tmp_path / f"wic/{inside}", "dev.gold.txt", "F", "T")
    question = "Hook a fish . He hooked it . Does hook have the same meaning in both sentences?"
    assert read("wic", tmp_path) == [
        (question, 0, 0),
        ("Go . Go on . Does go have the same meaning in both sentences?", 1, 1),
    ]


def test_wic_of_super_glue(tmp_path):
    row = {"word": "go", "sentence1": "Go.", "sentence2": "Go on.", "label": True, "start1": 0}
    write(tmp_path / "WiC", "val.jsonl", row)
    assert read("wic", tmp_path) == [("Go. Go on. Does go have the same meaning in both sentences?", 1, 0)]


def test_wic_files_must_go_line_by_line(tmp_path):
    write(tmp_path / "wic", "dev.data.txt", "go\tV\t0-0\tGo .\tGo on .")
    write(tmp_path / "wic", "dev.gold.txt", "F", "T")
    with pytest.raises(InputError, match=r"1 lines but .*gold.txt has 2"):
        read("wic", tmp_path)


def test_wsc_puts_the_pronoun_first_and_the_noun_second(tmp_path):
    target = {"span1_text": "Mark", "span1_index": 0, "span2_text": "He", "span2_index": 13}
    write(tmp_path / "WSC", "val.jsonl", {"text": "Mark left. He ran.", "target": target, "label": False})
    assert read("wsc", tmp_path) == [("He: Mark left. He ran.", "Mark", 0, 0)]


def test_wsc_without_spans_is_refused(tmp_path):
    write(tmp_path / "WSC", "val.jsonl", {"text": "Mark left.", "label": False})
    with pytest.raises(InputError, match=r"row 0 .* no column 'span2_text'; its columns are text, label"):
        read("wsc", tmp_path)


def test_cola_joins_its_two_development_files(tmp_path):
    write(tmp_path / "cola", "in_domain_dev.tsv", 'gj04\t1\t\tThe "sailors rode.', "cj99\t0\t*\tAs you eat.")
    write(tmp_path / "cola", "out_of_domain_dev.tsv", "clc95\t1\t\tSomebody left.")
    write(
        tmp_path / "glue/CoLA",
        "dev.tsv",
        'gj04\t1\t\tThe "sailors rode.',
        "cj99\t0\t*\tAs you eat.",
        "c\t1\t\tSomebody left.",
    )
    expected = [('The "sailors rode.', 1, 0), ("As you eat.", 0, 1), ("Somebody left.", 1, 2)]
    assert read("cola", tmp_path) == read("cola", tmp_path / "glue") == expected
    assert load_task("cola", tmp_path).metric == "matthews"


def test_sst2(tmp_path):
    write(tmp_path / "SST-2", "dev.tsv", "sentence\tlabel", 'a "fine film \t1', "bleak \t0")
    assert read("sst2", tmp_path) == [('a "fine film ', 1, 0), ("bleak ", 0, 1)]


MRPC = ("\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String", '1\t11\t12\tHe "said.\tHe said it.', "0\t13\t14\tA.\tB.")


def test_mrpc_of_glue(tmp_path):
    write(tmp_path / "MRPC", "dev.tsv", *MRPC)
    assert read("mrpc", tmp_path) == [('He "said.', "He said it.", 1, 0), ("A.", "B.", 0, 1)]


def test_mrpc_of_the_first_release_has_its_own_test(tmp_path):
    write(tmp_path / "mrpc", "msr_paraphrase_train.txt", *MRPC, "1\t15\t16\tC.\tD.")
    write(tmp_path / "mrpc", "msr_paraphrase_test.txt", MRPC[0], MRPC[2])
    assert read("mrpc", tmp_path) == [("A.", "B.", 0, 0)]
    assert len(read("mrpc", tmp_path, "train")) == 2
    assert len(read("mrpc", tmp_path, "validation")) == 1


def test_mrpc_of_the_first_release_with_glue_s_list_is_that_of_glue(tmp_path):
    write(tmp_path / "mrpc", "msr_paraphrase_train.txt", *MRPC, "1\t15\t16\tC.\tD.")
    write(tmp_path / "mrpc", "msr_paraphrase_test.txt", MRPC[0], MRPC[2])
    write(tmp_path / "mrpc", "dev_ids.tsv", "13\t14")
    assert read("mrpc", tmp_path) == [("A.", "B.", 0, 0)]
    with pytest.raises(InputError, match="1 training rows for 2 classes"):
        read("mrpc", tmp_path, "train")
    assert read("mrpc", tmp_path, "validation") == [("C.", "D.", 1, 1)]


def test_boss_files(tmp_path):
    write(tmp_path / "amazon", "test.tsv", "Text\tLabel", '"He ""said""   it.\nTwice."\t0', "NA\t1", " \t2", "fine\t2")
    assert read("amazon", tmp_path) == [('He "said" it.\nTwice.', 0, 0), ("NA", 1, 1), ("fine", 2, 3)]
    write(tmp_path / "more/amazon", "test.json", json.dumps([{"Text": "bad", "Label": 0}, {"Text": None, "Label": 1}]))
    assert read("amazon", tmp_path / "more") == [("bad", 0, 0)]
    write(tmp_path / "lines/amazon", "test.csv", "Text,Label", '"so, so",2')
    assert read("amazon", tmp_path / "lines") == [("so, so", 2, 0)]


def test_amazon_reads_its_tests_from_elsewhere_beside_it(tmp_path):
    write(tmp_path / "amazon", "test.tsv", "Text\tLabel", "bad\t0")
    write(tmp_path / "sst5", "test.txt", "(4 (2 Good) (2 film))")
    write(tmp_path / "semeval", "test.tsv", "Text\tLabel", "fine\t1")
    task = load_task("amazon", tmp_path)
    assert task.ood == ("dynasent", "semeval", "sst5")
    assert task.ood_split("sst5").texts == (("Good film",),)
    assert task.ood_split("semeval").labels.tolist() == [1]
    with pytest.raises(InputError, match=r"task dynasent: .* has no folder dynasent"):
        task.ood_split("dynasent")


def test_dynasent_joins_its_rounds_and_drops_rows_without_a_majority(tmp_path):
    first, second = "dynasent-v1.1-round01-yelp-test.jsonl", "dynasent-v1.1-round02-dynabench-test.jsonl"
    rows = [{"sentence": f"s {i}", "gold_label": name} for i, name in enumerate(("neutral", "mixed", None, "positive"))]
    write(tmp_path / "dynasent", first, *rows)
    write(tmp_path / "dynasent", second, {"sentence": "t  t", "gold_label": "negative"})
    assert read("dynasent", tmp_path) == [("s 0", 2, 0), ("s 3", 1, 3), ("t t", 0, 4)]


def test_semeval_of_2016(tmp_path):
    write(tmp_path / "semeval", "twitter-2016test-A.txt", "1\tneutral\tA  tweet ", "2\tpositive", "3\tpositive\tgood\t")
    assert read("semeval", tmp_path) == [("A tweet", 2, 0), ("good", 1, 2)]


def test_semeval_of_2017(tmp_path):
    write(tmp_path / "semeval2017", "test_text.txt", 'the " one ', "two\u2028lines ", "three")
    write(tmp_path / "semeval2017", "test_labels.txt", "1", "2", "0")
    assert read("semeval", tmp_path) == [('the " one', 2, 0), ("two\u2028lines", 1, 1), ("three", 0, 2)]
    write(tmp_path / "semeval2017", "test_labels.txt", "1", "2", "7")
    with pytest.raises(InputError, match=r"row 2 .* label '7 in test_labels.txt'"):
        read("semeval", tmp_path)


def test_sst_trees_in_the_three_classes_of_boss(tmp_path):
    trees = [f"({root} (2 No) (2 (2 -LRB-) (3 1\\/2)))" for root in range(5)]
    write(tmp_path / "sst5", "test.txt", *trees)
    assert read("sst5", tmp_path) == [("No ( 1/2", 0, 0), ("No ( 1/2", 2, 2), ("No ( 1/2", 1, 4)]
    write(tmp_path / "sst5", "test.txt", trees[0], "no tree")
    with pytest.raises(InputError, match=r"row 1 .* is no tree"):
        read("sst5", tmp_path)


def test_pubmed_sentences_in_lower_case(tmp_path):
    write(
        tmp_path / "PubMed_20k_RCT",
        "test.txt",
        "###24",
        "METHODS\tWe Tried .",
        "RESULTS\tIt Works .",
        "",
        "###25",
        "OBJECTIVE\tTo See .",
    )
    task = load_task("pubmed20k", tmp_path)
    assert task.split("test").texts == (("we tried .",), ("it works .",), ("to see .",))
    assert [task.label_names[label] for label in task.split("test").labels] == ["METHODS", "RESULTS", "OBJECTIVE"]
    write(tmp_path / "PubMed_20k_RCT", "dev.txt", "###24", "METHODS We Tried .")
    with pytest.raises(InputError, match="line 2 has no tab"):
        task.split("validation")


def test_validation_is_the_last_tenth_of_the_training_rows(tmp_path):
    rows = [
        {"premise": f"P{i}", "hypothesis": "H", "label": ["neutral", "entailment", "contradiction"][i % 3]}
        for i in range(25)
    ]
    write(tmp_path / "cb", "train.jsonl", *rows)
    task = load_task("cb", tmp_path)
    assert task.split("train").indices.tolist() == list(range(22))
    assert task.split("validation").indices.tolist() == [22, 23, 24]
    assert task.split("validation").texts[0] == ("P22", "H")
    with pytest.raises(InputError, match=r"no test files in .*cb; looked for val.jsonl, dev.jsonl, validation.jsonl"):
        task.split("test")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"premise": "P", "hypothesis": "H"}', "row 0 .* label None is not one of entailment, contradiction, neutral"),
        ('{"premise": "P", "hypothesis": "H", "label": 3}', "row 0 .* label 3 is not one of"),
        ('{"premise": "P", "hypothesis": null, "label": 1}', "row 0 .* no value in column 'hypothesis'"),
        ('{"premise": " ", "hypothesis": "H", "label": 1}', "row 0 .* empty text in column 'premise'"),
        ('{"premise": 5, "hypothesis": "H", "label": 1}', "row 0 .* 'premise' holds 5"),
        ('{"premise": "P"', "line 1 cannot be read as JSON"),
        ("[1]", "line 1 is no JSON object"),
    ],
)
def test_faults_are_named_with_file_and_row(tmp_path, line, message):
    path = write(tmp_path / "cb", "val.jsonl", line)
    with pytest.raises(InputError, match=message) as caught:
        read("cb", tmp_path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_row_with_too_few_columns_is_refused(tmp_path):
    write(tmp_path / "sst2", "dev.tsv", "sentence\tlabel", "fine\t1", "bleak")
    with pytest.raises(InputError, match=r"row 1 .* has 1 columns instead of 2 \(sentence, label\)"):
        read("sst2", tmp_path)


def test_other_encodings_are_refused(tmp_path):
    path = write(tmp_path / "sst2", "dev.tsv", "sentence\tlabel")
    path.write_bytes("sentence\tlabel\nclichés\t0\n".encode("latin-1"))
    with pytest.raises(InputError, match=r"is not UTF-8 .byte 20"):
        read("sst2", tmp_path)


def test_an_empty_file_is_refused(tmp_path):
    write(tmp_path / "sst2", "dev.tsv", "")
    with pytest.raises(InputError, match="is empty"):
        read("sst2", tmp_path)
