"""Maps of an axis: which index of a grown axis comes from which index of the base, and how scaled.

An axis carries activations: the residual stream, the neurons of an MLP, the heads. A map says how
they grow, `h'[i] = forward[i] h[source[i]]`, and how whoever reads them undoes it: column `i` of a
reader is `backward[i]` times column `source[i]`. The function stays the same if for every index `j`
of the base `sum over its copies of forward[i] backward[i] = 1`.

Writers use `forward` on their rows and readers `backward` on their columns; a gradient uses the
other one of the two, so the same map grows the state of an optimiser.

Head maps under grouped-query attention: which heads the heads of the grown model are.

Query head `i` attends to key-value head `i // (H / K)`. A copy keeps the function if its key-value
head is a copy of the one that its source attends to, and if every head of the base is there.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import pairwise
from math import sqrt

from hfgrow.errors import UsageError, argument

# In place of a source: the index is new; the indices are copies of several, in no order.
FRESH, MIXED = -1, -2
# A record of an axis has no more spans, where its copies can be told together.
_MOST_TOLD, MOST_SPANS = 64, 1024


@dataclass(frozen=True, slots=True)
class Span:
    """Neighbouring indices of a grown axis whose sources are neighbours too, or all fresh.

    Attributes:
        start: The first source, 0-based, or `FRESH`.
        length: How many indices.
        forward: The factor of the activations.
        backward: The factor of a reader's columns.
    """

    start: int
    length: int
    forward: float = 1.0
    backward: float = 1.0


_NEW = Span(FRESH, 1, 0.0, 0.0)


@dataclass(frozen=True)
class AxisMap:
    """A grown axis: its size in the base, and its spans in order.

    Thousands of tensors share a map, which may have as many spans as the axis has indices; so what
    is asked of it is worked out once.
    """

    base: int
    spans: tuple[Span, ...]

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return hash((self.base, self.spans))

    @cached_property
    def size(self) -> int:
        """The size of the grown axis."""
        return sum(span.length for span in self.spans)

    @cached_property
    def is_identity(self) -> bool:
        """Whether nothing changes."""
        return self == identity(self.base)

    @cached_property
    def has_fresh(self) -> bool:
        """Whether some index has no source."""
        return any(span.start == FRESH for span in self.spans)

    @cached_property
    def sources(self) -> list[int]:
        """The source of every index."""
        return [
            FRESH if span.start == FRESH else span.start + i
            for span in self.spans
            for i in range(span.length)
        ]

    @cached_property
    def has_copies(self) -> bool:
        """Whether some index of the base has several copies."""
        kept = sorted((s.start, s.length) for s in self.spans if s.start != FRESH)
        return any(a + length > b for (a, length), (b, _) in pairwise(kept))

    @cached_property
    def num_repeats(self) -> int:
        """How often the same spans come, one after the other."""
        count = len(self.spans)
        return next(
            n
            for n in range(count, 0, -1)
            if count % n == 0 and self.spans == self.spans[: count // n] * n
        )

    @cached_property
    def dual(self) -> "AxisMap":
        """The map with forward and backward exchanged."""
        return AxisMap(
            self.base,
            tuple(Span(s.start, s.length, s.backward, s.forward) for s in self.spans),
        )

    @cached_property
    def inverse(self) -> "AxisMap":
        """The map from the grown axis back to the base's: each index is its first copy, unscaled.

        No index of the base may lack one.
        """
        found, at = [], 0
        for span in self.copies(0, 0).spans:
            if span.start != FRESH:
                back = Span(at, span.length, 1 / (span.forward or 1), 1 / (span.backward or 1))
                found.append((span.start, back))
            at += span.length
        return AxisMap(self.size, tuple(back for _, back in sorted(found, key=lambda one: one[0])))

    def scaled(self, factor: float) -> "AxisMap":
        """Return the map of activations that are `factor` times as large."""
        return AxisMap(
            self.base,
            tuple(
                replace(s, forward=s.forward * factor, backward=s.backward / factor)
                for s in self.spans
            ),
        )

    def copies(self, first: int, last: int) -> "AxisMap":
        """Return the map with only the copies of rank `first` to `last`; all others are fresh.

        The first copy of an index has rank 0.
        """
        return _by_rank(self, first, last, False)

    def read_from(self, rank: int) -> "AxisMap":
        """Return the map whose readers take the copies of one rank and ignore the others."""
        return _by_rank(self, rank, rank, True)

    def preserves_mean_square(self) -> bool:
        """Say whether the mean of squares over the axis is that of the base: `P^T P = (D/d) I`."""
        energy = [0.0] * self.base
        for span in self.spans:
            if span.start != FRESH:
                for i in range(span.start, span.start + span.length):
                    energy[i] += span.forward * span.forward
        wanted = self.size / self.base
        return all(abs(found - wanted) < 1e-9 * wanted for found in energy)


def without_factors(axis_map: AxisMap) -> AxisMap:
    """Return where the indices of a grown axis come from, as a record has it.

    Of copies that have no order only their number is told, `MIXED`; of an axis in more pieces than
    `MOST_SPANS` only how many copies and new indices it has.
    """
    spans: list[Span] = []
    for span in axis_map.spans:
        _append(spans, Span(span.start, span.length))
    if len(spans) > _MOST_TOLD:
        short, pieces, spans = max(1, axis_map.base // 8), spans, []
        for span in pieces:
            is_told = span.start == FRESH or span.length > short
            _append(spans, span if is_told else Span(MIXED, span.length))
    if len(spans) > MOST_SPANS:
        new = sum(span.length for span in spans if span.start == FRESH)
        parts = ((MIXED, axis_map.size - new), (FRESH, new))
        spans = [Span(start, length) for start, length in parts if length]
    return AxisMap(axis_map.base, tuple(spans))


def identity(size: int) -> AxisMap:
    """Return the map that changes nothing."""
    return AxisMap(size, (Span(0, size),))


def copied(
    base: int,
    sources: Sequence[int],
    *,
    isometric: bool = False,
    shares: Sequence[float] | None = None,
) -> AxisMap:
    """Return the map that copies index `sources[i]` to index `i`.

    Args:
        base: The size of the axis in the base.
        sources: For every index of the grown axis its source, or `FRESH`.
        isometric: Whether the mean of squares is kept, as an RMSNorm over the axis needs: a copy
            of an index with `n` copies is scaled by `sqrt(D / (d n))`. Otherwise copies are equal.
        shares: What each copy contributes to those who read it; the shares of the copies of one
            index sum to 1. None shares evenly.
    """
    counts = Counter(sources)
    spans: list[Span] = []
    for i, source in enumerate(sources):
        if source == FRESH:
            new = _NEW
        else:
            forward = sqrt(len(sources) / (base * counts[source])) if isometric else 1.0
            share = 1 / counts[source] if shares is None else shares[i]
            new = Span(source, 1, forward, share / forward)
        _append(spans, new)
    return AxisMap(base, tuple(spans))


def uneven_shares(sources: Sequence[int]) -> list[float]:
    """Return shares that differ between the copies of one index: 1 : 2 : ... : n, normalised."""
    counts = Counter(sources)
    seen: Counter[int] = Counter()
    shares = []
    for source in sources:
        seen[source] += 1
        n = counts[source]
        shares.append(seen[source] / (n * (n + 1) / 2))
    return shares


def padded(base: int, size: int) -> list[int]:
    """Return the sources of an axis that keeps what it has and gets fresh indices behind it."""
    return [i if i < base else FRESH for i in range(size)]


def product(outer: AxisMap, inner: AxisMap) -> AxisMap:
    """Return the map of an axis made of two, such as heads times head_dim; `inner` varies fast."""
    spans: list[Span] = []
    for span in outer.spans:
        for i in range(span.length):
            for part in inner.spans:
                if FRESH in (span.start, part.start):
                    _append(spans, Span(FRESH, part.length, 0.0, 0.0))
                    continue
                start = (span.start + i) * inner.base + part.start
                forward, backward = span.forward * part.forward, span.backward * part.backward
                _append(spans, Span(start, part.length, forward, backward))
    return AxisMap(outer.base * inner.base, tuple(spans))


def joined(parts: Iterable[AxisMap]) -> AxisMap:
    """Return the map of an axis on which several lie one after the other, as in fused weights."""
    spans: list[Span] = []
    base = 0
    for part in parts:
        for span in part.spans:
            start = FRESH if span.start == FRESH else span.start + base
            _append(spans, replace(span, start=start))
        base += part.base
    return AxisMap(base, tuple(spans))


# Many tensors share the maps of a growth.
@lru_cache(maxsize=256)
def _by_rank(axis_map: AxisMap, first: int, last: int, ignored: bool) -> AxisMap:
    seen: Counter[int] = Counter()
    spans: list[Span] = []
    for span in axis_map.spans:
        for i in range(span.length):
            if span.start == FRESH:
                _append(spans, _NEW)
                continue
            source = span.start + i
            wanted = first <= seen[source] <= last
            seen[source] += 1
            if ignored:
                backward = 1 / span.forward if wanted else 0.0
                _append(spans, Span(source, 1, span.forward, backward))
            else:
                _append(spans, Span(source, 1, span.forward, span.backward) if wanted else _NEW)
    return AxisMap(axis_map.base, tuple(spans))


def _append(spans: list[Span], new: Span) -> None:
    """Append a span, or make the last one longer if it goes on in the same way."""
    if spans:
        last = spans[-1]
        same = (last.forward, last.backward) == (new.forward, new.backward)
        following = last.start if last.start < 0 else last.start + last.length
        if same and new.start == following:
            spans[-1] = replace(last, length=last.length + new.length)
            return
    spans.append(new)


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
            hint=f"with {new_heads} query heads, {argument('kv_heads')} can be "
            f"{', '.join(map(str, possible))}"
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
