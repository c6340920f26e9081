"""Names that come from data and folders, made fit to be drawn."""

import unicodedata

_MOST = 40
_NO_LETTER = ("Cc", "Cs")  # control characters and lone surrogates


def drawn_name(name: object, most: int = _MOST) -> str:
    r"""Return a name as matplotlib draws it letter by letter.

    Otherwise ``$20_$50`` would be mathematics, a name of 300 letters would leave no room for the picture, and one that
    begins with ``_`` would be missing in the legend.

    Args:
        name: The name of a class, a split, a data set or a model, or a heading made of some.
        most: The most letters; of more, the middle is left out, as names often differ at their ends.

    Returns:
        The name with ``\$`` for ``$`` and with ``\ufffd`` for what is no letter.
    """
    text = "".join("\ufffd" if unicodedata.category(letter) in _NO_LETTER else letter for letter in str(name))
    if len(text) > most:
        text = f"{text[: most // 2]}…{text[len(text) - (most - most // 2 - 1) :]}"
    text = text.replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text
