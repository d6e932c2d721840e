"""Products of parameters: the default tests take a part in which every value stands."""

from collections.abc import Iterable
from itertools import product
from typing import Any

import pytest

_MARKED = type(pytest.param())


def sampled(*axes: Iterable[Any], one_in: int = 2) -> list[Any]:
    """Return every combination; those whose numbers add up to no multiple only by `-m slow`.

    Args:
        axes: The values of each parameter, of which some may be slow already.
        one_in: Of how many combinations the default tests take one.
    """
    found = []
    for numbered in product(*(enumerate(axis) for axis in axes)):
        is_slow = sum(number for number, _ in numbered) % one_in > 0
        values: list[Any] = []
        for _, value in numbered:
            is_marked = isinstance(value, _MARKED)
            is_slow |= is_marked and bool(value.marks)
            values += value.values if is_marked else (value,)
        found.append(pytest.param(*values, marks=pytest.mark.slow if is_slow else ()))
    return found
