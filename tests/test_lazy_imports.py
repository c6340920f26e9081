"""Packages that import their parts when they are used."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import ntk_lpft

ROOT = Path(ntk_lpft.__file__).parents[1]
PACKAGES = sorted(".".join(stub.parent.relative_to(ROOT).parts)
                  for top in ("ntk_lpft", "analysis", "figures")
                  for stub in (ROOT / top).rglob("__init__.pyi"))  # fmt: skip


def test_the_packages_of_the_library_are_found() -> None:
    assert {"ntk_lpft", "ntk_lpft.classifier", "ntk_lpft.kernel", "ntk_lpft.pictures", "ntk_lpft.runs"} <= set(PACKAGES)


@pytest.mark.parametrize("name", PACKAGES)
def test_every_public_name_is_there(name: str) -> None:
    package = importlib.import_module(name)
    assert package.__all__
    for public in package.__all__:
        assert getattr(package, public) is not None
    assert set(package.__all__) <= set(dir(package))


@pytest.mark.parametrize("name", PACKAGES)
def test_no_public_name_is_that_of_a_file(name: str) -> None:
    """Importing the file, by whomever, would put the module in the place of what it offers."""
    package = importlib.import_module(name)
    folder = Path(str(package.__file__)).parent
    files = {path.stem for path in folder.iterdir() if path.suffix in (".py", "")}
    assert not files & set(package.__all__)


def test_calibration_does_without_models() -> None:
    heavy = ("transformers.modeling_utils", "peft")
    module = "ntk_lpft.commands.calibrate.run"
    script = (
        f"import sys, {module}; print({module!r} in sys.modules, [name for name in {heavy} if name in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "True []"
