"""Zero copies and random layers: where the new ones stand, and what is in them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hfgrow.errors import UsageError
from hfgrow.plan.operators.inserting import random_depth, zero_depth
from hfgrow.plan.tensors import Fill, Normal
from tests.layer_plans import NORM, OUT, QUERY, modes, plan_of, recipe, sources, stored


def test_zero_depth_puts_the_zero_copies_behind_the_layer_they_copy() -> None:
    grown = zero_depth(plan_of(4), layers=7)
    assert (sources(grown), modes(grown)) == ([0, 0, 1, 1, 2, 2, 3], "czczczc")
    assert recipe(grown, 1, QUERY) == stored(0, QUERY)
    assert recipe(grown, 1, OUT) == Fill((8, 8), 0.0)


def test_zero_depth_adds_a_block_behind_each_group_of_layers_as_llama_pro_does() -> None:
    grown = zero_depth(plan_of(6), every=3)
    assert (sources(grown), modes(grown)) == ([0, 1, 2, 2, 3, 4, 5, 5], "ccczcccz")


def test_a_zero_copy_of_every_layer_is_a_growth_factor_of_2() -> None:
    by_group, by_factor = zero_depth(plan_of(5), every=1), zero_depth(plan_of(5), g=2)
    assert (by_group.tensors, by_group.layer_map) == (by_factor.tensors, by_factor.layer_map)


@given(st.integers(1, 40), st.integers(1, 60))
def test_zero_depth_copies_every_layer_once_and_in_order(num_layers: int, more: int) -> None:
    grown = zero_depth(plan_of(num_layers), layers=num_layers + more)
    copies = [
        layer for layer, mode in zip(sources(grown), modes(grown), strict=True) if mode == "c"
    ]
    assert copies == [*range(num_layers)]
    assert modes(grown).count("z") == more


@given(st.integers(1, 12), st.integers(1, 12))
def test_zero_depth_adds_one_block_for_each_group(every: int, num_groups: int) -> None:
    grown = zero_depth(plan_of(every * num_groups), every=every)
    assert modes(grown) == ("c" * every + "z") * num_groups
    assert sources(grown) == sorted(sources(grown))


def test_random_depth_puts_fresh_layers_on_top() -> None:
    grown = random_depth(plan_of(2), layers=4, mask=0.5)
    assert [source.layer for source in grown.layer_map] == [0, 1, 1, 1]
    assert modes(grown) == "ccrr"
    assert recipe(grown, 1, QUERY) == stored(1, QUERY)
    assert recipe(grown, 2, NORM) == Fill((8,), 1.0)
    query, out = recipe(grown, 2, QUERY), recipe(grown, 2, OUT)
    assert isinstance(query, Normal)
    assert isinstance(out, Normal)
    assert query.std == pytest.approx((2 / (5 * 8)) ** 0.5)
    assert out.std == pytest.approx(0.5 / (8**0.5 * 4))


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_fresh_layers_depend_on_the_seed_and_on_nothing_else(seed: int, other: int) -> None:
    grown = random_depth(plan_of(2), g=3, seed=seed, mask=1)
    assert grown.tensors == random_depth(plan_of(2), layers=6, seed=seed, mask=1.0).tensors
    changed = random_depth(plan_of(2), g=3, seed=other, mask=1)
    assert (grown.tensors == changed.tensors) == (seed == other)


@given(st.integers(1, 4), st.integers(2, 3), st.integers(2, 3))
def test_no_two_fresh_tensors_are_drawn_alike(num_layers: int, first: int, second: int) -> None:
    grown = random_depth(random_depth(plan_of(num_layers), g=first, mask=1), g=second, mask=1)
    recipes = [tensor.recipe for tensor in grown.tensors.values()]
    keys = [found.key for found in recipes if isinstance(found, Normal)]
    assert len(set(keys)) == len(keys) == 2 * num_layers * (first * second - 1)


@pytest.mark.parametrize("mask", [0, 0.0, -0.0])
def test_a_mask_of_0_preserves_the_function_and_writes_plain_zeros(mask: float) -> None:
    grown = random_depth(plan_of(2), g=2, mask=mask)
    assert grown.preserves_function
    assert repr(recipe(grown, 2, OUT)) == repr(Fill((8, 8), 0.0))
    assert isinstance(recipe(grown, 2, QUERY), Normal)


@pytest.mark.parametrize("mask", [5e-324, 0.1, 1])
def test_any_other_mask_promises_nothing(mask: float) -> None:
    assert not random_depth(plan_of(2), g=2, mask=mask).preserves_function


@pytest.mark.parametrize("mask", [float("nan"), float("inf"), -float("inf"), -0.1, 1.1, 10**400])
def test_a_mask_out_of_range_is_refused(mask: float) -> None:
    with pytest.raises(UsageError, match="--mask must be from 0 to 1"):
        random_depth(plan_of(2), g=2, mask=mask)


@pytest.mark.parametrize("seed", [-1, 2**32, 10**400])
def test_a_seed_out_of_range_is_refused(seed: int) -> None:
    with pytest.raises(UsageError, match="--seed must be from 0"):
        random_depth(plan_of(2), g=2, seed=seed)
