"""What a fine-tuning run does besides Trainer's settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ntk_lpft.choices import METHODS, SOLVERS, choose
from ntk_lpft.options import LoraOptions, ProbeOptions, check_least, option


@dataclass(frozen=True)
class Method:
    """What a method's name stands for.

    Attributes:
        name: One of ``METHODS``.
        probes: Whether the head is fitted by linear probing first.
        trains: Whether anything is fine-tuned afterwards.
        adapts: Whether that is LoRA adapters instead of the body.
    """

    name: str
    probes: bool
    trains: bool
    adapts: bool

    @classmethod
    def of(cls, name: str) -> Method:
        """Look a method up.

        Args:
            name: One of ``METHODS``.

        Returns:
            What the name stands for.

        Raises:
            InputError: There is none of that name.
        """
        choose("method", name, METHODS)
        return cls(name, name.startswith("lp"), name != "lp", name.endswith("lora"))

    @property
    def stage(self) -> str:
        """What the progress bar calls the training stage."""
        what = "LoRA" if self.adapts else "fine-tuning"
        return f"stage 2 of 2 ({what})" if self.probes else f"stage 1 of 1 ({what})"


@dataclass(frozen=True)
class MethodSettings(ProbeOptions, LoraOptions):
    """What a run does besides Trainer's settings.

    Attributes:
        method: One of ``METHODS``.
        lp_iterations: Iterations of ``adam`` and ``lbfgs``; None takes theirs.
    """

    TITLE: ClassVar[str] = "method"

    method: str = option("lp-ft", "lp, ft, lp-ft, lora or lp-lora")
    lp_iterations: int | None = option(None, "iterations of adam and lbfgs (default: 1000)")

    def check_method(self) -> None:
        """Refuse what makes no sense.

        Raises:
            InputError: Unknown names, or numbers that are too small.
        """
        choose("method", self.method, METHODS)
        self.check_probe(SOLVERS)
        check_least(self, lp_iterations=1)
        self.check_lora()
