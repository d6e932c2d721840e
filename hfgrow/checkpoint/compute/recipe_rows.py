"""Compute the numbers of a recipe, some rows at a time, in float32 (float64 if the base is).

Every operation is elementwise with one rounding, or is rounded coarsely afterwards, so the result
does not depend on chunks, threads or the machine; what is aligned, predicted or learned depends on
the machine.

Pseudo-random numbers that are a pure function of a key and a position.

Whatever is computed first, in however many chunks or threads, row `i` of the tensor with a key is
always the same, on every machine: only integer arithmetic and single roundings are used.
"""

from collections.abc import Callable
from functools import partial
from hashlib import sha256
from math import sqrt
from typing import Any

from hfgrow.checkpoint.compute.alignment import Alignments
from hfgrow.checkpoint.compute.axis import MAX_SLICES, Put, TensorAxis
from hfgrow.checkpoint.compute.dtypes import round_into, widened
from hfgrow.checkpoint.compute.products import Predictions, Products
from hfgrow.plan.axes import AxisMap
from hfgrow.plan.tensors import (
    Aligned,
    Blend,
    Fill,
    Learned,
    Lift,
    Noise,
    Normal,
    Predicted,
    Recipe,
    Stored,
    leaves,
)

# From a stored tensor, the first row and the row after the last to those rows, an array as
# `stored_dtype` says, which may be written into.
ReadRows = Callable[[Stored, int, int], Any]
# As many numbers are summed by one thread, whichever library numpy has.
_MAX_SUMMED = 8192
# The second axis of a vector.
_NO_COLUMNS = AxisMap(0, ())


