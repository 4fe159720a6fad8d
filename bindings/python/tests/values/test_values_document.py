"""The examples of `docs/values.md`."""

import collections
import datetime as dt
import decimal
import pathlib
import re
import socket
import types
import uuid
from fractions import Fraction
from typing import Any

import pytest
from codec_values import (
    by_value,
    decode,
    decode_key,
    encode,
    encode_key,
    same,
)

DOCUMENT = pathlib.Path(__file__).parents[4] / "docs" / "values.md"


# The document.

EXAMPLE = re.compile(r"^\| `(?P<source>[^`]+)` \| `(?P<hex>[0-9a-f ]+)` \|", re.MULTILINE)


def examples(heading: Any) -> Any:
    section = DOCUMENT.read_text(encoding="utf-8").split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return [(found["source"], bytes.fromhex(found["hex"])) for found in EXAMPLE.finditer(section)]


def evaluate(source: Any) -> Any:
    modules = (collections, dt, decimal, uuid, pathlib, re, socket, types)
    return eval(source, {"Fraction": Fraction, **{module.__name__: module for module in modules}})


@pytest.mark.parametrize(
    ("source", "data"), examples("Values"), ids=lambda x: x if isinstance(x, str) else ""
)
def test_the_documents_values_are_what_is_written(source: Any, data: Any) -> None:
    value = evaluate(source)
    assert encode(value).hex(" ") == data.hex(" ")
    assert same(decode(data), value)


@pytest.mark.parametrize(("source", "data"), examples("Keys"), ids=lambda x: x if isinstance(x, str) else "")
def test_the_documents_keys_are_what_is_written(source: Any, data: Any) -> None:
    key = evaluate(source)
    assert encode_key(key).hex(" ") == data.hex(" ")
    assert decode_key(data) == key


@pytest.mark.parametrize(
    ("source", "data"), examples("By value"), ids=lambda x: x if isinstance(x, str) else ""
)
def test_the_documents_arguments_are_what_is_written(source: Any, data: Any) -> None:
    assert by_value(evaluate(source)).hex(" ") == data.hex(" ")
