"""Numbers that calibration errors and their intervals are computed with."""

import math

from ntk_lpft.errors import InputError

MOST_BINS = 1000  # more cannot be told apart in a diagram, and would stay empty
MOST_RESAMPLES = 10**7  # whose measures, kept for their quantiles, take a gigabyte
_MOST_DRAWS = 10**11
_DRAWS_A_SECOND = 10**7  # of one core, for all measures together; a rough price


def check_bins(bins: int) -> None:
    """Refuse a number of bins below one, or far above what samples can fill.

    Args:
        bins: M, the number of bins.

    Raises:
        InputError: It is.
    """
    if isinstance(bins, bool) or not isinstance(bins, int) or not 1 <= bins <= MOST_BINS:
        few = "few" if isinstance(bins, int) and bins < 1 else "many"
        raise InputError(f"{bins!r:.40} bins are too {few}; use a number from 1 to {MOST_BINS} (15 is usual)")


def check_seed(seed: int) -> None:
    """Refuse what is no seed.

    Args:
        seed: Of the resamples.

    Raises:
        InputError: It is no whole number of 0 or more.
    """
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise InputError(f"seed {seed!r:.40} is no whole number of 0 or more")


def check_work(resamples: int, num_samples: int) -> None:
    """Refuse resamples that would take days.

    Args:
        resamples: Of the bootstrap.
        num_samples: N, which are drawn for each of them.

    Raises:
        InputError: There are more than 10¹¹ draws.
    """
    if resamples * num_samples > _MOST_DRAWS:
        hours = resamples * num_samples / _DRAWS_A_SECOND / 3600
        raise InputError(
            f"{resamples} resamples of {num_samples} samples would take some {hours:.0f} hours; use "
            f"{_MOST_DRAWS // num_samples} or fewer (1000 is usual)"
        )


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
    if isinstance(resamples, bool) or not isinstance(resamples, int):
        raise InputError(f"{resamples!r:.40} resamples are no whole number; use 1000 or so, or 0 for none")
    if resamples > MOST_RESAMPLES:
        raise InputError(
            f"{resamples} resamples would take hours and gigabytes; use {MOST_RESAMPLES} or fewer (1000 is usual)"
        )
    needed = math.ceil(2 / (1 - level) - 1e-9)
    if resamples < 0 or 0 < resamples < needed:
        raise InputError(
            f"{resamples} resamples are too few for a confidence level of {level}; use {needed} or more, or 0 for none"
        )
