"""Numbers that calibration errors and their intervals are computed with."""

import math

from ntk_lpft.errors import InputError


def check_bins(bins: int) -> None:
    """Refuse a number of bins below one.

    Args:
        bins: M, the number of bins.

    Raises:
        InputError: It is.
    """
    if bins < 1:
        raise InputError(f"{bins} bins are too few; use at least 1 (15 is usual)")


def check_resamples(resamples: int, level: float) -> None:
    """Refuse a level or a number of resamples that gives no interval.

    Args:
        resamples: Of the bootstrap; 0 for none.
        level: Of the interval.

    Raises:
        InputError: The level is not inside (0, 1), or there is less than one resample in each tail.
    """
    if not 0 < level < 1:
        raise InputError(f"confidence level {level} is not between 0 and 1; use 0.95 or the like")
    needed = math.ceil(2 / (1 - level) - 1e-9)
    if resamples < 0 or 0 < resamples < needed:
        raise InputError(
            f"{resamples} resamples are too few for a confidence level of {level}; use {needed} or more, or 0 for none"
        )
