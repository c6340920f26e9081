"""The exceptions that the commands turn into a one-line message."""


class InputError(ValueError):
    """Something the user gave cannot be used.

    The message is one line that says what is wrong, where, and what to do about it; the commands print it after
    ``error:`` and leave with exit status 2. Raise it before long work starts.
    """


class FailedElsewhereError(InputError):
    """Another of the processes that share the work has failed, and says why itself; the commands say no more."""
