"""Attacks on the file: a planted pickle never runs and is never served, and the message gives the
reason.

The attacker can write to all paths of these tests, knows the format, and corrects every checksum,
but does not have the secret. The attacker's pickle makes a folder, which shows that it ran.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from loops import Run

from cache import AsyncCache, BackupError, CacheWarning, DiskBackend

SECRET = "correct horse battery staple"
Plant = Callable[[Path], None]


class Planted:
    """When unpickled, it is a call of `os.mkdir`."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __setstate__(self, state: dict[str, Any]) -> None:
        os.mkdir(state["marker"])


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    """Exists after a planted pickle has run."""
    return tmp_path / "the pickle ran"


def save(path: Path, entries: dict[Any, Any], **options: Any) -> bytes:
    """Saves a cache file; returns its content."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CacheWarning)
        cache = AsyncCache(maxsize=None, backup=DiskBackend(path, **options))
    for key, value in entries.items():
        cache.set(key, value)
    cache.save_to_backup()
    return path.read_bytes()


def crc32c(data: bytes) -> int:
    """The checksum of the format, slow."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def resealed(content: bytes, start: int, length: int) -> bytes:
    """The file with a corrected checksum of the unit at `start`."""
    file_id = content[32:48]
    unit = content[start + 4 : start + length]
    checksum = crc32c(file_id + start.to_bytes(8, "little") + unit)
    return content[:start] + checksum.to_bytes(4, "little") + unit + content[start + length :]


def leb128(content: bytes, at: int) -> tuple[int, int]:
    """A length, and its end."""
    length = shift = 0
    while True:
        length |= (content[at] & 0x7F) << shift
        shift, at = shift + 7, at + 1
        if content[at - 1] < 0x80:
            return length, at


def records(content: bytes) -> list[tuple[int, int]]:
    """Offset and length of every record of a file."""
    count, at = int.from_bytes(content[72:76], "little"), 4096
    found = []
    for _ in range(count):
        flags, (key, end) = content[at + 4], leb128(content, at + 5)
        value, end = leb128(content, end)
        end += 8 * (flags & 1) + 8 * (flags >> 1 & 1) + key + value + (16 if flags & 8 else 0)
        found.append((at, end - at))
        at = end
    return found


def assert_refused(run: Run, path: Path, marker: Path, reason: str, **options: Any) -> None:
    """Nothing in the file is served or run, the warning gives the reason, and the next save sets
    the file aside.
    """
    content, before = path.read_bytes(), set(path.parent.iterdir())
    with pytest.warns(CacheWarning, match=reason) as caught:
        cache = AsyncCache(backup=DiskBackend(path, **options))
    assert str(path) in str(caught[0].message)
    assert len(cache.cache) == 0
    assert run(cache.get("key")) is None
    with pytest.warns(CacheWarning, match=reason):
        assert DiskBackend(path, **options).load() == {}
    cache.set("key", "new")
    with pytest.warns(CacheWarning, match="aside"):
        cache.save_to_backup()
    (aside,) = set(path.parent.iterdir()) - before - {path.with_name(f"{path.name}.lock")}
    assert aside.read_bytes() == content
    assert run(AsyncCache(backup=DiskBackend(path, **options)).get("key")) == "new"
    assert not marker.exists()


# The owner of the file


def in_a_writable_file(path: Path) -> None:
    path.chmod(0o666)


def in_a_file_a_group_can_write(path: Path) -> None:
    path.chmod(0o620)


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="there are no owners")
@pytest.mark.parametrize("plant", [in_a_writable_file, in_a_file_a_group_can_write])
def test_a_pickle_in_a_file_that_others_can_write_never_runs(
    run: Run, path: Path, marker: Path, plant: Plant
) -> None:
    save(path, {"key": Planted(marker)})
    plant(path)
    assert_refused(run, path, marker, "others can write to it")


def test_a_pickle_behind_a_symlink_in_a_folder_of_everybody_never_runs(
    run: Run, tmp_path: Path, marker: Path
) -> None:
    planted, folder = tmp_path / "planted.cache", tmp_path / "shared"
    save(planted, {"key": Planted(marker)})
    folder.mkdir()
    folder.chmod(0o1777)
    path = folder / "app.cache"
    path.symlink_to(planted)
    content = planted.read_bytes()
    assert_refused(run, path, marker, "it is a symlink in the folder")
    assert planted.read_bytes() == content
    assert not path.is_symlink()


