"""Logistic regression written out: its objective, its gradient, and its optimum by scipy, all in float64.

The objective is C Σᵢ CE(softmax(V φᵢ + b), yᵢ) + λ/2 ‖V‖², which is λ-strongly convex in V. So for any two points
λ ‖V − V'‖² ≤ ⟨∇ − ∇', (V, b) − (V', b')⟩, and where b is optimal for V, ‖V − V*‖ ≤ ‖∇‖ / λ.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold

STRENGTHS = np.logspace(-4, 4, 10)


@dataclass(frozen=True)
class Objective:
    """The objective of some data.

    Attributes:
        features: φ, (N, h).
        labels: Classes, (N).
        classes: C.
        strength: C, the factor on the loss.
        penalty: λ.
        intercept: Whether there is a b.
    """

    features: np.ndarray
    labels: np.ndarray
    classes: int
    strength: float
    penalty: float
    intercept: bool = True

    def logits(self, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
        return self.features @ weight.T + bias

    def value(self, weight: np.ndarray, bias: np.ndarray) -> float:
        losses = -log_softmax(self.logits(weight, bias), axis=1)[np.arange(len(self.labels)), self.labels]
        return self.strength * losses.sum() + self.penalty / 2 * (weight**2).sum()

    def gradient(self, weight: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        residual = softmax(self.logits(weight, bias), axis=1) - np.eye(self.classes)[self.labels]
        by_bias = self.strength * residual.sum(0) if self.intercept else np.zeros(self.classes)
        return self.strength * residual.T @ self.features + self.penalty * weight, by_bias

    def gradient_norm(self, weight: np.ndarray, bias: np.ndarray) -> float:
        by_weight, by_bias = self.gradient(weight, bias)
        return float(np.sqrt((by_weight**2).sum() + (by_bias**2).sum()))

    def optimum(self) -> tuple[np.ndarray, np.ndarray]:
        """Minimise by L-BFGS and then by Newton's method on the Hessian written out, of mean-free features."""
        size = self.features.shape[1]
        origin = self.features.mean(0) if self.intercept else np.zeros(size)
        centred = Objective(
            self.features - origin, self.labels, self.classes, self.strength, self.penalty, self.intercept
        )

        def split(point: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            return point[: self.classes * size].reshape(self.classes, size), point[self.classes * size :]

        def value(point: np.ndarray) -> float:
            return centred.value(*split(point))

        def slope(point: np.ndarray) -> np.ndarray:
            by_weight, by_bias = centred.gradient(*split(point))
            return np.concatenate([by_weight.ravel(), by_bias])

        point = minimize(
            value, np.zeros(self.classes * (size + 1)), jac=slope, method="L-BFGS-B",
            options={"maxiter": 5000, "maxfun": 10_000, "ftol": 0.0, "gtol": 1e-9},
        ).x  # fmt: skip
        for _ in range(5):
            # The Hessian is singular along b + constant, and along b where there is none: the least-norm step.
            step = np.linalg.lstsq(centred.hessian(*split(point)), slope(point), rcond=1e-13)[0]
            point = point - step
        weight, bias = split(point)
        return weight, bias - weight @ origin

    def hessian(self, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
        p = softmax(self.logits(weight, bias), axis=1)
        blocks = np.einsum("nc,cd->ncd", p, np.eye(self.classes)) - np.einsum("nc,nd->ncd", p, p)
        x, c, h = self.features, self.classes, self.features.shape[1]
        whole = np.zeros((c * (h + 1), c * (h + 1)))
        by_weight = self.strength * np.einsum("ncd,ni,nj->cidj", blocks, x, x).reshape(c * h, c * h)
        whole[: c * h, : c * h] = by_weight + self.penalty * np.eye(c * h)
        if self.intercept:
            cross = self.strength * np.einsum("ncd,ni->cid", blocks, x).reshape(c * h, c)
            whole[: c * h, c * h :], whole[c * h :, : c * h] = cross, cross.T
            whole[c * h :, c * h :] = self.strength * blocks.sum(0)
        return whole


def objective(
    features: np.ndarray, labels: np.ndarray, strength: float, *, intercept: bool = True, published: bool = False
) -> Objective:
    """Return the objective of the probe: λ = 2 for two classes, but for the published code's, as for more, 1."""
    classes = int(labels.max()) + 1
    penalty = 2.0 if classes == 2 and not published else 1.0
    return Objective(features, labels, classes, strength, penalty, intercept)


def cross_validation(
    features: np.ndarray, labels: np.ndarray, fold_seed: int, *, folds: int = 5, factor: float = 1.0, intercept=True
) -> np.ndarray:
    """Accuracy of each strength on each fold left out, (strengths, folds), each fit by itself and to convergence."""
    shuffled = StratifiedKFold(folds, shuffle=True, random_state=fold_seed)
    scores = np.empty((len(STRENGTHS), folds))
    for k, (train, left) in enumerate(shuffled.split(features, labels)):
        for i, strength in enumerate(STRENGTHS):
            model = LogisticRegression(C=factor * strength, tol=1e-10, max_iter=10_000, fit_intercept=intercept)
            scores[i, k] = model.fit(features[train], labels[train]).score(features[left], labels[left])
    return scores


def probe(
    features: np.ndarray, labels: np.ndarray, *, fold_seed: int = 0, intercept: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Choose C by cross-validation and return the optimum for it, V and b."""
    means = np.round(cross_validation(features, labels, fold_seed, intercept=intercept).mean(1), 9)
    return objective(features, labels, float(STRENGTHS[int(np.argmax(means))]), intercept=intercept).optimum()
