"""Tensors made by learned maps, computed from what the maps mix and map.

Sums are taken in float64 and rounded once, so that the order in which a machine adds shows in about
one float32 number of a hundred million.
"""

from collections.abc import Callable
from threading import Lock
from typing import Any

from hfgrow.tensor_recipes import Learned, Recipe

# Computes rows of a recipe, in a dtype of torch: the first row, the row after the last.
Rows = Callable[[Recipe, int, int, Any], Any]
# Threads may be at work on the end of one matrix and the start of the next.
_NUM_KEPT = 2


def mapped_rows(maps: Any, numbers: Any, unit: int) -> Any:
    """Return `(R (x) I_unit) W`.

    Args:
        maps: `R` [new units, units].
        numbers: `W` [units * unit] or [units * unit, columns].
        unit: The rows of a unit.
    """
    grouped = numbers.reshape(maps.shape[1], -1)
    return (maps @ grouped).reshape(maps.shape[0] * unit, *numbers.shape[1:])


def mapped_columns(maps: Any, numbers: Any, unit: int) -> Any:
    """Return `W (C (x) I_unit)^T`.

    Args:
        maps: `C` [new units, units].
        numbers: `W` [rows, units * unit].
        unit: The columns of a unit.
    """
    if unit == 1:
        return numbers @ maps.T
    grouped = numbers.reshape(len(numbers), maps.shape[1], unit)
    return (maps @ grouped).reshape(len(numbers), maps.shape[0] * unit)


class Products:
    """Computes what learned maps make; matrices whose rows are mapped, each as a whole.

    Args:
        rows: Computes rows of what the maps are applied to, and of the maps.
    """

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._lock = Lock()
        self._kept: dict[Learned, Any] = {}

    def rows(self, recipe: Learned, start: int, stop: int, dtype: Any) -> Any:
        """Return rows [stop - start] or [stop - start, columns] of a tensor."""
        if recipe.rows is None:
            return self._product(recipe, start, stop).to(dtype)
        with self._lock:
            if recipe not in self._kept:
                while len(self._kept) >= _NUM_KEPT:
                    del self._kept[next(iter(self._kept))]
                self._kept[recipe] = self._product(recipe, 0, recipe.layers[0].shape[0])
            whole = self._kept[recipe]
        return whole[start:stop].to(dtype, copy=True)

    def _product(self, recipe: Learned, start: int, stop: int) -> Any:
        """Return a tensor in float64, of some rows of the base; rows that are mapped are all."""
        import torch

        def whole(stored: Recipe) -> Any:
            return self._rows(stored, 0, stored.shape[0], torch.float64)

        coefficients = [1.0]
        if recipe.depth is not None:
            row = self._rows(recipe.depth, recipe.layer, recipe.layer + 1, torch.float64)
            coefficients = row[0].tolist()
        total = torch.zeros((stop - start, *recipe.layers[0].shape[1:]), dtype=torch.float64)
        for coefficient, layer in zip(coefficients, recipe.layers, strict=True):
            if coefficient:
                total += self._rows(layer, start, stop, torch.float64) * coefficient
        if recipe.rows is not None:
            total = mapped_rows(whole(recipe.rows), total, recipe.row_unit)
        if recipe.cols is not None:
            total = mapped_columns(whole(recipe.cols), total, recipe.col_unit)
        return total
