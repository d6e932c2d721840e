"""An axis map as arrays: which rows are neighbours in the source, and how columns are spread."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from hfgrow.plan.axes import FRESH, AxisMap

# More pieces than this are gathered with an index, fewer are copied as slices.
MAX_SLICES = 64
# Puts numbers into part of an array: the part, the numbers, which may be lost.
Put = Callable[[Any, Any], None]


@dataclass(frozen=True, slots=True)
class Pieces:
    """Runs of output rows that are neighbours in the source too.

    Attributes:
        starts: The first row of each.
        stops: The row after its last.
        sources: The row in the source that the first one comes from.
    """

    starts: Any
    stops: Any
    sources: Any

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def num_rows(self) -> int:
        """How many output rows they have."""
        return int((self.stops - self.starts).sum())

    @property
    def source_start(self) -> int:
        """The first row in the source that is wanted."""
        return int(self.sources.min())

    @property
    def source_stop(self) -> int:
        """The row in the source after the last that is wanted."""
        return int((self.sources + self.stops - self.starts).max())


@dataclass(frozen=True, slots=True)
class _Band:
    """The columns that are k-th copies: see `TensorAxis.spread`.

    Attributes:
        columns: The columns, a slice or an index.
        sources: Their sources, a slice or an index.
        places: The place of each source of the base among these, or behind them.
        first: The first copies of the sources.
        is_repeat: Whether their factors are those of the first copies, which come before.
        draws: Which numbers are drawn for them; none for first copies.
        backward: What their sources are multiplied with.
        forward: Their `f_k`.
        own: What their own number is multiplied with.
        passed: What that is multiplied with for the copies before.
    """

    columns: Any
    sources: Any
    places: Any
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

    def pieces(self, start: int, stop: int) -> Pieces:
        """Return the runs of neighbouring sources in rows `start` to `stop`."""
        import numpy as np

        sources, is_kept = self.index[start:stop], ~self.fresh[start:stop]
        goes_on = is_kept[1:] & is_kept[:-1] & (sources[1:] == sources[:-1] + 1)
        first = is_kept & np.concatenate(([True], ~goes_on))
        last = is_kept & np.concatenate((~goes_on, [True]))
        starts = first.nonzero()[0]
        return Pieces(start + starts, start + last.nonzero()[0] + 1, sources[starts])

    @cached_property
    def fresh_columns(self) -> Any:
        """Which positions have no source, a slice or an index."""
        return _as_slice(self.fresh.nonzero()[0])

    @cached_property
    def num_draws(self) -> int:
        """How many numbers the noise of a row is made of: one for each copy but the first."""
        return self._bands[-1].draws.stop if self.map.has_copies else 0

    @cached_property
    def _bands(self) -> list[_Band]:
        """First copies, second copies, ..."""
        import numpy as np

        kept = (~self.fresh).nonzero()[0]
        order = kept[self.index[kept].argsort(kind="stable")]
        found = self.index[order]
        rank = np.arange(len(order)) - np.searchsorted(found, found)
        energy = np.zeros(self.map.base)
        first = np.zeros(self.map.base, dtype=np.int64)
        bands: list[_Band] = []
        at = 0
        for k in range(int(rank.max(initial=-1)) + 1):
            columns, sources = order[rank == k], found[rank == k]
            forward, before = self.forward[columns], energy[sources]
            energy[sources] += np.square(forward)
            backward = self.backward[columns]
            own = np.sqrt(before / energy[sources]) * np.abs(backward)
            size = len(columns) if k else 0
            places = np.full(self.map.base, len(sources))
            places[sources] = np.arange(len(sources))
            if k == 0:
                first[sources] = columns
            bands.append(
                _Band(
                    _as_slice(columns),
                    _as_slice(sources),
                    places,
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

    def spread(
        self, out: Any, numbers: Any, put: Put, drawn: Any = None, amplitudes: Any = None
    ) -> None:
        """Put columns `backward[i] * numbers[:, index[i]]`, k-th copies together; fresh ones are 0.

        What is drawn makes noise that the inputs of the copies of a source, `f_0 x, f_1 x, ...`,
        cancel: `N = sum over k > 0 of z_k h_k`, where the orthonormal `h_k` are zero behind copy k
        and orthogonal to `f`: `h_k ~ (f_0, ..., f_{k-1}, -(f_0^2 + ... + f_{k-1}^2) / f_k)`. So all
        that cancels is equally likely. For two equal copies this is HyperCloning's `[W/2 + eta,
        W/2 - eta]` (Samragh et al. 2024, https://arxiv.org/abs/2409.12903, Sec. 3).

        Args:
            out: Where to [rows, size].
            numbers: What is copied [rows, base].
            put: Puts the numbers of some columns, rounding them if it is to.
            drawn: `z` before scaling [rows, num_draws]; it is changed. None adds no noise.
            amplitudes: The standard deviation of each row [rows, 1], at a `backward` of 1.
        """
        import numpy as np

        order, parts = self._layouts[drawn is not None]
        into = out
        if order is not None:
            into = np.empty((len(out), parts[-1].stop), out.dtype)
        elif self.map.has_fresh:
            out[:, parts[-1]] = 0
        if drawn is None:
            for band, part in zip(self._bands, parts, strict=False):
                if not band.is_repeat:
                    put(into[:, part], _times(_columns(numbers, band.sources), band.backward))
                elif order is None:
                    out[:, part] = out[:, band.first]
        else:
            noisy = self._noisy(numbers, drawn, amplitudes)
            for copy, part in zip(noisy, reversed(parts[: len(self._bands)]), strict=True):
                put(into[:, part], copy)
        if order is not None:
            into[:, parts[-1]] = 0
            # What is out of range could not be; so nothing looks for it.
            into.take(order, axis=1, out=out, mode="wrap")

    @cached_property
    def _layouts(self) -> tuple[tuple[Any, list[Any]], tuple[Any, list[Any]]]:
        """For copies without and with noise: where each band is put, and zeros for what is fresh.

        Where all that is slices, it is put in place, and there is no order. Otherwise what differs
        is put side by side, and the order says where each column is found there.
        """
        import numpy as np

        in_place = [*(band.columns for band in self._bands), self.fresh_columns]
        if all(isinstance(part, slice) for part in in_place):
            return (None, in_place), (None, in_place)
        layouts = []
        for is_noisy in (False, True):
            order, at, parts = np.zeros(self.map.size, dtype=np.intp), 0, []
            for band in self._bands:
                if band.is_repeat and not is_noisy:
                    order[band.columns] = order[band.first]
                    parts.append(slice(at, at))
                    continue
                size = len(self.index[band.columns])
                order[band.columns] = np.arange(at, at + size)
                parts.append(slice(at, at + size))
                at += size
            order[self.fresh] = at
            layouts.append((order, [*parts, slice(at, at + 1)]))
        return layouts[0], layouts[1]

    def _noisy(self, numbers: Any, drawn: Any, amplitudes: Any) -> Iterator[Any]:
        """Yield the columns of each band with noise, the last one first, in new arrays."""
        total = None
        for band in reversed(self._bands):
            copy = _times(_columns(numbers, band.sources), band.backward)
            if total is not None:
                copy += _scaled(_columns(total, band.sources), band.forward)
            if band.draws.start != band.draws.stop:
                noise = drawn[:, band.draws]
                if isinstance(band.own, float):
                    noise *= amplitudes * band.own
                else:
                    noise *= amplitudes
                    noise *= band.own.astype(noise.dtype)
                copy -= noise
                noise = _scaled(noise, band.passed)
                if noise.shape != numbers.shape:
                    noise = _placed(noise, band.places)
                    if total is None:
                        noise += noise.dtype.type(0)
                if total is None:
                    total = noise
                else:
                    total += noise
            yield copy


def _columns(numbers: Any, index: Any) -> Any:
    return numbers[:, index] if isinstance(index, slice) else numbers.take(index, axis=1)


def _placed(noise: Any, places: Any) -> Any:
    """Return noise at its sources, and elsewhere -0, which added to a number leaves its bits."""
    import numpy as np

    wider = np.empty((len(noise), noise.shape[1] + 1), noise.dtype)
    wider[:, :-1] = noise
    wider[:, -1] = -0.0
    return wider.take(places, axis=1, mode="wrap")


def _times(numbers: Any, factors: Any) -> Any:
    return numbers * (factors if isinstance(factors, float) else factors.astype(numbers.dtype))


def _or_number(factors: Any) -> Any:
    first = float(factors[0])
    return first if bool((factors == first).all()) else factors


def _scaled(numbers: Any, factors: Any) -> Any:
    return numbers if isinstance(factors, float) and factors == 1 else _times(numbers, factors)


def _as_slice(index: Any) -> Any:
    first = int(index[0]) if len(index) else 0
    is_slice = not len(index) or (
        int(index[-1]) - first == len(index) - 1 and bool((index[1:] > index[:-1]).all())
    )
    return slice(first, first + len(index)) if is_slice else index
