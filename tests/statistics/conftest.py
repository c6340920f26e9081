from dataclasses import dataclass

import numpy as np
import pytest


@dataclass(frozen=True)
class Case:
    """Kernels as Gram matrices of random gradients, in float64 numpy: an implementation-free ground truth."""

    features: np.ndarray  # (N, h), the bias as a constant column
    jacobians: np.ndarray  # (N, C, p)
    labels: np.ndarray  # (N,), every class at least once where N allows

    @property
    def k(self) -> np.ndarray:
        return self.features @ self.features.T

    @property
    def f(self) -> np.ndarray:
        n, c, p = self.jacobians.shape
        flat = self.jacobians.reshape(n * c, p)
        return (flat @ flat.T).reshape(n, c, n, c)

    @property
    def p_matrix(self) -> np.ndarray:
        return np.kron(self.k, np.eye(self.jacobians.shape[1]))


def _case(seed: int = 0, n: int = 7, c: int = 3, width: int = 4, parameters: int = 11) -> Case:
    random = np.random.default_rng(seed)
    features = np.concatenate([random.normal(size=(n, width)), np.ones((n, 1))], axis=1)
    labels = np.concatenate([np.arange(min(n, c)), random.integers(0, c, size=max(0, n - c))])
    return Case(features, random.normal(size=(n, c, parameters)), random.permutation(labels))


@pytest.fixture(scope="session")
def make_case():
    return _case
