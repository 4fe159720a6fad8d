"""Stores that Rust wrote, read by a program written only from ``docs/file-format.md``.

Random programs write to stores, collect them, with and without compression and a limit, and are
stopped with and without a close; then each file is damaged. The independent reader must find the
entries that Rust finds.
``ASYNC_CACHE_SEED`` repeats a seed, ``ASYNC_CACHE_ROUNDS`` runs more rounds.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import independent_reader
import independent_segments
import independent_store as reader
import pytest
import zstandard

ROUNDS = int(os.environ.get("ASYNC_CACHE_ROUNDS", "6"))
SEED = int(os.environ.get("ASYNC_CACHE_SEED", random.randrange(1 << 32)))
NOW = 1_700_000_000_000_000_000
SECRET = b"correct horse battery staple"

Found = dict[bytes, tuple[bytes, int | None, int | None]]
"""Value, deadline and time of writing of each key."""


@dataclass
class Content:
    """The entries of a store."""

    entries: Found = field(default_factory=dict)
    eager: Found = field(default_factory=dict)
    facts: str = ""


class Rust:
    """The Rust program, which has one store open at most."""

    def __init__(self, program: str) -> None:
        pipe = subprocess.PIPE
        self.process = subprocess.Popen([program], stdin=pipe, stdout=pipe, text=True)

    def run(self, *commands: str) -> list[str]:
        """Executes commands; returns the lines of the last answer."""
        assert self.process.stdin and self.process.stdout
        lines: list[str] = []
        for command in commands:
            print(command, file=self.process.stdin, flush=True)
            lines = []
            while (line := self.process.stdout.readline()) != "done\n":
                assert line, f"the program failed at {command!r}"
                lines.append(line.rstrip("\n"))
        return lines

    def read(self) -> Content:
        return content_of(self.run("read"))


def content_of(lines: Iterable[str]) -> Content:
    """The content in the form in which the program prints it."""
    content = Content()
    for line in lines:
        what, *words = line.split(" ")
        if what == "facts":
            content.facts = " ".join(words)
            continue
        key = bytes.fromhex(words[0][1:])
        found = content.entries if what == "entry" else content.eager
        found.pop(key, None)
        if what != "deleted":
            deadline, written_at = (None if time == "-" else int(time) for time in words[2:])
            found[key] = (bytes.fromhex(words[1][1:]), deadline, written_at)
    return content


@pytest.fixture
def rust() -> Iterator[Rust]:
    program = os.environ.get("ASYNC_CACHE_STORES")
    if program is None:
        pytest.skip("ASYNC_CACHE_STORES is the Rust example stores, built; `make test-python` sees to that")
    rust = Rust(program)
    with rust.process:  # closes its pipes, so the program ends
        yield rust
    assert rust.process.returncode == 0


def unpacked(entry: independent_segments.Entry) -> bytes:
    """The value. In a store, a frame has no dictionary."""
    if not entry.is_compressed:
        return entry.value
    assert zstandard.get_frame_parameters(entry.value).dict_id == 0
    value: bytes = zstandard.ZstdDecompressor().decompress(entry.value)
    assert len(value) <= 256 * len(entry.value)
    return value


def independently(path: Path, secret: bytes | None, now: int = NOW + 1_000_000) -> Content:
    """The content of a store, by every way of reading it."""
    if not (reader.folder_of(path, "v1", secret) / "manifest").exists():
        return Content(facts="none")  # nothing was written, so there is no store yet
    store = reader.read(path, "v1", secret, now)
    found = {
        key: (unpacked(entry), entry.deadline, entry.written_at) for key, entry in store.entries().items()
    }
    eager = {key: (unpacked(entry), entry.deadline, entry.written_at) for key, entry in store.eager().items()}
    assert store.find(b"no such key") is None
    manifest = store.manifest
    facts = f"{str(manifest.is_clean).lower()} {len(manifest.segments)} {len(manifest.runs)}"
    return Content(found, eager, facts)


COMMANDS = {
    "put": 60, "delete": 15, "put_eager": 8, "delete_eager": 4, "clear": 1, "flush": 4, "maintain": 8
}  # fmt: skip
COLLECTING = {**COMMANDS, "evict": 15, "use": 15, "collect": 5}


def random_commands(random: random.Random, count: int, commands: dict[str, int]) -> Iterator[str]:
    for _ in range(count):
        key, long = f"key{random.randrange(12)}", random.random() < 0.1
        command = random.choices(list(commands), list(commands.values()))[0]
        if command.startswith("put"):
            times = random.randrange(3000) if long else random.randrange(12)
            deadline = "-" if random.random() < 0.7 else str(NOW + random.randrange(10**12))
            key = key if command == "put" else f"eager{random.randrange(4)}"
            yield f"{command} {key} value{random.randrange(100)} {times} {deadline}"
        elif command.startswith("delete"):
            yield f"{command} {key if command == 'delete' else f'eager{random.randrange(4)}'}"
        elif command in ("evict", "use"):
            yield f"{command} {key}"
        else:
            yield command


def write(
    rust: Rust, path: Path, random: random.Random, secret: bytes | None, *, collects: bool = False
) -> None:
    """Writes a store with a random program."""
    rust.run(f"file {path} v1 {secret.decode().replace(' ', '_') if secret else '-'}", f"now {NOW}")
    limit = ""
    if collects:
        rust.run(*["compress"][: random.randrange(4)])
        limit = random.choice(["", " 20000", " 60000"])
    if random.random() < 0.7:
        rust.run(f"base {random.randrange(1, 12)}")
    for opening in range(random.randrange(1, 4)):
        rust.run(f"open {random.choice([4200, 4800, 12_000, 60_000, 1 << 20])}{limit}")
        commands = COLLECTING if collects else COMMANDS
        rust.run(*random_commands(random, random.randrange(1, 120), commands))
        rust.run("close" if random.random() < 0.4 else "drop")
        if opening == 0 and random.random() < 0.1:
            rust.run("base 3")  # another program replaces the base


@pytest.mark.timeout(300)
@pytest.mark.parametrize("has_secret", [False, True])
@pytest.mark.parametrize("collects", [False, True])
def test_random_stores_are_read_as_rust_reads_them(
    rust: Rust, tmp_path: Path, has_secret: bool, collects: bool
) -> None:
    secret = SECRET.replace(b" ", b"_") if has_secret else None
    for seed in range(SEED, SEED + ROUNDS):
        path = tmp_path / f"{seed}.cache"
        write(rust, path, random.Random(seed), secret, collects=collects)
        assert independently(path, secret) == rust.read(), f"seed {seed}"


def test_a_store_in_use_is_read_too(rust: Rust, tmp_path: Path) -> None:
    path = tmp_path / "pages.cache"
    rust.run(f"file {path} v1 -", f"now {NOW}", "base 8", "open 5000")
    for number, command in enumerate(random_commands(random.Random(SEED), 300, COMMANDS)):
        rust.run(command)
        if number % 20 == 0:
            assert independently(path, None) == rust.read(), f"seed {SEED}, {number}"


def test_before_the_first_write_there_is_no_store(rust: Rust, tmp_path: Path) -> None:
    path = tmp_path / "pages.cache"
    rust.run(f"file {path} v1 -", f"now {NOW}", "base 8", "open 5000", "flush", "maintain")
    assert independently(path, None) == rust.read() == Content(facts="none")
    rust.run("put key value 1 -")
    assert independently(path, None) == rust.read() != Content(facts="none")


def test_runs_of_several_levels_are_read(rust: Rust, tmp_path: Path) -> None:
    path = tmp_path / "pages.cache"
    rust.run(f"file {path} v1 -", f"now {NOW}", "base 8", "open 4200")
    for number in range(60):
        rust.run(f"put key{number} value 20 -", "delete key3", "maintain")
    rust.run("drop")
    manifest = independent_segments.Manifest(
        (reader.folder_of(path, "v1", None) / "manifest").read_bytes(), None
    )
    assert {run.level for run in manifest.runs} >= {0, 1}
    content = independently(path, None)
    assert content == rust.read()
    assert len(content.entries) == 59  # without key3


@pytest.mark.parametrize("sizes", ["4200", "6000 40000"])
def test_a_store_in_use_is_read_between_collections(rust: Rust, tmp_path: Path, sizes: str) -> None:
    path = tmp_path / "pages.cache"
    rust.run(f"file {path} v1 -", "compress", f"now {NOW}", "base 8", f"open {sizes}")
    collected = compressed = 0
    for number in range(8):
        rust.run(*random_commands(random.Random(SEED + number), 20, COLLECTING))
        rust.run(*(f"put {key}of{number} value{number} 120 -" for key in range(10)))
        rust.run("maintain", "collect")
        store = reader.read(path, "v1", None, NOW)
        collected = store.manifest.segments[0].number - 1
        compressed += sum(entry.is_compressed for entry in store.entries().values())
        assert independently(path, None) == rust.read(), f"seed {SEED}, {number}"
    assert collected > 3 and compressed > 0
    assert store.manifest.base is None and store.manifest.dropped_until >= NOW


def damage(random: random.Random, data: bytes) -> bytes:
    """Flips a bit, or fills a range with zeros or other bytes; cuts a file sometimes."""
    at = random.randrange(len(data))
    kind = random.randrange(5)
    if kind == 0:
        return data[:at]
    length = 1 if kind < 4 else random.randrange(1, 600)
    flipped = bytes(byte ^ 1 << random.randrange(8) for byte in data[at : at + length])
    return data[:at] + (bytes(length)[: len(flipped)] if kind == 4 else flipped) + data[at + length :]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("has_secret", [False, True])
def test_damaged_stores_are_read_as_rust_reads_them(rust: Rust, tmp_path: Path, has_secret: bool) -> None:
    secret = SECRET.replace(b" ", b"_") if has_secret else None
    for seed in range(SEED, SEED + ROUNDS // 3):
        generator = random.Random(seed)
        sound = tmp_path / f"{seed}" / "pages.cache"
        sound.parent.mkdir()
        write(rust, sound, generator, secret, collects=seed % 2 == 0)
        rust.run(f"file {sound} v1 {secret.decode() if secret else '-'}")
        before = rust.read()
        files = [file for file in sound.parent.rglob("*") if file.stat().st_size and file.is_file()]
        files = sorted(file for file in files if file != sound)
        for number, file in enumerate(generator.sample(files, min(len(files), 5))):
            copy = tmp_path / f"{seed}-{number}"
            shutil.copytree(sound.parent, copy)
            damaged = copy / file.relative_to(sound.parent)
            damaged.write_bytes(damage(generator, file.read_bytes()))
            if damaged.read_bytes() == file.read_bytes():
                continue  # zeros were replaced by zeros
            path, context = copy / "pages.cache", f"seed {seed}, {file.name}"
            if file.name == "manifest":
                with pytest.raises(independent_reader.Unreadable):
                    reader.read(path, "v1", secret, NOW)
                continue
            rust.run(f"file {path} v1 {secret.decode() if secret else '-'}")
            found, by_rust = independently(path, secret, NOW + 10**9), rust.read()
            assert found.entries == by_rust.entries, context
            # Rust hides entries of a base that another program has replaced, whatever their times.
            assert by_rust.eager.items() <= found.eager.items(), context
            is_cut = damaged.stat().st_size < file.stat().st_size
            # If the end of an open segment is cut off between two records, nothing is missing.
            assert is_cut or found.entries.items() <= before.entries.items(), context


@pytest.mark.parametrize("name", ["v2-closed", "v2-crashed", "v2-secret", "v2-eager", "v2-collected"])
def test_the_golden_stores_hold_what_they_should(name: str) -> None:
    golden = Path(__file__).parents[4] / "crates/async-cache-disk/tests/golden"
    secret = b"correct_horse_battery_staple" if name == "v2-secret" else None
    expected = content_of((golden / f"{name}.txt").read_text().splitlines())
    assert independently(golden / f"{name}.acf", secret) == expected