class Evaluator:
    """Computes rows of recipes whose leaves somebody can read.

    Args:
        read: Reads rows of a stored tensor.
    """

    def __init__(self, read: ReadRows) -> None:
        self._read = read
        self._axes: dict[int, TensorAxis] = {}
        self._alignments = Alignments(self._tensor)
        self._predictions = Predictions(self._tensor)
        self._products = Products(self._tensor)

    def rows(self, recipe: Recipe, start: int, stop: int, dtype: str) -> Any:
        """Return rows [stop - start] or [stop - start, columns] of a recipe.

        Args:
            recipe: What to compute.
            start: The first row.
            stop: The row after the last.
            dtype: The dtype it will be rounded to, in safetensors' words.

        Returns:
            float64 if that is `dtype` or a leaf is stored in it, else float32.
        """
        import numpy as np

        with np.errstate(all="ignore"):
            return self._rows(recipe, start, stop, _wide(recipe, dtype))

    def fill(self, out: Any, recipe: Recipe, start: int, dtype: str) -> None:
        """Compute rows of a recipe and round them once.

        Args:
            out: Where to, an array as `stored_dtype` says.
            start: The first row.
            dtype: The dtype of `out`, in safetensors' words.
        """
        import numpy as np

        stop, wide = start + len(out), _wide(recipe, dtype)
        with np.errstate(all="ignore"):
            if isinstance(recipe, Lift) and _spreads_columns(recipe) and not _has_random(recipe):
                self._spread(out, recipe, start, wide, partial(round_into, dtype=dtype))
            else:
                round_into(out, self._rows(recipe, start, stop, wide), dtype)

    def _rows(self, recipe: Recipe, start: int, stop: int, wide: Any) -> Any:
        import numpy as np

        match recipe:
            case Stored():
                return widened(self._read(recipe, start, stop), recipe.dtype, wide)
            case Fill():
                return np.full((stop - start, *recipe.shape[1:]), recipe.value, dtype=wide)
            case Normal():
                numbers = normal(recipe.key, start, stop, recipe.shape[1]).astype(wide, copy=False)
                numbers *= recipe.std
                return numbers
            case Blend():
                total = np.zeros((stop - start, *recipe.shape[1:]), dtype=wide)
                for coefficient, term in recipe.terms:
                    numbers = self._rows(term, start, stop, wide)
                    numbers *= coefficient
                    total += numbers
                return total
            case Lift():
                return self._lifted(recipe, start, stop, wide)
            case Aligned():
                return self._alignments.rows(recipe, start, stop).numpy().astype(wide, copy=False)
            case Predicted():
                return self._predictions.rows(recipe, start, stop).numpy().astype(wide, copy=False)
            case Learned():
                return self._products.rows(recipe, start, stop).numpy().astype(wide, copy=False)

    def _tensor(self, recipe: Recipe, start: int, stop: int, wide: str) -> Any:
        import numpy as np
        import torch

        return torch.from_numpy(self._rows(recipe, start, stop, np.dtype(wide)))

    def _lifted(self, lift: Lift, start: int, stop: int, wide: Any) -> Any:
        import numpy as np

        if _spreads_columns(lift):
            numbers = np.empty((stop - start, lift.shape[1]), dtype=wide)
            self._spread(numbers, lift, start, wide, np.copyto)
        else:
            numbers = self._gathered(lift, start, stop, wide)
        cols = self._axis(lift.cols)
        _fill_fresh(numbers, lift, self._axis(lift.rows).fresh[start:stop], cols, start)
        return numbers

    def _spread(self, out: Any, lift: Lift, start: int, wide: Any, put: Put) -> None:
        """Put rows of a lift of a matrix; what is fresh is zero."""
        numbers, cols = self._gathered(lift, start, start + len(out), wide), self._axis(lift.cols)
        noise = _noise(lift.noise, cols, numbers, start) if lift.noise and cols.num_draws else ()
        cols.spread(out, numbers, put, *noise)

    def _gathered(self, lift: Lift, start: int, stop: int, wide: Any) -> Any:
        """Return the source rows of output rows, scaled; zeros where there is no source."""
        import numpy as np

        rows = self._axis(lift.rows)
        shape = (stop - start, *lift.recipe.shape[1:])
        pieces = rows.pieces(start, stop)
        if not len(pieces):
            return np.zeros(shape, dtype=wide)
        first, last = pieces.source_start, pieces.source_stop
        if len(pieces) == 1 and pieces.num_rows == stop - start:
            numbers = self._rows(lift.recipe, first, last, wide)
        # Of what is scattered most that lies between is not wanted.
        elif len(pieces) <= MAX_SLICES or last - first > 4 * pieces.num_rows:
            numbers = np.zeros(shape, dtype=wide)
            for at, end, source in zip(
                (pieces.starts - start).tolist(),
                (pieces.stops - start).tolist(),
                pieces.sources.tolist(),
                strict=True,
            ):
                numbers[at:end] = self._rows(lift.recipe, source, source + end - at, wide)
        else:
            block = self._rows(lift.recipe, first, last, wide)
            index = (rows.index[start:stop] - first).clip(0, last - first - 1)
            numbers = block.take(index, axis=0)
            numbers[rows.fresh[start:stop]] = 0
        factors = rows.forward[start:stop]
        if (factors != 1).any():
            numbers *= factors.astype(wide).reshape(-1, *[1] * (numbers.ndim - 1))
        return numbers

    def _axis(self, axis_map: AxisMap | None) -> TensorAxis:
        axis_map = axis_map or _NO_COLUMNS
        found = self._axes.get(id(axis_map))
        if found is None:
            found = self._axes[id(axis_map)] = TensorAxis(axis_map)
        return found


def _wide(recipe: Recipe, dtype: str) -> Any:
    import numpy as np

    dtypes = (dtype, *(leaf.dtype for leaf in leaves(recipe)))
    return np.dtype(np.float64 if "F64" in dtypes else np.float32)


def _spreads_columns(lift: Lift) -> bool:
    return lift.cols is not None and not lift.cols.is_identity


def _has_random(lift: Lift) -> bool:
    has_fresh = lift.rows.has_fresh or (lift.cols is not None and lift.cols.has_fresh)
    return lift.fresh.is_random and has_fresh


