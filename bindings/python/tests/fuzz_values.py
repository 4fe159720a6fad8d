"""Fuzzes the decoder of values and keys in the Python package: ``python tests/fuzz_values.py
SECONDS``.

The decoder needs an interpreter, so libFuzzer does not drive it: the inputs are plain seeded
mutations of the examples in ``docs/values.md``. For any bytes, a decoder returns an object or
raises a ``ValueError``; a decoded object can be encoded again and decodes to the same object.
Pickles are refused, as for all untrusted bytes.
"""

from __future__ import annotations

import os
import random
import sys
import time
from pathlib import Path
from typing import Any

from cache import _native

native: Any = _native
SEEDS = Path(__file__).parents[3] / "fuzz" / "seeds" / "json"
# Markers, lengths and kinds that reach further code.
BYTES = bytes([0x00, 0x01, 0x7F, 0x80, 0x90, 0xA0, 0xC0, 0xC4, *range(0xC7, 0xE0), 0xFF, *range(1, 23)])
ROUNDS_BETWEEN_CLOCKS = 2000


def mutate(rng: random.Random, data: bytes, others: list[bytes]) -> bytes:
    """A few changes: bytes, cuts, repetitions, another example inside, a container around it."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(changed) + 1)
        match rng.randrange(7):
            case 0 if at < len(changed):
                changed[at] = rng.choice(BYTES)
            case 1 if at < len(changed):
                changed[at] ^= 1 << rng.randrange(8)
            case 2:
                del changed[at : at + rng.randint(1, 4)]
            case 3:
                changed[at:at] = rng.choice(others)
            case 4:
                changed[at:at] = changed[at : at + rng.randint(1, 16)] * rng.randint(1, 8)
            case 5:
                changed[:] = bytes([0x91]) * rng.randint(1, 300) + changed
            case _:
                body = bytes(changed[:255])
                changed[:] = bytes([0xC7, len(body), rng.randint(1, 23)]) + body
    return bytes(changed[:4096])


def check(data: bytes) -> bool:
    """Passes the bytes to both decoders; returns whether one of them accepted the bytes."""
    taken = False
    try:
        value = native._decode_value(data, pickle=False)
        taken = True
        again = native._encode_value(value, pickle=False)
        # Only the same length: a set built in another order may be encoded in another order.
        assert len(native._encode_value(native._decode_value(again, pickle=False), pickle=False)) == len(
            again
        )
    except (ValueError, TypeError):
        pass  # not a value; or only a pickle keeps the value (a long tuple that occurs twice)
    try:
        key = native._decode_key(data)
        taken = True
        again = native._encode_key(key)
        assert again is None or native._encode_key(native._decode_key(again)) == again
    except (ValueError, TypeError):
        pass  # not a key; or the decoded object cannot be hashed
    return taken


def main() -> int:
    seconds = float(sys.argv[1])
    seed = int(os.environ.get("ASYNC_CACHE_SEED", random.SystemRandom().randrange(2**32)))
    print(f"--- python values, {seconds:g} s --- run again with ASYNC_CACHE_SEED={seed}")
    rng = random.Random(seed)
    pool = [path.read_bytes() for path in sorted(SEEDS.iterdir())]
    seeds = list(pool)
    runs = taken = 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for _ in range(ROUNDS_BETWEEN_CLOCKS):
            data = mutate(rng, rng.choice(pool), seeds)
            runs += 1
            try:
                is_taken = check(data)
            except BaseException:
                print(f"a finding: bytes.fromhex({data.hex()!r})", file=sys.stderr)
                raise
            if is_taken:
                taken += 1
                # Valid new bytes are a base for further mutations; the pool stays small.
                if len(pool) < 5000:
                    pool.append(data)
                else:
                    pool[rng.randrange(len(seeds), len(pool))] = data
    print(f"{runs} runs, {taken} of them decoded")
    return 0


if __name__ == "__main__":
    sys.exit(main())
