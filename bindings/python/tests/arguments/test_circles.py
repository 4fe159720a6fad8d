"""Arguments that lead back to themselves, are shared, deep or big.

The bug's story: arguments were encoded recursively on the machine's stack, each part every time it
was reached. So an object that led back to itself (a node that references its parent, a service with
one of its own bound methods, an engine and its pool), or was nested 65 levels deep, was a
``ValueError`` from every call, and so were some shared lists.

The model here is naive: two values are equal if no path of references distinguishes them.
(`is_same` follows the paths of both at once, and treats two objects as equal while it is already
comparing them.)
"""

from __future__ import annotations

import configparser
import copy
import itertools
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from loops import Run

from cache import AsyncLRU, DiskBackend
from cache import _native as native
from cache.key import KEY


class Node:
    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...

        def __setattr__(self, name: str, value: Any) -> None: ...

    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)


def by_value(argument: Any) -> tuple[Any, ...]:
    data, named, is_stable = native._encode_by_value(argument)
    return data, tuple(map(id, named)), is_stable


# A model of equality.


def is_same(a: Any, b: Any) -> bool:
    """Whether no path of references distinguishes two values. Sets: in some order."""
    assumed: set[tuple[int, int]] = set()
    kept: list[Any] = []

    def same(a: Any, b: Any) -> bool:
        sequence = (list, tuple)
        if isinstance(a, sequence) != isinstance(b, sequence) or (
            not isinstance(a, sequence) and type(a) is not type(b)
        ):
            return False
        if not isinstance(a, (*sequence, dict, set, Node)):
            return bool(a == b)
        if (id(a), id(b)) in assumed:
            return True
        assumed.add((id(a), id(b)))
        kept.append((a, b))
        if isinstance(a, sequence):
            return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
        if isinstance(a, Node):
            return same_dicts(vars(a), vars(b))
        if isinstance(a, set):
            return any_order(list(a), list(b))
        return same_dicts(a, b)

    def same_dicts(a: dict[Any, Any], b: dict[Any, Any]) -> bool:
        return a.keys() == b.keys() and all(same(value, b[key]) for key, value in a.items())

    def any_order(a: list[Any], b: list[Any]) -> bool:
        # Assumptions made with one order do not hold for the next order.
        if len(a) != len(b):
            return False
        before = set(assumed)
        for order in itertools.permutations(b):
            if all(same(x, y) for x, y in zip(a, order, strict=True)):
                return True
            assumed.clear()
            assumed.update(before)
        return False

    return same(a, b)


class Graphs:
    """Random values whose parts refer to each other in any way."""

    def __init__(self, seed: int, size: int) -> None:
        self.random = random.Random(seed)
        self.size = size

    def make(self) -> list[Any]:
        random = self.random
        kinds = [random.choice("lldnns") for _ in range(self.size)]
        made: list[Any] = [{"l": list, "d": dict, "n": Node, "s": set}[kind]() for kind in kinds]
        hashable = [each for each in made if isinstance(each, Node)]
        for each in made:
            for number in range(random.randrange(1, 4)):
                part = random.choice(made) if random.random() < 0.8 else random.randrange(2)
                if isinstance(each, list):
                    each.append(part)
                elif isinstance(each, dict):
                    each[number] = part
                elif isinstance(each, set):
                    each.add(random.choice(hashable) if hashable else number)
                else:
                    setattr(each, "abc"[number], part)
        return made


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 2**32), st.integers(1, 7))
def test_values_with_references_in_any_way_are_one_key_if_and_only_if_they_are_equal(
    seed: int, size: int
) -> None:
    made = Graphs(seed, size).make()
    keys = [by_value(each) for each in made]
    for a, b in itertools.combinations(range(len(made)), 2):
        if keys[a] == keys[b]:
            assert is_same(made[a], made[b])
        elif is_same(made[a], made[b]):
            # Two ways to write one endless value may give two keys, if a circle leads to a similar
            # circle.
            assert leads_back(made[a]) or leads_back(made[b])
    for each, again in zip(made, copy.deepcopy(made), strict=True):
        assert by_value(again) == by_value(each)
    for each, again in zip(made, reordered(made), strict=True):
        assert by_value(again) == by_value(each)


def leads_back(value: Any) -> bool:
    """Whether a circle can be reached from a value."""
    done: set[int] = set()
    above: set[int] = set()

    def go(value: Any) -> bool:
        if id(value) in above:
            return True
        if id(value) in done or not isinstance(value, (list, dict, set, Node)):
            return False
        done.add(id(value))
        above.add(id(value))
        parts = vars(value) if isinstance(value, Node) else value
        found = any(go(part) for part in (parts.values() if isinstance(parts, dict) else parts))
        above.discard(id(value))
        return found

    return go(value)


