"""Whether a class says itself which of its objects are equal, and in what form a key has that.

The encoding by value (``docs/values.md``) asks `of` once for each class. Rules:

1. A class has an *equality of its own* if the first class of its MRO with an ``__eq__``, the
   *definer*, is not ``object``, has the ``__hash__`` that counts, too, and has both as plain Python
   functions. What dataclasses and attrs generate is no own equality: their fields say the same.
2. A class that is not the definer nor above it must add no state (annotations, slots, attributes
   that its functions store, data descriptors): the definer cannot know of that. If one does, all
   of the object is its value, as without an ``__eq__``.
3. Nor is a class asked whose objects do more than hold attributes when they are copied, looked at
   or dropped: ``__del__``, ``__getattr__``, ``__getattribute__``, a ``__dict__`` or ``__class__``
   of its own, ``__reduce__`` and its likes, mapped classes of SQLAlchemy, classes of pydantic.
4. The equality is *by fields* if it is proven to be true exactly if the attributes S of both are
   equal: the code of ``__eq__`` does nothing but load attributes and compare them
   (`_is_simple`), every path through it is run (`_fields`), each that ends in truth has found all
   of S equal, and every other one has found something unequal. S are data: no property and no
   other descriptor. Then these attributes are the value, in files, too.
5. If S is the whole ``__dict__``, all of the object is its value.
6. Where anything of rule 4 is in doubt, the class is *asked*: see ``codec/twins.rs``.

Nothing of the class runs here but its ``__eq__``, if it is simple, with attributes of ours.
"""

from __future__ import annotations

import functools
import inspect
import re
import sys
from collections.abc import Iterator
from types import (
    CodeType,
    FunctionType,
    GetSetDescriptorType,
    MappingProxyType,
    MemberDescriptorType,
    WrapperDescriptorType,
)
from typing import Any

# Names of S, or None: the class is asked. Names that objects of a class below the definer may have,
# or None for any.
Found = tuple[tuple[str, ...] | None, tuple[str, ...] | None]

# Rule 3.
_FOREIGN = frozenset(
    {
        *("__del__", "__getattr__", "__getattribute__", "__class__", "_sa_class_manager"),
        *("__reduce__", "__reduce_ex__", "__getnewargs__", "__getnewargs_ex__"),
    }
)
# Libraries whose objects are their fields, with or without an ``__eq__`` of the library's.
_BY_FIELDS = frozenset({"pydantic"})
# What may store attributes under names that are not in the code.
_HIDDEN_STORES = frozenset({"setattr", "__setattr__", "__dict__", "vars"})
_MAX_PATHS = 128
# Classes of these modules have no state, whatever their functions store in classes.
_STATELESS = frozenset({"abc", "collections.abc", "typing", "typing_extensions"})

_SILENT = frozenset(
    {
        *("RESUME", "NOP", "CACHE", "EXTENDED_ARG", "COPY_FREE_VARS", "PRECALL", "PUSH_NULL", "NOT_TAKEN"),
        *(
            "UNARY_NOT",
            "TO_BOOL",
            "BUILD_TUPLE",
            "POP_TOP",
            "COPY",
            "DUP_TOP",
            "RETURN_VALUE",
            "RETURN_CONST",
        ),
        *("JUMP_FORWARD", "POP_JUMP_IF_TRUE", "POP_JUMP_IF_FALSE", "JUMP_IF_TRUE_OR_POP"),
        *("JUMP_IF_FALSE_OR_POP", "POP_JUMP_FORWARD_IF_TRUE", "POP_JUMP_FORWARD_IF_FALSE"),
    }
)
_NONE_JUMPS = frozenset(
    {
        *("POP_JUMP_IF_NONE", "POP_JUMP_IF_NOT_NONE"),
        *("POP_JUMP_FORWARD_IF_NONE", "POP_JUMP_FORWARD_IF_NOT_NONE"),
    }
)
# `is` between variables, constants, classes of objects and results of calls; not of attributes.
_NAMES_OR_CLASSES = re.compile(r"(?:v|vc|vvC)(?:v|vc|vvC)\Z")


def of(cls: type) -> Found | None:
    """How the equality of objects of a class is known. None: it has none of its own."""
    mro = type.__dict__["__mro__"].__get__(cls)
    spaces = [(base, _space(base)) for base in mro if base is not object]
    definer, space = next(((base, space) for base, space in spaces if "__eq__" in space), (None, _space(cls)))
    hashes = next((base for base, space in spaces if "__hash__" in space), None)
    if definer is None or hashes is not definer:
        return None
    if str(space.get("__module__")).partition(".")[0] in _BY_FIELDS:
        return None
    equal, hashed = space["__eq__"], space["__hash__"]
    if type(equal) is not FunctionType or type(hashed) is not FunctionType:
        return None
    if _is_generated(equal, space) or any(_is_foreign(space) for _, space in spaces):
        return None
    above = type.__dict__["__mro__"].__get__(definer)
    known: set[str] = set()
    for base, space in spaces:
        if base in above:
            known.update(_stored(space), _slots(base, space), _cached(space))
    for base, space in spaces:
        if base not in above and _adds_state(base, space, known):
            return None  # Rule 2
    try:
        fields = _fields(cls, equal, spaces)
    except Exception:  # Rule 6
        fields = None
    if fields == _ALL:
        return None  # Rule 5
    if cls is definer:
        return (fields, None)
    for _, space in spaces:
        known.update(_cached(space))
    return (fields, tuple(sorted(known.union(fields or ()))))


