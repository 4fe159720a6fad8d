"""Objects of well-known libraries, and of classes registered by the user, as arguments.

The bug's story: a method of a service with a logger, an engine or a client raised from every call;
equal frames, rows and models were two keys, so a write through one object left the result for its
equal; and a route with a `Request` answered 500.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import logging
import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable
from typing import Any
from unittest import mock

import attrs
import numpy as np
import pandas as pd
import polars as pl
import pydantic
import pytest
from PIL import Image
from sqlalchemy import Column, Integer, String, create_engine
from sqlalchemy.orm import Session, declarative_base
from starlette.requests import Request
from stores import MemoryBackend

from cache import AsyncLRU, AsyncLRUInvalidator, _stand_ins
from cache import _native as native
from cache import key as key_module
from cache.errors import CacheWarning

Base: Any = declarative_base()


class User(Base):  # type: ignore[misc]
    __tablename__ = "users"
    id = Column(Integer, primary_key=True)
    name = Column(String)


class Query(pydantic.BaseModel):
    name: str
    limit: int = 10


@attrs.define
class Point:
    x: int
    seen: int = attrs.field(default=0, eq=False)


@dataclasses.dataclass
class Page:
    path: str
    fetched: float = dataclasses.field(default=0.0, compare=False)


class Report:
    def __init__(self, number: int) -> None:
        self.number = number

    @functools.cached_property
    def text(self) -> str:
        return f"report {self.number}"


def computed(number: int) -> Report:
    report = Report(number)
    assert report.text
    return report


def is_one_key(one: Any, other: Any) -> bool:
    """Whether a cached function treats two arguments as equal; each of the two is always equal to
    itself.
    """
    loads = 0

    @AsyncLRU(maxsize=None)
    async def function(argument: Any) -> int:
        nonlocal loads
        loads += 1
        return loads

    async def main() -> bool:
        first, second = await function(one), await function(other)
        assert (await function(one), await function(other)) == (first, second)
        return first == second

    return asyncio.run(main())


def image(color: tuple[int, int, int]) -> Any:
    return Image.new("RGB", (4, 4), color)


EQUAL: dict[str, Callable[[], Any]] = {
    "pydantic": lambda: Query(name="tea"),
    "attrs": lambda: Point(1),
    "dataclass": lambda: Page("/"),
    "DataFrame": lambda: pd.DataFrame({"a": [1, 2], "b": ["x", "y"]}),
    "Series": lambda: pd.Series([1, 2], name="a"),
    "texts": lambda: pd.Series(["a", None]),
    "Index": lambda: pd.Index([1, 2]),
    "DatetimeIndex": lambda: pd.date_range("2024-01-01", periods=3),
    "MultiIndex": lambda: pd.MultiIndex.from_tuples([(1, "a"), (2, "b")]),
    "Categorical": lambda: pd.Categorical(["a", "b"]),
    "Timestamp": lambda: pd.Timestamp("2024-01-01", tz="UTC"),
    "array": lambda: np.arange(1000.0),
    "masked array": lambda: np.ma.array([1, 2], mask=[False, True]),
    "polars frame": lambda: pl.DataFrame({"a": [1, 2], "b": ["x", None]}),
    "polars series": lambda: pl.Series("a", [1, 2]),
    "image": lambda: image((1, 2, 3)),
    "row": lambda: User(id=7, name="ada"),
    "logger": lambda: logging.getLogger("a service"),
    "adapter": lambda: logging.LoggerAdapter(logging.getLogger("a service"), {"a": 1}),
}


@pytest.mark.parametrize("make", EQUAL.values(), ids=EQUAL)
def test_equal_objects_are_one_key(make: Callable[[], Any]) -> None:
    assert is_one_key(make(), make())


UNLIKE: dict[str, tuple[Any, Any]] = {
    "values of a model": (Query(name="tea"), Query(name="tea", limit=11)),
    "classes of models": (Query(name="tea"), {"name": "tea", "limit": 10}),
    "attrs": (Point(1), Point(2)),
    "dataclass": (Page("/"), Page("/a")),
    "columns": (pd.DataFrame({"a": [1]}), pd.DataFrame({"b": [1]})),
    "index": (pd.DataFrame({"a": [1]}, index=[1]), pd.DataFrame({"a": [1]}, index=[2])),
    "dtype": (pd.Series([1, 2], dtype="int32"), pd.Series([1, 2], dtype="int64")),
    "series name": (pd.Series([1], name="a"), pd.Series([1], name="b")),
    "missing": (pd.Series(["a", None]), pd.Series(["a", "None"])),
    "categories": (pd.Categorical(["a"], ["a", "b"]), pd.Categorical(["a"], ["a", "c"])),
    "time zone": (pd.Timestamp("2024-01-01", tz="UTC"), pd.Timestamp("2024-01-01")),
    "shape": (np.arange(6), np.arange(6).reshape(2, 3)),
    "mask": (np.ma.array([1, 2], mask=[False, True]), np.ma.array([1, 2], mask=[True, False])),
    "polars values": (pl.DataFrame({"a": [1]}), pl.DataFrame({"a": [2]})),
    "polars dtype": (pl.Series("a", [1], dtype=pl.Int32), pl.Series("a", [1], dtype=pl.Int64)),
    "pixels": (image((1, 2, 3)), image((1, 2, 4))),
    "rows": (User(id=7, name="ada"), User(id=8, name="ada")),
    "loggers": (logging.getLogger("a service"), logging.getLogger("another service")),
    "order": (OrderedDict(a=1, b=2), OrderedDict(b=2, a=1)),
    "locks": (threading.Lock(), threading.Lock()),
    "mocks": (mock.Mock(), mock.Mock()),
    "engines": (create_engine("sqlite://"), create_engine("sqlite://")),
}


@pytest.mark.parametrize(("one", "other"), UNLIKE.values(), ids=UNLIKE)
def test_objects_that_differ_are_two_keys(one: Any, other: Any) -> None:
    assert not is_one_key(one, other)


def test_a_change_in_the_middle_of_a_large_frame_is_another_key() -> None:
    large = pd.DataFrame({"a": np.arange(10_000), "b": ["x"] * 10_000})
    changed = large.copy()
    changed.iloc[5000, 0] = -1
    assert is_one_key(large, large.copy())
    assert not is_one_key(large, changed)


def test_fields_that_do_not_count_for_equality_do_not_count_for_the_key() -> None:
    assert is_one_key(Point(1, seen=1), Point(1, seen=2))
    assert is_one_key(Page("/", fetched=1.0), Page("/", fetched=2.0))
    assert is_one_key(Report(1), computed(1))
    assert not is_one_key(Report(1), computed(2))


def test_a_write_through_a_model_reaches_its_equals() -> None:
    """The bug's story: a model made with a default given and an equal model made with the default
    left out were two keys, so the result for the equal model stayed after the write.
    """
    prices = {"tea": 1}

    @AsyncLRU()
    async def search(query: Query) -> int:
        return prices[query.name]

    @AsyncLRUInvalidator(search)
    async def change(query: Query, price: int) -> None:
        prices[query.name] = price

    async def main() -> int:
        await search(Query(name="tea"))
        await change(Query.model_validate_json('{"name": "tea", "limit": 10}'), 2)
        return await search(Query(name="tea"))

    assert asyncio.run(main()) == 2


def test_rows_of_a_session_are_known_by_what_they_hold() -> None:
    engine = create_engine("sqlite://")
    Base.metadata.create_all(engine)
    with Session(engine, expire_on_commit=False) as session:
        session.add_all([User(id=1, name="ada"), User(id=2, name="alan")])
        session.commit()
        ada, alan = session.get(User, 1), session.get(User, 2)
        assert is_one_key(ada, ada)
        assert not is_one_key(ada, alan)


def test_a_service_holds_what_services_hold() -> None:
    class Service:
        def __init__(self) -> None:
            self.log = logging.getLogger("service")
            self.engine = create_engine("sqlite://")
            self.session = Session(self.engine)
            self.lock = threading.Lock()
            self.on_change = self.read

        @AsyncLRU()
        async def read(self, number: int) -> int:
            return id(self) + number

    async def main() -> None:
        first, second = Service(), Service()
        assert await first.read(1) == await first.read(1) == id(first) + 1
        assert await second.read(1) == id(second) + 1

    asyncio.run(main())
    assert Service.read.get_metrics()["hits"] == 1


def test_a_call_with_a_request_is_answered_and_not_cached() -> None:
    loads = 0

    @AsyncLRU()
    async def route(request: Request, number: int) -> int:
        nonlocal loads
        loads += 1
        return loads

    def request() -> Request:
        return Request({"type": "http", "method": "GET", "path": "/", "headers": []})

    async def main() -> list[int]:
        mine = request()
        return [await route(mine, 1), await route(mine, 1), await route(request(), 1)]

    with pytest.warns(CacheWarning, match=r"argument 'request'.*exclude=\{'request'\}") as told:
        assert asyncio.run(main()) == [1, 2, 3]
    assert len(told) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert asyncio.run(main()) == [4, 5, 6]


@pytest.mark.parametrize("wrap", [lambda it: it, lambda it: [it], lambda it: {"request": it}])
def test_a_call_with_a_request_is_not_stored_either_if_a_backend_of_the_users_own_gets_the_keys(
    wrap: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The story: keys for backends are made by Python code, which kept requests by identity, so all
    requests stayed in memory.
    """
    monkeypatch.setattr(_stand_ins, "_warned", set())
    loads = 0
    backend = MemoryBackend()

    @AsyncLRU(backup=backend)
    async def route(request: Any, number: int) -> int:
        nonlocal loads
        loads += 1
        return loads

    def request() -> Any:
        return wrap(Request({"type": "http", "method": "GET", "path": "/", "headers": []}))

    async def main() -> list[int]:
        mine = request()
        return [await route(mine, 1), await route(mine, 1), await route(number=1, request=mine)]

    with pytest.warns(CacheWarning, match=r"exclude=.*, such as the user's id"):
        assert asyncio.run(main()) == [1, 2, 3]
    assert asyncio.run(route(7, 1)) == asyncio.run(route(7, 1)) == 4
    assert route.get_metrics()["size"] == 1
    route.save_to_backup()
    assert len(backend.data) == 1


class Account:
    def __init__(self, tenant: str, number: int, note: str = "") -> None:
        self.tenant, self.number, self.note = tenant, number, note


class Sub(Account):
    pass


class Refuses:
    pass


def refuse(it: Refuses) -> Any:
    raise LookupError("no number")


key_module.register(Account, lambda account: (account.tenant, account.number))
key_module.register(Refuses, refuse)


def test_a_registered_function_says_what_stands_for_an_object() -> None:
    assert is_one_key(Account("a", 1), Account("a", 1, "a note"))
    assert is_one_key([Account("a", 1)], [Account("a", 1, "a note")])
    assert not is_one_key(Account("a", 1), Account("b", 1))
    assert not is_one_key(Account("a", 1), ("a", 1))
    assert not is_one_key(Account("a", 1), Sub("a", 1))
    assert is_one_key(Sub("a", 1), Sub("a", 1, "a note"))


def test_an_error_of_a_registered_function_names_the_class() -> None:
    @AsyncLRU()
    async def read(argument: Any) -> None: ...

    with pytest.raises(TypeError, match="Refuses") as raised:
        asyncio.run(read(Refuses()))
    assert isinstance(raised.value.__cause__, LookupError)


@pytest.mark.parametrize(("cls", "function"), [(int, str), (type, str), (Account, None), ("Account", str)])
def test_what_cannot_be_registered_is_refused(cls: Any, function: Any) -> None:
    with pytest.raises(TypeError):
        key_module.register(cls, function)


def test_looking_at_an_argument_runs_no_attribute_code_of_its_class() -> None:
    class Lazy:
        __slots__ = ("made_later",)

        def __getattr__(self, name: str) -> Any:
            raise AssertionError(f"{name} was asked for")

    data, _, _ = native._encode_by_value(Lazy())
    assert data == native._encode_by_value(Lazy())[0]


def test_a_long_argument_is_kept_as_a_digest() -> None:
    """The bug's story: a cache of calls with documents of a megabyte kept all the documents."""
    document = ["word"] * 100_000
    data, _, is_stable = native._encode_by_value(document)
    assert len(data) < 200 and is_stable
    assert not is_one_key(document, [*document[:-1], "wore"])
    text = "x" * 200_000
    assert is_one_key(text, "".join(["x"] * 200_000))
    assert not is_one_key(text, text[:-1] + "y")
