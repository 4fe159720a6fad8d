"""The path of a `DiskBackend`: every name that a file system accepts works; others are refused at
once.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from loops import Run

import cache
from cache import AsyncCache, DiskBackend, _native

POSIX = pytest.mark.skipif(os.name == "nt", reason="Windows has other rules for names")


def round_trip(run: Run, path: str | Path) -> bool:
    """Whether entries saved to a path can be loaded from it."""
    saved = AsyncCache(backup=DiskBackend(path))
    saved.set("key", "value")
    saved.save_to_backup()
    return bool(run(AsyncCache(backup=DiskBackend(path)).get("key")) == "value")


@POSIX
@pytest.mark.parametrize(
    "name",
    [
        "größe/缓存/ключ 🔥.cache",
        os.fsdecode(b"x\xff\xfe.cache"),
        " a\n b .cache",
        ".hidden",
        "~",
        "~file",
        "n" * 233,
        "n" * 234,
        "n" * 255,
        "ß" * 127,
        "缓" * 85,
        os.fsdecode(b"\xff" * 255),
        "/".join(["d" * 100] * 20) + "/x",
    ],
    ids=lambda name: f"{name[:12]!r}, {len(os.fsencode(name))} bytes",
)
def test_every_name_that_a_file_system_takes_works(run: Run, tmp_path: Path, name: str) -> None:
    """Names of more than 233 bytes could not be saved to: the temporary file's name was too
    long.
    """
    assert round_trip(run, tmp_path / name)
    for _ in range(2):
        AsyncCache(backup=DiskBackend(tmp_path / name)).save_to_backup()
    folder = (tmp_path / name).parent
    assert len(list(folder.iterdir())) == 2, "the file and its lock"


@POSIX
def test_long_names_that_begin_alike_have_locks_and_files_of_their_own(run: Run, tmp_path: Path) -> None:
    paths = [tmp_path / ("n" * 254 + last) for last in "ab"]
    for path in paths:
        saved = AsyncCache(backup=DiskBackend(path))
        saved.set("key", path.name)
        saved.save_to_backup()
    for path in paths:
        assert run(AsyncCache(backup=DiskBackend(path)).get("key")) == path.name
    assert len(list(tmp_path.iterdir())) == 4


@POSIX
@pytest.mark.parametrize("length", [200, 212, 234, 255])
def test_a_long_name_can_be_loaded_again_beside_cold_entries(run: Run, tmp_path: Path, length: int) -> None:
    """The union of two files is written to a third file for a moment, whose name was too long."""
    backend = DiskBackend(tmp_path / ("n" * length), merge=False)
    older = AsyncCache(backup=backend)
    older.set("old", 1)
    older.save_to_backup()
    both = AsyncCache(backup=DiskBackend(backend.path, merge=False))
    del older
    DiskBackend(backend.path, merge=False).save({"new": (2, None)})
    both.load_from_backup()
    assert (run(both.get("old")), run(both.get("new"))) == (1, 2)


def test_a_tilde_is_the_home_directory(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder named `~` appeared in the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    assert round_trip(run, "~/caches/x.cache")
    assert (tmp_path / "home/caches/x.cache").exists()
    assert round_trip(run, Path("~") / "y.cache")
    assert [file.name for file in tmp_path.iterdir()] == ["home"]
    assert DiskBackend("~/x.cache").path == "~/x.cache"


@POSIX
def test_a_home_directory_that_is_not_known_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"no user 'nobody-has-this-name'.* write './~nobody"):
        DiskBackend("~nobody-has-this-name/x.cache")
    assert DiskBackend("./~nobody-has-this-name/x.cache")._file == str(
        tmp_path / "~nobody-has-this-name/x.cache"
    )


@POSIX
def test_a_name_that_no_file_system_takes_is_refused_when_the_backend_is_made() -> None:
    with pytest.raises(ValueError, match="has 256 bytes, and file systems take 255"):
        DiskBackend("/tmp/" + "n" * 256)
    with pytest.raises(ValueError, match="has 256 bytes"):
        DiskBackend("ß" * 128)
    with pytest.raises(ValueError, match="zero byte"):
        DiskBackend("a\0b")


def test_a_relative_path_stays_where_it_was(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    saved = AsyncCache(backup=DiskBackend("relative.cache"))
    saved.set("key", 1)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    saved.save_to_backup()
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert (tmp_path / "relative.cache").exists()


def test_there_is_one_version() -> None:
    """The package was 3.0.0, but its tool reported 0.1.0."""
    code = "import sys; from cache._tool import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "--version"]
    said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    manifest = (Path(__file__).parents[4] / "Cargo.toml").read_text(encoding="utf-8")
    (version,) = re.findall(r'^\[workspace\.package\]\nversion = "([^"]+)"', manifest, re.M)
    assert said == f"async-cache {version}\n"
    assert cache.__version__ == _native.__version__ == importlib.metadata.version("async-cache") == version


def test_the_licences_are_installed_with_the_package() -> None:
    files = [file.name for file in importlib.metadata.files("async-cache") or ()]
    assert {"LICENSE-APACHE", "LICENSE-MIT"} <= set(files)
