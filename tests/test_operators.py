"""The layer maps of the operators, against the paper and as algebra."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from hfgrow.checkpoint.files import LocalFolder
from hfgrow.checkpoint.read import read
from hfgrow.depth import MAX_LAYERS
from hfgrow.errors import UsageError
from hfgrow.families import FAMILIES
from hfgrow.operators import OPERATORS, apply
from hfgrow.operators.append_top import append_top
from hfgrow.operators.average import average
from hfgrow.operators.branch_scale import branch_scale
from hfgrow.operators.interpolate import interpolate
from hfgrow.operators.lidas import lidas
from hfgrow.operators.midas import midas
from hfgrow.operators.partial import partial
from hfgrow.operators.progressive import progressive
from hfgrow.operators.random_depth import random_depth
from hfgrow.operators.solar import solar
from hfgrow.operators.stack import stack
from hfgrow.operators.zero_depth import zero_depth
from hfgrow.plan import GrowthPlan, LayerSource, TensorPlan, connection_rate, seams
from hfgrow.tensor_recipes import Blend, Fill, Normal, Recipe, Stored
from tests.checkpoints import MakeCheckpoint, load, logits
from tests.program import call_hfgrow

NORM, QUERY, OUT = "input_layernorm.weight", "self_attn.q_proj.weight", "self_attn.o_proj.weight"
BY_DEPTH = [stack, interpolate, zero_depth, random_depth, append_top]


def plan_of(num_layers: int) -> GrowthPlan:
    """A plan of a model with a norm, q_proj and o_proj in each layer, each named by its number."""
    shapes = {NORM: (8,), QUERY: (8, 8), OUT: (8, 8)}
    tensors = {
        f"model.layers.{i}.{role}": TensorPlan(
            "F32", Stored("model.safetensors", str(i), 256 * i, shape, "F32")
        )
        for i in range(num_layers)
        for role, shape in shapes.items()
    }
    return GrowthPlan(
        folder="",
        config={"num_hidden_layers": num_layers},
        family="llama",
        layer_map=tuple(LayerSource(i) for i in range(num_layers)),
        tensors=tensors,
        files={},
    )


def recipe(plan: GrowthPlan, layer: int, role: str) -> Recipe:
    """What a tensor of the plan is made from."""
    return plan.tensors[f"model.layers.{layer}.{role}"].recipe


def stored(layer: int, role: str) -> Recipe:
    """The tensor of the base."""
    return recipe(plan_of(layer + 1), layer, role)


def sources(plan: GrowthPlan) -> list[int]:
    """The layer map, read off the tensors and compared with what the plan says it is."""
    found = []
    for i in range(plan.num_hidden_layers):
        copied = recipe(plan, i, NORM)
        assert isinstance(copied, Stored)
        found.append(int(copied.name))
    assert found == [source.layer for source in plan.layer_map]
    return found


def modes(plan: GrowthPlan) -> str:
    """The first letter of each layer's mode, read off the tensors and compared with the plan."""
    found = []
    for i, source in enumerate(plan.layer_map):
        match recipe(plan, i, QUERY), recipe(plan, i, OUT):
            case Stored(), Stored():
                mode = "copy"
            case Stored(), Fill():
                mode = "zero"
            case Blend(), Blend():
                mode = "average"
            case _:
                mode = "random"
        assert mode == source.mode
        found.append(mode[0])
    return "".join(found)


def test_stack_repeats_the_layers_in_order() -> None:
    assert sources(stack(plan_of(3), g=2)) == [0, 1, 2, 0, 1, 2]


def test_stack_ends_on_the_last_layers_by_default() -> None:
    expected = [*range(22), *range(14, 22)]
    assert sources(stack(plan_of(22), layers=30)) == expected


def test_a_remainder_that_there_is_not_is_refused() -> None:
    with pytest.raises(UsageError, match="--remainder goes with --layers"):
        stack(plan_of(22), g=2, remainder="head")


