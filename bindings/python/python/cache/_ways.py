"""The ways to write one call, so that an invalidation reaches all of them.

``read(1)``, ``read(number=1)``, ``read(1, False)`` and ``read(1, verbose=False)`` are one call of
``read(number, verbose=False)``, but four keys. A key is made of the call as written, which costs a
hit nothing; instead an invalidation does the work, and removes the entries of all ways.

Rules:

1. The ways of a call: the first k arguments by position, for every k, and the others by name. An
   argument equal to its default (the same object, or the same key) may be written or left out. If
   there are more positional arguments than parameters (``*args``), only one way remains for the
   arguments before them.
2. Arguments that are not part of the key may be given or left out, each independently, by position
   and by name. If a call can be read in several ways, all readings are meant: invalidating too much
   is a miss, too little an old value.
3. A call that no parameter list accepts is a `TypeError`, as it is when the function is called.
4. All results of the function are removed if there are more than `MOST` ways, if more than
   `MOST_LEFT_OUT` arguments may be given or left out, if the signature is not known, or if another
   decorator's signature differs from the function's. `None` stands for this case.
"""

from __future__ import annotations

import contextlib
import inspect
import operator
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from ._excluded import skipped_names
from ._function import inner_function
from .key import _to_hashable

MOST = 1024

# Limit for positional arguments that may be given or left out: each doubles the readings of a call.
MOST_LEFT_OUT = 6

_PLAIN = (str, int, float, bool, bytes, type(None))

# Positional arguments and the names of the last ones: the form in which the native module takes a
# call.
WrittenCall = tuple[tuple[Any, ...], tuple[str, ...]]
GivenCall = tuple[tuple[Any, ...], dict[str, Any]]


class _Bound(NamedTuple):
    """The value that a call gives for each parameter, and the arguments beyond the parameters."""

    values: dict[str, Any]
    more: tuple[Any, ...]
    named_more: dict[str, Any]


