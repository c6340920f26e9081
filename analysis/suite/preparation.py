"""What a suite needs before its first job: its model, and a note of versions."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import peft
import sklearn
import torch
from transformers import AutoModel, AutoTokenizer

from analysis.suite.definitions import Suite
from analysis.suite.folder import SuiteFolder
from analysis.suite.job import RESULTS_WORD
from ntk_lpft.bundled import model_folder
from ntk_lpft.provenance import versions
from ntk_lpft.storage import let_umask_decide


def prepare_model(suite: Suite, results: SuiteFolder) -> None:
    """Make the suite's cut-down model, where it uses one: the lowest layers of the bundled MiniLM, in Hub layout."""
    if suite.layers is None:
        return
    folder = Path(suite.model.replace(RESULTS_WORD, str(results.path)))
    if folder.is_dir():
        return
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    for left in folder.parent.glob(f".{folder.name}.*.partial"):  # no other process is at work here
        shutil.rmtree(left)
    source = model_folder()
    AutoModel.from_pretrained(source, num_hidden_layers=suite.layers).save_pretrained(partial)
    AutoTokenizer.from_pretrained(source).save_pretrained(partial)
    let_umask_decide(partial)
    os.replace(partial, folder)


def machine_versions() -> dict[str, Any]:
    """Versions of what computes, and the machine."""
    return {
        **versions(),
        "peft": peft.__version__,
        "scikit-learn": sklearn.__version__,
        "cpu_cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }
