"""Head maps under grouped-query attention: which heads the heads of the grown model are.

Query head `i` attends to key-value head `i // (H / K)`. A copy keeps the function if its key-value
head is a copy of the one that its source attends to, and if every head of the base is there.
"""

from collections.abc import Callable

from hfgrow.axes import FRESH
from hfgrow.errors import UsageError

# From the number of things there are to the one that is copied next.
Choose = Callable[[int, int], int]


def head_sources(
    heads: int, kv_heads: int, new_heads: int, new_kv_heads: int, choose: Choose | None
) -> tuple[list[int], list[int]]:
    """Return the source of every query head and of every key-value head.

    Args:
        heads: Query heads of the base, `H`.
        kv_heads: Key-value heads of the base, `K`.
        new_heads: Query heads wanted, a multiple of `new_kv_heads`.
        new_kv_heads: Key-value heads wanted.
        choose: From an index beyond those of the base and the number of the base's to the source
            that is copied; None makes it fresh.

    Raises:
        UsageError: No head map keeps the function.
    """
    group, new_group = heads // kv_heads, new_heads // new_kv_heads
    if new_group < group:
        return _smaller_groups(heads, kv_heads, new_heads, new_kv_heads)
    kv_sources = [_source(i, kv_heads, choose) for i in range(new_kv_heads)]
    sources = []
    for i in range(new_heads):
        kv_source = kv_sources[i // new_group]
        place = FRESH if kv_source == FRESH else _source(i % new_group, group, choose)
        sources.append(FRESH if place == FRESH else kv_source * group + place)
    return sources, kv_sources


def _smaller_groups(
    heads: int, kv_heads: int, new_heads: int, new_kv_heads: int
) -> tuple[list[int], list[int]]:
    """Part each group: neighbouring key-value heads are copies of one and share its queries."""
    copies = new_kv_heads // kv_heads
    per_group = new_heads // kv_heads
    if new_kv_heads % kv_heads or per_group < heads // kv_heads:
        possible = [k for k in range(kv_heads, new_heads + 1, kv_heads) if new_heads % k == 0]
        raise UsageError(
            f"{new_heads} query heads on {new_kv_heads} key-value heads cannot hold "
            f"{heads} on {kv_heads}",
            hint=f"with {new_heads} query heads, --kv-heads can be {', '.join(map(str, possible))}"
            if possible
            else f"take a multiple of {kv_heads} query heads, from {heads}",
        )
    group = heads // kv_heads
    sources = [(i // per_group) * group + i % per_group % group for i in range(new_heads)]
    return sources, [i // copies for i in range(new_kv_heads)]


def _source(index: int, count: int, choose: Choose | None) -> int:
    if index < count:
        return index
    return FRESH if choose is None else choose(index, count)


def key_value_shares(sources: list[int], shares: list[float], kv_sources: list[int]) -> list[float]:
    """Return what each key-value head contributes, from the shares of the query heads on it.

    Only gradients need it: values reach the output through the query heads.
    """
    per_kv = len(sources) // len(kv_sources)
    carried = [sum(shares[i * per_kv : (i + 1) * per_kv]) for i in range(len(kv_sources))]
    total = {k: 0.0 for k in kv_sources}
    for source, share in zip(kv_sources, carried, strict=True):
        total[source] += share
    return [
        share / total[source] if total[source] else 0.0
        for source, share in zip(kv_sources, carried, strict=True)
    ]