def test_a_symlink_of_ones_own_is_followed_by_loads_and_saves(run: Run, tmp_path: Path) -> None:
    (tmp_path / "volume").mkdir()
    path = tmp_path / "app.cache"
    path.symlink_to(Path("volume") / "app.cache")
    save(path, {"key": "value"})
    assert path.is_symlink()
    assert (tmp_path / "volume" / "app.cache").is_file()
    assert run(AsyncCache(backup=DiskBackend(path)).get("key")) == "value"


# As another user: only root can make files that belong to another user.
# `crates/async-cache-disk/tests/trust.rs` tests the same on a fake disk, without root.
NOBODY = 65534
only_root = pytest.mark.skipif(
    not hasattr(os, "getuid") or os.getuid() != 0, reason="only root can give files to others"
)


@only_root
def test_a_pickle_in_a_file_of_another_user_never_runs(run: Run, path: Path, marker: Path) -> None:
    save(path, {"key": Planted(marker)})
    os.chown(path, NOBODY, NOBODY)
    assert_refused(run, path, marker, f"user {NOBODY} owns it")


@only_root
@pytest.mark.parametrize("has_lock", [False, True])
def test_a_file_or_lock_of_another_user_is_a_clear_error_for_a_user_without_rights(
    tmp_path: Path, marker: Path, has_lock: bool
) -> None:
    folder = tmp_path / "tmp"
    folder.mkdir()
    folder.chmod(0o1777)
    for parent in folder.parents:
        if parent.stat().st_uid == 0 and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o055)
    path = folder / "app.cache"
    lock = folder / "app.cache.lock"
    save(path, {"key": Planted(marker)})
    path.chmod(0o644)
    os.chown(path, 1234, 1234)
    if not has_lock:
        lock.unlink()
    program = """
import os, sys, warnings
from cache import AsyncCache, BackupError, DiskBackend
os.setgroups([]); os.setgid(65534); os.setuid(65534)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    cache = AsyncCache(backup=DiskBackend(sys.argv[1]))
print(caught[0].message)
cache.set("key", "new")
try:
    cache.save_to_backup()
except BackupError as error:
    print(error)
"""
    content = path.read_bytes()
    run = subprocess.run(
        [sys.executable, "-c", program, str(path)], capture_output=True, text=True, timeout=20, check=True
    )
    refusal, error = run.stdout.splitlines()
    assert "user 1234 owns it, and this program runs as user 65534" in refusal
    assert "nothing was saved" in error
    assert ("another user" if has_lock else "could not be set aside") in error
    assert "remove it" in error
    assert path.read_bytes() == content
    assert set(folder.iterdir()) == {path, lock}
    assert not marker.exists()


# The content of the file, with a secret


def forged(mine: bytes, theirs: bytes) -> bytes:
    """My file with its first record replaced by their record of the same length, with a correct
    checksum.
    """
    (start, length), (other, other_length) = records(mine)[0], records(theirs)[0]
    assert (start, length) == (other, other_length)
    return resealed(mine[:start] + theirs[start : start + length] + mine[start + length :], start, length)


def test_a_pickle_without_a_secret_is_refused_by_those_who_have_one(
    run: Run, path: Path, marker: Path
) -> None:
    save(path, {"key": Planted(marker)})
    assert_refused(run, path, marker, "written without a secret", secret=SECRET)


def test_a_pickle_of_another_secret_is_refused(run: Run, path: Path, marker: Path) -> None:
    save(path, {"key": Planted(marker)}, secret=b"the attacker's own secret")
    assert_refused(run, path, marker, "written with another secret", secret=SECRET)
    save(path.with_name("other"), {"key": Planted(marker)}, secret=SECRET)
    assert_refused(run, path.with_name("other"), marker, "none was given")


