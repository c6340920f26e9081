"""The names that options and functions choose between, apart from what they stand for: ``--help`` need not wait."""

from ntk_lpft.errors import InputError

BUNDLED_MODELS = ("minilm",)
HEADS = ("linear", "native")
POOLINGS = ("auto", "first", "last", "mean")

ENGINES = ("structured", "functional", "per_example")
OUTPUTS = ("full", "class_trace", "pseudo")
PRECISION_NAMES = ("float32", "float64", "tf32", "bfloat16", "bfloat16x3", "bfloat16x6")
# Dtypes of weights that are loaded; "auto" is what a checkpoint has.
WEIGHT_DTYPES = ("auto", "float32", "float64", "bfloat16", "float16")

METHODS = ("lp", "ft", "lp-ft", "lora", "lp-lora")
LOGISTIC = "logistic"
PUBLISHED = "logistic-published"
LOGISTIC_SOLVERS = (LOGISTIC, PUBLISHED)
PATH_SOLVERS = ("adam", "lbfgs")
SOLVERS = (*LOGISTIC_SOLVERS, *PATH_SOLVERS)


def choose(what: str, value: str, known: tuple[str, ...]) -> None:
    """Refuse a name that means nothing.

    Args:
        what: What is chosen, as the message calls it: ``engine``, ``--head``.
        value: The name.
        known: The names that there are.

    Raises:
        InputError: The name is none of them.
    """
    if value not in known:
        raise InputError(f"unknown {what} {value!r}; choose one of {', '.join(known)}")
