"""What libraries raise on files that are not sound, as bad input: they check little, and fail where they come to it."""

from collections.abc import Iterator
from contextlib import contextmanager

from ntk_lpft.errors import InputError

# All that transformers was seen to raise on configs and tokenizers that were altered: RecursionError is a RuntimeError,
# ZeroDivisionError an ArithmeticError, KeyError a LookupError. Libraries in Rust raise a plain Exception, and these
# packages kinds of their own.
_UNSOUND = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)
NO_MEMORY = ("can't allocate memory", "not enough memory", "out of memory", "cannot allocate memory", "alloc_failed")
_OWN_KINDS = ("huggingface_hub", "pyo3_runtime", "safetensors", "tokenizers")
_LONGEST = 300


def lacks_memory(error: BaseException) -> bool:
    """Whether an error, of torch's RuntimeErrors among others, says that there is no memory."""
    return isinstance(error, MemoryError) or any(words in str(error).lower() for words in NO_MEMORY)


@contextmanager
def told_as_bad_input(what: str, hint: str = "") -> Iterator[None]:
    """Turn what a library raises while it reads something that was given into one line.

    Args:
        what: How the line begins: what cannot be done with which file.
        hint: How it ends: what to do.

    Yields:
        Nothing.

    Raises:
        InputError: The library raised an error that is not for want of memory.
    """
    try:
        yield
    except InputError:
        raise
    except BaseException as error:  # code in Rust that gives up raises one that is no Exception
        own = type(error) is Exception or type(error).__module__.startswith(_OWN_KINDS)
        if not (isinstance(error, _UNSOUND) or own) or lacks_memory(error):
            raise
        raise InputError(f"{what}: {in_words(error)}" + (f"; {hint}" if hint else "")) from error


def in_words(error: BaseException) -> str:
    """Say on one line what an error says, with its kind where it says too little."""
    text = " ".join(str(error).split())
    if "offline" in text.lower() or "couldn't connect" in text.lower() or "cached" in text.lower():
        return "it is not in the local cache and the Hub cannot be reached; give a folder, or the bundled minilm"
    if isinstance(error, OSError | ValueError | ImportError) and len(text) > 20:
        return text[:_LONGEST]
    return f"{type(error).__name__}: {text}"[:_LONGEST]
