"""Operators that only copy layers: which ones and in which order, by the papers and as algebra.

The notation of partial stacking: what it says, the paper's table, what is no growth.

MIDAS and LIDAS: the block in the middle stands twice.
"""

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from hfgrow.errors import UsageError
from hfgrow.plan.families.llama import MATRICES
from hfgrow.plan.operators import OPERATORS
from hfgrow.plan.operators.stacking import (
    append_top,
    interpolate,
    lidas,
    midas,
    partial,
    progressive,
    solar,
    stack,
)
from hfgrow.plan.plan import GrowthPlan, LayerSource, TensorPlan, connection_rate, seams
from hfgrow.plan.tensors import Normal, Stored
from tests.layer_plans import plan_of, sources


def test_stack_repeats_the_layers_in_order() -> None:
    assert sources(stack(plan_of(3), g=2)) == [0, 1, 2, 0, 1, 2]


def test_stack_ends_on_the_last_layers_by_default() -> None:
    expected = [*range(22), *range(14, 22)]
    assert sources(stack(plan_of(22), layers=30)) == expected


def test_a_remainder_that_there_is_not_is_refused() -> None:
    with pytest.raises(UsageError, match="remainder goes with layers"):
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


@pytest.mark.parametrize("overlap", [-1, 2, 3, 10**30])
def test_an_overlap_that_leaves_no_growth_is_refused(overlap: int) -> None:
    with pytest.raises(UsageError, match="overlap"):
        solar(plan_of(4), overlap=overlap)


@given(st.integers(1, 40), st.data())
def test_append_top_is_stack_up_to_twice_the_depth(num_layers: int, data: st.DataObject) -> None:
    target = data.draw(st.integers(num_layers + 1, 2 * num_layers))
    found = sources(append_top(plan_of(num_layers), layers=target))
    assert found == [*range(num_layers), *range(2 * num_layers - target, num_layers)]
    assert found == sources(stack(plan_of(num_layers), layers=target))


def test_append_top_points_to_stack_above_twice_the_depth() -> None:
    with pytest.raises(UsageError, match="at most doubles") as refusal:
        append_top(plan_of(4), layers=9)
    assert refusal.value.hint == 'use stack: ("stack", {"layers": 9})'


def test_progressive_repeats_the_only_layer() -> None:
    assert sources(progressive(plan_of(1), layers=5)) == [0] * 5
    assert sources(progressive(plan_of(1), g=5)) == [0] * 5


def test_progressive_puts_fresh_layers_into_a_model_that_has_none() -> None:
    grown = progressive(plan_of_none(), layers=3, seed=7)
    assert grown.layer_map == (LayerSource(0, "random"),) * 3
    assert grown.config["num_hidden_layers"] == 3
    assert not grown.preserves_function
    names = {name.removeprefix("model.layers.2.") for name in grown.tensors if ".layers.2." in name}
    assert names == {role.tensor for role in MATRICES}
    query = grown.tensors["model.layers.2.self_attn.q_proj.weight"]
    assert query.dtype == "BF16"
    assert isinstance(query.recipe, Normal)
    assert query.recipe.key == "7/model.layers.2.self_attn.q_proj.weight"
    assert grown.steps[0].arguments == {"layers": 3, "seed": 7}


def test_what_goes_on_from_layers_refuses_a_model_that_has_none() -> None:
    from_none = {name for name, one in OPERATORS.items() if one.starts_from_none}
    assert from_none == {"progressive", "random-depth"}
    with pytest.raises(
        UsageError, match=r"^stack goes on from layers, and the base has none$"
    ) as refusal:
        stack(plan_of_none(), g=2)
    assert '"progressive"' in refusal.value.hint
    with pytest.raises(UsageError, match=r"^the base has no layers to multiply by g=2$"):
        progressive(plan_of_none(), g=2)


EMBEDDINGS = "model.embed_tokens.weight"


def plan_of_none() -> GrowthPlan:
    embeddings = TensorPlan("BF16", Stored("model.safetensors", EMBEDDINGS, 0, (8, 8), "BF16"))
    return replace(plan_of(0), tensors={EMBEDDINGS: embeddings})


def test_progressive_points_to_stack_for_deeper_bases() -> None:
    with pytest.raises(UsageError, match="the base has 2") as refusal:
        progressive(plan_of(2), g=2)
    assert '"stack"' in refusal.value.hint


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
        with pytest.raises(UsageError, match=r"^block must|repeat, block$"):
            operator(plan_of(6), block=block)