def test_stack_can_fill_up_with_the_first_layers() -> None:
    expected = [*range(22), *range(8)]
    assert sources(stack(plan_of(22), layers=30, remainder="head")) == expected


def test_interpolate_repeats_every_layer_in_place() -> None:
    assert sources(interpolate(plan_of(3), g=2)) == [0, 0, 1, 1, 2, 2]


def test_solar_leaves_out_the_layers_around_the_seam() -> None:
    expected = [*range(24), *range(8, 32)]
    assert sources(solar(plan_of(32), overlap=8)) == expected


@pytest.mark.parametrize(
    ("operator", "percent"), [(stack, 91.3), (interpolate, 30.4)], ids=["stack", "interpolate"]
)
def test_the_connection_rates_of_8_to_24_layers_are_the_papers(
    operator: Callable[..., GrowthPlan], percent: float
) -> None:
    assert round(100 * connection_rate(operator(plan_of(8), g=3).sources), 1) == percent


@pytest.mark.parametrize(
    ("pattern", "percent"),
    [
        ("123456*4", 87.0),
        ("12-3456*5-56", 78.3),
        ("12-345*7-6", 73.9),
        ("123-456*7", 73.9),
        ("1234-56*10", 60.9),
        ("12-34*10-56", 60.9),
        ("1-234*7-56", 73.9),
        ("123*7-456", 73.9),
    ],
)
def test_partial_builds_the_papers_table_of_6_to_24_layers(pattern: str, percent: float) -> None:
    grown = partial(plan_of(6), pattern)
    assert grown.num_hidden_layers == 24
    assert round(100 * connection_rate(grown.sources), 1) == percent


def test_partial_places_the_parts_one_after_the_other() -> None:
    assert sources(partial(plan_of(6), "12-345*2-6")) == [0, 1, 2, 3, 4, 2, 3, 4, 5]


def test_partial_takes_up_earlier_layers_again() -> None:
    assert sources(partial(plan_of(6), "12-3456*2-56")) == [0, 1, 2, 3, 4, 5, 2, 3, 4, 5, 4, 5]


def test_partial_reads_ranges_for_layers_above_9() -> None:
    expected = [*range(9), 9, 9, *range(10, 12)]
    assert sources(partial(plan_of(12), "[1:9]-[10]*2-[11:12]")) == expected


@pytest.mark.parametrize(
    "pattern",
    [
        "",
        "-",
        "1-",
        "12-34",
        "12*0-34",
        "12*-1-34",
        "12*1.5-34",
        "1-3*2-4",
        "123*2",
        "234*2-1",
        "12-43*2",
        "1234-5",
        "01234*2",
        "[0:4]*2",
        "[1:4",
        "[4:1]*2-1234",
        "[1:99999999999999999999]",
        "[1:4]*99999999999",
        "[1:4]*999999999",
        f"1234*{'9' * 5000}",
        f"[{'1' * 5000}]",
        "\u0661\u0662\u0663\u0664*2",
        "1 2 3 4*2",
        "$(id)",
    ],
)
def test_partial_refuses_what_is_no_growth_of_4_layers(pattern: str) -> None:
    with pytest.raises(UsageError):
        partial(plan_of(4), pattern)


@given(data=st.data(), num_layers=st.integers(1, 30))
def test_partial_does_what_its_notation_says(data: st.DataObject, num_layers: int) -> None:
    parts, expected, reached = [], list[int](), 0
    while reached < num_layers:
        first = data.draw(st.integers(0, reached))
        last = data.draw(st.integers(max(first, reached), num_layers - 1))
        times = data.draw(st.integers(1, 3))
        short = last < 9 and data.draw(st.booleans())
        run = range(first, last + 1)
        text = "".join(str(i + 1) for i in run) if short else f"[{first + 1}:{last + 1}]"
        parts.append(f"{text}*{times}" if times > 1 else text)
        expected += [*run] * times
        reached = last + 1
    assume(len(expected) > num_layers)
    assert sources(partial(plan_of(num_layers), "-".join(parts))) == expected


