"""The paper's tables and figures: what each shows, and which jobs it is made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ntk_lpft.errors import InputError


@dataclass(frozen=True)
class Item:
    """A table or a figure.

    Attributes:
        name: As on the command line: ``table2``, ``figure7``.
        numbers: All numbers that the paper prints it under.
        title: What it shows.
        kinds: Kinds of jobs that it reads.
    """

    name: str
    numbers: tuple[int, ...]
    title: str
    kinds: tuple[str, ...]


# Where the paper splits one table over several pages or data sets, there is one here, of all data sets.
TABLES: Sequence[Item] = (
    Item("table1", (1,), "Features and head norm after each method", ("finetune",)),
    Item("table2", (2, 9), "Kernel statistics of P, F and P + F where fine-tuning starts", ("kernel",)),
    Item("table3", (3, 14, 15), "ECE and MCE on the test split, before and after temperature scaling",
         ("finetune", "calibration")),
    Item("table8", (8, 16), "Test accuracy (Matthews correlation for CoLA)", ("finetune",)),
    Item("table10", (10,), "Accuracy on ID and OOD tests", ("finetune",)),
    Item("table11", (11,), "Features on ID and OOD tests", ("finetune",)),
    Item("table12", (12,), "Feature difference on each test", ("finetune",)),
    Item("table13", (13,), "Head norm after each method", ("finetune",)),
    Item("sampling", (), "Word-embedding block: a random tenth of its parameters against all", ("embedding_sampling",)),
    Item("lora", (), "F of LoRA, rescaled, against F of the adapted weights", ("lora_scaling",)),
)  # fmt: skip

# Of the paper's pairs, the first shows one data set here (CB where it was run), the second every one.
FIGURES: Sequence[Item] = (
    Item("figure1", (1,), "Head norm and accuracy during LP and FT, one data set", ("finetune", "probe")),
    Item("figure2", (2,), "Singular values of P and F, one data set", ("kernel",)),
    Item("figure3", (3,), "Feature difference against head norm, one data set", ("head_scale",)),
    Item("figure4", (4,), "Head norm and accuracy during LP and FT, every data set", ("finetune", "probe")),
    Item(
        "figure5",
        (5,),
        "Features and head rows before and after FT and LP-FT, by t-SNE, one data set",
        ("finetune", "features"),
    ),
    Item(
        "figure6",
        (6,),
        "Features and head rows before and after each method, by t-SNE, every data set",
        ("finetune", "features"),
    ),
    Item("figure7", (7,), "Singular values of P and F, every data set", ("kernel",)),
    Item("figure8", (8,), "Trace norm of the C × C blocks of P and F, one data set", ("kernel",)),
    Item("figure9", (9,), "Trace norm of the C × C blocks of P and F, every data set", ("kernel",)),
    Item("figure10", (10,), "Feature difference against head norm, every data set", ("head_scale",)),
    Item("figure11", (11,), "Feature difference against head norm on OOD tests", ("head_scale",)),
)

ITEMS: Mapping[str, Item] = {item.name: item for item in (*TABLES, *FIGURES)}


def item_of(name: str) -> Item:
    """Find a table or figure, also by another of its numbers: ``table9`` is part of ``table2``.

    Raises:
        InputError: There is no such table or figure.
    """
    if name in ITEMS:
        return ITEMS[name]
    for prefix, items in (("table", TABLES), ("figure", FIGURES)):
        for item in items:
            if name in {f"{prefix}{number}" for number in item.numbers}:
                return item
    raise InputError(f"unknown table or figure {name!r}; choose from {', '.join(ITEMS)}")


def kinds_for(names: Iterable[str]) -> set[str]:
    """Collect the kinds of jobs that some tables and figures are made of.

    Raises:
        InputError: There is no such table or figure.
    """
    return {kind for name in names for kind in item_of(name).kinds}
