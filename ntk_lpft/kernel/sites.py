"""Where each trainable parameter of the body is used, and the way by which its kernel is computed."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from torch import nn

from ntk_lpft.errors import InputError
from ntk_lpft.kernel.rules import Rule, find_rule


class Route(str, Enum):
    """Ways to a parameter's per-sample gradients, from the fastest to the one that is always right."""

    BATCHED = "batched"  # hooks, many samples at a time
    SINGLE = "single"  # hooks, one sample at a time: for modules whose input has no batch dimension
    AUTOGRAD = "autograd"  # plain autograd, one sample and channel at a time


@dataclass
class Site:
    """One trainable parameter of the body.

    Attributes:
        name: Name in ``model.named_parameters()``.
        parameter: The parameter.
        owners: Every module that holds it, each with its local name there (tied weights have several).
        rule: The rule of the owners, or None.
        route: The way by which its kernel is computed.
        reason: Why the route is not the fastest one, for people.
        verified: Whether the self-check saw a gradient, so that agreement with autograd means something.
    """

    name: str
    parameter: nn.Parameter
    owners: list[tuple[nn.Module, str]] = field(default_factory=list)
    rule: Rule | None = None
    route: Route = Route.BATCHED
    reason: str = ""
    verified: bool = True

    @property
    def modules(self) -> list[nn.Module]:
        """The owners alone."""
        return [module for module, _ in self.owners]


def find_sites(model: nn.Module, head: list[nn.Parameter]) -> list[Site]:
    """List the trainable parameters that are not the head's, in the model's order.

    Args:
        model: The classifier.
        head: Parameters of the head, which belong to P and are left out.

    Returns:
        Sites with rules; a parameter without a rule starts on the autograd route.

    Raises:
        InputError: Nothing in the model is trainable.
    """
    if not any(p.requires_grad for p in model.parameters()):
        raise InputError("the model has no trainable parameter; set requires_grad on what the kernel is about")
    excluded = {id(p) for p in head}
    sites = {id(p): Site(name, p) for name, p in model.named_parameters() if p.requires_grad and id(p) not in excluded}
    for module in model.modules():
        for local, parameter in module.named_parameters(recurse=False):
            if id(parameter) in sites:
                sites[id(parameter)].owners.append((module, local))
    for site in sites.values():
        rules = {id(rule): rule for rule in (find_rule(module) for module in site.modules)}
        if len(rules) == 1:
            site.rule = next(iter(rules.values()))
        if site.rule is None:
            site.route = Route.AUTOGRAD
            kinds = ", ".join(sorted({type(module).__name__ for module in site.modules}))
            site.reason = f"no rule for {kinds}"
    return list(sites.values())
