"""BLAKE3 with a key, from its paper, for the independent reader: slow, short, and without other
libraries.
"""

from __future__ import annotations

_IV = (
    0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19,
)  # fmt: skip
_PERMUTATION = (2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8)
_CHUNK_START, _CHUNK_END, _PARENT, _ROOT, _KEYED, _CONTEXT, _MATERIAL = (1 << bit for bit in range(7))
_MASK = 0xFFFFFFFF
_BLOCK, _CHUNK = 64, 1024

Words = tuple[int, ...]


def plain_hash(data: bytes) -> bytes:
    """The 32 bytes of the hash."""
    return _hash(_IV, data, 0)


def keyed_hash(key: bytes, data: bytes) -> bytes:
    """The 32 bytes of the hash under a key of 32 bytes."""
    return _hash(_words(key), data, _KEYED)


def derive_key(context: str, material: bytes) -> bytes:
    """A key of 32 bytes for the named context, derived from secret material."""
    return _hash(_words(_hash(_IV, context.encode(), _CONTEXT)), material, _MATERIAL)


def _words(data: bytes) -> Words:
    return tuple(int.from_bytes(data[at : at + 4], "little") for at in range(0, len(data), 4))


def _compress(chaining: Words, block: Words, counter: int, length: int, flags: int) -> list[int]:
    state = [*chaining, *_IV[:4], counter & _MASK, counter >> 32, length, flags]

    def mix(a: int, b: int, c: int, d: int, x: int, y: int) -> None:
        for word, first, second in ((x, 16, 12), (y, 8, 7)):
            state[a] = state[a] + state[b] + word & _MASK
            turned = state[d] ^ state[a]
            state[d] = (turned >> first | turned << 32 - first) & _MASK
            state[c] = state[c] + state[d] & _MASK
            turned = state[b] ^ state[c]
            state[b] = (turned >> second | turned << 32 - second) & _MASK

    for _ in range(7):
        for column in range(4):
            mix(column, 4 + column, 8 + column, 12 + column, block[2 * column], block[2 * column + 1])
        for column in range(4):
            b, c, d = 4 + (column + 1) % 4, 8 + (column + 2) % 4, 12 + (column + 3) % 4
            mix(column, b, c, d, block[8 + 2 * column], block[9 + 2 * column])
        block = tuple(block[place] for place in _PERMUTATION)
    return [*(state[i] ^ state[i + 8] for i in range(8)), *(state[i + 8] ^ chaining[i] for i in range(8))]


def _chunk(key: Words, data: bytes, counter: int, flags: int) -> Words:
    """The chaining value of a chunk; with the flag for the root, the first half of the hash."""
    chaining, starts = key, range(0, max(len(data), 1), _BLOCK)
    for at in starts:
        block = data[at : at + _BLOCK]
        own = flags & ~_ROOT | (_CHUNK_START if at == 0 else 0)
        if at == starts[-1]:
            own |= _CHUNK_END | flags & _ROOT
        padded = _words(block + bytes(_BLOCK - len(block)))
        chaining = tuple(_compress(chaining, padded, counter, len(block), own)[:8])
    return chaining


def _tree(key: Words, data: bytes, first_chunk: int, flags: int) -> Words:
    chunks = -(-len(data) // _CHUNK) or 1
    if chunks == 1:
        return _chunk(key, data, first_chunk, flags)
    left = 1 << (chunks - 1).bit_length() - 1  # the largest power of two that leaves a remainder
    below = flags & ~_ROOT
    block = _tree(key, data[: left * _CHUNK], first_chunk, below)
    block += _tree(key, data[left * _CHUNK :], first_chunk + left, below)
    return tuple(_compress(key, block, 0, _BLOCK, flags | _PARENT)[:8])


def _hash(key: Words, data: bytes, flags: int) -> bytes:
    return b"".join(word.to_bytes(4, "little") for word in _tree(key, data, 0, flags | _ROOT))
