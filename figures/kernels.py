"""What the figures of kernels read from `kernel` jobs: spectra, and norms of blocks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from jaxtyping import Float64, Int
from torch import Tensor

from analysis.suite.results import Entry
from ntk_lpft.errors import InputError
from ntk_lpft.kernel import NTKDecomposition
from ntk_lpft.runs import KernelRun
from ntk_lpft.statistics import (
    Spectrum,
    block_trace_norms,
    kernel_spectrum,
    pretrain_effective_block_trace_norms,
    pretrain_effective_spectrum,
)

STARTS = ("ft", "lp-ft", "lora", "lp-lora")  # methods whose start has a kernel


@dataclass(frozen=True, eq=False)
class Spectra:
    """Spectra of the kernels of training samples.

    Attributes:
        p: Of P.
        f: Of F.
    """

    p: Spectrum
    f: Spectrum


@dataclass(frozen=True, eq=False)
class Blocks:
    """Trace norms of the C×C blocks of the kernels of training samples, with the samples' classes.

    Attributes:
        p: Of P, of shape (N, N).
        f: Of F, of shape (N, N).
        labels: Classes, of shape (N,).
        label_names: Name of each class.
    """

    p: Float64[Tensor, "n n"]
    f: Float64[Tensor, "n n"]
    labels: Int[Tensor, " n"]
    label_names: tuple[str, ...]


def read_spectra(entry: Entry) -> Spectra:
    """Compute the spectra of a job's P and F.

    Raises:
        InputError: Its kernel is missing, damaged or reduced.
    """
    return _spectra(entry.run.path, _changed(entry.run))


def read_blocks(entry: Entry) -> Blocks:
    """Compute the block norms of a job's P and F.

    Raises:
        InputError: Its kernel is missing, damaged or reduced, or its config.json does not fit to it.
    """
    return _blocks(entry.run.path, _changed(entry.run))


def _changed(run: KernelRun) -> int:
    path = run.file(run.KERNEL)
    if not path.is_file():
        raise InputError(f"{path.name} is gone")
    return path.stat().st_mtime_ns


# Two figures read every kernel, and captions do so again. What is kept of one is small.
@lru_cache(maxsize=512)
def _spectra(folder: Path, changed: int) -> Spectra:
    kernel = _kernel(folder)
    return Spectra(
        pretrain_effective_spectrum(
            kernel.feature_kernel, kernel.num_labels, symmetric=True, computed_in=kernel.feature_rounding
        ),
        kernel_spectrum(kernel.ft_effective, symmetric=True, computed_in=kernel.rounding),
    )


@lru_cache(maxsize=128)
def _blocks(folder: Path, changed: int) -> Blocks:
    kernel = _kernel(folder)
    config = KernelRun(folder).config()
    labels, names = torch.tensor(config["data"]["train"]["labels"]), tuple(config["label_names"])
    if labels.shape != kernel.feature_kernel.shape[:1] or len(names) != kernel.num_labels:
        raise InputError("config.json and kernel.safetensors are not of the same samples")
    return Blocks(
        pretrain_effective_block_trace_norms(kernel.feature_kernel, kernel.num_labels),
        block_trace_norms(kernel.ft_effective),
        labels,
        names,
    )


def _kernel(folder: Path) -> NTKDecomposition:
    kernel = NTKDecomposition.load(folder, "train")
    if kernel.outputs != "full":
        raise InputError(f"its kernel is that of {kernel.outputs} outputs, which has no classes")
    return kernel