def _noise(noise: Noise, cols: TensorAxis, numbers: Any, start: int) -> tuple[Any, Any]:
    """Return what is drawn for rows of numbers, and the standard deviation of each row."""
    amplitudes = _coarse_rms(numbers) * (noise.amplitude / UNIFORM_STD)
    drawn = uniform(noise.key, start, start + len(numbers), cols.num_draws).astype(numbers.dtype)
    drawn -= numbers.dtype.type(UNIFORM_MEAN)
    return drawn, amplitudes.astype(numbers.dtype)


def _coarse_rms(numbers: Any) -> Any:
    """Return the root mean square of each row [rows, 1], rounded to 12 bits, in float64.

    So the order in which a machine adds does not show.
    """
    import numpy as np

    squares = np.zeros((len(numbers), 1))
    for at in range(0, numbers.shape[1], _MAX_SUMMED):
        part = numbers[:, at : at + _MAX_SUMMED].astype(np.float64)
        squares += (part[:, None, :] @ part[:, :, None])[:, 0]
    mantissa, exponent = np.frexp(np.sqrt(squares) / numbers.shape[1] ** 0.5)
    return np.ldexp(np.round(mantissa * 4096) / 4096, exponent)


def _fill_fresh(numbers: Any, lift: Lift, rows: Any, cols: TensorAxis, start: int) -> None:
    """Put what is asked for where rows or columns have no source; it holds zeros so far."""
    import numpy as np

    fresh = lift.fresh
    if numbers.ndim == 1:
        numbers[rows] = fresh.value
        return
    columns = cols.fresh_columns
    if cols.map.has_fresh and fresh.columns and not rows.all():
        stop, count = start + len(numbers), int(cols.fresh.sum())
        drawn = normal(f"{fresh.key}/columns", start, stop, count).astype(numbers.dtype)
        drawn[rows] = 0
        drawn *= fresh.columns
        numbers[:, columns] = drawn
    if rows.any() and (fresh.rows or fresh.corner):
        std = np.full(numbers.shape[1], fresh.rows, dtype=numbers.dtype)
        std[columns] = fresh.corner
        new = rows.nonzero()[0]
        first, last = int(new[0]), int(new[-1]) + 1
        drawn = normal(f"{fresh.key}/rows", start + first, start + last, numbers.shape[1])
        numbers[new] = drawn[new - first].astype(numbers.dtype) * std


# Four 16-bit integers of a word.
_LANES = 4
UNIFORM_MEAN = -0.5
UNIFORM_STD = sqrt((2.0**32 - 1) / 12)


def uniform(key: str, start: int, stop: int, num_columns: int) -> Any:
    """Return rows [stop - start, num_columns] of uniform integers, int16.

    Their mean is `UNIFORM_MEAN` and their standard deviation `UNIFORM_STD`.
    """
    num_words = -(-num_columns // _LANES)
    return _words(key, start, stop, num_words)[:, :num_columns]


def normal(key: str, start: int, stop: int, num_columns: int) -> Any:
    """Return rows [stop - start, num_columns] of nearly normal numbers, float32.

    Their mean is 0 and their standard deviation 1. Each is the sum of four uniform ones: bounded by
    3.47, excess kurtosis -0.3.
    """
    import numpy as np

    lanes = _words(key, start, stop, num_columns).reshape(stop - start, _LANES, num_columns)
    numbers: Any = lanes.sum(axis=1, dtype=np.int32).astype(np.float32)
    numbers += np.float32(_LANES / 2)
    numbers *= np.float32(1 / (UNIFORM_STD * sqrt(_LANES)))
    return numbers


def _words(key: str, start: int, stop: int, num_words: int) -> Any:
    """Return int16 [stop - start, 4 * num_words]; a row takes `num_words` of the stream."""
    import numpy as np

    stream = np.random.PCG64(int.from_bytes(sha256(key.encode()).digest()[:16], "big"))
    stream.advance(start * num_words)
    words = stream.random_raw((stop - start) * num_words).view(np.int16)
    return words.reshape(stop - start, _LANES * num_words)
