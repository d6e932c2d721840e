"""The layer maps of the operators, against the paper and as algebra."""

from collections.abc import Callable

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from hfgrow.depth import MAX_LAYERS
from hfgrow.errors import UsageError
from hfgrow.operators import OPERATORS, apply
from hfgrow.operators.interpolate import interpolate
from hfgrow.operators.partial import partial
from hfgrow.operators.solar import solar
from hfgrow.operators.stack import stack
from hfgrow.plan import GrowthPlan, LayerSource, Stored, TensorPlan, connection_rate, seams


def plan_of(num_layers: int) -> GrowthPlan:
    """A plan of a model that is nothing but one number in each layer."""
    tensors = {
        f"model.layers.{i}.input_layernorm.weight": TensorPlan(
            (1,), "F32", Stored("model.safetensors", str(i), 4 * i, 4, "F32")
        )
        for i in range(num_layers)
    }
    return GrowthPlan(
        folder="",
        config={"num_hidden_layers": num_layers},
        family="llama",
        layer_map=tuple(LayerSource(i) for i in range(num_layers)),
        tensors=tensors,
        files={},
    )


def sources(plan: GrowthPlan) -> list[int]:
    """The layer map, read off the tensors and compared with what the plan says it is."""
    recipes = [
        int(plan.tensors[f"model.layers.{i}.input_layernorm.weight"].recipe.name)
        for i in range(plan.num_hidden_layers)
    ]
    assert recipes == [source.layer for source in plan.layer_map]
    return recipes


def test_stack_repeats_the_layers_in_order() -> None:
    assert sources(stack(plan_of(3), g=2)) == [0, 1, 2, 0, 1, 2]


def test_stack_ends_on_the_last_layers_by_default() -> None:
    expected = [*range(22), *range(14, 22)]
    assert sources(stack(plan_of(22), layers=30)) == expected


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


@pytest.mark.parametrize("g", [0, -1, 1, MAX_LAYERS, 10**30])
@pytest.mark.parametrize("operator", [stack, interpolate])
def test_a_growth_factor_that_cannot_be_is_refused(
    operator: Callable[..., GrowthPlan], g: int
) -> None:
    with pytest.raises(UsageError, match=str(min(g, MAX_LAYERS))):
        operator(plan_of(4), g=g)


@pytest.mark.parametrize("layers", [-1, 0, 3, 4, MAX_LAYERS + 1, 10**30])
@pytest.mark.parametrize("operator", [stack, interpolate])
def test_a_target_depth_that_cannot_be_is_refused(
    operator: Callable[..., GrowthPlan], layers: int
) -> None:
    with pytest.raises(UsageError):
        operator(plan_of(4), layers=layers)


@pytest.mark.parametrize("overlap", [-1, 2, 3, 10**30])
def test_an_overlap_that_leaves_no_growth_is_refused(overlap: int) -> None:
    with pytest.raises(UsageError, match="overlap"):
        solar(plan_of(4), overlap=overlap)


def test_the_target_is_given_in_one_way_only() -> None:
    for operator in (stack, interpolate):
        targets: list[dict[str, int]] = [{}, {"g": 2, "layers": 8}]
        for target in targets:
            with pytest.raises(UsageError, match="--g or --layers"):
                apply(plan_of(4), operator.__name__, target)


@pytest.mark.parametrize("name", OPERATORS)
def test_every_operator_is_described_in_the_table(name: str) -> None:
    row = OPERATORS[name]
    assert row.function.__name__ == name
    assert row.axis in ("depth", "width")
    assert "https://" in row.paper
    assert row.summary.endswith(".")
    assert ("Not function preserving" in (row.function.__doc__ or "")) != row.preserves_function
