"""The precisions in which a kernel can be computed, by name."""

from dataclasses import dataclass

import torch

from ntk_lpft.choices import PRECISION_NAMES, choose
from ntk_lpft.errors import InputError


@dataclass(frozen=True)
class Precision:
    """What a precision's name stands for.

    Attributes:
        name: The name.
        model: dtype of weights, activations and gradients.
        product: dtype in which captured tensors, and the gradients that are made of them, are stored and multiplied.
        kernel: dtype of the kernel, in which products are summed.
        rounding: dtype to whose significand F's factors are rounded; TF32 has float16's. Three bfloat16 products keep
            15 bits, and count as float16 as well, the next one below.
        feature_rounding: The same of P.
        tolerance: Relative error of one parameter's block, against per-example autograd in the same dtype, that the
            self-check lets pass. Rounding stays below it, also in models that compute in float32 inside; a rule
            that is wrong exceeds it by far.
        tf32: Whether CUDA may use TF32 for float32 matrix products.
        products: Number of bfloat16 products that stand for one of float32, 3 or 6 (see `split`); 1 for none.
    """

    name: str
    model: torch.dtype
    product: torch.dtype
    kernel: torch.dtype
    rounding: torch.dtype
    feature_rounding: torch.dtype
    tolerance: float
    tf32: bool = False
    products: int = 1


_SINGLE, _DOUBLE = torch.float32, torch.float64

PRECISIONS = {
    p.name: p
    for p in (
        Precision("float32", _SINGLE, _SINGLE, _SINGLE, _SINGLE, _SINGLE, 5e-3),
        Precision("float64", _DOUBLE, _DOUBLE, _DOUBLE, _DOUBLE, _DOUBLE, 1e-6),
        Precision("tf32", _SINGLE, _SINGLE, _SINGLE, torch.float16, torch.float16, 5e-2, tf32=True),
        Precision("bfloat16", _SINGLE, torch.bfloat16, _SINGLE, torch.bfloat16, _SINGLE, 5e-3),
        Precision("bfloat16x3", _SINGLE, _SINGLE, _SINGLE, torch.float16, _SINGLE, 5e-3, products=3),
        Precision("bfloat16x6", _SINGLE, _SINGLE, _SINGLE, _SINGLE, _SINGLE, 5e-3, products=6),
    )
}


def resolve_precision(name: str | None, device: torch.device, own: torch.dtype = torch.float32) -> Precision:
    """Look a precision up and make sure that the device has it.

    Args:
        name: One of ``PRECISION_NAMES``; None for the model's own, but float32 at least.
        device: Where the kernel is computed.
        own: The model's dtype.

    Returns:
        The dtypes and the tolerance that the name stands for.

    Raises:
        InputError: Unknown name, TF32 asked for off CUDA, or products that this version of torch has not on CUDA.
    """
    if name is None:
        name = "float64" if own == torch.float64 else "float32"
    choose("precision", name, PRECISION_NAMES)
    precision = PRECISIONS[name]
    if precision.tf32 and device.type != "cuda":
        raise InputError(f"precision tf32 needs a CUDA device, not {device.type}; use float32")
    sums_wider = precision.products > 1 or precision.product != precision.kernel
    if sums_wider and device.type == "cuda" and "dtype" not in torch.ops.aten.mm.overloads():
        raise InputError(f"precision {name} on CUDA needs torch 2.8 or newer, not {torch.__version__}; use float32")
    return precision
