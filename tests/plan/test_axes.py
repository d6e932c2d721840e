"""Maps of an axis: what the copies contribute, what norms see, how maps combine.

Head maps: every copy attends to a copy of what its source attended to.
"""

from collections.abc import Sequence
from random import Random

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from hfgrow.errors import UsageError
from hfgrow.plan.axes import (
    FRESH,
    AxisMap,
    Choose,
    Span,
    copied,
    head_sources,
    identity,
    joined,
    key_value_shares,
    padded,
    product,
    uneven_shares,
)


@st.composite
def source_lists(draw: st.DrawFn) -> tuple[int, list[int]]:
    """Every index of the base, then copies and fresh ones in any order."""
    base = draw(st.integers(1, 12))
    more = draw(st.lists(st.integers(FRESH, base - 1), max_size=20))
    return base, [*range(base), *more]


def contributions(axis_map: AxisMap) -> list[float]:
    """For every index of the base, the sum of forward times backward over its copies."""
    total = [0.0] * axis_map.base
    for span in axis_map.spans:
        if span.start != FRESH:
            for i in range(span.start, span.start + span.length):
                total[i] += span.forward * span.backward
    return total


@given(source_lists(), st.booleans(), st.booleans())
def test_the_copies_of_an_index_contribute_what_it_did(
    found: tuple[int, list[int]], isometric: bool, uneven: bool
) -> None:
    base, sources = found
    shares = uneven_shares(sources) if uneven else None
    axis_map = copied(base, sources, isometric=isometric, shares=shares)
    assert contributions(axis_map) == pytest.approx([1.0] * base)
    assert axis_map.sources == sources
    assert (axis_map.base, axis_map.size) == (base, len(sources))


@given(source_lists())
def test_an_isometric_map_keeps_the_mean_of_squares(found: tuple[int, list[int]]) -> None:
    assert copied(*found, isometric=True).preserves_mean_square()


def test_equal_copies_keep_the_mean_of_squares_only_if_all_have_as_many() -> None:
    assert copied(3, [0, 1, 2] * 2).preserves_mean_square()
    assert not copied(3, [0, 1, 2, 0, 1]).preserves_mean_square()
    assert not copied(3, padded(3, 6)).preserves_mean_square()


@given(source_lists())
def test_a_map_knows_whether_it_copies_and_whether_something_is_fresh(
    found: tuple[int, list[int]],
) -> None:
    base, sources = found
    axis_map = copied(base, sources)
    kept = [source for source in sources if source != FRESH]
    assert axis_map.has_copies == (len(set(kept)) < len(kept))
    assert axis_map.has_fresh == (FRESH in sources)
    assert axis_map.is_identity == (sources == list(range(base)))


@given(source_lists())
def test_the_dual_of_the_dual_is_the_map(found: tuple[int, list[int]]) -> None:
    axis_map = copied(*found, isometric=True)
    assert axis_map.dual.dual == axis_map
    assert contributions(axis_map.scaled(3.0)) == pytest.approx(contributions(axis_map))


@given(source_lists(), source_lists())
def test_a_product_takes_the_inner_axis_in_each_index_of_the_outer(
    outer: tuple[int, list[int]], inner: tuple[int, list[int]]
) -> None:
    found = product(copied(*outer), copied(*inner))
    expected = [FRESH if FRESH in (i, j) else i * inner[0] + j for i in outer[1] for j in inner[1]]
    assert found.sources == expected
    assert found.base == outer[0] * inner[0]


@given(st.lists(source_lists(), min_size=1, max_size=3))
def test_joined_axes_lie_one_after_the_other(parts: list[tuple[int, list[int]]]) -> None:
    found = joined(copied(*part) for part in parts)
    expected: list[int] = []
    start = 0
    for base, sources in parts:
        expected += [FRESH if source == FRESH else start + source for source in sources]
        start += base
    assert (found.base, found.sources) == (start, expected)


@given(source_lists())
def test_copies_of_each_rank_are_together_the_whole_map(found: tuple[int, list[int]]) -> None:
    axis_map = copied(*found)
    ranks = [axis_map.copies(rank, rank).sources for rank in range(len(found[1]))]
    together = [max(column) for column in zip(*ranks, strict=True)]
    assert together == axis_map.sources
    assert axis_map.copies(0, len(found[1])) == axis_map


def test_reading_from_one_copy_ignores_the_others() -> None:
    axis_map = copied(2, [0, 1, 0, 1])
    assert axis_map.read_from(1).spans == (Span(0, 2, 1.0, 0.0), Span(0, 2, 1.0, 1.0))
    assert contributions(axis_map.read_from(1)) == [1.0, 1.0]


@pytest.mark.parametrize(
    ("sources", "shares"),
    [([0, 0], [1 / 3, 2 / 3]), ([0, 1, 0, 0], [1 / 6, 1.0, 2 / 6, 3 / 6])],
    ids=str,
)
def test_uneven_shares_are_one_to_n(sources: Sequence[int], shares: Sequence[float]) -> None:
    assert uneven_shares(sources) == pytest.approx(shares)


def test_neighbours_that_go_on_alike_are_one_span() -> None:
    assert copied(4, [0, 1, 2, 3] * 2).spans == (Span(0, 4, 1.0, 0.5), Span(0, 4, 1.0, 0.5))
    assert identity(4).spans == copied(4, range(4)).spans


def test_spans_that_come_again_are_counted() -> None:
    assert copied(4, [0, 1, 2, 3] * 3).num_repeats == 3
    assert copied(4, [0, 0, 1, 1]).num_repeats == 1
    assert copied(4, [0, 1, 2, 3, 0, 1]).num_repeats == 1
    assert identity(4).num_repeats == 1


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
