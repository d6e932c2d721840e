"""Pseudo-random numbers that are a pure function of a key and a position.

Whatever is computed first, in however many chunks or threads, row `i` of the tensor with a key is
always the same, on every machine: only integer arithmetic and single roundings are used.
"""

from hashlib import sha256
from math import sqrt
from typing import Any

# Four 16-bit integers of a word.
_LANES = 4
UNIFORM_MEAN = -0.5
UNIFORM_STD = sqrt((2.0**32 - 1) / 12)


def uniform(key: str, start: int, stop: int, num_columns: int) -> Any:
    """Return rows [stop - start, num_columns] of uniform integers in int16.

    Their mean is `UNIFORM_MEAN` and their standard deviation `UNIFORM_STD`.
    """
    num_words = -(-num_columns // _LANES)
    return _words(key, start, stop, num_words)[:, :num_columns]


def normal(key: str, start: int, stop: int, num_columns: int) -> Any:
    """Return rows of nearly normal numbers, mean 0, standard deviation 1.

    Each is the sum of four uniform ones: bounded by 3.47, excess kurtosis -0.3.
    """
    lanes = _words(key, start, stop, num_columns).view(stop - start, _LANES, num_columns).int()
    total = lanes[:, 0] + lanes[:, 1] + lanes[:, 2] + lanes[:, 3]
    return total.float().add_(_LANES / 2).mul_(1 / (UNIFORM_STD * sqrt(_LANES)))


def _words(key: str, start: int, stop: int, num_words: int) -> Any:
    """Return int16 [stop - start, 4 * num_words]; a row takes `num_words` of the stream."""
    import numpy as np
    import torch

    stream = np.random.PCG64(int.from_bytes(sha256(key.encode()).digest()[:16], "big"))
    stream.advance(start * num_words)
    words = stream.random_raw((stop - start) * num_words).view(np.int16)
    return torch.from_numpy(words.reshape(stop - start, _LANES * num_words))