def reordered(made: list[Any]) -> list[Any]:
    """A copy whose dicts, attributes and sets were filled in another order."""
    copies = copy.deepcopy(made)
    for each in copies:
        if isinstance(each, set):
            items = sorted(each, key=lambda _: random.random())
            each.clear()
            each.update(items)
        elif isinstance(each, (dict, Node)):
            namespace = each if isinstance(each, dict) else vars(each)
            pairs = list(namespace.items())[::-1]
            namespace.clear()
            namespace.update(pairs)
    return copies


@settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 2**32))
def test_a_big_circle_with_one_difference_somewhere_is_another_key(seed: int) -> None:
    graphs = Graphs(seed, 25)
    made = graphs.make()
    nodes = [index for index, each in enumerate(made) if isinstance(each, Node)]
    if not nodes:
        return
    changed = copy.deepcopy(made)
    index = graphs.random.choice(nodes)
    changed[index].d = "another"
    for each, other in zip(made, changed, strict=True):
        if reaches(each, made[index]):
            assert by_value(each) != by_value(other)
        else:
            assert by_value(each) == by_value(other)


def reaches(value: Any, wanted: Any) -> bool:
    done, waiting = set(), [value]
    while waiting:
        one = waiting.pop()
        if one is wanted:
            return True
        if id(one) not in done and isinstance(one, (list, dict, set, Node)):
            done.add(id(one))
            parts = vars(one) if isinstance(one, Node) else one
            waiting.extend(parts.values() if isinstance(parts, dict) else parts)
    return False


# Sharing.


def test_what_is_shared_equals_what_is_not() -> None:
    one = [1, [2]]
    assert by_value([one, one]) == by_value([one, copy.deepcopy(one)])
    parent = Node()
    child = Node(parent=parent)
    parent.children = [child, child]
    other = Node()
    other.children = [Node(parent=other), Node(parent=other)]
    assert by_value(parent) == by_value(other)
    other.children = [Node(parent=other), Node(parent=other, name="x")]
    assert by_value(parent) != by_value(other)


def test_an_endless_list_is_one_key_however_it_is_put_together() -> None:
    one: list[Any] = []
    one.append(one)
    two: list[Any] = [[]]
    two[0].append(two)
    three: list[Any] = []
    three.append([[three]])
    assert by_value(one) == by_value(two) == by_value(three)
    assert by_value([one]) == by_value([[one]]) == by_value(one)
    assert by_value(one) != by_value([one, one])


def test_lists_that_are_shared_over_and_over_are_looked_at_once() -> None:
    """Each level doubles the amount to encode: 60 levels would never finish."""

    def doubled(leaf: Any) -> Any:
        shared = [leaf]
        for _ in range(60):
            shared = [shared, shared]
        return shared

    started = time.process_time()
    keys = [by_value(doubled(leaf)) for leaf in (1, 1.0, 2)]
    keys += [(KEY((doubled(leaf),), {}),) for leaf in (1, 1.0, 2)]
    assert time.process_time() - started < 5
    assert keys[0] == keys[1] != keys[2]
    assert keys[3] == keys[4] != keys[5]
    # The same value, whether it is shared or not.
    flat: Any = [[0] * 2**4 for _ in range(2**12)]
    row = [0] * 2**4
    assert by_value([flat] * 5) == by_value([[row] * 2**12] * 5)


# Depth and size.


def chain(length: int, last: int, link: Callable[[Any, Any], Any]) -> Any:
    value: Any = last
    for _ in range(length):
        value = link(value, None)
    return value


@pytest.mark.parametrize(
    ("length", "link"),
    [
        (100_000, lambda x, _: [x]),
        (10_000, lambda x, _: (x,)),
        (10_000, lambda x, _: {1: x}),
        (10_000, lambda x, _: Node(x=x)),
    ],
)
def test_arguments_nest_as_deep_as_memory_goes(length: int, link: Callable[[Any, Any], Any]) -> None:
    one, two, other = (chain(length, last, link) for last in (1, 1, 2))
    try:
        assert by_value(one) == by_value(two) != by_value(other)
        assert KEY((one,), {}) == KEY((two,), {}) != KEY((other,), {})
    finally:
        # Level by level: on some versions the interpreter frees nested objects recursively.
        for value in (one, two, other):
            take_apart(value)