def _space(cls: type) -> MappingProxyType[str, Any]:
    space: MappingProxyType[str, Any] = type.__getattribute__(cls, "__dict__")
    return space


def _is_generated(equal: FunctionType, space: MappingProxyType[str, Any]) -> bool:
    file = equal.__code__.co_filename
    if "__dataclass_fields__" in space and file == "<string>":
        return bool(getattr(space.get("__dataclass_params__"), "eq", False))
    return file.startswith("<attrs generated")


def _is_foreign(space: MappingProxyType[str, Any]) -> bool:
    own = space.get("__dict__")
    return not _FOREIGN.isdisjoint(space) or not (own is None or type(own) is GetSetDescriptorType)


def _codes(space: MappingProxyType[str, Any]) -> Iterator[CodeType]:
    """The code of the functions of a class, with that of functions inside of them."""
    waiting: list[Any] = list(space.values())
    while waiting:
        one = waiting.pop()
        if isinstance(one, CodeType):
            yield one
            waiting.extend(const for const in one.co_consts if isinstance(const, CodeType))
        elif isinstance(one, FunctionType):
            waiting.append(one.__code__)
            waiting.append(one.__dict__.get("__wrapped__"))
        elif isinstance(one, (staticmethod, classmethod)):
            waiting.append(one.__func__)
        elif isinstance(one, property):
            waiting.extend((one.fget, one.fset, one.fdel))
        elif isinstance(one, functools.cached_property):
            waiting.append(one.func)


def _stored(space: MappingProxyType[str, Any]) -> set[str]:
    """Names of attributes that the functions of a class store."""
    import dis

    return {
        instruction.argval
        for code in _codes(space)
        for instruction in dis.get_instructions(code)
        if instruction.opname == "STORE_ATTR"
    }


def _slots(cls: type, space: MappingProxyType[str, Any]) -> list[str]:
    return [
        name
        for name, value in space.items()
        if type(value) is MemberDescriptorType and value.__objclass__ is cls
    ]


def _cached(space: MappingProxyType[str, Any]) -> list[str]:
    return [
        name
        for name, value in space.items()
        if any(base.__name__ == "cached_property" for base in type(value).__mro__)
    ]


def _adds_state(cls: type, space: MappingProxyType[str, Any], known: set[str]) -> bool:
    if space.get("__module__") in _STATELESS:
        return False
    if space.get("__annotations__") or space.get("__annotate_func__") or space.get("__annotate__"):
        return True
    if _slots(cls, space) or not _stored(space) <= known:
        return True
    if any(not _HIDDEN_STORES.isdisjoint(code.co_names) for code in _codes(space)):
        return True
    return any(_is_data_descriptor(value) for value in space.values())


def _is_data_descriptor(value: Any) -> bool:
    if isinstance(value, (property, GetSetDescriptorType, WrapperDescriptorType)):
        return False
    return inspect.isdatadescriptor(value) and not isinstance(value, (type, FunctionType))


# Rule 4.

_ALL = ("*",)


class _UnprovenError(Exception):
    pass


def _fields(cls: type, equal: FunctionType, spaces: list[tuple[type, MappingProxyType[str, Any]]]) -> Any:
    loaded = _loaded(equal)
    whole = "__dict__" in loaded
    names = sorted(loaded - {"__class__", "__dict__"})
    slots = set()
    for name in names:
        defined = next((space[name] for _, space in spaces if name in space), None)
        if type(defined) is MemberDescriptorType:
            slots.add(name)
        elif hasattr(type(defined), "__get__") or hasattr(type(defined), "__set__") or name.startswith("__"):
            raise _UnprovenError
    all_slots = {name for base, space in spaces for name in _slots(base, space) if not name.startswith("__")}
    if whole and not all_slots <= slots:
        raise _UnprovenError
    in_dict = sorted(set(names) - slots) + (["any other"] if whole else [])
    paths = _Paths()
    one, other = (_made(cls, paths, side, sorted(slots), in_dict, spaces) for side in (0, 1))
    compared: set[str] = set()
    ends: list[tuple[bool, dict[str, bool]]] = []
    while paths.next():
        answer = equal(one, other)
        if type(answer) is not bool and answer is not NotImplemented:
            raise _UnprovenError
        ends.append((answer is True, dict(paths.answers)))
        compared.update(paths.answers)
    for is_equal, answers in ends:
        if is_equal != (len(answers) == len(compared) and all(answers.values())):
            raise _UnprovenError
    if not any(is_equal for is_equal, _ in ends):
        raise _UnprovenError
    if whole:
        if compared != {*in_dict, *slots}:
            raise _UnprovenError
        return _ALL
    return tuple(sorted(compared))


