"""Settings of the whole suite: no network, few threads, shapes and types checked at every boundary of the library."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile

# Before anything of Hugging Face is imported: tests never reach for the Hub.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("MPLBACKEND", "Agg")
# Features that an earlier version of the code left in the user's cache must not stand in for those of this one.
os.environ["NTK_LPFT_FEATURE_CACHE"] = tempfile.mkdtemp(prefix="ntk_lpft-features-")

from collections.abc import Iterator

import jaxtyping
import pytest
import torch
import transformers

# The models are tiny: threads that wait for each other cost more than they do, the more so under pytest-xdist.
torch.set_num_threads(1)
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
atexit.register(shutil.rmtree, os.environ["NTK_LPFT_FEATURE_CACHE"], ignore_errors=True)


@pytest.fixture(autouse=True)
def _checks(request: pytest.FixtureRequest) -> Iterator[None]:
    """Leave a test that feeds wrong shapes or types to the library's own checks."""
    unchecked = request.node.get_closest_marker("unchecked") is not None
    jaxtyping.config.update("jaxtyping_disable", unchecked)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