def test_a_pickle_put_into_a_file_with_a_secret_never_runs(run: Run, path: Path, marker: Path) -> None:
    planted = save(path.with_name("planted"), {"key": Planted(marker)}, secret=b"the attacker's own secret")
    (start, length) = records(planted)[0]
    size, honest = 100, b""
    for _ in range(3):  # until mine has the same length, so that the rest stays in place
        honest = save(path, {"key": "x" * size}, secret=SECRET)
        size += length - records(honest)[0][1]
    path.write_bytes(forged(honest, planted))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cache = AsyncCache(backup=DiskBackend(path, secret=SECRET))
    assert run(cache.get("key")) is None
    assert cache.stats()["undecodable"] == 1
    assert not marker.exists()


def test_a_record_replayed_from_an_older_file_of_the_same_secret_is_a_miss(run: Run, path: Path) -> None:
    old = save(path.with_name("old"), {"key": "admin"}, secret=SECRET)
    new = save(path, {"key": "guest"}, secret=SECRET)
    path.write_bytes(forged(new, old))
    cache = AsyncCache(backup=DiskBackend(path, secret=SECRET))
    assert run(cache.get("key")) is None
    assert cache.stats()["undecodable"] == 1
    # And the header of the old file before the entries of the new file.
    path.write_bytes(new[:4096] + old[4096:])
    assert run(AsyncCache(backup=DiskBackend(path, secret=SECRET)).get("key")) is None


def test_records_that_were_swapped_are_misses(run: Run, path: Path) -> None:
    content = save(path, {"admin": "yes", "guest": "no!"}, secret=SECRET)
    (first, length), (second, same) = records(content)
    assert length == same
    one, other = content[first : first + length], content[second : second + length]
    swapped = content[:first] + other + one + content[second + length :]
    path.write_bytes(resealed(resealed(swapped, first, length), second, length))
    cache = AsyncCache(backup=DiskBackend(path, secret=SECRET))
    assert run(cache.get("admin")) is None
    assert run(cache.get("guest")) is None


def test_a_pickle_appended_to_a_file_is_not_looked_at(run: Run, path: Path, marker: Path) -> None:
    planted = save(path.with_name("planted"), {"evil": Planted(marker)}, secret=b"the attacker's own secret")
    for secret in (None, SECRET):
        path.unlink(missing_ok=True)
        content = save(path, {"key": "value"}, secret=secret)
        path.write_bytes(content + planted[4096:])
        cache = AsyncCache(backup=DiskBackend(path, secret=secret))
        assert run(cache.get("key")) == "value"
        assert run(cache.get("evil")) is None
    assert not marker.exists()


