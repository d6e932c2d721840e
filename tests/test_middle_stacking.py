"""MIDAS and LIDAS: the block in the middle stands twice."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hfgrow.errors import UsageError
from hfgrow.plan.operators.stacking import lidas, midas
from hfgrow.plan.plan import GrowthPlan
from tests.layer_plans import plan_of, sources


@pytest.mark.parametrize(
    ("operator", "num_layers", "block", "expected"),
    [
        (midas, 12, 4, [*range(8), *range(4, 12)]),
        (lidas, 12, 4, [*range(8), *range(4, 12)]),
        (midas, 8, 4, [*range(4), *range(8)]),
        (lidas, 8, 4, [*range(6), *range(2, 8)]),
        (midas, 4, 1, [0, 1, 1, 2, 3]),
        (lidas, 5, 1, [0, 1, 2, 2, 3, 4]),
        (lidas, 5, 2, [0, 1, 2, 1, 2, 3, 4]),
        (midas, 3, 3, [0, 1, 2, 0, 1, 2]),
        (lidas, 3, 3, [0, 1, 2, 0, 1, 2]),
    ],
)
def test_middle_stacking_repeats_the_middle(
    operator: Callable[..., GrowthPlan], num_layers: int, block: int, expected: list[int]
) -> None:
    assert sources(operator(plan_of(num_layers), block=block)) == expected


@given(st.integers(1, 8), st.integers(0, 5))
def test_midas_is_lidas_where_the_number_of_blocks_is_odd(block: int, half: int) -> None:
    base = plan_of(block * (2 * half + 1))
    assert sources(midas(base, block=block)) == sources(lidas(base, block=block))


@given(st.integers(1, 40), st.data())
def test_lidas_leaves_the_same_number_of_layers_on_both_sides(
    num_layers: int, data: st.DataObject
) -> None:
    block = data.draw(st.integers(1, num_layers))
    found = sources(lidas(plan_of(num_layers), block=block))
    twice = [layer for layer in range(num_layers) if found.count(layer) == 2]
    assert twice == [*range(twice[0], twice[0] + block)]
    assert num_layers - 1 - twice[-1] - twice[0] in (0, 1)
    assert len(found) == num_layers + block


@pytest.mark.parametrize("block", [None, 0, -1, 7, 10**30])
def test_a_block_that_cannot_be_is_refused(block: int | None) -> None:
    for operator in (midas, lidas):
        with pytest.raises(UsageError, match="--block"):
            operator(plan_of(6), block=block)
