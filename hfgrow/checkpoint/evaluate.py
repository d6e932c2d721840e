"""Compute the numbers of a recipe, some rows at a time, in float32 (float64 if the base is).

Every operation is elementwise with one rounding, or is rounded coarsely afterwards, so the result
does not depend on chunks, threads or the machine; what is predicted or learned depends on the
machine.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any

from hfgrow.axes import FRESH, AxisMap
from hfgrow.checkpoint.dtypes import torch_dtype
from hfgrow.checkpoint.predict import Predictions
from hfgrow.checkpoint.products import Products
from hfgrow.checkpoint.randomness import UNIFORM_MEAN, UNIFORM_STD, normal, uniform
from hfgrow.plan import Blend, Fill, Learned, Lift, Normal, Predicted, Recipe, Stored, leaves

# From a stored tensor, the first row and the row after the last to those rows, in its own dtype.
ReadRows = Callable[[Stored, int, int], Any]
# More pieces than this are gathered with an index, fewer are copied as slices.
_MAX_SLICES = 64
# The second axis of a vector.
_NO_COLUMNS = AxisMap(0, ())


class Evaluator:
    """Computes rows of recipes whose leaves somebody can read.

    Args:
        read: Reads rows of a stored tensor.
    """

    def __init__(self, read: ReadRows) -> None:
        self._read = read
        self._axes: dict[int, _Axis] = {}
        self._predictions = Predictions(self._rows)
        self._products = Products(self._rows)

    def rows(self, recipe: Recipe, start: int, stop: int, dtype: str) -> Any:
        """Return rows [stop - start] or [stop - start, columns] of a recipe.

        Args:
            recipe: What to compute.
            start: The first row.
            stop: The row after the last.
            dtype: The dtype it will be rounded to, in safetensors' words.

        Returns:
            float64 if that is `dtype` or a leaf is stored in it, else float32; in `dtype` itself
            where one multiplication is all there is, which rounds the same.
        """
        if not _is_one_product(recipe, dtype):
            dtypes = (dtype, *(leaf.dtype for leaf in leaves(recipe)))
            dtype = "F64" if "F64" in dtypes else "F32"
        return self._rows(recipe, start, stop, torch_dtype(dtype))

    def _rows(self, recipe: Recipe, start: int, stop: int, dtype: Any) -> Any:
        import torch

        match recipe:
            case Stored():
                return self._read(recipe, start, stop).to(dtype)
            case Fill():
                return torch.full((stop - start, *recipe.shape[1:]), recipe.value, dtype=dtype)
            case Normal():
                numbers = normal(recipe.key, start, stop, recipe.shape[1]).to(dtype)
                return numbers.mul_(recipe.std)
            case Blend():
                total = torch.zeros((stop - start, *recipe.shape[1:]), dtype=dtype)
                for coefficient, term in recipe.terms:
                    total += self._rows(term, start, stop, dtype) * coefficient
                return total
            case Lift():
                return self._lifted(recipe, start, stop, dtype)
            case Predicted():
                return self._predictions.rows(recipe, start, stop).to(dtype)
            case Learned():
                return self._products.rows(recipe, start, stop, dtype)

    def _lifted(self, lift: Lift, start: int, stop: int, dtype: Any) -> Any:
        rows = self._axis(lift.rows)
        numbers = self._gathered(lift, rows, start, stop, dtype)
        cols = self._axis(lift.cols or _NO_COLUMNS)
        if lift.cols is not None and not cols.is_identity:
            source = numbers
            numbers = cols.spread(source)
            if lift.noise and cols.num_draws:
                amplitudes = _coarse_rms(source).mul_(lift.noise.amplitude / UNIFORM_STD)
                drawn = uniform(lift.noise.key, start, stop, cols.num_draws).to(dtype)
                cols.add_cancelling(numbers, drawn.add_(-UNIFORM_MEAN), amplitudes.to(dtype))
        _fill_fresh(numbers, lift, rows.fresh[start:stop], cols, start)
        return numbers

    def _gathered(self, lift: Lift, rows: "_Axis", start: int, stop: int, dtype: Any) -> Any:
        """Return the source rows of output rows, scaled; zeros where there is no source."""
        import torch

        shape = (stop - start, *lift.recipe.shape[1:])
        pieces = rows.pieces(start, stop)
        if len(pieces) == 1 and pieces[0].length == stop - start:
            numbers = self._rows(lift.recipe, pieces[0].source, pieces[0].source_stop, dtype)
        elif not pieces:
            return torch.zeros(shape, dtype=dtype)
        elif len(pieces) <= _MAX_SLICES or _are_scattered(pieces):
            numbers = torch.zeros(shape, dtype=dtype)
            for piece in pieces:
                at = piece.start - start
                numbers[at : at + piece.length] = self._rows(
                    lift.recipe, piece.source, piece.source_stop, dtype
                )
        else:
            first = min(piece.source for piece in pieces)
            last = max(piece.source_stop for piece in pieces)
            block = self._rows(lift.recipe, first, last, dtype)
            index = (rows.index[start:stop] - first).clamp_(0, last - first - 1)
            numbers = block.index_select(0, index)
            numbers[rows.fresh[start:stop]] = 0
        factors = rows.forward[start:stop]
        if bool((factors != 1).any()):
            numbers = numbers * factors.to(dtype).view(-1, *[1] * (numbers.dim() - 1))
        return numbers

    def _axis(self, axis_map: AxisMap) -> "_Axis":
        found = self._axes.get(id(axis_map))
        if found is None:
            found = self._axes[id(axis_map)] = _Axis(axis_map)
        return found


@dataclass(frozen=True, slots=True)
class _Piece:
    """Output rows from `start` that are neighbours in the source too."""

    start: int
    length: int
    source: int

    @property
    def source_stop(self) -> int:
        return self.source + self.length


@dataclass(frozen=True, slots=True)
class _Band:
    """The columns that are k-th copies, and the noise there: see `_Axis.add_cancelling`.

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


