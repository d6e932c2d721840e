"""A sample of a text's passages by hash: tells whether one text stands in another, in any order.

The hash of every window of 32 tokens is taken; those below a bound are kept, so that two texts keep
the same windows wherever they stand. The bound is halved whenever too many are kept, so that the
sample stays small for any text.

Source: Schleimer, Wilkerson and Aiken 2003, "Winnowing: local algorithms for document
fingerprinting", Sec. 3 (the selection by a property of the hash itself).
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]
WINDOW_TOKENS = 32
_FIRST_SHIFT = 4
_MOST_KEPT = 1 << 22
_ODD = 0x9E3779B97F4A7C15
_MIX = 0xBF58476D1CE4E5B9


@dataclass(frozen=True)
class Sketch:
    """The hashes kept of a text, sorted: all those below 2**(64 - shift)."""

    hashes: Hashes
    shift: int

    def share_in(self, other: "Sketch") -> float:
        """Return which part of the passages of this text stand in another, from 0 to 1."""
        shift = max(self.shift, other.shift)
        bound = np.uint64(1 << (64 - shift))
        mine, theirs = (sketch.hashes[sketch.hashes < bound] for sketch in (self, other))
        if not len(mine):
            return 0.0
        return float(np.isin(mine, theirs, assume_unique=True).mean())


class Sketcher:
    """Takes the tokens of a text in order, in parts of any length."""

    def __init__(self) -> None:
        self._shift = _FIRST_SHIFT
        self._kept: list[Hashes] = []
        self._num_kept = 0
        self._last: Hashes = np.zeros(0, np.uint64)

    def update(self, tokens: npt.NDArray[np.uint32]) -> None:
        """Take the next tokens."""
        joined = np.concatenate((self._last, tokens.astype(np.uint64)))
        self._last = joined[max(0, len(joined) - WINDOW_TOKENS + 1) :]
        if len(joined) < WINDOW_TOKENS:
            return
        hashes = _window_hashes(joined)
        found = hashes[hashes < np.uint64(1 << (64 - self._shift))]
        self._kept.append(found)
        self._num_kept += len(found)
        if self._num_kept > 2 * _MOST_KEPT:
            self._shrink()

    def finish(self) -> Sketch:
        """Return the sample."""
        self._shrink()
        return Sketch(self._kept[0], self._shift)

    def _shrink(self) -> None:
        kept = np.unique(np.concatenate((np.zeros(0, np.uint64), *self._kept)))
        while len(kept) > _MOST_KEPT:
            self._shift += 1
            kept = kept[kept < np.uint64(1 << (64 - self._shift))]
        self._kept, self._num_kept = [kept], len(kept)


def _window_hashes(tokens: Hashes) -> Hashes:
    """Return the polynomial hash modulo 2**64 of every window, made by doubling its width."""
    hashes = (tokens + np.uint64(1)) * np.uint64(_ODD)
    hashes ^= hashes >> np.uint64(29)
    power, width = _MIX, 1
    while width < WINDOW_TOKENS:
        hashes = hashes[:-width] * np.uint64(power) + hashes[width:]
        power, width = power * power % (1 << 64), width * 2
    hashes ^= hashes >> np.uint64(32)
    hashes *= np.uint64(_ODD)
    hashes ^= hashes >> np.uint64(29)
    return hashes
