"""The paper's linear probe: logistic regression on frozen features, as a linear head."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float64, Int
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from torch import Tensor

from ntk_lpft.arguments import checked
from ntk_lpft.choices import LOGISTIC, LOGISTIC_SOLVERS, PUBLISHED, choose
from ntk_lpft.errors import InputError
from ntk_lpft.statistics.classifier import cross_validated_regression, fit_and_count

RELATIVE_ERROR = 1e-6  # of V, which the gradient must prove
_LEAST_NORM = 1e-3  # below which the error of V need not fall in proportion
_FOLDS = 5
_STRENGTHS = np.logspace(-4, 4, 10)
# Of the mean loss. Looser ones leave fits at large C where scores, and with them the choice, depend on the solver.
_CHOICE_TOLERANCE = 1e-6
# Newton's steps from the solver's b end in rounding after two or three.
_BIAS_STEPS, _BIAS_TOLERANCE = 20, 1e-14
_TOLERANCES = (1e-8, 1e-10, 1e-12, 1e-14)


class CurvePoint(NamedTuple):
    """What cross-validation says of one strength.

    Attributes:
        strength: C, the inverse of the L2 penalty.
        mean: Accuracy on the samples left out, as a mean over folds.
        folds: The same for each fold.
    """

    strength: float
    mean: float
    folds: tuple[float, ...]


@dataclass(frozen=True)
class LogisticHead:
    """A linear head fitted by logistic regression.

    Attributes:
        weight: V, (C, h), float64.
        bias: b, (C), or None where it was fitted without.
        solver: ``logistic`` or ``logistic-published``.
        strength: The regularisation C that cross-validation chose (inverse of the L2 penalty).
        train_accuracy: Accuracy on the samples it was fitted on.
        folds: Number of cross-validation folds.
        fold_seed: What shuffled the samples into folds.
        curve: The cross-validation, by strength.
        unconverged_fits: How many of its fits did not converge.
        gradient_norm: Norm of the objective's gradient at V and b (``fit_logistic_head`` has the objective).
        gradient_bound: Below which V is known to be within 10⁻⁶ ‖V‖ of the optimum.
    """

    weight: Float[Tensor, "c h"]
    bias: Float[Tensor, " c"] | None
    solver: str
    strength: float
    train_accuracy: float
    folds: int
    fold_seed: int
    curve: tuple[CurvePoint, ...]
    unconverged_fits: int
    gradient_norm: float
    gradient_bound: float

    @property
    def converged(self) -> bool:
        """Whether V is known to be the optimum for its strength, and all fits that chose the strength converged."""
        return self.gradient_norm <= self.gradient_bound and self.unconverged_fits == 0

    @property
    def head_norm(self) -> float:
        """‖V‖_F."""
        # Not torch's sum, whose last bit depends on where the tensor lies, as one of a file does.
        return math.sqrt(math.fsum(self.weight.square().flatten().tolist()))

    def facts(self) -> dict[str, Any]:
        """All but V and b, as plain data."""
        return {
            "solver": self.solver,
            "strength": self.strength,
            "train_accuracy": self.train_accuracy,
            "intercept": self.bias is not None,
            "folds": self.folds,
            "fold_seed": self.fold_seed,
            "converged": self.converged,
            "unconverged_fits": self.unconverged_fits,
            "gradient_norm": self.gradient_norm,
            "gradient_bound": self.gradient_bound,
            "cross_validation": [
                {"strength": point.strength, "mean": point.mean, "folds": list(point.folds)} for point in self.curve
            ],
        }

    @classmethod
    def of_facts(
        cls, weight: Float[Tensor, "c h"], bias: Float[Tensor, " c"] | None, facts: Mapping[str, Any]
    ) -> LogisticHead:
        """Put a head together from V, b and its ``facts``."""
        known = ("solver", "strength", "train_accuracy", "folds", "fold_seed", "unconverged_fits", "gradient_norm",
                 "gradient_bound")  # fmt: skip
        curve = [CurvePoint(each["strength"], each["mean"], tuple(each["folds"])) for each in facts["cross_validation"]]
        return cls(weight, bias, curve=tuple(curve), **{name: facts[name] for name in known})

    def shortfall(self) -> str | None:
        """Say in one line what did not converge; None where all did."""
        said = []
        if self.gradient_norm > self.gradient_bound:
            said.append(
                f"its gradient norm is {self.gradient_norm:.2g}, above {self.gradient_bound:.2g}, so V is near its "
                "optimum only"
            )
        if self.unconverged_fits:
            said.append(f"{self.unconverged_fits} of {self.folds * len(self.curve)} fits that chose C did not converge")
        return f"the linear probe: {'; '.join(said)}" if said else None


@checked
def fit_logistic_head(
    features: Float[Tensor, "n h"],
    labels: Int[np.ndarray, " n"],
    num_labels: int,
    *,
    solver: str = LOGISTIC,
    intercept: bool = True,
    fold_seed: int = 0,
    max_iter: int = 5000,
) -> LogisticHead:
    """Fit the paper's LP head: L2, multinomial, ten strengths, five stratified folds that a seed shuffles.

    The strength C with the best mean accuracy over the folds is fitted to convergence on all samples. V and b minimise
    C Σᵢ CE(softmax(V φᵢ + b), yᵢ) + λ/2 ‖V‖², with λ = 1, or 2 for two classes: a binary solution w, b, whose penalty
    is ½ ‖w‖², becomes the rows −w/2, +w/2 and biases −b/2, +b/2, which give the same probabilities. As the objective,
    minimised over b, is λ-strongly convex in V, ‖V − V*‖ ≤ ‖∇‖ / λ, which is made less than 10⁻⁶ ‖V‖ (10⁻⁹ where ‖V‖ is
    less than 10⁻³).

    ``logistic-published`` differs for two classes: the published code takes λ = 1, as for more classes, and then halves
    V and b. Its probabilities are nearer to one half than those that fit best.

    Source: Tomihari and Sato, NeurIPS 2024, experimental settings, and the code published with it.

    Args:
        features: φ of the whole training split.
        labels: Classes, 0…C−1.
        num_labels: C.
        solver: ``logistic`` or ``logistic-published``.
        intercept: Whether there is a b; without one, V is what fits best alone.
        fold_seed: What shuffles samples into folds.
        max_iter: Most iterations of a fit.

    Returns:
        The head.

    Raises:
        InputError: An unknown solver; some class has no sample, or fewer than two.
    """
    choose("solver of logistic regression", solver, LOGISTIC_SOLVERS)
    counts = np.bincount(labels, minlength=num_labels)
    if len(counts) > num_labels or counts.min() < 2:
        raise InputError(
            f"the logistic-regression head needs 2 or more samples of each of {num_labels} classes; got "
            f"{counts.tolist()} (give more training samples, or --head-init random)"
        )
    x = features.double().cpu().numpy()
    halved = solver == PUBLISHED and num_labels == 2
    penalty = 2.0 if num_labels == 2 and not halved else 1.0
    folds = int(min(_FOLDS, counts.min()))
    # scikit-learn's binary objective penalises the difference w of the rows by ½ ‖w‖² = ‖V‖², which is λ = 2; half the
    # penalty is twice the strength.
    search = _Search(x, labels, intercept, max_iter, 2.0 if halved else 1.0)
    curve, unconverged = search.curve(folds, fold_seed)
    strength = _best(curve)
    weight, bias = search.optimum(strength, penalty)
    gradient_norm = search.gradient_norm(weight, bias, strength, penalty)
    bound = _gradient_bound(weight, penalty)
    logits = x @ weight.T + bias
    scale = 0.5 if halved else 1.0
    return LogisticHead(
        weight=torch.from_numpy(scale * weight),
        bias=torch.from_numpy(scale * bias) if intercept else None,
        solver=solver,
        strength=strength,
        train_accuracy=float((logits.argmax(1) == labels).mean()),
        folds=folds,
        fold_seed=fold_seed,
        curve=curve,
        unconverged_fits=unconverged,
        gradient_norm=gradient_norm,
        gradient_bound=bound,
    )


@dataclass(frozen=True)
class _Search:
    """Fits of one set of samples.

    Attributes:
        x: Features.
        labels: Classes.
        intercept: Whether b is fitted.
        max_iter: Most iterations of a fit.
        factor: What strengths are multiplied by for scikit-learn.
    """

    x: Float64[np.ndarray, "n h"]
    labels: Int[np.ndarray, " n"]
    intercept: bool
    max_iter: int
    factor: float

    @property
    def settings(self) -> dict[str, Any]:
        """What all fits are told."""
        return {"solver": "newton-cg", "fit_intercept": self.intercept, "max_iter": self.max_iter}

    @property
    def origin(self) -> Float64[np.ndarray, " h"]:
        """What features are shifted by: as b is not penalised, V does not depend on it, but the solver's speed does."""
        return self.x.mean(axis=0) if self.intercept else np.zeros(self.x.shape[1])

    def curve(self, folds: int, fold_seed: int) -> tuple[tuple[CurvePoint, ...], int]:
        """Cross-validate all strengths; also return how many fits did not converge."""
        shuffled = StratifiedKFold(folds, shuffle=True, random_state=fold_seed % 2**32)
        strengths = [self.factor * strength for strength in _STRENGTHS]
        model = cross_validated_regression(
            Cs=strengths, cv=shuffled, tol=_CHOICE_TOLERANCE, refit=False, **self.settings
        )
        unconverged = fit_and_count(model, self.x - self.origin, self.labels)
        scores = next(iter(model.scores_.values())) if isinstance(model.scores_, dict) else model.scores_
        by_strength = np.reshape(scores, (folds, len(strengths))).T
        points = [
            CurvePoint(float(strength), float(row.mean()), tuple(row.tolist()))
            for strength, row in zip(_STRENGTHS, by_strength, strict=True)
        ]
        return tuple(points), unconverged

    def optimum(self, strength: float, penalty: float) -> tuple[Float64[np.ndarray, "c h"], Float64[np.ndarray, " c"]]:
        """Minimise the objective over V and b, to ever smaller tolerances until the gradient is within its bound."""
        model = LogisticRegression(**self.settings, C=self.factor * strength, warm_start=True)
        origin = self.origin
        centred = self.x - origin
        for tolerance in _TOLERANCES:
            fit_and_count(model.set_params(tol=tolerance), centred, self.labels)
            weight, bias = model.coef_, np.zeros(len(model.coef_)) + model.intercept_
            if len(weight) == 1:
                weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
            bias = self.best_bias(weight, bias - weight @ origin)
            if self.gradient_norm(weight, bias, strength, penalty) <= _gradient_bound(weight, penalty):
                break
        return weight, bias

    def best_bias(
        self, weight: Float64[np.ndarray, "c h"], bias: Float64[np.ndarray, " c"]
    ) -> Float64[np.ndarray, " c"]:
        """Minimise over b alone: without a penalty on b, a gradient by it would bound no error of V."""
        if not self.intercept:
            return bias
        logits, counts = self.x @ weight.T, np.bincount(self.labels, minlength=len(weight))
        for _ in range(_BIAS_STEPS):
            probabilities = softmax(logits + bias, axis=1)
            mass = probabilities.sum(axis=0)
            if np.linalg.norm(mass - counts) <= _BIAS_TOLERANCE * len(logits):
                break
            # Newton's step; a shift of all of b, which changes nothing, is not in it.
            curvature = np.diag(mass) - probabilities.T @ probabilities
            bias = bias - np.linalg.lstsq(curvature, mass - counts)[0]
        return bias

    def gradient_norm(
        self, weight: Float64[np.ndarray, "c h"], bias: Float64[np.ndarray, " c"], strength: float, penalty: float
    ) -> float:
        """Norm of the objective's gradient with respect to V and, where it is fitted, b."""
        residual = softmax(self.x @ weight.T + bias, axis=1)
        residual[np.arange(len(self.labels)), self.labels] -= 1
        by_weight = strength * residual.T @ self.x + penalty * weight
        by_bias = strength * residual.sum(axis=0) if self.intercept else np.zeros(len(bias))
        return float(np.sqrt((by_weight**2).sum() + (by_bias**2).sum()))


def _best(curve: tuple[CurvePoint, ...]) -> float:
    """Return the strength of the best mean accuracy; of several equal ones the strongest penalty."""
    return curve[int(np.argmax([round(point.mean, 12) for point in curve]))].strength


def _gradient_bound(weight: Float64[np.ndarray, "c h"], penalty: float) -> float:
    return penalty * RELATIVE_ERROR * max(float(np.linalg.norm(weight)), _LEAST_NORM)
