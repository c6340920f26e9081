"""Packages that import their parts when they are used."""

from __future__ import annotations

import subprocess
import sys
from types import ModuleType

import pytest

import ntk_lpft
import ntk_lpft.classifier
import ntk_lpft.kernel


@pytest.mark.parametrize("package", [ntk_lpft, ntk_lpft.classifier, ntk_lpft.kernel], ids=lambda p: p.__name__)
def test_every_public_name_is_there(package: ModuleType) -> None:
    assert package.__all__
    for name in package.__all__:
        assert getattr(package, name) is not None
    assert set(package.__all__) <= set(dir(package))


def test_calibration_does_without_models() -> None:
    heavy = ("transformers.modeling_utils", "peft")
    script = f"import sys, ntk_lpft.calibrate; print([name for name in {heavy} if name in sys.modules])"
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"
