"""Where a model is: a bundled name, a folder, a fine-tuning run's folder, or a name on the Hub."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ntk_lpft.bundled import model_folder
from ntk_lpft.choices import BUNDLED_MODELS
from ntk_lpft.errors import InputError
from ntk_lpft.json_files import read_json

MOST_LABELS = 1_000_000  # transformers gives each a name
_MOST_LAYERS = 2000  # the deepest that are in use have a few hundred
_LAYERS = re.compile(r"(^|_)(n_)?layers?$|^num_hidden_groups$")
# What peft calls the description of an adapter.
ADAPTER = "adapter_config.json"


def check_source(name: str | Path) -> Path | None:
    """Refuse a path that does not exist; nothing else is looked at.

    Args:
        name: A bundled name, a folder, or a name on the Hub.

    Returns:
        The folder; None for a bundled name and one on the Hub.

    Raises:
        InputError: It can only be a path, and there is no folder there; or no path or name of a model can be so long.
    """
    text = str(name)
    if text in BUNDLED_MODELS:
        return None
    folder = Path(text).expanduser()
    try:
        if folder.is_dir():
            return folder
    except OSError as error:
        raise InputError(f"model {text[:60]}… cannot be looked up ({error.strerror}); give a shorter name") from error
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
        InputError: A folder without config, weights or tokenizer, with an adapter beside the weights, or whose weights
            are pickles; a run whose model was altered; or a path that does not exist.
    """
    text = str(name)
    if text in BUNDLED_MODELS:
        return str(model_folder(text))
    folder = check_source(name)
    if folder is None:
        return text
    _check_model_of_run(folder)
    folder = run_model_folder(folder)
    if not (folder / "config.json").is_file():
        raise InputError(f"model folder {text} has no config.json; it needs what save_pretrained writes")
    odd = [path.name for path in sorted(folder.iterdir()) if path.exists() and not (path.is_file() or path.is_dir())]
    if odd:
        raise InputError(f"model folder {text} holds {odd[0]}, which is no regular file; reading it might never end")
    if not any(folder.glob("*.safetensors")):
        pickled = any(folder.glob("*.bin"))
        hint = "only .bin weights, which are pickles; convert them to safetensors" if pickled else "no weights"
        raise InputError(f"model folder {text} has {hint} (*.safetensors is needed)")
    check_sizes(read_json(folder / "config.json"), f"{folder / 'config.json'}")
    for index in sorted(folder.glob("*.safetensors.index.json")):
        check_index(index)
    if (folder / ADAPTER).is_file():
        raise InputError(
            f"model folder {text} holds an adapter ({ADAPTER}) beside the weights, which transformers would put in "
            "unasked, frozen as all else; merge it (peft: merge_and_unload, then save_pretrained), or move it away"
        )
    return str(folder)


def check_sizes(settings: Mapping[str, Any], where: str) -> None:
    """Refuse a config with which transformers would be busy for hours, or for ever, before it failed.

    Args:
        settings: The content of a ``config.json``.
        where: What messages call it.

    Raises:
        InputError: A number of layers or of labels that no model has.
    """
    for name, value in settings.items():
        if isinstance(value, Mapping):
            check_sizes(value, where)
        elif isinstance(value, int) and _LAYERS.search(name):
            least = 1 if name in ("num_hidden_layers", "num_layers", "n_layer", "n_layers") else 0
            if not least <= value <= _MOST_LAYERS:
                raise InputError(f"{where} asks for {value} {name}; models have from {least} to {_MOST_LAYERS}")
        elif isinstance(value, int) and name in ("num_labels", "_num_labels") and value > MOST_LABELS:
            raise InputError(f"{where} asks for {value} labels; at most {MOST_LABELS} are possible")


def check_index(path: Path, whole: bool = True) -> None:
    """Refuse an index of sharded weights that names anything but safetensors files beside it.

    ``from_pretrained`` would unpickle what it is told of there, whatever format it was asked for.

    Args:
        path: The index.
        whole: Whether the files must be there already.

    Raises:
        InputError: It cannot be read, or names other files.
    """
    files = read_json(path).get("weight_map")
    if not isinstance(files, dict) or not files:
        raise InputError(f"{path} has no weight_map; load a sound checkpoint")
    for name in files.values():
        if not isinstance(name, str) or Path(name).name != name or not name.endswith(".safetensors"):
            raise InputError(
                f"{path} names {str(name)[:60]!r}, no safetensors file in that folder; only those are loaded"
            )
        if whole and not (path.parent / name).is_file():
            raise InputError(f"{path} names {name}, which is not there; fetch the whole checkpoint")


def _check_model_of_run(folder: Path) -> None:
    """Refuse a complete run whose model is not as it was written; other folders pass."""
    from ntk_lpft.runs.finetuning import FinetuneRun  # here, as options ask for folders before torch is imported

    FinetuneRun(folder).check_model()


def run_model_folder(folder: Path) -> Path:
    """Return the folder with weights: of a fine-tuning run that of its model, otherwise the folder itself."""
    from ntk_lpft.runs.finetuning import FinetuneRun  # here, as options ask for it before torch is imported

    inside = folder / FinetuneRun.MODEL
    return inside if (inside / "config.json").is_file() else folder


def model_places(folder: Path) -> list[Path]:
    """List the folders besides a model's own that loading it reads: a run's model in it, and an adapter's base.

    Args:
        folder: The folder.

    Returns:
        Those that are there.
    """
    places = [run_model_folder(folder)] if run_model_folder(folder) != folder else []
    adapter = folder / "adapter_config.json"
    if adapter.is_file():
        base = read_json(adapter).get("base_model_name_or_path")
        places += [Path(base)] if isinstance(base, str) and base and Path(base).is_dir() else []
    return places
