"""Names of the parameter groups into which F is split."""

import re
from collections.abc import Iterable

_LAYER = re.compile(r"(?:^|\.)(?:layers?|h|blocks?|albert_layer_groups)\.(\d+)\.")
_STACK = re.compile(r"(?:^|\.)(encoder|decoder)\.")
_NORM = re.compile(r"norm|(?:^|_)ln(?:_|\d|$)", re.IGNORECASE)
_ATTENTION = re.compile(r"attn|attention|(?:^|\.)(?:query|key|value|[qkvo]|[qkvo]_proj|qkv|c_attn)\.", re.IGNORECASE)
# OPT projects its embeddings; DeBERTa normalises its relative ones, and has a convolution, both outside its layers.
_EMBEDDING = re.compile(r"embed|(?:^|\.)(?:wte|wpe|shared|project_in)\.|deberta\.encoder\.LayerNorm\.", re.IGNORECASE)
_CONVOLUTION = re.compile(r"(?:^|\.)encoder\.conv\.")
_POOLER = re.compile(r"pooler|classifier|classification_head|summary|(?:^|\.)(?:head|score)\.", re.IGNORECASE)


def group_of(parameter: str, *, two_stacks: bool = False) -> str:
    """Group of a body parameter, from its name as in ``model.named_parameters()``.

    ``embeddings`` (with their norms and projections), ``layer.<i>.attention``, ``layer.<i>.mlp``, ``layer.<i>.norm``,
    ``pooler`` (every dense layer between body and head), ``final_norm``, and ``other`` (DeBERTa's convolution beside
    the first layer, for one). Encoder-decoder models put ``encoder.`` or ``decoder.`` in front.

    Args:
        parameter: The parameter's name.
        two_stacks: Whether the model has both an encoder and a decoder.

    Returns:
        The group's name.
    """
    stack = _STACK.search(parameter)
    prefix = f"{stack.group(1)}." if two_stacks and stack else ""
    owner = parameter.rsplit(".", 2)[-2] if "." in parameter else parameter
    layer = _LAYER.search(parameter)
    if layer:
        inside = parameter[layer.end() :]
        if _NORM.search(owner):
            kind = "norm"
        elif _ATTENTION.search("." + inside):
            kind = "attention"
        else:
            kind = "mlp"
        return f"{prefix}layer.{layer.group(1)}.{kind}"
    if _EMBEDDING.search(parameter):
        return "embeddings"
    if _CONVOLUTION.search(parameter):
        return "other"
    if _POOLER.search(parameter):
        return "pooler"
    return f"{prefix}final_norm" if _NORM.search(owner) else "other"


def group_parameters(names: Iterable[str]) -> dict[str, list[str]]:
    """Sort parameters into groups, in the order of the network, each with the names of its parameters."""
    names = list(names)
    stacks = {match.group(1) for name in names if (match := _STACK.search(name)) and _LAYER.search(name)}
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(group_of(name, two_stacks=len(stacks) == 2), []).append(name)
    return groups