def _loaded(equal: FunctionType) -> set[str]:
    """Names of the attributes that a simple ``__eq__`` loads; an error if it is not simple."""
    import builtins
    import dis

    code = equal.__code__
    is_of_two = code.co_argcount == 2 and not code.co_kwonlyargcount
    varied = inspect.CO_VARARGS | inspect.CO_VARKEYWORDS | inspect.CO_GENERATOR | inspect.CO_COROUTINE
    if not is_of_two or code.co_flags & varied or _has_handlers(code):
        raise _UnprovenError
    functions: list[str] = []
    calls = 0
    loaded: set[str] = set()
    tokens = ""
    for instruction in dis.get_instructions(equal):
        name, value = instruction.opname, instruction.argval
        has_flag = bool((instruction.arg or 0) & 1)
        if name in _SILENT:
            continue
        if name == "LOAD_FAST_LOAD_FAST" or name.startswith("LOAD_FAST_BORROW_LOAD_FAST"):
            tokens += "vv"
        elif name in ("LOAD_FAST", "LOAD_FAST_BORROW", "LOAD_FAST_CHECK", "LOAD_CONST", "LOAD_DEREF"):
            tokens += "v"
        elif name == "LOAD_GLOBAL":
            tokens += "v"
            if value in ("isinstance", "type", "vars"):
                if value in equal.__globals__:
                    raise _UnprovenError
                functions.append(value)
            elif sys.version_info >= (3, 11) and has_flag:
                raise _UnprovenError
            else:
                given = equal.__globals__.get(value, getattr(builtins, value, None))
                if not (isinstance(given, type) or given is NotImplemented):
                    raise _UnprovenError
        elif name in ("CALL", "CALL_FUNCTION"):
            tokens += "C"
            calls += 1
        elif name == "LOAD_ATTR" and not (sys.version_info >= (3, 12) and has_flag):
            tokens += "c" if value == "__class__" else "d"
            loaded.add(value)
        elif name == "COMPARE_OP" and value in ("==", "!="):
            tokens += "="
        elif name == "IS_OP":
            if not _NAMES_OR_CLASSES.search(tokens):
                raise _UnprovenError
            tokens += "="
        elif name in _NONE_JUMPS:
            if not tokens.endswith("v"):
                raise _UnprovenError
        else:
            raise _UnprovenError
    if calls != len(functions):
        raise _UnprovenError
    return loaded | ({"__dict__"} if "vars" in functions else set())


def _has_handlers(code: CodeType) -> bool:
    # Up to 3.10 they are instructions.
    return sys.version_info >= (3, 11) and bool(code.co_exceptiontable)


class _Paths:
    """The ways through a function that asks for answers, one after the other."""

    def __init__(self) -> None:
        self.answers: dict[str, bool] = {}
        self._script: list[bool] | None = None
        self._given: list[bool] = []
        self._count = 0

    def next(self) -> bool:
        self._count += 1
        if self._count > _MAX_PATHS:
            raise _UnprovenError
        if self._script is None:
            self._script = []
        else:
            # The last answer that was yes is no this time, and those behind it are asked for anew.
            while self._given and not self._given[-1]:
                self._given.pop()
            if not self._given:
                return False
            self._script = [*self._given[:-1], False]
        self.answers, self._given = {}, []
        return True

    def ask(self, name: str) -> bool:
        if name not in self.answers:
            at = len(self._given)
            script = self._script or []
            self._given.append(script[at] if at < len(script) else True)
            self.answers[name] = self._given[-1]
        return self.answers[name]


class _Part:
    """Stands for an attribute: equal to that of the other object if the path says so."""

    __slots__ = ("name", "paths", "side")

    def __init__(self, paths: _Paths, side: int, name: str) -> None:
        self.paths, self.side, self.name = paths, side, name

    def __eq__(self, other: object) -> bool:
        if type(other) is not _Part or other.name != self.name or other.side == self.side:
            raise _UnprovenError
        return self.paths.ask(self.name)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __bool__(self) -> bool:
        raise _UnprovenError

    def __hash__(self) -> int:
        raise _UnprovenError


def _made(
    cls: type,
    paths: _Paths,
    side: int,
    slots: list[str],
    in_dict: list[str],
    spaces: list[tuple[type, MappingProxyType[str, Any]]],
) -> Any:
    """An object of a class with parts of ours as attributes."""
    made: Any = object.__new__(cls)
    for name in slots:
        slot = next(space[name] for _, space in spaces if name in space)
        slot.__set__(made, _Part(paths, side, name))
    for name in in_dict:
        object.__getattribute__(made, "__dict__")[name] = _Part(paths, side, name)
    return made
