"""The notation of partial stacking: what it says, the paper's table, what is no growth."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from hfgrow.errors import UsageError
from hfgrow.plan.operators.stacking import partial
from hfgrow.plan.plan import connection_rate
from tests.layer_plans import plan_of, sources


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
