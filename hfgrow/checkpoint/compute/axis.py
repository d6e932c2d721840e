"""An axis map as tensors: which rows are neighbours in the source, and how columns are spread."""

from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any

from hfgrow.plan.axes import FRESH, AxisMap

# More pieces than this are gathered with an index, fewer are copied as slices.
MAX_SLICES = 64


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
class _Band:
    """The columns that are k-th copies, and the noise there: see `TensorAxis.add_cancelling`.

    Attributes:
        columns: The columns.
        sources: Their sources.
        draws: Which numbers are drawn for them; none for first copies.
        forward: Their `f_k`.
        own: What their own number is multiplied with.
        passed: What that is multiplied with for the copies before.
    """

    columns: Any
    sources: Any
    draws: slice
    forward: Any
    own: Any
    passed: Any


class TensorAxis:
    """An axis map as tensors.

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
        import torch

        self.map = axis_map  # kept alive: the evaluator knows it by its id
        self.is_identity = axis_map.is_identity
        sources = torch.tensor(axis_map.sources, dtype=torch.long)
        self.fresh = sources == FRESH
        self.index = sources.clamp(min=0)
        lengths = torch.tensor([span.length for span in axis_map.spans], dtype=torch.long)
        self.forward, self.backward = (
            torch.tensor(factors, dtype=torch.float64).repeat_interleave(lengths)
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

    def spread(self, numbers: Any) -> Any:
        """Return columns `backward[i] * numbers[:, index[i]]`."""
        import torch

        spans = self.map.spans
        if len(spans) > MAX_SLICES:
            return numbers.index_select(1, self.index).mul_(self.backward.to(numbers.dtype))
        out = torch.empty((numbers.shape[0], self.map.size), dtype=numbers.dtype)
        at = 0
        for span in spans:
            into = out[:, at : at + span.length]
            if span.start == FRESH:
                into.zero_()
            else:
                torch.mul(
                    numbers[:, span.start : span.start + span.length], span.backward, out=into
                )
            at += span.length
        return out

    @cached_property
    def num_draws(self) -> int:
        """How many numbers the noise of a row is made of: one for each copy but the first."""
        return self._bands[-1].draws.stop if self.map.has_copies else 0

    @cached_property
    def _bands(self) -> list[_Band]:
        """First copies, second copies, ..."""
        import torch

        kept = (~self.fresh).nonzero().flatten()
        order = kept[torch.argsort(self.index[kept], stable=True)]
        found = self.index[order]
        rank = torch.arange(len(order)) - torch.searchsorted(found, found)
        energy = torch.zeros(self.map.base, dtype=torch.float64)
        bands: list[_Band] = []
        at = 0
        for k in range(int(rank.max()) + 1):
            columns, sources = order[rank == k], found[rank == k]
            forward, before = self.forward[columns], energy[sources]
            energy[sources] += forward.square()
            own = (before / energy[sources]).sqrt() * self.backward[columns].abs()
            size = len(columns) if k else 0
            bands.append(
                _Band(
                    _as_slice(columns),
                    _as_slice(sources),
                    slice(at, at + size),
                    _or_number(forward),
                    _or_number(own.nan_to_num(0.0)),
                    _or_number((forward / before).nan_to_num(0.0, posinf=0.0, neginf=0.0)),
                )
            )
            at += size
        return bands

    def add_cancelling(self, numbers: Any, drawn: Any, amplitudes: Any) -> None:
        """Add noise that the inputs of the copies of a source, `f_0 x, f_1 x, ...`, cancel.

        `N = sum over k > 0 of z_k h_k`, where the orthonormal `h_k` are zero behind copy k and
        orthogonal to `f`: `h_k ~ (f_0, ..., f_{k-1}, -(f_0^2 + ... + f_{k-1}^2) / f_k)`. So all
        that cancels is equally likely. For two equal copies this is HyperCloning's `[W/2 + eta,
        W/2 - eta]` (Samragh et al. 2024, https://arxiv.org/abs/2409.12903, Sec. 3).

        Args:
            numbers: What it is added to [rows, columns].
            drawn: `z` before scaling [rows, num_draws]; it is changed.
            amplitudes: The standard deviation of each row [rows, 1], at a `backward` of 1.
        """
        import torch

        total = None
        for band in reversed(self._bands):
            if total is not None:
                numbers[:, band.columns] += _scaled(total[:, band.sources], band.forward)
            if band.draws.start == band.draws.stop:
                continue
            noise = drawn[:, band.draws]
            if isinstance(band.own, float):
                noise *= amplitudes * band.own
            else:
                noise *= amplitudes
                noise *= band.own.to(noise.dtype)
            numbers[:, band.columns] -= noise
            noise = _scaled(noise, band.passed)
            if total is None and band.sources == slice(0, self.map.base):
                total = noise
                continue
            if total is None:
                total = torch.zeros((len(drawn), self.map.base), dtype=drawn.dtype)
            total[:, band.sources] += noise


def _or_number(factors: Any) -> Any:
    first = float(factors[0])
    return first if bool((factors == first).all()) else factors


def _scaled(numbers: Any, factors: Any) -> Any:
    if isinstance(factors, float):
        return numbers if factors == 1 else numbers * factors
    return numbers * factors.to(numbers.dtype)


def _as_slice(index: Any) -> Any:
    first = int(index[0])
    contiguous = int(index[-1]) - first == len(index) - 1 and bool((index.diff() == 1).all())
    return slice(first, first + len(index)) if contiguous else index
