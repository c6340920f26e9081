"""The empirical NTK of a classifier's logits, Θ = P + F, as a value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ntk_lpft.arguments import checked
from ntk_lpft.choices import OUTPUTS, choose
from ntk_lpft.errors import InputError
from ntk_lpft.kernel.rank_form import RankFormGroups, expand
from ntk_lpft.kernel.storage import StoredPart, read_part, write_parts

_GROUP = "ft/"
_BASIS = "head_basis"
_ROUNDING = {str(d).removeprefix("torch."): d for d in (torch.float64, torch.float32, torch.float16, torch.bfloat16)}


@dataclass(frozen=True)
class NTKDecomposition:
    """Empirical NTK between row samples and column samples, split into P and F.

    Θ(x, x') = P(x, x') + F(x, x') (Tomihari and Sato, NeurIPS 2024): P, pre-train-effective, from the linear head's
    gradients; F, FT-effective, from the body's.

    Attributes:
        feature_kernel: (N, M), ⟨φ(x), φ(x')⟩, + 1 where the head's bias is trained; 0 where the head is frozen.
        ft_groups: F by parameter group, each (N, C, M, C), or (N, M) for the reduced outputs. They sum to F. A
            kernel in rank form expands a group each time it is asked for; see `head_basis`.
        row_logits: f0 of the row samples, (N, C).
        column_logits: f0 of the column samples, (M, C).
        outputs: ``full``; ``class_trace``, Σ_c Θ_cc / C; or ``pseudo``, Σ_cd Θ_cd / C, the kernel of the sum of
            logits over √C (Mohamadi, Bae and Sutherland, ICML 2023, "A Fast, Well-Founded Approximation to the
            Empirical Neural Tangent Kernel").
        symmetric: Whether rows and columns are the same samples.
        parameter_groups: Names of the parameters in each group.
        metadata: Settings, versions, self-check, fingerprints: what is needed to check or repeat the computation.

    Raises:
        InputError: Parts whose shapes do not fit each other, or that are no floating-point numbers.
    """

    feature_kernel: Float[Tensor, "n m"]
    ft_groups: Mapping[str, Tensor]
    row_logits: Float[Tensor, "n c"]
    column_logits: Float[Tensor, "m c"]
    outputs: str = "full"
    symmetric: bool = False
    parameter_groups: dict[str, list[str]] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        choose("outputs", self.outputs, OUTPUTS)
        given = {name: getattr(self, name) for name in ("feature_kernel", "row_logits", "column_logits")}
        groups = self.reduced_ft_groups
        for name, tensor in (given | groups).items():
            if not isinstance(tensor, Tensor):
                raise InputError(f"kernel: {name} is of type {type(tensor).__name__}; pass a torch tensor")
        n, m = self.feature_kernel.shape if self.feature_kernel.dim() == 2 else (-1, -1)
        c = self.row_logits.shape[-1] if self.row_logits.dim() else -1
        if self.symmetric and n != m:
            raise InputError(f"kernel: {n} rows and {m} columns, which is not symmetric; pass symmetric=False")
        basis = self.head_basis
        if basis is not None and (self.outputs != "full" or basis.shape[0] != c):
            raise InputError(f"kernel: a basis of shape {tuple(basis.shape)} for {c} logits, outputs {self.outputs}")
        k = c if basis is None else basis.shape[1]
        of_groups = (n, k, m, k) if self.outputs == "full" else (n, m)
        parts: list[tuple[str, Tensor, tuple[int, ...]]] = [
            ("feature_kernel", self.feature_kernel, (n, m)),
            ("row_logits", self.row_logits, (n, c)),
            ("column_logits", self.column_logits, (m, c)),
            *((f"ft_groups[{name!r}]", value, of_groups) for name, value in groups.items()),
        ]
        for name, value, shape in parts:
            if tuple(value.shape) != shape or not value.is_floating_point():
                raise InputError(
                    f"kernel: {name} is {value.dtype} of shape {tuple(value.shape)}; expected numbers of "
                    f"shape {shape}, as the other parts have it"
                )

    @property
    def num_labels(self) -> int:
        """C."""
        return self.row_logits.shape[1]

    @property
    def divisor(self) -> int:
        """What sums over classes were divided by: 1 for ``full``, C for the reduced outputs."""
        return 1 if self.outputs == "full" else self.num_labels

    @property
    def pretrain_effective(self) -> Float[Tensor, "n *c m *d"]:
        """P, built on demand: (feature kernel) ⊗ I_C as (N, C, M, C); the feature kernel itself where reduced."""
        if self.outputs != "full":
            return self.feature_kernel
        eye = torch.eye(self.num_labels, dtype=self.feature_kernel.dtype, device=self.feature_kernel.device)
        # Not as a product of matrices, which an autocast around would round.
        return self.feature_kernel[:, None, :, None] * eye[:, None, :]

    @property
    def head_basis(self) -> Float[Tensor, "c r"] | None:
        """Q, of shape (C, r), with which F = Q F_r Qᵀ for every pair of samples; None where F is held as it is.

        Its columns are an orthonormal basis of the range of the head's V, the r = rank(V) combinations of the logits
        that the body can move. `reduced_ft_groups` and `reduced_ft_effective` are F_r. What does not depend on the
        basis (F's spectrum but for zeros, trace, norms, ranks) can be taken from them, at (r/C)² of the size.
        """
        return self.ft_groups.basis if isinstance(self.ft_groups, RankFormGroups) else None

    @property
    def reduced_ft_groups(self) -> dict[str, Tensor]:
        """F_r by parameter group, (N, r, M, r), as they are held; F's groups themselves where there is no basis."""
        return dict(self.ft_groups.reduced if isinstance(self.ft_groups, RankFormGroups) else self.ft_groups)

    @cached_property
    def reduced_ft_effective(self) -> Float[Tensor, "n *r m *s"]:
        """F_r, the sum of its groups, (N, r, M, r); F itself where there is no basis; 0 where no body is trained."""
        if not self.ft_groups:
            return torch.zeros_like(self.pretrain_effective)
        groups = iter(self.reduced_ft_groups.values())
        total = next(groups).clone()
        for group in groups:
            total += group
        return total

    @cached_property
    def ft_effective(self) -> Float[Tensor, "n *c m *d"]:
        """F, the sum of its groups; 0 where no body parameter is trained."""
        basis = self.head_basis
        total = self.reduced_ft_effective
        return total if basis is None else expand(total, basis, symmetric=self.symmetric)

    @property
    def total(self) -> Float[Tensor, "n *c m *d"]:
        """Θ = P + F."""
        return self.pretrain_effective + self.ft_effective

    @property
    def rounding(self) -> torch.dtype:
        """The dtype to which F's factors were rounded, by which its rank is to be counted; TF32 counts as float16."""
        return self._rounding("F")

    @property
    def feature_rounding(self) -> torch.dtype:
        """The same for P."""
        return self._rounding("P")

    def _rounding(self, part: str) -> torch.dtype:
        said = self.metadata.get("rounding")
        return _ROUNDING.get(str(said.get(part)) if isinstance(said, dict) else "", self.feature_kernel.dtype)

    def to(self, *args: Any, **kwargs: Any) -> NTKDecomposition:
        """Move or convert the tensors, as ``torch.Tensor.to`` does."""
        return replace(
            self,
            feature_kernel=self.feature_kernel.to(*args, **kwargs),
            ft_groups=self.ft_groups.to(*args, **kwargs)
            if isinstance(self.ft_groups, RankFormGroups)
            else {name: value.to(*args, **kwargs) for name, value in self.ft_groups.items()},
            row_logits=self.row_logits.to(*args, **kwargs),
            column_logits=self.column_logits.to(*args, **kwargs),
        )

    @checked
    def save(self, path: str | Path) -> Path:
        """Write the kernel to a file that ``load`` reads.

        Args:
            path: A ``.safetensors`` file, or a folder that gets ``kernel.safetensors``.

        Returns:
            The file written. It is complete or not there at all.

        Raises:
            InputError: A path that no file can have.
            OSError: The disk is full, or refuses the file; the error names it.
        """
        return save_parts(path, {"ntk": self})

    @classmethod
    @checked
    def load(cls, path: str | Path, part: str | None = None) -> NTKDecomposition:
        """Read what ``save`` or the ``compute`` command wrote.

        Args:
            path: The file, or its folder.
            part: Which kernel of the file: ``train`` (train × train) or ``eval`` (eval × train) of a run's
                folder; by default the first.

        Returns:
            The kernel, in the dtype it was computed in, on the CPU.

        Raises:
            InputError: No such file or part, or a file that is truncated or was altered.
        """
        stored = read_part(path, part)
        about = stored.description
        _check_description(stored, path)
        groups: Mapping[str, Tensor] = {group: stored.tensors[f"{_GROUP}{group}"] for group in about["groups"]}
        if _BASIS in stored.tensors:
            groups = RankFormGroups(stored.tensors[_BASIS], groups, symmetric=about["symmetric"])
        return cls(
            feature_kernel=stored.tensors["feature_kernel"],
            ft_groups=groups,
            row_logits=stored.tensors["row_logits"],
            column_logits=stored.tensors["column_logits"],
            outputs=about["outputs"],
            symmetric=about["symmetric"],
            parameter_groups=about["parameter_groups"],
            metadata=about["metadata"],
        )

    def _stored(self) -> StoredPart:
        tensors = {
            "feature_kernel": self.feature_kernel,
            "row_logits": self.row_logits,
            "column_logits": self.column_logits,
            **{f"{_GROUP}{group}": value for group, value in self.reduced_ft_groups.items()},
        }
        if self.head_basis is not None:
            tensors[_BASIS] = self.head_basis
        description = {
            "outputs": self.outputs,
            "symmetric": self.symmetric,
            "groups": list(self.ft_groups),
            "parameter_groups": self.parameter_groups,
            "metadata": self.metadata,
        }
        return StoredPart(tensors, description)


_DESCRIBED = {"outputs": str, "symmetric": bool, "groups": list, "parameter_groups": dict, "metadata": dict}


def _check_description(stored: StoredPart, path: str | Path) -> None:
    """Refuse a description that does not fit the tensors beside it."""
    about: Any = stored.description
    known = about if isinstance(about, dict) else {}
    wrong = [name for name, kind in _DESCRIBED.items() if not isinstance(known.get(name), kind)]
    if not wrong:
        listed = [about["groups"], *about["parameter_groups"].values()]
        sound = all(isinstance(names, list) and all(isinstance(name, str) for name in names) for names in listed)
        expected = {"feature_kernel", "row_logits", "column_logits"}
        expected |= {f"{_GROUP}{group}" for group in about["groups"]} if sound else set()
        expected |= {_BASIS} & set(stored.tensors)  # a kernel in rank form has it
        wrong = sorted(expected ^ set(stored.tensors)) if sound else ["groups"]
    if wrong:
        raise InputError(f"{path} is damaged: {', '.join(wrong)} is missing or not what it should be; compute it again")


def save_parts(path: str | Path, parts: Mapping[str, NTKDecomposition]) -> Path:
    """Write several kernels, by name, into one file.

    Args:
        path: The file, or the folder that it goes into.
        parts: The kernels.

    Returns:
        The file.
    """
    return write_parts(path, {name: part._stored() for name, part in parts.items()})
