"""Smooth ECE: the calibration error without bins, after smoothing by a kernel whose width sets itself."""

import numpy as np
from jaxtyping import Float64
from scipy.fft import dct, idct

from ntk_lpft.calibration.binned import Statistic, Weights, grouped
from ntk_lpft.calibration.predictions import Predictions

_CELLS = 2048
# The smoothed residual is summed over cells this many times narrower than the kernel, or the finest.
_CELLS_IN_WIDTH = 16
_COARSER_CELLS = (256, 512, 1024)
_STEPS = 60
_TOLERANCE = 1e-7


def smooth_error(predictions: Predictions) -> Statistic:
    """Smooth ECE: see `measures.smooth_calibration_error`."""
    to_cells = grouped(*_cells_of(predictions), _CELLS)

    def error(weights: Weights) -> Float64[np.ndarray, " r"]:
        residual = (weights @ to_cells) / weights.sum(axis=1, keepdims=True)
        return _fixed_width(dct(residual, axis=1), np.abs(residual).sum(axis=1))

    return error


def _fixed_width(modes: Float64[np.ndarray, "r g"], unsmoothed: Float64[np.ndarray, " r"]) -> Float64[np.ndarray, " r"]:
    """Find the width σ that equals the error at width σ, for each resample.

    The error falls as the width grows, so that there is one; by regula falsi in its Illinois form. No row's result
    depends on the others.
    """
    low, high = np.zeros_like(unsmoothed), unsmoothed.copy()
    above, below = unsmoothed.copy(), _smoothed(modes, high) - high  # error less width, at low and at high
    width, side = high.copy(), np.zeros_like(high)
    active = np.flatnonzero(unsmoothed > 0)
    for _ in range(_STEPS):
        a, b = above[active], below[active]
        moved = low[active] + (high[active] - low[active]) * a / (a - b)
        change = np.abs(moved - width[active])
        width[active] = moved
        active = active[change > _TOLERANCE]
        if not len(active):
            break
        excess = _smoothed(modes[active], width[active]) - width[active]
        up, down = active[excess > 0], active[excess <= 0]
        low[up], above[up], high[down], below[down] = width[up], excess[excess > 0], width[down], excess[excess <= 0]
        # The end that stays twice in a row counts half, lest the other alone creep towards the root.
        below[up[side[up] > 0]] /= 2
        above[down[side[down] < 0]] /= 2
        side[up], side[down] = 1, -1
    return width


def _cells_of(predictions: Predictions) -> tuple[np.ndarray, np.ndarray]:
    """Share each sample's residual between the two cells whose centres enclose its confidence."""
    place = predictions.confidence * _CELLS - 0.5
    left = np.floor(place).astype(np.int64)
    share = place - left
    residual = predictions.correct - predictions.confidence
    # Beyond the outermost centres lie their mirror images, that is, the same cells.
    cells = np.clip(np.stack([left, left + 1], axis=1), 0, _CELLS - 1)
    return cells, np.stack([(1 - share) * residual, share * residual], axis=1)


def _smoothed(modes: Float64[np.ndarray, "r g"], width: Float64[np.ndarray, " r"]) -> Float64[np.ndarray, " r"]:
    """Integrate the absolute residual after smoothing by a Gaussian reflected at 0 and 1.

    Reflection makes cosines the kernel's eigenfunctions: mode k shrinks by exp(−(πkσ)²/2). High modes that nothing is
    left of are not needed, and without them coarser cells will do.
    """
    needed = _CELLS_IN_WIDTH / np.maximum(width, 1e-9)
    choices = np.array([*_COARSER_CELLS, modes.shape[1]])
    chosen = choices[np.minimum(np.searchsorted(choices, needed), len(choices) - 1)]
    error = np.empty_like(width)
    for cells in np.unique(chosen):
        rows = np.flatnonzero(chosen == cells)
        decay = np.exp(-0.5 * (np.pi * np.arange(cells) * width[rows, None]) ** 2)
        error[rows] = np.abs(idct(modes[rows, :cells] * decay, axis=1)).sum(axis=1)
    return error
