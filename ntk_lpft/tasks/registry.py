"""The paper's data sets: classes, text templates, release files and places on the Hub.

Templates, splits and metrics follow Tomihari and Sato, NeurIPS 2024, appendix on experimental settings, and the
authors' published code; Amazon and its OOD tests follow BOSS (Yuan et al., NeurIPS 2023).
"""

from collections.abc import Mapping
from dataclasses import dataclass

from ntk_lpft.tasks import formats
from ntk_lpft.tasks.formats import Reader
from ntk_lpft.tasks.hub import HubSource
from ntk_lpft.tasks.tables import Record


@dataclass(frozen=True)
class Release:
    """One way in which a split was released.

    Attributes:
        files: The files that make the split, all of them needed, relative to the data set's folder.
        read: Their reader.
    """

    files: tuple[str, ...]
    read: Reader


@dataclass(frozen=True)
class PaperTask:
    """What is fixed about a data set of the paper.

    Attributes:
        label_names: Classes in the order of their numbers.
        template: Format strings over a record's columns, one per segment.
        folders: Names that its folder may have inside a data directory; case, ``-`` and ``_`` do not matter.
        releases: For ``"train"``, ``"test"`` and, where it is no tail of the training rows, ``"validation"``: the
            releases to look for, in order.
        hub: Its place on the Hub, or None.
        metric: ``"accuracy"`` or ``"matthews"``.
        ood: Names of the tasks whose test splits are its OOD tests.
    """

    label_names: tuple[str, ...]
    template: tuple[str, ...]
    folders: tuple[str, ...]
    releases: Mapping[str, tuple[Release, ...]]
    hub: HubSource | None = None
    metric: str = "accuracy"
    ood: tuple[str, ...] = ()


SPLIT_NAMES = {"train": ("train",), "test": ("val", "dev", "validation")}
BOTH = {"train": "train", "validation": "validation", "test": "test"}


def _single(read: Reader, *patterns: str) -> dict[str, tuple[Release, ...]]:
    """One file a split, the official development file serving as the test; ``*`` stands for the split's name."""
    return {
        split: tuple(Release((pattern.replace("*", name),), read) for pattern in patterns for name in names)
        for split, names in SPLIT_NAMES.items()
    }


def _joined(*parts: Mapping[str, tuple[Release, ...]]) -> dict[str, tuple[Release, ...]]:
    splits = sorted({split for part in parts for split in part})
    return {split: tuple(release for part in parts for release in part.get(split, ())) for split in splits}


def _wic() -> dict[str, tuple[Release, ...]]:
    return {
        split: tuple(
            Release((f"{folder}{name}.data.txt", f"{folder}{name}.gold.txt"), formats.read_wic)
            for name in names
            for folder in ("", f"{name}/")
        )
        for split, names in SPLIT_NAMES.items()
    }


def _cola() -> dict[str, tuple[Release, ...]]:
    own = {
        "train": tuple(Release((f"{raw}in_domain_train.tsv",), formats.read_cola) for raw in ("", "raw/")),
        "test": tuple(
            Release((f"{raw}in_domain_dev.tsv", f"{raw}out_of_domain_dev.tsv"), formats.read_cola)
            for raw in ("", "raw/")
        ),
    }
    return _joined(own, _single(formats.read_cola, "*.tsv"))


def _mrpc() -> dict[str, tuple[Release, ...]]:
    # Without GLUE's list of development rows the first release has its own training (4076) and test (1725) split.
    glue_ids = [
        (f"msr_paraphrase_train{end}", ids) for end in (".txt", ".tsv") for ids in ("dev_ids.tsv", "mrpc_dev_ids.tsv")
    ]
    first = {
        "train": (
            *(Release(files, formats.read_mrpc_train) for files in glue_ids),
            Release(("msr_paraphrase_train.txt",), formats.read_mrpc),
        ),
        "test": (
            *(Release(files, formats.read_mrpc_dev) for files in glue_ids),
            Release(("msr_paraphrase_test.txt",), formats.read_mrpc),
        ),
    }
    return _joined(_single(formats.read_mrpc, "*.tsv"), first)


def _boss(*splits: str) -> dict[str, tuple[Release, ...]]:
    endings = (".tsv", ".csv", ".json", ".jsonl")
    return {split: tuple(Release((f"{split}{end}",), formats.read_boss) for end in endings) for split in splits}


def _official(
    read: Reader, train: tuple[str, ...], dev: tuple[str, ...], test: tuple[str, ...]
) -> dict[str, tuple[Release, ...]]:
    return {"train": (Release(train, read),), "validation": (Release(dev, read),), "test": (Release(test, read),)}


def _dynasent() -> dict[str, tuple[Release, ...]]:
    files = [
        tuple(f"dynasent-v1.1-{part}-{split}.jsonl" for part in ("round01-yelp", "round02-dynabench"))
        for split in ("train", "dev", "test")
    ]
    return _official(formats.read_dynasent, *files)


def _semeval() -> dict[str, tuple[Release, ...]]:
    first = _official(
        formats.read_semeval_2016, *(((f"twitter-2016{split}-A.txt",)) for split in ("train", "dev", "test"))
    )
    pairs = [(f"{split}_text.txt", f"{split}_labels.txt") for split in ("train", "val", "test")]
    return _joined(first, _official(formats.read_semeval_2017, *pairs))


