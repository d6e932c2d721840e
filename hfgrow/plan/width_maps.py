"""The widths that are asked for, and the axis maps that lead there."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random

from hfgrow.errors import UsageError, argument, printable
from hfgrow.plan.axes import (
    FRESH,
    AxisMap,
    Choose,
    copied,
    head_sources,
    key_value_shares,
    padded,
    uneven_shares,
)
from hfgrow.plan.families import FAMILIES
from hfgrow.plan.plan import GrowthPlan
from hfgrow.plan.width import MAX_WIDTH

_ARGUMENTS = {"hidden": "hidden_size", "ffn": "ffn", "heads": "heads", "kv_heads": "kv_heads"}


@dataclass(frozen=True, slots=True)
class Widths:
    """The sizes before and after, by axis: hidden, ffn, heads, kv_heads."""

    before: Mapping[str, int]
    after: Mapping[str, int]

    def grows(self, axis: str) -> bool:
        """Say whether an axis grows."""
        return self.after[axis] != self.before[axis]


def target_widths(
    base: GrowthPlan,
    g: int | None,
    hidden_size: int | None,
    ffn: int | None,
    heads: int | None,
    kv_heads: int | None,
) -> Widths:
    """Return the widths asked for by a growth factor or by targets.

    Raises:
        UsageError: Nothing was asked for, or both ways at once, or a target is not wider.
    """
    sizes = FAMILIES[base.family].sizes(base.config)
    before = {axis: sizes[axis] for axis in _ARGUMENTS}
    asked = {
        axis: target
        for axis, target in zip(_ARGUMENTS, (hidden_size, ffn, heads, kv_heads), strict=True)
        if target is not None
    }
    if g is not None:
        if asked:
            raise UsageError(
                f"{argument('g')} multiplies every width; leave out "
                f"{argument(_ARGUMENTS[next(iter(asked))])}, or {argument('g')}"
            )
        most = MAX_WIDTH // max(before.values())
        if not 2 <= g <= most:
            raise UsageError(
                f"growth factor g must be from 2 to {most} here, not {printable(g, 40)}",
                hint=f"try {argument('g', 2)}",
            )
        asked = {axis: g * size for axis, size in before.items()}
    if not asked:
        raise UsageError(
            f"there is no target width: {argument('g')}, {argument('hidden_size')}, "
            f"{argument('ffn')}, {argument('heads')} or {argument('kv_heads')}",
            hint=f"try {argument('g', 2)}",
        )
    for axis, target in asked.items():
        if not before[axis] <= target <= MAX_WIDTH:
            raise UsageError(
                f"{argument(_ARGUMENTS[axis], printable(target, 40))} is not between the base's "
                f"{before[axis]} and {MAX_WIDTH}",
                hint=f"try {argument(_ARGUMENTS[axis], 2 * before[axis])}",
            )
    if before["heads"] == before["kv_heads"] and "kv_heads" not in asked:
        # Without grouped queries each new query head has a key-value head of its own.
        asked["kv_heads"] = asked.get("heads", before["heads"])
    after = before | asked
    if after == before:
        raise UsageError("the base has these widths already", hint=f"try {argument('g', 2)}")
    if after["heads"] % after["kv_heads"]:
        raise UsageError(
            f"{after['heads']} query heads are no multiple of {after['kv_heads']} key-value heads",
            hint=f"try "
            f"{argument('heads', after['kv_heads'] * -(-after['heads'] // after['kv_heads']))}",
        )
    return Widths(before, after)


def copying_maps(
    widths: Widths,
    *,
    even: bool = True,
    choose: Choose | None = None,
    hidden_sources: Sequence[int] | None = None,
) -> dict[str, AxisMap]:
    """Return maps that fill every axis with copies.

    Args:
        widths: From where to where.
        even: Whether the copies of an index contribute evenly.
        choose: Which index of an axis is copied next; None goes through them in order.
        hidden_sources: The sources of the residual stream, if they follow another rule.
    """
    choose = choose or (lambda index, count: index % count)
    shares: Callable[[Sequence[int]], list[float] | None] = (
        (lambda sources: None) if even else uneven_shares
    )
    before, after = widths.before, widths.after
    maps = {}
    if widths.grows("hidden"):
        sources = hidden_sources or _filled(before["hidden"], after["hidden"], choose)
        maps["hidden"] = copied(before["hidden"], sources, isometric=True, shares=shares(sources))
    if widths.grows("ffn"):
        sources = _filled(before["ffn"], after["ffn"], choose)
        maps["ffn"] = copied(before["ffn"], sources, shares=shares(sources))
    return maps | _head_maps(widths, choose, shares)


def padding_maps(widths: Widths) -> dict[str, AxisMap]:
    """Return maps that keep every axis and put fresh indices behind it.

    Key-value heads that only part the groups of the base are copies all the same: fresh ones would
    take queries away from those they attend to.
    """
    before, after = widths.before, widths.after
    maps = {}
    if widths.grows("hidden"):
        sources = padded(before["hidden"], after["hidden"])
        maps["hidden"] = copied(before["hidden"], sources, isometric=True)
    if widths.grows("ffn"):
        maps["ffn"] = copied(before["ffn"], padded(before["ffn"], after["ffn"]))
    return maps | _head_maps(widths, None, lambda sources: None)


def rotary_maps(
    head_dim: int, new_head_dim: int, *, normalised: bool, fixed_scale: bool
) -> dict[str, AxisMap]:
    """Return the maps of larger heads: every rotary pair keeps its frequency.

    Pair `i` of `head_dim / 2` goes to pair `k i`, whose frequency `theta^(-2 k i / (k head_dim))`
    is the same. Queries and keys are scaled so that the attention logits are.

    Args:
        head_dim: The size in the base.
        new_head_dim: `k` times as much.
        normalised: Whether queries and keys pass a norm.
        fixed_scale: Whether the softmax scale does not depend on head_dim.
    """
    k, half = new_head_dim // head_dim, head_dim // 2
    sources = [FRESH] * new_head_dim
    for i in range(half):
        sources[k * i] = i
        sources[k * half + k * i] = half + i
    placed = copied(head_dim, sources, isometric=normalised)
    if not normalised and not fixed_scale:
        placed = placed.scaled(k**0.25)
    return {"qk_dim": placed, "head_dim": copied(head_dim, padded(head_dim, new_head_dim))}


def drawn(seed: int) -> Choose:
    """Return a choice of sources drawn at random, the same for the same seed."""
    stream = Random(seed)
    return lambda index, count: int(stream.random() * count)


def _filled(base: int, size: int, choose: Choose) -> list[int]:
    return [i if i < base else choose(i, base) for i in range(size)]


def _head_maps(
    widths: Widths,
    choose: Choose | None,
    shares: Callable[[Sequence[int]], list[float] | None],
) -> dict[str, AxisMap]:
    if not widths.grows("heads") and not widths.grows("kv_heads"):
        return {}
    before, after = widths.before, widths.after
    sources, kv_sources = head_sources(
        before["heads"], before["kv_heads"], after["heads"], after["kv_heads"], choose
    )
    query_shares = shares(sources)
    query = copied(before["heads"], sources, shares=query_shares)
    carried = [span.backward for span in query.spans for _ in range(span.length)]
    maps = {}
    if widths.grows("heads"):
        maps["heads"] = query
    if widths.grows("kv_heads"):
        kv_shares = key_value_shares(sources, carried, kv_sources)
        maps["kv_heads"] = copied(before["kv_heads"], kv_sources, shares=kv_shares)
    return maps
