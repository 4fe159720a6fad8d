"""Arguments whose content `vars` does not return: objects of classes written in C, and of their
subclasses.

The bug's story: an object of this kind was represented only by its attributes, if it had any, and
otherwise by its `repr`. So `Money(1, "EUR")` and `Money(2, "EUR")`, a `Decimal` with a currency,
were one key, and so were two database connections of a subclass without attributes, two patterns
with the same first 200 characters, and a generator and the next generator at its address. The
second caller got the first caller's result.
"""

from __future__ import annotations

import array
import asyncio
import collections
import copy
import ctypes
import datetime as dt
import decimal
import io
import operator
import os
import pickle
import random
import re
import sqlite3
import subprocess
import sys
import types
import zoneinfo
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import numpy
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from loops import Run
from stores import MemoryBackend

from cache import AsyncLRU, CacheWarning
from cache import _native as native
from cache.key import KEY, _to_hashable, make_key


def by_value(argument: Any) -> Any:
    data, named, is_stable = native._encode_by_value(argument)
    return data, tuple(map(id, named)), is_stable


class Money(Decimal):
    currency: str

    def __new__(cls, amount: str, currency: str) -> Money:
        self = super().__new__(cls, amount)
        self.currency = currency
        return self

    def __repr__(self) -> str:
        return f"Money({str(self)!r}, {self.currency!r})"

    def __deepcopy__(self, memo: Any) -> Money:
        return Money(str(self), self.currency)


class Moment(dt.datetime):
    label: str

    def __deepcopy__(self, memo: Any) -> Any:
        return labelled(Moment.combine(self.date(), self.time()), self.label)


class Deque(collections.deque[Any]):
    label: str


class Connection(sqlite3.Connection):
    pass


class Default(collections.defaultdict[str, Any]):
    pass


