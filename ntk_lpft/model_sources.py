"""Where a model is: a bundled name, a folder, a fine-tuning run's folder, or a name on the Hub."""

from __future__ import annotations

from pathlib import Path

from ntk_lpft.bundled import model_folder
from ntk_lpft.choices import BUNDLED_MODELS
from ntk_lpft.errors import InputError


def check_source(name: str | Path) -> Path | None:
    """Refuse a path that does not exist; nothing else is looked at.

    Args:
        name: A bundled name, a folder, or a name on the Hub.

    Returns:
        The folder; None for a bundled name and one on the Hub.

    Raises:
        InputError: It can only be a path, and there is no folder there.
    """
    text = str(name)
    if text in BUNDLED_MODELS:
        return None
    folder = Path(text).expanduser()
    if folder.is_dir():
        return folder
    if folder.is_absolute() or text.startswith((".", "~")) or text.count("/") > 1:
        raise InputError(f"model folder {text} does not exist")
    return None


def resolve_source(name: str | Path) -> str:
    """Turn a bundled name into its folder, check a folder, and pass any other name on to the Hub.

    The folder of a fine-tuning run stands for the model in it.

    Args:
        name: A bundled name, a folder, or a name on the Hub.

    Returns:
        The folder, or the name on the Hub, as ``from_pretrained`` takes it.

    Raises:
        InputError: A folder without config, weights or tokenizer; or a path that does not exist.
    """
    text = str(name)
    if text in BUNDLED_MODELS:
        return str(model_folder(text))
    folder = check_source(name)
    if folder is None:
        return text
    folder = run_model_folder(folder)
    if not (folder / "config.json").is_file():
        raise InputError(f"model folder {text} has no config.json; it needs what save_pretrained writes")
    if not any(folder.glob("*.safetensors")):
        pickled = any(folder.glob("*.bin"))
        hint = "only .bin weights, which are pickles; convert them to safetensors" if pickled else "no weights"
        raise InputError(f"model folder {text} has {hint} (*.safetensors is needed)")
    return str(folder)


def run_model_folder(folder: Path) -> Path:
    """Return the folder with weights: of a fine-tuning run that of its model, otherwise the folder itself."""
    from ntk_lpft.runs.finetuning import FinetuneRun  # here, as options ask for it before torch is imported

    inside = folder / FinetuneRun.MODEL
    return inside if (inside / "config.json").is_file() else folder