def take_apart(value: Any) -> None:
    while not isinstance(value, int):
        below = (
            vars(value)["x"] if isinstance(value, Node) else value[1] if isinstance(value, dict) else value[0]
        )
        if not isinstance(value, tuple):
            (vars(value) if isinstance(value, Node) else value).clear()
        value = below


@pytest.mark.parametrize("depth", [63, 64, 65, 66, 130])
def test_there_is_no_depth_at_which_values_are_mixed_up(depth: int) -> None:
    keys = {
        by_value(chain(length, last, lambda x, _: [x]))
        for length in range(depth, depth + 3)
        for last in (1, 2)
    }
    assert len(keys) == 6


def linked(count: int, last: int) -> Node:
    first = before = Node(value=0, before=None)
    for number in range(1, count):
        node = Node(value=last if number == count - 1 else 0, before=before)
        before.after = node
        before = node
    return first


def test_a_long_list_that_is_linked_both_ways_is_a_matter_of_a_moment() -> None:
    """All links except the last look alike: finding that they are equal must not compare all
    pairs.
    """
    started = time.process_time()
    one, two, longer, other = linked(3000, 1), linked(3000, 1), linked(3001, 1), linked(3000, 2)
    assert by_value(one) == by_value(two)
    assert len({by_value(each) for each in (one, longer, other)}) == 3
    assert time.process_time() - started < 20
    for each in (one, two, longer, other):
        link: Any = each
        while link is not None:
            after = vars(link).get("after")
            vars(link).clear()
            link = after


def test_objects_that_all_know_each_other_are_a_matter_of_a_moment() -> None:
    """The number of paths through the objects grows as fast as the factorial of their number."""

    def crowd(size: int) -> list[Node]:
        nodes = [Node(number=number) for number in range(size)]
        for node in nodes:
            node.others = set(nodes)
        return nodes

    started = time.process_time()
    one, two = crowd(30), crowd(30)
    assert by_value(one[0]) == by_value(two[0])
    assert len({by_value(node) for node in one}) == 30
    two[15].number = -1
    assert by_value(one[0]) != by_value(two[0])
    assert time.process_time() - started < 20


# What people have.


class Tree:
    def __init__(self, name: str, parent: Tree | None = None) -> None:
        self.name, self.parent, self.children = name, parent, list[Tree]()
        if parent is not None:
            parent.children.append(self)


class Service:
    def __init__(self, name: str) -> None:
        self.name = name
        self.on_change = self.changed

    def changed(self) -> None: ...


def parser(value: str) -> configparser.ConfigParser:
    made = configparser.ConfigParser()
    made.read_string(f"[a]\nx = {value}\n[b]\ny = 2\n")
    return made


def engine(name: str) -> Node:
    made = Node(name=name, pool=Node())
    made.pool.engine = made
    return made


def tree(name: str) -> Tree:
    root = Tree("root")
    Tree("a", root)
    return Tree(name, Tree("b", root))


@pytest.mark.parametrize("make", [tree, Service, parser, engine], ids=lambda make: make.__name__)
def test_objects_that_lead_back_to_themselves_are_arguments_like_others(
    run: Run, make: Callable[[str], Any], path: Path
) -> None:
    backend = DiskBackend(path)
    loads = 0

    def decorated() -> Any:
        @AsyncLRU(backup=backend)
        async def read(argument: Any) -> int:
            nonlocal loads
            loads += 1
            return loads

        return read

    read = decorated()

    async def main(read: Any) -> list[int]:
        return [await read(make("x")), await read(make("x")), await read(make("y")), await read(make("x"))]

    assert run(main(read)) == [1, 1, 2, 1]
    changed = make("x")
    assert run(read(changed)) == 1
    changed.name = "z"
    assert run(read(changed)) == 3
    read.save_to_backup()
    assert run(main(decorated())) == [1, 1, 2, 1]


SCRIPT = """
from cache import _native
class Node: pass
def node(**a):
    made = Node(); made.__dict__.update(a); return made
root = node(tags={"a", "b", "c"})
root.others = {node(name=name, root=root) for name in "abcdef"}
deep = {"x"}
for _ in range(100): deep = [deep, {"k": root}]
data, _, is_stable = _native._encode_by_value(deep)
assert is_stable
print(data.hex())
"""


def test_circles_have_the_same_bytes_in_every_process() -> None:
    outputs = set()
    for seed in ("0", "1", "31337"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, "-c", SCRIPT]
        run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60)
        outputs.add(run.stdout)
    assert len(outputs) == 1