@given(st.integers(1, 40), st.integers(2, 5))
def test_every_layer_stands_g_times(num_layers: int, g: int) -> None:
    for operator in (stack, interpolate):
        found = sources(operator(plan_of(num_layers), g=g))
        assert sorted(found) == sorted([*range(num_layers)] * g)


@given(st.integers(1, 40), st.integers(1, 60), st.sampled_from(["tail", "head"]))
def test_stack_reaches_any_depth_above_the_base(num_layers: int, more: int, end: str) -> None:
    found = sources(stack(plan_of(num_layers), layers=num_layers + more, remainder=end))  # type: ignore[arg-type]
    assert len(found) == num_layers + more
    assert found[:num_layers] == [*range(num_layers)]
    assert found[-1] == (num_layers - 1 if end == "tail" else (more - 1) % num_layers)


@given(st.integers(1, 40), st.integers(1, 60))
def test_interpolate_never_steps_back(num_layers: int, more: int) -> None:
    found = sources(interpolate(plan_of(num_layers), layers=num_layers + more))
    assert found == sorted(found)
    assert set(found) == set(range(num_layers))


@given(st.integers(2, 6), st.integers(2, 4), st.integers(2, 4))
def test_two_stacks_are_one_stack(num_layers: int, first: int, second: int) -> None:
    twice = stack(stack(plan_of(num_layers), g=first), g=second)
    assert sources(twice) == sources(stack(plan_of(num_layers), g=first * second))
    assert [step.operator for step in twice.steps] == ["stack", "stack"]


@given(st.integers(1, 40), st.data())
def test_seams_and_connection_rate_agree(num_layers: int, data: st.DataObject) -> None:
    g = data.draw(st.integers(2, 4))
    sources = stack(plan_of(num_layers), g=g).sources
    found = [i * num_layers for i in range(1, g)]
    assert seams(sources) == found
    assert connection_rate(sources) == pytest.approx(1 - len(found) / (g * num_layers - 1))


@pytest.mark.parametrize("g", [0, -1, 1, MAX_LAYERS])
@pytest.mark.parametrize("operator", BY_DEPTH)
def test_a_growth_factor_that_cannot_be_is_refused(
    operator: Callable[..., GrowthPlan], g: int
) -> None:
    with pytest.raises(UsageError, match=str(min(g, MAX_LAYERS))):
        operator(plan_of(4), g=g)


@pytest.mark.parametrize("layers", [-1, 0, 3, 4, MAX_LAYERS + 1, 10**30])
@pytest.mark.parametrize("operator", BY_DEPTH)
def test_a_target_depth_that_cannot_be_is_refused(
    operator: Callable[..., GrowthPlan], layers: int
) -> None:
    with pytest.raises(UsageError):
        operator(plan_of(4), layers=layers)


@pytest.mark.parametrize("overlap", [-1, 2, 3, 10**30])
def test_an_overlap_that_leaves_no_growth_is_refused(overlap: int) -> None:
    with pytest.raises(UsageError, match="overlap"):
        solar(plan_of(4), overlap=overlap)


@pytest.mark.parametrize("operator", BY_DEPTH)
@pytest.mark.parametrize("target", [{}, {"g": 2, "layers": 8}], ids=str)
def test_the_target_is_given_in_one_way_only(
    operator: Callable[..., GrowthPlan], target: dict[str, int]
) -> None:
    with pytest.raises(UsageError, match=r"--g(,| or) --layers"):
        operator(plan_of(4), **target)


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


@pytest.mark.parametrize("every", [0, -1, 4, 7, 12, 10**30])
def test_groups_that_do_not_divide_the_layers_are_refused(every: int) -> None:
    with pytest.raises(UsageError, match=r"6 layers of the base \(1, 2, 3, 6\)"):
        zero_depth(plan_of(6), every=every)
    with pytest.raises(UsageError, match=r"6 layers of the base \(1, 2, 3, 6\)"):
        midas(plan_of(6), block=every)


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


