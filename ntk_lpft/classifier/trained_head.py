"""Whether a checkpoint has a trained classification head: one that fine-tuning here saved, or transformers' own."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from transformers import PretrainedConfig

from ntk_lpft.classifier.classes import match_classes, names_in
from ntk_lpft.classifier.head_file import FILE_NAME, load_head
from ntk_lpft.errors import InputError
from ntk_lpft.model_sources import resolve_source

_CLASSIFIER = "ForSequenceClassification"


@dataclass(frozen=True)
class TrainedHead:
    """A head in a checkpoint.

    Attributes:
        kind: ``linear`` where fine-tuning here saved it beside a body, ``native`` where it is transformers' own.
        num_labels: C.
        names: Names of the classes, as the checkpoint's config has them; None where it has none.
    """

    kind: Literal["linear", "native"]
    num_labels: int
    names: tuple[str, ...] | None = None

    def fits(self, label_names: Sequence[str]) -> bool:
        """Whether its classes are those of some data, see ``match_classes``."""
        try:
            match_classes(label_names, self.names)
        except InputError:
            return False
        return self.num_labels == len(label_names)


def trained_head(name: str | Path) -> TrainedHead | None:
    """Look for a classification head in a checkpoint; weights are not loaded.

    Args:
        name: A Hub name, a folder, also that of a fine-tuning run, or a bundled name.

    Returns:
        The head; None where the checkpoint is a body, or a head for something else than single-label classification.

    Raises:
        InputError: There is no such checkpoint, or its files are damaged.
    """
    source = resolve_source(name)
    file = Path(source) / FILE_NAME
    saved = load_head(file) if file.is_file() else None
    try:
        config, _ = PretrainedConfig.get_config_dict(source)
    except (OSError, ValueError):
        config = {}  # loading the model says what is wrong
    if saved is not None:
        return TrainedHead("linear", len(saved.weight), names_in(config.get("id2label")))
    if not config:
        return None
    count = _classes(config)
    architectures = config.get("architectures")
    built = isinstance(architectures, list) and any(str(each).endswith(_CLASSIFIER) for each in architectures)
    single = config.get("problem_type") in (None, "single_label_classification")
    return TrainedHead("native", count, names_in(config.get("id2label"))) if built and single and count > 1 else None


def _classes(config: dict[str, Any]) -> int:
    names = config.get("id2label")
    if isinstance(names, dict):
        return len(names)
    count = config.get("num_labels", 2)  # transformers' own default
    if not isinstance(count, int):
        raise InputError(f"the model's config.json says num_labels {count!r}; correct it")
    return count
