"""The same random programs on this package and on async-cache 2.0.3: the same answers and metrics.

The programs leave out intended differences: cancellation, changes during a load, a key twice in one
batch, several loads of a failing key in a herd, `maxsize=0` (unlimited in the original) and `in`
(which promotes in the original; used here only where nothing is evicted). A write of an existing
key counts as a use of the key, but not in the original: where an entry can be evicted, the programs
delete first.

`ASYNC_CACHE_SEED` replays a run, `ASYNC_CACHE_ROUNDS` sets the number of programs,
`ASYNC_CACHE_ORIGINAL` is the folder in which the original is installed (`pip install --target`).
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import cache as package

HERE = Path(__file__).parent
OURS = Path(package.__file__).parent.parent
DEFAULT_ORIGINAL = HERE.parent.parent / ".venv-original"

KEYS: list[Any] = ["a", "bb", "ccc", "dddd", "fails", "", 1, 1.0, True, 2, 0, False, 2.5, None]
ARGUMENTS: list[Any] = [
    *(
        "a",
        "fails",
        "",
        1,
        2.5,
        None,
        [1, 2],
        [2, 1],
        [[1], 2],
        {"a": 1},
        {"a": [1], "b": 2},
        {"b": 2, "a": [1]},
    ),
]
OPTIONS: list[dict[str, Any]] = [
    {},
    {},
    {},
    {"x": 1},
    {"x": 1, "y": [2]},
    {"y": [2], "x": 1},
    {"x": {"z": 1}},
]


def original() -> Path:
    """The folder in which the original is installed."""
    folder = Path(os.environ.get("ASYNC_CACHE_ORIGINAL", DEFAULT_ORIGINAL))
    if not (folder / "cache" / "lru.py").exists():
        pytest.fail(
            f"async-cache 2.0.3 is not in {folder}: pip install --no-deps --target {folder} async-cache==2.0.3, "
            "or name its folder in ASYNC_CACHE_ORIGINAL"
        )
    return folder


def make_program(chance: random.Random) -> dict[str, Any]:
    """A random program."""
    maxsize = chance.choice([None, 1, 2, 3, 5, 8, 100])
    unlimited = maxsize is None or maxsize >= 100
    some = chance.sample(KEYS, chance.randint(2, len(KEYS)))

    def key() -> Any:
        return chance.choice(some)

    def call() -> list[Any]:
        count = chance.choice([0, 1, 1, 1, 2])
        return [chance.choice(["lru", "ttl"]), [chance.choice(ARGUMENTS) for _ in range(count)]]

    def call_options() -> dict[str, Any]:
        options = dict(chance.choice(OPTIONS))
        if chance.random() < 0.15:
            options["use_cache"] = chance.choice([True, False]) if unlimited else True
        return options

    def distinct() -> list[Any]:
        keys: list[Any] = []
        for one in chance.sample(some, chance.randint(1, min(5, len(some)))):
            if one not in keys:
                keys.append(one)
        return keys

    makers: list[tuple[int, Any]] = [
        (
            20,
            lambda: [
                "get",
                key(),
                chance.choice(["value", "value", "none", "fails"]),
                chance.choice([None, None, 1000]),
            ],
        ),
        (4, lambda: ["herd", key(), "value", chance.randint(2, 5)]),
        (8, lambda: ["batch", distinct()]),
        (
            10,
            lambda: [
                "set" if unlimited else "set_anew",
                key(),
                chance.choice(["v", 1, None, [1], False]),
                chance.choice(["default", None, 1000]),
            ],
        ),
        (5, lambda: ["delete", key()]),
        (1, lambda: ["clear"]),
        (5, lambda: ["metrics"]),
        (6 if unlimited else 0, lambda: ["in", key()]),
        (4, lambda: ["len"]),
        (3 if unlimited else 0, lambda: ["warmup", distinct()]),
        (20, lambda: ["call", *call(), call_options()]),
        (3, lambda: ["calls", chance.choice(["lru", "ttl"]), ["a"], chance.randint(2, 4)]),
        (6, lambda: ["invalidate", *call(), dict(chance.choice(OPTIONS))]),
        (1, lambda: ["clear_cache", chance.choice(["lru", "ttl"])]),
        (4, lambda: ["function_metrics", chance.choice(["lru", "ttl"])]),
    ]
    weights = [weight for weight, _ in makers]
    chosen = chance.choices([make for _, make in makers], weights, k=chance.randint(5, 120))
    return {
        "maxsize": maxsize,
        "max_batch_size": chance.choice([1, 2, 3, 100]),
        "operations": [make() for make in chosen],
    }


def answers(folder: Path, programs: list[dict[str, Any]]) -> list[list[Any]]:
    """The answers of the package in a folder."""
    finished = subprocess.run(
        [sys.executable, "-W", "ignore", str(HERE / "worker.py")],
        input="".join(json.dumps(program) + "\n" for program in programs),
        env={**os.environ, "PYTHONPATH": str(folder)},
        stdout=subprocess.PIPE,
        text=True,
        timeout=500,
        check=True,
    )
    return [json.loads(line) for line in finished.stdout.splitlines()]


@pytest.mark.timeout(600)
@pytest.mark.skipif(
    sys.version_info < (3, 11),
    reason="there the original's `delete` of a key that is in the cache raises KeyError: OrderedDict.pop takes the "
    "entry out before it calls the overridden __getitem__",
)
def test_the_original_gives_the_same_answers_to_random_programs() -> None:
    seed = int(os.environ.get("ASYNC_CACHE_SEED", random.SystemRandom().randrange(2**32)))
    rounds = int(os.environ.get("ASYNC_CACHE_ROUNDS", 300))
    print(f"ASYNC_CACHE_SEED={seed} ASYNC_CACHE_ROUNDS={rounds}")
    chance = random.Random(seed)
    programs = [make_program(chance) for _ in range(rounds)]
    theirs, ours = answers(original(), programs), answers(OURS, programs)
    assert len(theirs) == len(ours) == rounds
    for number, (program, expected, got) in enumerate(zip(programs, theirs, ours, strict=True)):
        for step, (operation, one, other) in enumerate(
            zip(program["operations"], expected, got, strict=True)
        ):
            assert other == one, (
                f"ASYNC_CACHE_SEED={seed}, program {number} (maxsize={program['maxsize']}), step {step}: "
                f"{operation}; before it: {program['operations'][:step]}"
            )


def test_the_workers_run_what_they_are_meant_to() -> None:
    program = "import cache; print(cache.__file__, hasattr(cache, 'DiskBackend'))"
    for folder, is_ours in ((original(), False), (OURS, True)):
        shown = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONPATH": str(folder)},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        ).stdout.split()
        assert Path(shown[0]).is_relative_to(folder)
        assert shown[1] == str(is_ours)