class _Axis:
    """An axis map as tensors. Columns are float64 and cast where they are used."""

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

    def pieces(self, start: int, stop: int) -> list[_Piece]:
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
                found.append(_Piece(first, last - first, span.start + first - begin))
            at += 1
        merged = found[:1]
        for piece in found[1:]:
            before = merged[-1]
            if (before.start + before.length, before.source_stop) == (piece.start, piece.source):
                merged[-1] = _Piece(before.start, before.length + piece.length, before.source)
            else:
                merged.append(piece)
        return merged

    def spread(self, numbers: Any) -> Any:
        """Return columns `backward[i] * numbers[:, index[i]]`."""
        import torch

        spans = self.map.spans
        if len(spans) > _MAX_SLICES:
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


def _is_one_product(recipe: Recipe, dtype: str) -> bool:
    """Say whether a recipe is `W[i, j] * factor[j]`, with factors that are not rounded first."""
    if not isinstance(recipe, Lift) or not isinstance(recipe.recipe, Stored):
        return False
    if recipe.recipe.dtype != dtype or recipe.noise or recipe.fresh.is_random:
        return False
    cols = () if recipe.cols is None else recipe.cols.spans
    return (
        len(cols) <= _MAX_SLICES
        # Larger numbers may overflow, which has to be seen.
        and all(abs(span.backward) <= 1 for span in cols)
        and all(span.start == FRESH or span.forward == 1 for span in recipe.rows.spans)
    )


def _are_scattered(pieces: "list[_Piece]") -> bool:
    """Say whether most of what lies between the pieces is not wanted."""
    first = min(piece.source for piece in pieces)
    last = max(piece.source_stop for piece in pieces)
    return last - first > 4 * sum(piece.length for piece in pieces)


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


def _coarse_rms(numbers: Any) -> Any:
    """Return the root mean square of each row [rows, 1], rounded to 12 bits.

    So the order in which a machine adds does not show.
    """
    import torch

    norms = torch.linalg.vector_norm(numbers, dim=1, keepdim=True, dtype=torch.float64)
    mantissa, exponent = torch.frexp(norms / numbers.shape[1] ** 0.5)
    return torch.ldexp((mantissa * 4096).round() / 4096, exponent)


def _fill_fresh(numbers: Any, lift: Lift, rows: Any, cols: _Axis, start: int) -> None:
    """Put what is asked for where rows or columns have no source; it holds zeros so far."""
    import torch

    fresh = lift.fresh
    if numbers.dim() == 1:
        numbers[rows] = fresh.value
        return
    columns = cols.fresh.nonzero().flatten()
    if len(columns) and fresh.columns and not bool(rows.all()):
        stop = start + numbers.shape[0]
        drawn = normal(f"{fresh.key}/columns", start, stop, len(columns)).to(numbers.dtype)
        drawn[rows] = 0
        numbers[:, columns] = drawn.mul_(fresh.columns)
    if bool(rows.any()) and (fresh.rows or fresh.corner):
        std = torch.full((numbers.shape[1],), fresh.rows, dtype=numbers.dtype)
        std[columns] = fresh.corner
        new = rows.nonzero().flatten()
        first, last = int(new[0]), int(new[-1]) + 1
        drawn = normal(f"{fresh.key}/rows", start + first, start + last, numbers.shape[1])
        numbers[new] = drawn[new - first].to(numbers.dtype) * std