def _sst5_from_hub(record: Record) -> Record:
    return {**record, "label": formats.SST_BINS.get(str(record.get("label")), record.get("label"))}


def _pubmed_from_hub(record: Record) -> Record:
    return {**record, "text": str(record.get("text") or "").lower()}


def _super_glue(config: str) -> HubSource:
    return HubSource("aps/super_glue", config, "3de24cf8022e94f4ee4b9d55a6f539891524d646")


def _glue(config: str) -> HubSource:
    return HubSource("nyu-mll/glue", config, "bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c")


TRUTH = ("False", "True")
SENTIMENT = ("negative", "positive", "neutral")
PUBMED_FOLDERS = ("pubmed20k", "pubmed20krct", "pubmed20krctnumbersreplacedwithatsign")

PAPER_TASKS: dict[str, PaperTask] = {
    "cb": PaperTask(
        label_names=("entailment", "contradiction", "neutral"),
        template=("{premise}", "{hypothesis}"),
        folders=("cb",),
        releases=_single(formats.read_plain_jsonl, "*.jsonl"),
        hub=_super_glue("cb"),
    ),
    "rte": PaperTask(
        label_names=("entailment", "not_entailment"),
        template=("{premise}", "{hypothesis}"),
        folders=("rte",),
        releases=_joined(_single(formats.read_plain_jsonl, "*.jsonl"), _single(formats.read_glue_rte, "*.tsv")),
        hub=_super_glue("rte"),
    ),
    "boolq": PaperTask(
        label_names=TRUTH,
        template=("{question}", "{passage}"),
        folders=("boolq",),
        releases=_single(formats.read_boolq, "*.jsonl", "superglue_*.jsonl", "google_*.jsonl"),
        hub=_super_glue("boolq"),
    ),
    "wic": PaperTask(
        label_names=TRUTH,
        template=("{sentence1} {sentence2} Does {word} have the same meaning in both sentences?",),
        folders=("wic", "wicdataset"),
        releases=_joined(_single(formats.read_plain_jsonl, "*.jsonl"), _wic()),
        hub=_super_glue("wic"),
    ),
    "wsc": PaperTask(
        label_names=TRUTH,
        template=("{span2_text}: {text}", "{span1_text}"),
        folders=("wsc",),
        releases=_single(formats.read_wsc, "*.jsonl"),
        hub=_super_glue("wsc"),
    ),
    "cola": PaperTask(
        label_names=("unacceptable", "acceptable"),
        template=("{sentence}",),
        folders=("cola", "colapublic"),
        releases=_cola(),
        hub=_glue("cola"),
        metric="matthews",
    ),
    "sst2": PaperTask(
        label_names=("negative", "positive"),
        template=("{sentence}",),
        folders=("sst2",),
        releases=_single(formats.read_glue, "*.tsv"),
        hub=_glue("sst2"),
    ),
    "mrpc": PaperTask(
        label_names=("not_equivalent", "equivalent"),
        template=("{sentence1}", "{sentence2}"),
        folders=("mrpc", "msrparaphrasecorpus"),
        releases=_mrpc(),
        hub=_glue("mrpc"),
    ),
    "amazon": PaperTask(
        label_names=SENTIMENT,
        template=("{text}",),
        folders=("amazon",),
        releases=_boss("train", "test"),
        ood=("dynasent", "semeval", "sst5"),
    ),
    "dynasent": PaperTask(
        label_names=SENTIMENT,
        template=("{text}",),
        folders=("dynasent",),
        releases=_joined(_dynasent(), _boss("train", "test")),
    ),
    "semeval": PaperTask(
        label_names=SENTIMENT,
        template=("{text}",),
        folders=("semeval", "semeval2016", "semeval2017"),
        releases=_joined(_boss("train", "test"), _semeval()),
        hub=HubSource(
            "cardiffnlp/tweet_eval",
            "sentiment",
            "b3a375baf0f409c77e6bc7aa35102b7b3534f8be",
            splits=BOTH,
            note=": the tweets of 2017, where the paper's test has those of 2016",
        ),
    ),
    "sst5": PaperTask(
        label_names=SENTIMENT,
        template=("{text}",),
        folders=("sst5",),
        releases=_joined(
            _official(formats.read_sst_trees, ("train.txt",), ("dev.txt",), ("test.txt",)), _boss("train", "test")
        ),
        hub=HubSource(
            "SetFit/sst5", None, "e51bdcd8cd3a30da231967c1a249ba59361279a3", splits=BOTH, adapt=_sst5_from_hub
        ),
    ),
    "pubmed20k": PaperTask(
        label_names=("BACKGROUND", "CONCLUSIONS", "METHODS", "OBJECTIVE", "RESULTS"),
        template=("{text}",),
        folders=PUBMED_FOLDERS,
        releases=_official(formats.read_pubmed, ("train.txt",), ("dev.txt",), ("test.txt",)),
        hub=HubSource(
            "armanc/pubmed-rct20k",
            splits=BOTH,
            adapt=_pubmed_from_hub,
            note=": a cleaned version with fewer sentences than the original release",
        ),
    ),
}
