"""An axis map as arrays: which rows are neighbours in the source, and how columns are spread."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any

from hfgrow.plan.axes import FRESH, AxisMap

# More pieces than this are gathered with an index, fewer are copied as slices.
MAX_SLICES = 64
# Which columns, and the numbers there.
Copies = tuple[Any, Any]


@dataclass(frozen=True, slots=True)
class Piece:
    """Output rows that are neighbours in the source too.

    Attributes:
        start: The first.
        length: How many.
        source: The row in the source that the first one comes from.
    """

    start: int
    length: int
    source: int

    @property
    def source_stop(self) -> int:
        """The row in the source after the last."""
        return self.source + self.length


@dataclass(frozen=True, slots=True)
class Band:
    """The columns that are k-th copies: see `TensorAxis.copies`.

    Attributes:
        columns: The columns, a slice or an index.
        sources: Their sources.
        first: The first copies of these.
        is_repeat: Whether their factors are those of the first copies, which come before.
        draws: Which numbers are drawn for them; none for first copies.
        backward: What their sources are multiplied with.
        forward: Their `f_k`.
        own: What their own number is multiplied with.
        passed: What that is multiplied with for the copies before.
    """

    columns: Any
    sources: Any
    first: Any
    is_repeat: bool
    draws: slice
    backward: Any
    forward: Any
    own: Any
    passed: Any


class TensorAxis:
    """An axis map as arrays of numpy.

    Args:
        axis_map: The map.

    Attributes:
        map: The map.
        is_identity: Whether it changes nothing.
        fresh: Which positions have no source [size].
        index: The source of each position, 0 where there is none [size].
        forward: What values are multiplied with, in float64 [size].
        backward: What gradients, and the columns that read the values, are multiplied with [size].
    """

    def __init__(self, axis_map: AxisMap) -> None:
        import numpy as np

        self.map = axis_map  # kept alive: the evaluator knows it by its id
        self.is_identity = axis_map.is_identity
        sources = np.array(axis_map.sources, dtype=np.int64)
        self.fresh = sources == FRESH
        self.index = sources.clip(min=0)
        lengths = np.array([span.length for span in axis_map.spans], dtype=np.int64)
        self.forward, self.backward = (
            np.repeat(np.array(factors, dtype=np.float64), lengths)
            for factors in (
                [span.forward for span in axis_map.spans],
                [span.backward for span in axis_map.spans],
            )
        )
        self._ends = list(accumulate(span.length for span in axis_map.spans))

    def pieces(self, start: int, stop: int) -> list[Piece]:
        """Return the runs of neighbouring sources in rows `start` to `stop`."""
        from bisect import bisect_right

        found = []
        at = bisect_right(self._ends, start)
        while at < len(self._ends):
            span, end = self.map.spans[at], self._ends[at]
            begin = end - span.length
            if begin >= stop:
                break
            first, last = max(begin, start), min(end, stop)
            if span.start != FRESH:
                found.append(Piece(first, last - first, span.start + first - begin))
            at += 1
        merged = found[:1]
        for piece in found[1:]:
            before = merged[-1]
            if (before.start + before.length, before.source_stop) == (piece.start, piece.source):
                merged[-1] = Piece(before.start, before.length + piece.length, before.source)
            else:
                merged.append(piece)
        return merged

    @cached_property
    def num_draws(self) -> int:
        """How many numbers the noise of a row is made of: one for each copy but the first."""
        return self.bands[-1].draws.stop if self.map.has_copies else 0

    @cached_property
    def bands(self) -> list[Band]:
        """First copies, second copies, ..."""
        import numpy as np

        kept = (~self.fresh).nonzero()[0]
        order = kept[self.index[kept].argsort(kind="stable")]
        found = self.index[order]
        rank = np.arange(len(order)) - np.searchsorted(found, found)
        energy = np.zeros(self.map.base)
        first = np.zeros(self.map.base, dtype=np.int64)
        bands: list[Band] = []
        at = 0
        for k in range(int(rank.max(initial=-1)) + 1):
            columns, sources = order[rank == k], found[rank == k]
            forward, before = self.forward[columns], energy[sources]
            energy[sources] += np.square(forward)
            backward = self.backward[columns]
            own = np.sqrt(before / energy[sources]) * np.abs(backward)
            size = len(columns) if k else 0
            if k == 0:
                first[sources] = columns
            bands.append(
                Band(
                    _as_slice(columns),
                    _as_slice(sources),
                    _as_slice(first[sources]),
                    k > 0 and bool((backward == self.backward[first[sources]]).all()),
                    slice(at, at + size),
                    _or_number(backward),
                    _or_number(forward),
                    _or_number(np.nan_to_num(own)),
                    _or_number(np.nan_to_num(forward / before, posinf=0.0, neginf=0.0)),
                )
            )
            at += size
        return bands

    def copy(self, numbers: Any, band: Band) -> Any:
        """Return the columns `backward[i] * numbers[:, index[i]]` of k-th copies, a new array."""
        sources = band.sources
        found = numbers[:, sources] if isinstance(sources, slice) else numbers.take(sources, axis=1)
        return _times(found, band.backward)

    def copies(self, numbers: Any, drawn: Any = None, amplitudes: Any = None) -> Iterator[Copies]:
        """Yield the columns `backward[i] * numbers[:, index[i]]`, k-th copies together.

        What is drawn makes noise that the inputs of the copies of a source, `f_0 x, f_1 x, ...`,
        cancel: `N = sum over k > 0 of z_k h_k`, where the orthonormal `h_k` are zero behind copy k
        and orthogonal to `f`: `h_k ~ (f_0, ..., f_{k-1}, -(f_0^2 + ... + f_{k-1}^2) / f_k)`. So all
        that cancels is equally likely. For two equal copies this is HyperCloning's `[W/2 + eta,
        W/2 - eta]` (Samragh et al. 2024, https://arxiv.org/abs/2409.12903, Sec. 3).

        Args:
            numbers: What is copied [rows, base].
            drawn: `z` before scaling [rows, num_draws]; it is changed. None adds no noise.
            amplitudes: The standard deviation of each row [rows, 1], at a `backward` of 1.

        Yields:
            The columns, as a slice or an index, and new numbers for them.
        """
        import numpy as np

        total = None
        for band in reversed(self.bands):
            copy = self.copy(numbers, band)
            if total is not None:
                copy += _scaled(total[:, band.sources], band.forward)
            if drawn is not None and band.draws.start != band.draws.stop:
                noise = drawn[:, band.draws]
                if isinstance(band.own, float):
                    noise *= amplitudes * band.own
                else:
                    noise *= amplitudes
                    noise *= band.own.astype(noise.dtype)
                copy -= noise
                noise = _scaled(noise, band.passed)
                if (
                    total is None
                    and isinstance(band.sources, slice)
                    and noise.shape == numbers.shape
                ):
                    total = noise
                else:
                    if total is None:
                        total = np.zeros_like(numbers)
                    total[:, band.sources] += noise
            yield band.columns, copy


def _times(numbers: Any, factors: Any) -> Any:
    return numbers * (factors if isinstance(factors, float) else factors.astype(numbers.dtype))


def _or_number(factors: Any) -> Any:
    first = float(factors[0])
    return first if bool((factors == first).all()) else factors


def _scaled(numbers: Any, factors: Any) -> Any:
    return numbers if isinstance(factors, float) and factors == 1 else _times(numbers, factors)


def _as_slice(index: Any) -> Any:
    first = int(index[0])
    contiguous = int(index[-1]) - first == len(index) - 1 and bool((index[1:] > index[:-1]).all())
    return slice(first, first + len(index)) if contiguous else index
