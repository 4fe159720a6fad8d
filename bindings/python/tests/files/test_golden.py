"""Files written once by the package with its options: read by today's package and by independent
readers.
"""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

import golden_values as golden
import independent_reader as reader
import independent_values
import pytest
import zstandard

from cache import CacheWarning

NAMES = list(golden.OPTIONS)


def with_types(value: Any) -> Any:
    """An object that is equal if and only if values and types are equal, at all levels."""
    match value:
        case dict():
            parts: Any = [(with_types(key), with_types(part)) for key, part in value.items()]
        case list() | tuple():
            parts = [with_types(part) for part in value]
        case set() | frozenset():
            parts = {with_types(part) for part in value}
        case _:
            parts = repr(value)
    return type(value).__qualname__, parts


def copy_of(name: str, folder: Path) -> Path:
    """A copy of the file: the modes of a checkout depend on its maker, and would decide whether it
    is trusted.
    """
    copy = folder / name
    shutil.copyfile(golden.GOLDEN / name, copy)
    copy.chmod(0o600)
    return copy


def get_all(path: Path, keys: list[Any], **options: Any) -> list[Any]:
    """The results of a cache over the file for all keys."""

    async def get() -> list[Any]:
        cache = golden.cache_of(path, **options)
        return [await cache.get(key) for key in keys]

    return asyncio.run(get())


def check_with_another_hand(path: Path, secret: bytes | None) -> None:
    """Reads the file and its values by the documents, and compares."""
    snapshot = reader.read(path, secret)
    assert snapshot is not None
    dictionary = snapshot.dictionary()
    decompressor = zstandard.ZstdDecompressor(
        dict_data=None if dictionary is None else zstandard.ZstdCompressionDict(dictionary)
    )

    def value(record: reader.Record) -> Any:
        packed = decompressor.decompress(record.value) if record.is_compressed else record.value
        return independent_values.value(packed)

    entries = list(snapshot.entries().values())
    found = {independent_values.key(record.key): value(record) for record in entries}
    assert with_types(found.pop(golden.SHORT_LIVED)) == with_types("for a minute")
    assert found.keys() == golden.VALUES.keys()
    for key, expected in golden.VALUES.items():
        assert with_types(found[key]) == with_types(expected), key
    for record in entries:
        located = snapshot.find(record.key)
        assert located is not None and located[1] == record
    eager = {independent_values.key(record.key): value(record) for record in snapshot.eager()}
    assert with_types(eager) == with_types(golden.EAGER)
    due = [independent_values.key(entries[rank].key) for _, rank in snapshot.deadlines()]
    assert due == [golden.SHORT_LIVED, golden.LONG_LIVED]
    tombstones = snapshot.tombstones()
    assert tombstones is not None
    assert [independent_values.key(key) for key, _ in tombstones.keys] == [golden.DELETED]
    assert all(record.written_at is not None for record in entries)


@pytest.mark.parametrize("name", NAMES)
def test_a_golden_file_of_the_package_serves_what_was_saved(name: str, tmp_path: Path) -> None:
    path = copy_of(name, tmp_path)
    options = {key: option for key, option in golden.OPTIONS[name].items() if key == "secret"}
    expected = {**golden.VALUES, **golden.EAGER}
    served = get_all(path, list(expected), **options)
    for (key, value), answer in zip(expected.items(), served, strict=True):
        assert with_types(answer) == with_types(value), key
    assert get_all(path, [golden.DELETED, "nobody"], **options) == [None, None]


def test_the_one_with_a_secret_serves_nothing_to_who_does_not_know_it(tmp_path: Path) -> None:
    for options in ({}, {"secret": "incorrect horse battery staple"}):
        path = copy_of("v1-python-mac.acf", tmp_path)
        with pytest.warns(CacheWarning, match="secret"):
            assert get_all(path, ["decimal", golden.LONG_LIVED], **options) == [None, None]


@pytest.mark.parametrize("name", NAMES)
def test_a_golden_file_of_the_package_is_read_by_the_documents_alone(name: str) -> None:
    secret = golden.OPTIONS[name].get("secret")
    path = golden.GOLDEN / name
    check_with_another_hand(path, None if secret is None else secret.encode())
    snapshot = reader.read(path, None if secret is None else secret.encode())
    assert snapshot is not None
    assert any(record.is_compressed for record in snapshot.walk()) == (name == "v1-python-zstd.acf")
    assert (snapshot.dictionary() is not None) == (name == "v1-python-zstd.acf")


@pytest.mark.parametrize("name", NAMES)
def test_what_the_package_writes_today_holds_what_the_golden_file_holds(name: str, tmp_path: Path) -> None:
    options = golden.OPTIONS[name]
    golden.write(tmp_path / name, **options)
    secret = options.get("secret")
    check_with_another_hand(tmp_path / name, None if secret is None else secret.encode())