class Ghost:
    """Its `repr` shows its address."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"Ghost at {id(self):#x}"


def labelled(value: Any, label: str = "same") -> Any:
    value.label = label
    return value


def numbers() -> Iterator[int]:
    yield 1


DIFFERENT: list[tuple[Any, Any]] = [
    (Money("1", "EUR"), Money("2", "EUR")),
    (Money("1", "EUR"), Money("1", "USD")),
    (labelled(Moment(2020, 1, 1)), labelled(Moment(2021, 1, 1))),
    (labelled(Moment(2020, 1, 1), "a"), labelled(Moment(2020, 1, 1), "b")),
    (labelled(Deque([1])), labelled(Deque([2]))),
    (Default(list, a=1), Default(int, a=1)),
    (collections.defaultdict(list), collections.defaultdict(int)),
    (collections.deque([1], maxlen=2), collections.deque([1], maxlen=3)),
    (collections.deque([{"a"}]), collections.deque([{"b"}])),
    (re.compile("a" * 300 + "b"), re.compile("a" * 300 + "c")),
    (re.compile("a"), re.compile("a", re.IGNORECASE)),
    (re.compile("a"), re.compile(b"a")),
    (random.Random(1), random.Random(2)),
    (operator.itemgetter(1), operator.itemgetter(2)),
    (range(3), range(4)),
    (slice(1, 2), slice(1, 3)),
    (iter([1, 2]), iter([1, 3])),
    (
        types.MappingProxyType({"a": re.compile("b" * 300)}),
        types.MappingProxyType({"a": re.compile("b" * 301)}),
    ),
    ({"a": 1}.keys(), {"b": 1}.keys()),
    ({"a": 1}.values(), {"a": 2}.values()),
    ({"a": 1}.items(), {"a": 2}.items()),
    (OSError(2, "no", "a"), OSError(2, "no", "b")),
    (ImportError("no", name="a"), ImportError("no", name="b")),
    (zoneinfo.ZoneInfo("Europe/Berlin"), zoneinfo.ZoneInfo("Europe/Paris")),
    (dt.time(1, tzinfo=zoneinfo.ZoneInfo("UTC")), dt.time(1, tzinfo=zoneinfo.ZoneInfo("Europe/Paris"))),
    (io.BytesIO(b"a"), io.BytesIO(b"b")),
    (io.StringIO("a"), io.StringIO("b")),
    (memoryview(b"a"), memoryview(b"b")),
    (array.array("i", [1]), array.array("i", [2])),
    (array.array("i", [1]), array.array("I", [1])),
    (ctypes.c_int(1), ctypes.c_int(2)),
    (list[int], list[str]),
    (int | None, str | None),
    (decimal.Context(prec=3), decimal.Context(prec=4)),
    (dict.fromkeys, collections.OrderedDict.fromkeys),
    (str.upper, str.lower),
]


@pytest.mark.parametrize(("one", "two"), DIFFERENT, ids=lambda x: type(x).__name__)
def test_different_contents_are_different_arguments(one: Any, two: Any) -> None:
    assert by_value(one) != by_value(two)
    assert by_value([one]) != by_value([two])
    assert KEY((one,), {}) != KEY((two,), {})


@pytest.mark.parametrize("one", [one for pair in DIFFERENT for one in pair], ids=lambda x: type(x).__name__)
def test_copies_are_the_same_argument(one: Any) -> None:
    try:
        again = copy.deepcopy(one)
    except (
        TypeError
    ):  # a memory view, a view of a dict: cannot be copied, but twice the same object is one key
        again = one
    assert by_value(again) == by_value(one)
    assert KEY((again,), {}) == KEY((one,), {})
    assert hash(_to_hashable(again)) == hash(_to_hashable(one))


@pytest.mark.parametrize(
    "make",
    [
        numbers,
        Ghost,
        object,
        lambda: sqlite3.connect(":memory:", factory=Connection),
        lambda: open(os.devnull),  # noqa: SIM115
        lambda: lambda: 1,
        lambda: ctypes.pointer(ctypes.c_int(1)),
        lambda: types.CellType(1),
    ],
    ids=["generator", "address", "object", "connection", "file", "lambda", "pointer", "cell"],
)
def test_what_shows_nothing_of_itself_is_like_no_other(make: Callable[[], Any]) -> None:
    one, two = make(), make()
    try:
        assert by_value(one) != by_value(two)
        assert by_value(one) == by_value(one)
        assert not native._encode_by_value(one)[2]
    finally:
        for each in (one, two):
            if hasattr(each, "close"):
                each.close()


def test_a_pending_future_is_like_no_other(run: Run) -> None:
    async def main() -> None:
        one, two = asyncio.Future[None](), asyncio.Future[None]()
        assert repr(one) == repr(two) or "0x" in repr(one)
        assert by_value(one) != by_value(two)

    run(main())


def test_results_of_what_has_hidden_content_are_not_mixed_up(run: Run) -> None:
    async def main() -> None:
        @AsyncLRU(maxsize=None)
        async def text(x: Any) -> str:
            return str(x)

        @AsyncLRU(maxsize=None)
        async def first(connection: Any) -> Any:
            return connection.execute("select x from t").fetchone()[0]

        @AsyncLRU(maxsize=None)
        async def everything(x: Any) -> list[Any]:
            return list(x)

        assert [await text(Money(n, "EUR")) for n in "12"] == ["1", "2"]
        for name in ("one", "two"):
            connection = sqlite3.connect(":memory:", factory=Connection)
            connection.execute("create table t (x)")
            connection.execute("insert into t values (?)", (name,))
            assert await first(connection) == name
            connection.close()
        # Consecutive generators may have the same address.
        assert [await everything(n for n in [number]) for number in range(5)] == [[n] for n in range(5)]

    run(main())


atoms = st.one_of(
    st.integers(),
    st.text(max_size=5),
    st.floats(),
    st.decimals(allow_nan=False),
    st.datetimes(),
    st.sampled_from([len, Money, range(3), re.compile("a"), slice(1, 2)]),
)
contents = st.recursive(
    atoms,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(collections.deque),
        st.lists(inner, max_size=3),
        st.dictionaries(st.text(max_size=2), inner, max_size=3).map(
            lambda items: collections.defaultdict(list, items)
        ),
        st.builds(lambda a, b: types.SimpleNamespace(a=a, b=b), inner, inner),
        st.builds(lambda a: labelled(Deque([a])), inner),
        st.builds(
            lambda amount, label: Money(amount, label), st.integers(0, 3).map(str), st.text(max_size=1)
        ),
    ),
    max_leaves=6,
)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(contents, contents)
def test_contents_are_the_same_argument_if_and_only_if_they_are_equal(a: Any, b: Any) -> None:
    assert by_value(copy.deepcopy(a)) == by_value(a)
    if by_value(a) == by_value(b):
        # Equal, except for NaN, a list that may stand for a tuple, and attributes that equality
        # ignores.
        assert type(a) is type(b) or a == b
        assert repr(a) == repr(b) or a == b
    elif type(a) is type(b) and not isinstance(a, types.SimpleNamespace):
        assert a != b or repr(a) != repr(b) or isinstance(a, Deque)


HASHES = """
import collections, re, types
from cache import _native
words = {"a", "b", "c", "d"}
print(_native._encode_by_value([
    collections.deque([words]), types.MappingProxyType({"w": words}), {w: 1 for w in words}.keys(),
    re.compile("x" * 300), collections.defaultdict(set, w=words), types.SimpleNamespace(w=words),
])[0].hex())
"""


def test_hidden_content_is_the_same_in_every_process() -> None:
    outputs = set()
    for seed in ("0", "1", "31337"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, "-c", HASHES]
        run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60)
        outputs.add(run.stdout)
    assert len(outputs) == 1


def test_what_pickle_would_say_is_stable() -> None:
    for stable in (
        Money("1", "EUR"),
        re.compile("a"),
        collections.deque([1]),
        zoneinfo.ZoneInfo("UTC"),
        range(3),
        int | None,
        types.MappingProxyType({"a": {"b"}}),
        str.upper,
    ):
        assert native._encode_by_value(stable)[2], stable


def test_nan_is_an_argument_like_others(run: Run) -> None:
    """NaN is not equal to itself, so every call was loaded, and left a dead entry behind."""

    async def main() -> None:
        loads = 0

        @AsyncLRU()
        async def f(*args: float) -> int:
            nonlocal loads
            loads += 1
            return loads

        assert [await f(float("nan")), await f(float("nan")), await f(-float("nan"))] == [1, 1, 1]
        assert [await f(1, float("nan")), await f(1, float("nan"))] == [2, 2]
        assert f.get_metrics()["size"] == 2

    run(main())


def test_numpys_scalars_arrays_and_generators_are_known_by_all_they_hold() -> None:
    """A date of numpy was represented by the eight bytes of its buffer, without the unit: a second
    after 1970 was a day after.
    """

    class Sub(numpy.ndarray[Any, Any]):
        pass

    def sub(values: list[int]) -> Any:
        return labelled(numpy.array(values).view(Sub))

    long_times = numpy.arange(5000).astype("M8[s]")
    other_times = long_times.copy()
    other_times[2500] = numpy.datetime64("2030-01-01")
    different: list[tuple[Any, Any]] = [
        (numpy.datetime64("1970-01-02"), numpy.datetime64("1970-01-01T00:00:01")),
        (numpy.timedelta64(1, "s"), numpy.timedelta64(1, "D")),
        (long_times, other_times),
        (
            numpy.ma.masked_array([1, 2], mask=[False, True]),
            numpy.ma.masked_array([5, 2], mask=[False, True]),
        ),
        (numpy.random.default_rng(1), numpy.random.default_rng(2)),
        (numpy.dtype("f4"), numpy.dtype("f8")),
        (numpy.add, numpy.subtract),
        (numpy.float32(1.5), numpy.float64(1.5)),
        (numpy.array([1], dtype="M8[s]"), numpy.array([1], dtype="M8[D]")),
    ]
    for one, two in different:
        assert by_value(one) != by_value(two), (one, two)
        assert KEY((one,), {}) != KEY((two,), {}), (one, two)
        for each in (one, two):
            assert by_value(copy.deepcopy(each)) == by_value(each), each
    assert by_value(sub([1])) != by_value(sub([2]))
    assert by_value(sub([1])) == by_value(sub([1]))
    # The order in memory is not part of the value.
    square = numpy.arange(4).reshape(2, 2)
    assert by_value(numpy.asfortranarray(square)) == by_value(square)


# Keys for a user's own backends.


class Api:
    def __init__(self, base: str) -> None:
        self.base = base

    def go(self) -> str:
        return self.base


def test_keys_for_backends_tell_functions_methods_and_arrays_apart() -> None:
    """The keys were made from names and `repr`: two lambdas of one function gave one key, and so
    did the methods of two objects, and two arrays whose difference `repr` leaves out.
    """

    one, two = numpy.zeros(5000), numpy.zeros(5000)
    two[2500] = 1

    def plus(n: int) -> Callable[[int], int]:
        return lambda x: x + n

    for a, b in [(plus(1), plus(2)), (Api("a").go, Api("b").go), (one, two), (plus(1), 1)]:
        assert make_key(plus, (a,), {}) != make_key(plus, (b,), {})
        assert make_key(plus, (a,), {}) == make_key(plus, (a,), {})
        assert make_key(plus, (), {"x": [a]}) != make_key(plus, (), {"x": [b]})
    assert make_key(plus, (Api("a").go,), {}) == make_key(plus, (Api("a").go,), {})
    assert make_key(plus, ({frozenset("abc"): 1},), {}) == make_key(plus, ({frozenset("cab"): 1},), {})
    assert KEY((float("nan"),), {}) == KEY((float("nan"),), {})


def test_keys_for_backends_are_pickled_unless_no_other_process_could_know_them() -> None:
    key = make_key(len, (Api("a"), [1, {2}], re.compile("a"), os, Money, len), {"x": {"b": 1.5}})
    assert pickle.loads(pickle.dumps(key)) == key
    assert hash(pickle.loads(pickle.dumps(key))) == hash(key)
    assert key[1].is_stable
    unstable = make_key(len, (1,), {"f": lambda: 1})
    assert not unstable[1].is_stable
    with pytest.raises(pickle.PicklingError, match="no other process"):
        pickle.dumps(unstable)


def test_results_that_no_other_process_could_ask_for_are_left_out_of_a_save(run: Run) -> None:
    backend = MemoryBackend()

    @AsyncLRU(backup=backend)
    async def call(function: Callable[[], int]) -> int:
        return function()

    async def main() -> None:
        assert [await call(lambda: 1), await call(lambda: 2), await call(int)] == [1, 2, 0]

    run(main())
    with pytest.warns(CacheWarning, match="2 entries were not saved"):
        call.save_to_backup()
    assert [value for value, _ in backend.data.values()] == [0]
    pickle.dumps(backend.data)
