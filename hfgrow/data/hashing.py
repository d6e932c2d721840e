"""Random-looking numbers by integer arithmetic: the same on every machine, for ever.

Source: Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators", Fig. 14
(the finaliser of SplitMix64).
"""

import hashlib

import numpy as np
import numpy.typing as npt

MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_ONE = 0xBF58476D1CE4E5B9
_TWO = 0x94D049BB133111EB


def mix(number: int) -> int:
    """Return a permutation of the 64-bit numbers in which neighbours lie far apart."""
    number = (number + _GOLDEN) & MASK
    number = (number ^ number >> 30) * _ONE & MASK
    number = (number ^ number >> 27) * _TWO & MASK
    return number ^ number >> 31


def mixed(numbers: npt.NDArray[np.uint64], seed: int) -> npt.NDArray[np.uint64]:
    """Return `mix` of every number after adding the key of a seed."""
    result = numbers + np.uint64(key("hold out", seed)) + np.uint64(_GOLDEN)
    result = (result ^ result >> np.uint64(30)) * np.uint64(_ONE)
    result = (result ^ result >> np.uint64(27)) * np.uint64(_TWO)
    return result ^ result >> np.uint64(31)


def key(*parts: int | str) -> int:
    """Return 64 bits that stand for a purpose and some numbers."""
    text = "\0".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")