class Parameters:
    """The parameters of a function, and whether each is part of the key."""

    def __init__(
        self, signature: inspect.Signature, name: str, exclude: frozenset[str], skip: int, typed: bool
    ) -> None:
        parameters = signature.parameters.values()
        kinds = inspect.Parameter
        self._name = name
        self._typed = typed
        self._only = [p.name for p in parameters if p.kind is kinds.POSITIONAL_ONLY]
        self.positional = self._only + [p.name for p in parameters if p.kind is kinds.POSITIONAL_OR_KEYWORD]
        # How many of the arguments beyond the parameters (``*args``) are left out.
        self._skipped_more = max(0, skip - len(self.positional))
        self._left_out = exclude.union(self.positional[:skip])
        by_name = [p.name for p in parameters if p.kind is kinds.KEYWORD_ONLY]
        self._by_name_only = by_name
        self.by_name = frozenset(self.positional[len(self._only) :] + by_name)
        self.takes_more = any(p.kind is kinds.VAR_POSITIONAL for p in parameters)
        self.takes_any_name = any(p.kind is kinds.VAR_KEYWORD for p in parameters)
        self._defaults = {p.name: p.default for p in parameters if p.default is not kinds.empty}
        every = [*self.positional, *by_name]
        self.required = [p for p in every if p not in self._defaults and p not in self._left_out]

    def ways(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[WrittenCall]:
        """All ways to write a call, without arguments outside the key. `TypeError` if the call is
        not valid.
        """
        error = None
        found = False
        for reading in self._readings():  # Rule 2
            try:
                bound = self._bind(*reading, args, kwargs)
            except TypeError as refused:
                error = error or refused
                continue
            found = True
            yield from self._ways(bound)
        try:
            if not found and error is not None:
                raise error  # Rule 3
        finally:
            error = None  # its traceback holds this frame, which would keep the arguments alive

    def count(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
        """An upper bound for the number of `ways` of a valid call."""
        count = 0
        for reading in self._readings():
            try:
                bound = self._bind(*reading, args, kwargs)
            except TypeError:
                continue
            count += sum(2 ** len(open_) for _, _, open_ in self._prefixes(bound))
        return count

    def keys_its_object(self) -> bool:
        """Whether the first parameter is an object or class that is part of the key."""
        first = self.positional[:1]
        return first in (["self"], ["cls"]) and first[0] not in self._left_out

    def nameable(self, count: int) -> list[str]:
        """The parameters among the first `count` that may also be given by name."""
        return self.positional[len(self._only) : count]

    def has_too_many_readings(self) -> bool:
        """Whether a call has too many arguments that may be given or left out."""
        left_out = sum(name in self._left_out for name in self.positional)
        return left_out + self._skipped_more > MOST_LEFT_OUT

    def is_part_of_the_key(self, name: str) -> bool:
        """Whether an argument is part of the key."""
        return name not in self._left_out

    def given(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any], list[str | None]] | None:
        """The arguments of a call, defaults included: by position, by name, and the names of the
        positional arguments.

        `None` if the call is not valid.
        """
        try:
            bound = self._bind(self.positional, 0, args, kwargs)
        except TypeError:
            return None
        given = {**self._defaults, **bound.values}
        values = (*(given[name] for name in self.positional), *bound.more)
        return values, {**given, **bound.named_more}, [*self.positional, *([None] * len(bound.more))]

    def accepts(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Whether the arguments are a valid call."""
        for reading in self._readings():
            try:
                self._bind(*reading, args, kwargs)
            except TypeError:
                continue
            return True
        return False

    def _readings(self) -> list[tuple[list[str], int]]:
        """The parameters that positional arguments may stand for: with and without each left-out
        parameter.

        Beside each list: how many arguments beyond the parameters are given but are not part of the
        key.
        """
        left_out = [name for name in self.positional if name in self._left_out]
        lists = []
        for chosen in range(2 ** len(left_out)):
            omitted = {name for at, name in enumerate(left_out) if chosen >> at & 1}
            lists.append([name for name in self.positional if name not in omitted])
        return [(names, count) for names in lists for count in range(self._skipped_more, -1, -1)]

    def _bind(
        self, positional: list[str], skipped_more: int, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> _Bound:
        values = dict(zip(positional, args, strict=False))
        more = args[len(positional) :]
        if len(more) < skipped_more:
            raise TypeError(f"{self._name}() has fewer arguments than skip_args leaves out")
        if more and not self.takes_more:
            raise TypeError(
                f"{self._name}() takes {len(positional)} positional arguments, and {len(args)} were given"
            )
        named_more = {}
        for name, value in kwargs.items():
            if name in self.by_name:
                if name in values:
                    raise TypeError(f"{self._name}() got two values for the argument {name!r}")
                values[name] = value
            elif self.takes_any_name:
                named_more[name] = value
            elif name not in self._left_out:
                raise TypeError(f"{self._name}() has no parameter {name!r}")
        missing = [name for name in self.required if name not in values]
        if missing:
            raise TypeError(f"{self._name}() lacks the argument {', '.join(map(repr, missing))}")
        return _Bound(values, more[skipped_more:], named_more)

    def _prefixes(self, bound: _Bound) -> Iterator[tuple[int, list[str], list[str]]]:
        """For each number of positional arguments: the names written then, and the names that may
        be written.
        """
        written: list[str] = []
        open_: list[str] = []
        for name in self._by_name_only:
            if name not in self._left_out:
                (open_ if self._is_default(name, bound.values) else written).append(name)
        yield len(self.positional), written[:], open_[:]
        if bound.more:
            return
        for count in range(len(self.positional) - 1, -1, -1):
            name = self.positional[count]
            if name not in self._left_out:
                is_default = self._is_default(name, bound.values)
                if count >= len(self._only):
                    (open_ if is_default else written).append(name)
                elif not is_default:
                    return  # the argument can be given by position only
            yield count, written[:], open_[:]

    def _ways(self, bound: _Bound) -> Iterator[WrittenCall]:
        """Rule 1."""
        given = {**self._defaults, **bound.values}
        more_names = tuple(bound.named_more)
        more_values = tuple(bound.named_more.values())
        for count, written, open_ in self._prefixes(bound):
            leading = [given[name] for name in self.positional[:count] if name not in self._left_out]
            leading += bound.more
            for chosen in range(2 ** len(open_)):
                names = written + [name for at, name in enumerate(open_) if chosen >> at & 1]
                values = (*leading, *(given[name] for name in names), *more_values)
                yield values, (*names, *more_names)

    def _is_default(self, name: str, values: dict[str, Any]) -> bool:
        if name not in self._defaults:
            return False
        if name not in values:
            return True
        value, default = values[name], self._defaults[name]
        if value is default:
            return True
        if self._typed and type(value) is not type(default):
            return False
        if type(value) in _PLAIN and type(default) in _PLAIN and value == value:
            is_text = isinstance(value, str | bytes) or isinstance(default, str | bytes)
            return bool((not is_text or type(value) is type(default)) and value == default)
        try:
            return bool(_to_hashable(value) == _to_hashable(default))
        except (TypeError, ValueError):
            return False  # without a key of its own, the value is not the default's key


class Ways:
    """The ways to write calls of one function."""

    def __init__(self, function: Callable[..., Any], exclude: Iterable[str], skip: int, typed: bool) -> None:
        self._function = function
        self._exclude = frozenset(exclude)
        self._skip = skip
        self._typed = typed
        self._parameters: Parameters | None = None
        # The defaults at the last inspection of the signature; None before the first inspection.
        self._defaults: list[Any] | None = None

    @property
    def parameters(self) -> Parameters | None:
        """The parameters; `None` if the signature is not known.

        Determined at the first use, and again after the function's defaults were replaced.
        """
        defaults = _defaults_of(self._function)
        if self._defaults is None or not _are_same(defaults, self._defaults):
            known = self._look(follow_wrapped=True)
            skipped = skipped_names(self._function, self._skip)
            is_same = known is None or known.nameable(self._skip) == skipped
            if known is not None and (not is_same or known.has_too_many_readings()):
                known = None  # Rule 4: a wrapper's own parameters are left out, or too many
            self._parameters = known
            self._defaults = defaults
        return self._parameters

    def all_ways(self, readings: list[GivenCall]) -> list[WrittenCall] | None:
        """All ways to write a call given in one of several readings, each way once.

        `None`: too many ways, or not knowable. `TypeError` if no reading is a valid call.
        """
        parameters = self.parameters
        if parameters is None:
            return None  # Rule 4
        calls = [reading for reading in readings if parameters.accepts(*reading)]
        if not calls:
            own = self._look(follow_wrapped=False)
            if own is not None and any(own.accepts(*reading) for reading in readings):
                return None  # Rule 4: a wrapper of the function takes other arguments
            calls = readings[:1]  # raises the call's error below
        if sum(parameters.count(*call) for call in calls) > MOST:
            return None  # Rule 4
        found = {}
        for call in calls:
            for args, names in parameters.ways(*call):
                found[tuple(map(id, args)), names] = (args, names)
        return list(found.values())

    def _look(self, follow_wrapped: bool) -> Parameters | None:
        try:
            signature = inspect.signature(self._function, follow_wrapped=follow_wrapped)
        except (TypeError, ValueError):
            return None
        name = getattr(self._function, "__qualname__", None) or repr(self._function)
        return Parameters(signature, name, self._exclude, self._skip, self._typed)


def _defaults_of(function: Any) -> list[Any]:
    """The default objects of a function, and the names of the keyword-only parameters they belong
    to.
    """
    with contextlib.suppress(ValueError):  # the wrappers form a circle
        function = inspect.unwrap(function)
    function = inner_function(function)
    by_name = getattr(function, "__kwdefaults__", None) or {}
    return [*(getattr(function, "__defaults__", None) or ()), *by_name, *by_name.values()]


def _are_same(some: list[Any], others: list[Any]) -> bool:
    return len(some) == len(others) and all(map(operator.is_, some, others))