@given(st.integers(1, 40), st.data())
def test_append_top_is_stack_up_to_twice_the_depth(num_layers: int, data: st.DataObject) -> None:
    target = data.draw(st.integers(num_layers + 1, 2 * num_layers))
    found = sources(append_top(plan_of(num_layers), layers=target))
    assert found == [*range(num_layers), *range(2 * num_layers - target, num_layers)]
    assert found == sources(stack(plan_of(num_layers), layers=target))


def test_append_top_points_to_stack_above_twice_the_depth() -> None:
    with pytest.raises(UsageError, match="at most doubles") as refusal:
        append_top(plan_of(4), layers=9)
    assert refusal.value.hint == "use stack: hfgrow stack MODEL --layers 9"


def test_progressive_repeats_the_only_layer() -> None:
    assert sources(progressive(plan_of(1), layers=5)) == [0] * 5
    assert sources(progressive(plan_of(1), g=5)) == [0] * 5


def test_progressive_points_to_stack_for_deeper_bases() -> None:
    with pytest.raises(UsageError, match="the base has 2") as refusal:
        progressive(plan_of(2), g=2)
    assert "hfgrow stack" in refusal.value.hint


@pytest.mark.parametrize(
    ("num_layers", "target", "expected"),
    [
        (4, None, "cacacac"),
        (4, 7, "cacacac"),
        (4, 5, "ccacc"),
        (4, 6, "caccac"),
        (7, 9, "ccacccacc"),
        (2, 3, "cac"),
    ],
)
def test_average_spreads_the_means_evenly(
    num_layers: int, target: int | None, expected: str
) -> None:
    assert modes(average(plan_of(num_layers), layers=target)) == expected


def test_an_average_is_half_of_the_layer_below_and_half_of_that_above() -> None:
    grown = average(plan_of(3), layers=4)
    assert [source.layer for source in grown.layer_map] == [0, 1, 1, 2]
    for role in (NORM, QUERY, OUT):
        assert recipe(grown, 2, role) == Blend(((0.5, stored(1, role)), (0.5, stored(2, role))))


@given(st.integers(2, 60), st.data())
def test_average_keeps_every_layer_and_puts_means_only_between_them(
    num_layers: int, data: st.DataObject
) -> None:
    target = data.draw(st.integers(num_layers + 1, 2 * num_layers - 1))
    grown = average(plan_of(num_layers), layers=target)
    found = modes(grown)
    assert found.count("c") == num_layers
    assert found.count("a") == target - num_layers
    assert found[0] == found[-1] == "c"
    assert "aa" not in found
    gaps = [len(run) for run in found.split("a")][1:-1]
    assert max(gaps, default=0) - min(gaps, default=0) <= 1


@pytest.mark.parametrize("layers", [-1, 0, 4, 8, 10**30])
def test_more_means_than_gaps_are_refused(layers: int) -> None:
    with pytest.raises(UsageError, match="must be from 5 to 7"):
        average(plan_of(4), layers=layers)


def test_a_single_layer_has_no_neighbour_to_average_with() -> None:
    with pytest.raises(UsageError, match="at least 2 layers"):
        average(plan_of(1))


def test_branch_scale_multiplies_what_branches_add_and_nothing_else() -> None:
    grown = stack(plan_of(2), g=2)
    scaled = branch_scale(grown, exponent=1)
    assert scaled.layer_map == grown.layer_map
    for i in range(4):
        assert recipe(scaled, i, OUT) == Blend(((0.5, stored(i % 2, OUT)),))
        assert recipe(scaled, i, QUERY) == recipe(grown, i, QUERY)
    assert [step.operator for step in scaled.steps] == ["stack", "branch-scale"]
    assert scaled.steps[1].layer_map == tuple(LayerSource(i) for i in range(4))
    assert scaled.steps[1].arguments == {"exponent": 1.0}
    assert not branch_scale(zero_depth(plan_of(2), g=2)).preserves_function


