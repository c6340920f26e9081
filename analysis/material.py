"""What a suite needs before its first job: its model, and a note of versions."""

from __future__ import annotations

import os
import platform
import shutil
from pathlib import Path
from typing import Any

import peft
import sklearn
import torch
import transformers
from transformers import AutoModel, AutoTokenizer

import ntk_lpft
from analysis.jobs import RESULTS_WORD
from analysis.suites import Suite
from ntk_lpft.bundled import model_folder


def prepare_model(suite: Suite, results: Path) -> None:
    """Make the suite's cut-down model, where it uses one: the lowest layers of the bundled MiniLM, in Hub layout."""
    if suite.layers is None:
        return
    folder = Path(suite.model.replace(RESULTS_WORD, str(results)))
    if folder.is_dir():
        return
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    source = model_folder()
    AutoModel.from_pretrained(source, num_hidden_layers=suite.layers).save_pretrained(partial)
    AutoTokenizer.from_pretrained(source).save_pretrained(partial)
    os.replace(partial, folder)


def versions() -> dict[str, Any]:
    """Versions of what computes, and the machine."""
    return {
        "ntk_lpft": ntk_lpft.__version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "peft": peft.__version__,
        "scikit-learn": sklearn.__version__,
        "python": platform.python_version(),
        "cpu_cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }
