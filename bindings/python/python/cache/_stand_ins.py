"""Representations in keys of objects of well-known libraries, and of classes registered by users.

The encoding by value (``docs/values.md``) calls `of` once for each class. The answer is how objects
of the class are known:

- by a *value* that a function makes of the object: either `registered` by `cache.key.register`, or
  a function of ours, for containers of data whose attributes are not their value;
- as *itself*, by identity: connections, clients, locks and similar objects, whose attributes change
  during use;
- as itself and *of one call*: requests and similar objects, made anew for each call. A call with an
  argument of this kind is not cached.

Libraries are known by the names of their packages and classes, and are never imported. An entry for
a base class applies to classes that inherit from it, but our own functions apply to the library's
own classes only, because subclasses may hold more data.
"""

from __future__ import annotations

import contextlib
import inspect
import logging
import sys
import warnings
from collections.abc import Callable
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

from . import _native
from .errors import CacheWarning

Function = Callable[[Any], Any]

# Types known by value or name, even if a function is registered.
BUILT_IN: tuple[type, ...] = (
    *(
        object,
        str,
        int,
        float,
        bool,
        bytes,
        type(None),
        list,
        tuple,
        dict,
        set,
        frozenset,
        bytearray,
        complex,
    ),
    *(FunctionType, BuiltinFunctionType, ModuleType),
)

_registered: dict[type, Function] = {}

_ITSELF = {
    "aiohttp": ("ClientSession", "BaseConnector"),
    "anthropic": ("BaseClient",),
    "asyncio": ("AbstractEventLoop", "Lock", "Event", "Condition", "Semaphore", "Barrier", "Queue"),
    "asyncpg": ("Connection", "Pool"),
    "boto3": ("ServiceResource", "Session"),
    "botocore": ("BaseClient",),
    "concurrent": ("Executor", "Future"),
    "elasticsearch": ("BaseClient",),
    "grpc": ("Channel",),
    "httpx": ("BaseClient",),
    "loguru": ("Logger",),
    "multiprocessing": ("BaseProcess", "Pool", "BaseManager"),
    "openai": ("BaseClient",),
    "psycopg": ("BaseConnection",),
    "psycopg_pool": ("BasePool",),
    "pymongo": ("MongoClient", "AsyncMongoClient"),
    "queue": ("Queue",),
    "redis": ("Redis", "RedisCluster", "ConnectionPool", "AbstractConnection"),
    "requests": ("Session",),
    "selectors": ("BaseSelector",),
    "sqlalchemy": (
        *(
            "AsyncConnection",
            "AsyncEngine",
            "AsyncSession",
            "ClauseElement",
            "Connection",
            "Engine",
            "Mapper",
            "MetaData",
        ),
        *(
            "Pool",
            "Result",
            "Session",
            "async_scoped_session",
            "async_sessionmaker",
            "registry",
            "scoped_session",
        ),
        "sessionmaker",
    ),
    "subprocess": ("Popen",),
    "threading": ("Thread", "Condition", "Event", "Semaphore", "Barrier"),
    "unittest": ("NonCallableMock",),
    "urllib3": ("PoolManager", "HTTPConnectionPool"),
}

_OF_ONE_CALL = {
    "aiohttp": ("BaseRequest", "StreamResponse"),
    "django": ("HttpRequest", "HttpResponseBase"),
    "litestar": ("ASGIConnection", "Response"),
    "sanic": ("Request", "BaseHTTPResponse"),
    "starlette": ("HTTPConnection", "BackgroundTask", "BackgroundTasks", "Response", "UploadFile"),
    "tornado": ("HTTPServerRequest", "RequestHandler"),
    "werkzeug": ("Request", "Response"),
}


def of(cls: type) -> tuple[str, Function | None] | None:
    """How objects of a class are known; None: by their whole content."""
    for base in cls.__mro__:
        if (function := _registered.get(base)) is not None:
            return ("registered", function)
    own_package, _ = _name(cls)
    for base in cls.__mro__:
        package, name = _name(base)
        if name in _OF_ONE_CALL.get(package, ()):
            return ("of one call", None)
        if name in _ITSELF.get(package, ()):
            return ("itself", None)
        is_ours = package == own_package or package in ("logging", "werkzeug")
        if is_ours and (function := _VALUES.get((package, name))) is not None:
            return ("value", function)
    return None


def register(cls: type, function: Function) -> None:
    """Registers the function that represents objects of a class and of its subclasses."""
    _registered[cls] = function
    _native._forget_classes()


_warned: set[tuple[str, str]] = set()


def warn_of_one_call(function: Any, cls: type, args: tuple[Any, ...], named: dict[str, Any]) -> None:
    """Warns, once for each function and class, of a call that is not cached because of an
    argument.
    """
    label = f"{getattr(function, '__module__', '?')}.{getattr(function, '__qualname__', type(function).__qualname__)}"
    kind = f"{cls.__module__}.{cls.__qualname__}"
    if (label, kind) in _warned:
        return
    _warned.add((label, kind))
    name = _argument(function, cls, args, named)
    where = f"in the argument {name!r}" if name else "inside of an argument"
    leave_out = f"exclude={{{name!r}}}" if name else "exclude="
    message = (
        f"{label} is called with a {kind} {where}. There is a new one for each call, so the calls are not cached. If the "
        f"result is the same for everybody, leave it out of the key with {leave_out}; if it depends on it, pass what it "
        "depends on, such as the user's id, as an argument of its own"
    )
    code = getattr(inspect.unwrap(function), "__code__", None)
    # Warn at the function: the call itself comes from the event loop.
    file, line = (
        (code.co_filename, code.co_firstlineno) if code else (getattr(function, "__module__", "?"), 1)
    )
    warnings.warn_explicit(CacheWarning(message), CacheWarning, file, line)


def _argument(function: Any, cls: type, args: tuple[Any, ...], named: dict[str, Any]) -> str | None:
    """The name under which an object of a class was passed."""
    for name, value in named.items():
        if type(value) is cls:
            return name
    with contextlib.suppress(TypeError, ValueError):
        for name, value in inspect.signature(function).bind_partial(*args).arguments.items():
            if type(value) is cls:
                return name
    return None


def _name(cls: type) -> tuple[str, str]:
    module = cls.__dict__.get("__module__")
    return (module.partition(".")[0] if isinstance(module, str) else "", cls.__name__)


# Our own functions. If a function raises, the object is not of the expected form; it is then known
# by identity.


def _logger(logger: logging.Logger) -> str:
    # A logger that was not made by `getLogger` may differ in any attribute from a logger with the
    # same name.
    if logger is not logging.root and logging.Logger.manager.loggerDict.get(logger.name) is not logger:
        raise TypeError("a logger of its own")
    return logger.name


def _proxied(proxy: Any) -> Any:
    # The proxy stands for one object now, and for another object in another request.
    return type(proxy)._get_current_object.__get__(proxy)()


def _row_state(state: Any) -> Any:
    # Class and primary key of a row; None for a row that is not yet in a database.
    return state.key


def _frame(frame: Any) -> Any:
    columns = [frame._ixs(position, axis=1).array for position in range(frame.shape[1])]
    return (frame.index, frame.columns, [_array(column) for column in columns], frame.attrs, _flags(frame))


def _series(series: Any) -> Any:
    return (series.name, series.index, _array(series.array), series.attrs, _flags(series))


def _flags(data: Any) -> bool:
    return bool(data.flags.allows_duplicate_labels)


def _index(index: Any) -> Any:
    if index.nlevels > 1:
        return (list(index.names), [index.get_level_values(level) for level in range(index.nlevels)])
    # A range is represented by its three numbers.
    if type(index).__name__ == "RangeIndex":
        return (index.name, index.start, index.stop, index.step)
    return (index.name, _array(index.array), getattr(index, "freqstr", None))


def _array(array: Any) -> Any:
    """A column of pandas: its type and its content."""
    numpy = sys.modules["numpy"]
    dtype = array.dtype
    kind = type(array).__name__
    if kind in ("NumpyExtensionArray", "PandasArray"):
        return (kind, str(dtype), array.to_numpy())
    if kind == "Categorical":
        return (kind, array.codes, array.categories, bool(array.ordered))
    if kind in ("DatetimeArray", "TimedeltaArray", "PeriodArray"):
        return (kind, str(dtype), array.asi8)
    if kind == "IntervalArray":
        return (kind, str(dtype), array.left, array.right)
    missing = numpy.asarray(array.isna())
    present = array[~missing]
    return (kind, str(dtype), missing, list(present.astype(object)))


def _categorical(array: Any) -> Any:
    return _array(array)


def _image(image: Any) -> Any:
    palette = image.getpalette() if image.mode in ("P", "PA") else None
    return (image.mode, image.size, palette, image.tobytes(), dict(image.info))


def _version(version: Any) -> Any:
    # The part used by its comparison: 1.0 is equal to 1.0.0.
    return version._key


def _yarl_url(url: Any) -> Any:
    # The parts used by its comparison. As text, `http://a:80` is `http://a`, but the URLs are not
    # equal.
    return (url.scheme, url.raw_authority, url.raw_path, url.raw_query_string, url.raw_fragment)


def _polars_frame(frame: Any) -> Any:
    return [_polars_series(series) for series in frame.get_columns()]


def _polars_series(series: Any) -> Any:
    # The type as text, because classes of types are made anew; then the bytes of one chunk.
    return (series.name, repr(series.dtype), series.rechunk().__getstate__())


_VALUES: dict[tuple[str, str], Function] = {
    ("PIL", "Image"): _image,
    # Their comparison is that of their texts, and their attributes are cached results.
    ("httpx", "URL"): str,
    ("httpx2", "URL"): str,
    ("logging", "Logger"): _logger,
    ("packaging", "Version"): _version,
    ("pandas", "DataFrame"): _frame,
    ("pandas", "ExtensionArray"): _array,
    ("pandas", "Index"): _index,
    ("pandas", "Series"): _series,
    ("polars", "DataFrame"): _polars_frame,
    ("polars", "Series"): _polars_series,
    ("sqlalchemy", "InstanceState"): _row_state,
    ("starlette", "URL"): str,
    ("werkzeug", "LocalProxy"): _proxied,
    ("yarl", "URL"): _yarl_url,
}
