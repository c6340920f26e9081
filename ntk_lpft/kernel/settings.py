"""How a kernel is computed."""

from dataclasses import dataclass
from typing import ClassVar

from ntk_lpft.byte_sizes import parse_bytes
from ntk_lpft.choices import ENGINES, OUTPUTS, PRECISION_NAMES, choose
from ntk_lpft.options import DeviceOptions, option


@dataclass(frozen=True)
class KernelSettings(DeviceOptions):
    """How a kernel is computed.

    Attributes:
        engine: ``structured`` (hooks, no dense Jacobian), ``functional`` (``torch.func``) or ``per_example``
            (plain autograd); all agree to rounding.
        precision: ``float32``, ``float64``, ``tf32`` (CUDA), ``bfloat16`` (products only; accumulates float32), or
            ``bfloat16x6`` or ``bfloat16x3``: each product of the contraction as the sum of six or three bfloat16
            products, for tensor cores, as exact as float32 or to about 2⁻¹⁵. None takes float64 for a model of that
            dtype and float32 for any other.
        outputs: ``full``, ``class_trace`` or ``pseudo``; see ``NTKDecomposition``.
        groups: Whether F is split by parameter group, or kept as one sum, ``body``.
        rank_form: Whether F is computed for the rank(V) combinations of the logits that the head can reach, and
            expanded to all of them when it is asked for (structured engine); see ``NTKDecomposition.head_basis``.
        memory_budget: Bytes besides the model, or text such as ``4GiB``; None takes a share of what is free.
        device: A torch device; None takes the one the model is on.
    """

    TITLE: ClassVar[str] = "computation"

    engine: str = option("structured", "structured, functional (torch.func) or per_example (plain autograd)")
    precision: str | None = option(
        None,
        "float32, float64, tf32 (CUDA), bfloat16, bfloat16x6 (exact as float32, from six bfloat16 products, fast on "
        "tensor cores) or bfloat16x3 (three) (default: the model's own, float32 at least)",
    )
    outputs: str = option("full", "full, class_trace or pseudo (kernel of the sum of logits), for many classes")
    groups: bool = option(True, "split F by parameter group")
    rank_form: bool = option(
        True, "compute F for the rank(V) combinations of the logits that the head can reach, and expand it: exact"
    )
    memory_budget: int | str | None = option(
        None, "memory besides the model, such as 4GiB (default: a share of what is free)"
    )

    def check(self) -> None:
        """Refuse names that mean nothing; the device is looked for when it is used.

        Raises:
            InputError: Unknown engine, precision, outputs or budget.
        """
        choose("engine", self.engine, ENGINES)
        choose("outputs", self.outputs, OUTPUTS)
        if self.precision is not None:
            choose("precision", self.precision, PRECISION_NAMES)
        if self.memory_budget is not None:
            parse_bytes(self.memory_budget)
