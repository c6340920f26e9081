"""Which row of a kept head is of which class: by the names of the classes, never by their places alone."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ntk_lpft.class_names import Cell, as_cell, listed, look
from ntk_lpft.classifier.head import Head
from ntk_lpft.errors import InputError

_NAMELESS = re.compile(r"(LABEL_)?(\d+)")  # as transformers numbers classes that nobody named


@dataclass(frozen=True)
class ClassMatch:
    """How the classes of a head and those of data fit together.

    Attributes:
        order: The head's row of each class of the data.
        names: Names of the classes in the data's order: the data's, or the head's where the data has numbers alone.
        said: What the user is to know of it, in one line; empty where the two are the same.
    """

    order: tuple[int, ...]
    names: tuple[str, ...]
    said: str = ""

    @property
    def is_same(self) -> bool:
        """Whether every row stays where it is."""
        return self.order == tuple(range(len(self.order)))


def match_classes(data: Sequence[str], head: Sequence[str] | None) -> ClassMatch:
    """Match the classes of data with those of a head by their names.

    Letter case, white space, and signs such as ``_`` do not matter, nor does how a number is written. Where one of the
    two has no names but the numbers 0 to C - 1, classes are taken by number.

    Args:
        data: Names of the data's classes, in the order of their numbers.
        head: Names of the head's; None where it has none.

    Returns:
        The match.

    Raises:
        InputError: There are other numbers of classes, or names that have no counterpart.
    """
    if head is not None and len(head) != len(data):
        raise InputError(f"the head has {len(head)} classes ({listed(head)}), the data {len(data)} ({listed(data)})")
    places, nameless = tuple(range(len(data))), head is None or _are_nameless(head)
    if _are_nameless(data):
        names = tuple(data) if head is None or nameless else tuple(head)
        said = "" if nameless else f"the data has numbers for classes; they are taken for the head's {listed(names)}"
        return ClassMatch(places, names, said)
    if head is None or nameless:
        said = f"the head's classes have no names; its rows are taken for {listed(data)}, in this order"
        return ClassMatch(places, tuple(data), said)
    if tuple(data) == tuple(head):
        return ClassMatch(places, tuple(data))
    rows = _rows_by_name(head)
    keys = [_key(name) for name in data]
    if len(rows) < len(head) or set(keys) != set(rows) or len(set(keys)) < len(keys):
        raise InputError(
            f"the head's classes are {listed(head)}, the data's {listed(data)}, and their names do not match; rename "
            "those of the data, or make a new head (--head-init random)"
        )
    order = tuple(rows[key] for key in keys)
    moved = "" if order == places else f", and its rows put into the data's order (were {listed(head)})"
    return ClassMatch(order, tuple(data), f"the head's classes are matched with the data's by name{moved}")


def _are_nameless(names: Sequence[str]) -> bool:
    found = [_NAMELESS.fullmatch(name) for name in names]
    return all(match is not None and int(match[2]) == place for place, match in enumerate(found))


def _rows_by_name(names: Sequence[str]) -> dict[Cell, int]:
    return {_key(name): row for row, name in enumerate(names)}


def _key(name: str) -> Cell:
    cell = as_cell(name.strip())
    return cell if isinstance(cell, Decimal) else " ".join(re.sub(r"[\W_]+", " ", look(name)).split()) or look(name)


def names_of_classes(config: Any) -> tuple[str, ...] | None:
    """Read the names of classes in a model's config.

    Args:
        config: Of transformers.

    Returns:
        The names by number; None where there are none.
    """
    return names_in(getattr(config, "id2label", None))


def names_in(labels: Any) -> tuple[str, ...] | None:
    """Read what a config has as ``id2label``; None where it is none."""
    if not isinstance(labels, Mapping):
        return None
    names = {str(number): str(name) for number, name in labels.items()}
    if set(names) != {str(number) for number in range(len(names))}:
        return None
    return tuple(names[str(number)] for number in range(len(names)))


def name_classes(config: Any, names: Sequence[str]) -> None:
    """Write the names of classes into a model's config."""
    config.update({"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}})


def reorder(
    weight: Float[Tensor, "c h"], bias: Float[Tensor, " c"] | None, order: Sequence[int]
) -> tuple[Float[Tensor, "c h"], Float[Tensor, " c"] | None]:
    """Put the rows of V and b into another order.

    Args:
        weight: V.
        bias: b, if there is one.
        order: Which row comes first, second, ….

    Returns:
        V and b of the classes in their new order.
    """
    rows = torch.tensor(order, device=weight.device)
    return weight[rows], None if bias is None else bias[rows]


def arrange_head(head: Head, match: ClassMatch) -> None:
    """Put the rows of a head into the order of the data's classes, in place."""
    if match.is_same:
        return
    with torch.no_grad():
        weight, bias = reorder(head.module.weight, head.module.bias, match.order)
        head.module.weight.copy_(weight)
        if bias is not None:
            head.module.bias.copy_(bias)
