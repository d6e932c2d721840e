"""Head maps: every copy attends to a copy of what its source attended to."""

from random import Random

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from hfgrow.errors import UsageError
from hfgrow.plan.axes import FRESH, Choose, head_sources, key_value_shares

IN_ORDER: Choose = lambda index, count: index % count  # noqa: E731


@given(
    kv_heads=st.integers(1, 4),
    group=st.integers(1, 4),
    new_kv_heads=st.integers(1, 12),
    new_group=st.integers(1, 8),
    seed=st.none() | st.integers(0, 9),
)
def test_a_head_map_keeps_who_attends_to_whom(
    kv_heads: int, group: int, new_kv_heads: int, new_group: int, seed: int | None
) -> None:
    assume(new_kv_heads >= kv_heads and new_kv_heads * new_group >= kv_heads * group)
    stream = Random(seed)
    choose = IN_ORDER if seed is None else lambda index, count: int(stream.random() * count)
    heads, new_heads = kv_heads * group, new_kv_heads * new_group
    try:
        sources, kv_sources = head_sources(heads, kv_heads, new_heads, new_kv_heads, choose)
    except UsageError:
        assert new_group < group
        assert new_kv_heads % kv_heads or new_heads // kv_heads < group
        return
    assert (len(sources), len(kv_sources)) == (new_heads, new_kv_heads)
    assert set(sources) == set(range(heads))
    for i, source in enumerate(sources):
        assert source // group == kv_sources[i // new_group]


@given(
    kv_heads=st.integers(1, 4),
    group=st.integers(1, 4),
    more_kv_heads=st.integers(0, 4),
    more=st.integers(0, 4),
)
def test_fresh_heads_leave_the_old_ones_where_they_were(
    kv_heads: int, group: int, more_kv_heads: int, more: int
) -> None:
    heads, new_kv_heads = kv_heads * group, kv_heads + more_kv_heads
    new_group = group + more
    sources, kv_sources = head_sources(
        heads, kv_heads, new_kv_heads * new_group, new_kv_heads, None
    )
    assert sorted(s for s in sources if s != FRESH) == list(range(heads))
    for i, source in enumerate(sources):
        assert source == FRESH or source // group == kv_sources[i // new_group]


def test_the_heads_of_one_base_are_told_by_hand() -> None:
    joint = head_sources(6, 2, 9, 3, IN_ORDER)
    assert joint == ([0, 1, 2, 3, 4, 5, 0, 1, 2], [0, 1, 0])
    assert head_sources(6, 2, 8, 2, IN_ORDER) == ([0, 1, 2, 0, 3, 4, 5, 3], [0, 1])
    assert head_sources(6, 2, 6, 6, IN_ORDER) == ([0, 1, 2, 3, 4, 5], [0, 0, 0, 1, 1, 1])


def test_what_cannot_be_says_what_could() -> None:
    with pytest.raises(UsageError, match="8 query heads on 4 key-value heads") as refused:
        head_sources(9, 3, 8, 4, IN_ORDER)
    assert refused.value.hint is not None


def test_key_value_heads_share_as_the_queries_on_them() -> None:
    assert key_value_shares([0, 1, 0, 1], [0.25, 0.5, 0.75, 0.5], [0, 0]) == [0.375, 0.625]
    assert key_value_shares([0, FRESH], [1.0, 0.0], [0, FRESH]) == [1.0, 0.0]