def test_branch_scale_leaves_zeros_zero() -> None:
    scaled = branch_scale(zero_depth(plan_of(2), g=2))
    assert recipe(scaled, 1, OUT) == Fill((8, 8), 0.0)


def test_branch_scale_counts_the_layers_of_the_root() -> None:
    twice = stack(stack(plan_of(2), g=2), g=2)
    assert recipe(branch_scale(twice, exponent=0.5), 7, OUT) == Blend(((0.5, stored(1, OUT)),))


@pytest.mark.parametrize("exponent", [float("nan"), float("inf"), 0, -1.0, 1.01, 10**400])
def test_an_exponent_out_of_range_is_refused(exponent: float) -> None:
    with pytest.raises(UsageError, match="--exponent must be"):
        branch_scale(stack(plan_of(2), g=2), exponent=exponent)


def test_branch_scale_is_refused_where_it_would_do_nothing_or_too_much() -> None:
    with pytest.raises(UsageError, match="none is repeated"):
        branch_scale(plan_of(4))
    with pytest.raises(UsageError, match="stands once"):
        branch_scale(branch_scale(stack(plan_of(2), g=2)))


def test_a_whole_number_is_taken_for_a_fraction_and_a_bool_for_no_number() -> None:
    targets: dict[str, object] = {"g": 2, "mask": 1}
    assert apply(plan_of(2), "random-depth", targets).steps[0].arguments["mask"] == 1.0
    for name, wrong in (("mask", True), ("seed", False), ("g", True), ("seed", 1.0), ("mask", "1")):
        with pytest.raises(UsageError, match=f"{name} cannot be"):
            apply(plan_of(2), "random-depth", {"g": 2, name: wrong})


PRESERVING = [
    ("zero-depth", "--g", "2"),
    ("zero-depth", "--layers", "7"),
    ("zero-depth", "--every", "2"),
    ("random-depth", "--layers", "6"),
    ("random-depth", "--g", "2", "--seed", "7", "--mask", "0"),
]


@pytest.mark.parametrize("model_type", sorted(FAMILIES))
@pytest.mark.parametrize("words", PRESERVING, ids=" ".join)
def test_a_promise_to_preserve_the_function_is_kept_to_the_last_bit(
    words: tuple[str, ...], model_type: str, make_checkpoint: MakeCheckpoint, tmp_path: Path
) -> None:
    base, out = make_checkpoint(model_type, dtype="float64"), tmp_path / "out"
    operator, *options = words
    finished = call_hfgrow(operator, base, *options, "--out", out)
    assert finished.returncode == 0, finished.stderr
    grown, report = load(out)
    assert not any(report[key] for key in report if key.endswith("_keys"))
    assert (logits(grown) - logits(load(base)[0])).abs().max() == 0.0


def test_a_step_survives_the_record(make_checkpoint: MakeCheckpoint) -> None:
    base = read(LocalFolder(make_checkpoint()))
    plan = apply(base, "random-depth", {"g": 2, "mask": 0.25, "seed": 3})
    plan = apply(plan, "branch-scale", {"exponent": 1})
    again = base
    for step in plan.steps:
        again = apply(again, step.operator, step.arguments)
    assert again == plan


@pytest.mark.parametrize("name", OPERATORS)
def test_every_operator_is_described_in_the_table(name: str) -> None:
    row = OPERATORS[name]
    assert row.function.__name__ == name.replace("-", "_")
    assert row.axis in ("depth", "width", "weights")
    assert "https://" in row.paper
    assert row.summary.endswith(".")
    described = " ".join((row.function.__doc__ or "").split())
    assert ("Not function preserving" in described) != row.preserves_function
