"""Where each trainable parameter of the body is used, and the way by which its kernel is computed."""

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
class BodyParameter:
    """One trainable parameter of the body.

    Attributes:
        name: Name in ``model.named_parameters()``.
        tensor: The parameter.
        owners: Every module that holds it, each with its local name there (tied weights have several).
        rule: The rule of the owners, or None.
        route: The way by which its kernel is computed.
        reason: Why the route is not the fastest one, for people.
        verified: Whether the self-check saw a gradient, so that agreement with autograd means something.
    """

    name: str
    tensor: nn.Parameter
    owners: list[tuple[nn.Module, str]] = field(default_factory=list)
    rule: Rule | None = None
    route: Route = Route.BATCHED
    reason: str = ""
    verified: bool = True

    @property
    def modules(self) -> list[nn.Module]:
        """The owners alone."""
        return [module for module, _ in self.owners]


def find_body_parameters(model: nn.Module, head: list[nn.Parameter]) -> list[BodyParameter]:
    """List the trainable parameters that are not the head's, in the model's order.

    Args:
        model: The classifier.
        head: Parameters of the head, which belong to P and are left out.

    Returns:
        Parameters with rules; a parameter without a rule starts on the autograd route.

    Raises:
        InputError: Nothing in the model is trainable.
    """
    if not any(p.requires_grad for p in model.parameters()):
        raise InputError("the model has no trainable parameter; set requires_grad on what the kernel is about")
    excluded = {id(p) for p in head}
    parameters = {
        id(p): BodyParameter(name, p)
        for name, p in model.named_parameters()
        if p.requires_grad and id(p) not in excluded
    }
    for module in model.modules():
        for local, tensor in module.named_parameters(recurse=False):
            if id(tensor) in parameters:
                parameters[id(tensor)].owners.append((module, local))
    for parameter in parameters.values():
        rules = {id(rule): rule for rule in (find_rule(module) for module in parameter.modules)}
        if len(rules) == 1:
            parameter.rule = next(iter(rules.values()))
        if parameter.rule is None:
            parameter.route = Route.AUTOGRAD
            kinds = ", ".join(sorted({type(module).__name__ for module in parameter.modules}))
            parameter.reason = f"no rule for {kinds}"
    return list(parameters.values())
