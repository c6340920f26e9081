"""At which optimizer steps something is measured."""

from ntk_lpft.errors import InputError


def tracking_steps(total_steps: int, steps_per_epoch: int) -> set[int]:
    """Choose the steps at which a classifier is measured: dense early, when most changes, and at each epoch.

    Args:
        total_steps: Optimizer steps of the whole training.
        steps_per_epoch: Optimizer steps of one epoch.

    Returns:
        0, the powers of two, the last step of each epoch, and the last step of all.

    Raises:
        InputError: A negative number of steps, or an epoch without any.
    """
    _check(total_steps)
    if steps_per_epoch < 1:
        raise InputError(f"an epoch has {steps_per_epoch} steps; at least one is needed")
    powers = {2**k for k in range(total_steps.bit_length()) if 2**k <= total_steps}
    return {0, total_steps} | powers | set(range(steps_per_epoch, total_steps + 1, steps_per_epoch))


def kernel_steps(total_steps: int, moments: int) -> set[int]:
    """Spread the moments at which kernels are computed evenly over training, start and end included.

    Args:
        total_steps: Optimizer steps of the whole training.
        moments: K.

    Returns:
        K steps, or all of them where there are fewer: the nearest to i · total_steps / (K − 1), and 0 alone for
        K = 1.

    Raises:
        InputError: A negative number.
    """
    _check(total_steps)
    if moments < 0:
        raise InputError(f"kernels at {moments} moments were asked for; give 0 or more")
    if moments < 2:
        return set(range(moments))
    return {round(i * total_steps / (moments - 1)) for i in range(moments)}


def _check(total_steps: int) -> None:
    if total_steps < 0:
        raise InputError(f"training has {total_steps} steps; give 0 or more")
