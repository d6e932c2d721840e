"""Random changes of good bytes, for where no coverage guides the fuzzing."""

import random

TOKENS = [b"{", b"}", b"[", b"]", b'"', b":", b",", b"null", b"true", b"-1", b"1e999", b"NaN"]
TOKENS += [
    b"0",
    b"99999999999999999999",
    b"\\ud800",
    b"\x00",
    b"\xff",
    b"../",
    b"[" * 2000,
    b"{" * 9,
]


def mutated(seed: bytes, other: bytes, chance: random.Random) -> bytes:
    """Return a changed copy: bytes flipped, tokens put in, parts cut, doubled or exchanged."""
    data = bytearray(seed)
    for _ in range(chance.randint(1, 6)):
        at = chance.randint(0, len(data))
        end = min(len(data), at + chance.choice((1, 1, 2, 4, 16, 100)))
        kind = chance.randint(0, 5)
        if kind == 0 and at < len(data):
            data[at] ^= 1 << chance.randint(0, 7)
        elif kind == 1:
            data[at:at] = chance.choice(TOKENS)
        elif kind == 2:
            data[at:end] = b""
        elif kind == 3:
            data[at:at] = data[at:end]
        elif kind == 4:
            start = chance.randint(0, len(other))
            data[at:end] = other[start : start + chance.randint(0, 60)]
        else:
            data[at:end] = chance.choice(TOKENS)
    return bytes(data)
