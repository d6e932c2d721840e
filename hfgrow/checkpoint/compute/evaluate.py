"""Compute the numbers of a recipe, some rows at a time, in float32 (float64 if the base is).

Every operation is elementwise with one rounding, or is rounded coarsely afterwards, so the result
does not depend on chunks, threads or the machine; what is predicted or learned depends on the
machine.

Pseudo-random numbers that are a pure function of a key and a position.

Whatever is computed first, in however many chunks or threads, row `i` of the tensor with a key is
always the same, on every machine: only integer arithmetic and single roundings are used.
"""

from collections.abc import Callable
from hashlib import sha256
from math import sqrt
from typing import Any

from hfgrow.checkpoint.compute.axis import MAX_SLICES, Piece, TensorAxis
from hfgrow.checkpoint.compute.products import Predictions, Products
from hfgrow.plan.axes import FRESH, AxisMap
from hfgrow.plan.tensors import (
    CONFIG_NAMES,
    Blend,
    Fill,
    Learned,
    Lift,
    Normal,
    Predicted,
    Recipe,
    Stored,
    leaves,
)

# From a stored tensor, the first row and the row after the last to those rows, in its own dtype.
ReadRows = Callable[[Stored, int, int], Any]
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

    def _gathered(self, lift: Lift, rows: TensorAxis, start: int, stop: int, dtype: Any) -> Any:
        """Return the source rows of output rows, scaled; zeros where there is no source."""
        import torch

        shape = (stop - start, *lift.recipe.shape[1:])
        pieces = rows.pieces(start, stop)
        if len(pieces) == 1 and pieces[0].length == stop - start:
            numbers = self._rows(lift.recipe, pieces[0].source, pieces[0].source_stop, dtype)
        elif not pieces:
            return torch.zeros(shape, dtype=dtype)
        elif len(pieces) <= MAX_SLICES or _are_scattered(pieces):
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

    def _axis(self, axis_map: AxisMap) -> TensorAxis:
        found = self._axes.get(id(axis_map))
        if found is None:
            found = self._axes[id(axis_map)] = TensorAxis(axis_map)
        return found


def _is_one_product(recipe: Recipe, dtype: str) -> bool:
    """Say whether a recipe is `W[i, j] * factor[j]`, with factors that are not rounded first."""
    if not isinstance(recipe, Lift) or not isinstance(recipe.recipe, Stored):
        return False
    if recipe.recipe.dtype != dtype or recipe.noise or recipe.fresh.is_random:
        return False
    cols = () if recipe.cols is None else recipe.cols.spans
    return (
        len(cols) <= MAX_SLICES
        # Larger numbers may overflow, which has to be seen.
        and all(abs(span.backward) <= 1 for span in cols)
        and all(span.start == FRESH or span.forward == 1 for span in recipe.rows.spans)
    )


def _are_scattered(pieces: list[Piece]) -> bool:
    """Say whether most of what lies between the pieces is not wanted."""
    first = min(piece.source for piece in pieces)
    last = max(piece.source_stop for piece in pieces)
    return last - first > 4 * sum(piece.length for piece in pieces)


def _coarse_rms(numbers: Any) -> Any:
    """Return the root mean square of each row [rows, 1], rounded to 12 bits.

    So the order in which a machine adds does not show.
    """
    import torch

    norms = torch.linalg.vector_norm(numbers, dim=1, keepdim=True, dtype=torch.float64)
    mantissa, exponent = torch.frexp(norms / numbers.shape[1] ** 0.5)
    return torch.ldexp((mantissa * 4096).round() / 4096, exponent)


def _fill_fresh(numbers: Any, lift: Lift, rows: Any, cols: TensorAxis, start: int) -> None:
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


def torch_dtype(dtype: str) -> Any:
    """Return the torch dtype of a dtype in safetensors' words."""
    import torch

    return getattr(torch, CONFIG_NAMES[dtype])