def test_every_flipped_byte_under_a_secret_is_a_miss_or_a_refusal(run: Run, path: Path) -> None:
    entries: dict[Any, Any] = {f"key {number}": [f"value {number}"] for number in range(4)}
    content = save(path, entries, secret=SECRET)
    units = [(0, 4092), *records(content)]
    places = [at for start, length in units for at in range(start, start + length)][:: max(1, 4300 // 500)]

    async def main() -> None:
        for at in places:
            flipped = content[:at] + bytes([content[at] ^ 0x41]) + content[at + 1 :]
            if at < 4092:
                flipped = flipped[:4092] + crc32c(flipped[:4092]).to_bytes(4, "little") + flipped[4096:]
            else:
                (unit,) = [unit for unit in units if unit[0] <= at < unit[0] + unit[1]]
                flipped = resealed(flipped, *unit)
            if flipped == content:
                continue
            path.write_bytes(flipped)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", CacheWarning)
                cache = AsyncCache(backup=DiskBackend(path, secret=SECRET))
            served = {key: await cache.get(key) for key in entries}
            assert all(value in (None, entries[key]) for key, value in served.items())
            assert None in served.values(), f"the change at {at} was not noticed"

    run(main())


def test_a_secret_has_sixteen_bytes_at_least_and_is_never_shown(path: Path) -> None:
    with pytest.raises(ValueError, match="has 7 bytes and needs at least 16"):
        DiskBackend(path, secret="hunter2")
    with pytest.raises(TypeError, match="secret is a str or bytes, not int"):
        DiskBackend(path, secret=5)  # type: ignore[arg-type]
    backend = DiskBackend(path, secret=SECRET)
    shown = repr(backend) + repr(vars(backend)) + repr(backend._options)
    assert "horse" not in shown


def test_a_secret_as_text_and_as_its_bytes_is_the_same(run: Run, path: Path) -> None:
    save(path, {"key": "value"}, secret=SECRET)
    assert run(AsyncCache(backup=DiskBackend(path, secret=SECRET.encode())).get("key")) == "value"


# Without pickle


class Point:
    def __init__(self, x: int) -> None:
        self.x = x

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Point) and self.x == other.x

    def __hash__(self) -> int:
        return hash(self.x)


def test_without_pickle_what_needs_one_is_left_out_with_a_warning_that_names_the_key(
    run: Run, path: Path
) -> None:
    cache = AsyncCache(backup=DiskBackend(path, pickle=False))
    for key, value in {"plain": (1, {2}), "object": Point(1), Point(2): "under an object"}.items():
        cache.set(key, value)
    with pytest.warns(CacheWarning, match=r"2 entries were not saved.*'object'.*pickle=False.*Point"):
        cache.save_to_backup()
    again = AsyncCache(backup=DiskBackend(path))
    assert run(again.get("plain")) == (1, {2})
    assert len(again.cache) == 1
    with pytest.raises(BackupError, match=r"'object'.*pickle=False"):
        DiskBackend(path, pickle=False).save({"object": (Point(1), None)})


def test_without_pickle_none_is_run_and_none_is_passed_on(
    run: Run, path: Path, marker: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save(path, {"plain": 1, "evil": Planted(marker), "evil, too": Planted(marker), Point(1): 1})
    with caplog.at_level(logging.WARNING, "cache"):
        cache = AsyncCache(backup=DiskBackend(path, pickle=False))
        assert run(cache.get("plain")) == 1
        assert run(cache.get("evil")) is None
        assert DiskBackend(path, pickle=False).load() == {"plain": (1, None)}
        with pytest.warns(CacheWarning, match="2 entries .* are pickled, and so were not kept"):
            cache.save_to_backup()  # does not copy the entry that was not read
    assert cache.stats()["undecodable"] == 3
    assert len(caplog.records) == 1
    assert not marker.exists()
    with pytest.MonkeyPatch.context() as patch:
        patch.delattr(Planted, "__setstate__")
        assert len(AsyncCache(backup=DiskBackend(path)).cache) == 1


def test_without_pickle_the_log_says_which_key_it_was(
    run: Run, path: Path, marker: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save(path, {"evil": Planted(marker)})
    with caplog.at_level(logging.WARNING, "cache"):
        assert run(AsyncCache(backup=DiskBackend(path, pickle=False)).get("evil")) is None
    assert "the entry of key 'evil' cannot be served" in caplog.text
    assert "pickle=False refuses a pickle" in caplog.text


# Compression


@pytest.mark.parametrize("compression", ["zstd", "zstd:9", ("zstd", 1)])
@pytest.mark.parametrize("secret", [None, SECRET])
def test_a_compressed_file_is_smaller_and_comes_back(
    run: Run, path: Path, compression: Any, secret: str | None
) -> None:
    text = "one of the finest products that there are, and number {}"
    entries = {f"product {i}": {"id": i, "name": text.format(i), "tags": ["a", "b"]} for i in range(2000)}
    plain = len(save(path.with_name("plain"), entries))
    content = save(path, entries, compression=compression, secret=secret)
    assert len(content) < plain * 0.9
    again = AsyncCache(maxsize=None, backup=DiskBackend(path, secret=secret))
    assert run(again.get("product 7")) == entries["product 7"]
    # Cold entries are copied, compressed or not.
    for other in (None, compression):
        cold = AsyncCache(maxsize=None, backup=DiskBackend(path, secret=secret, compression=other))
        cold.set("new", "value " * 50)
        cold.save_to_backup()
        loaded = DiskBackend(path, secret=secret).load()
        assert {key: value for key, (value, _) in loaded.items() if key != "new"} == entries


@pytest.mark.parametrize("compression", ["gzip", "zstd:", "zstd:0", "zstd:fast", ("zstd", 23), ("zstd",), 3])
def test_a_compression_that_there_is_not_is_a_clear_error(path: Path, compression: Any) -> None:
    with pytest.raises(ValueError, match=r'"zstd:LEVEL" or \("zstd", level\)'):
        DiskBackend(path, compression=compression)
