"""The order of training: sample n is a pure function of n, the seed and the text.

Neither ranks nor workers nor what was read before have a part in it, so that to resume is to go on
at a number. A sample's source comes from the mixture, its block from a permutation of the source.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from heapq import heappop, heappush
from math import gcd, isfinite, lcm

import numpy as np
import numpy.typing as npt

from hfgrow.data.hashing import key, mix
from hfgrow.data.token_folder import Positions, Tokens
from hfgrow.data.views import TokenView
from hfgrow.errors import TrainingError, UsageError, argument

# Shares that need a longer period are rounded to this many slots.
MAX_PERIOD = 1 << 16
_ROUNDS = 6


@dataclass(frozen=True, eq=False)
class Block:
    """A sample.

    Attributes:
        tokens: Its tokens and the one after, int64 [sequence_length + 1].
        starts: Where in `tokens` documents begin, in order.
        source: The number of the source, from 0.
    """

    tokens: Tokens
    starts: Positions
    source: int


@dataclass(frozen=True)
class Place:
    """Where a sample comes from: the source, its pass over the source, and the block in it."""

    source: int
    epoch: int
    block: int


class BlockOrder:
    """The samples of a training run.

    The tokens of a source are parted into blocks of `sequence_length`; with a block goes the token
    after it, so that every token but the first is predicted once an epoch. Every epoch of every
    source has an order of its own.

    Args:
        views: The text, one view a source.
        weights: The share of every source.
        sequence_length: Tokens of a sample.
        seed: Decides the order.

    Raises:
        UsageError: A weight or the length cannot be.
        TrainingError: A source has less than one block.
    """

    def __init__(
        self,
        views: Sequence[TokenView],
        weights: Sequence[float],
        *,
        sequence_length: int,
        seed: int,
    ) -> None:
        if len(views) != len(weights):
            raise UsageError(f"{len(views)} sources have {len(weights)} weights")
        if sequence_length < 1:
            raise UsageError(f"sequence_length must be at least 1, not {sequence_length}")
        self.views = tuple(views)
        self.mixture = Mixture(weights)
        self.sequence_length = sequence_length
        self.seed = seed
        self.num_blocks = tuple((view.num_tokens - 1) // sequence_length for view in views)
        for view, num_blocks in zip(views, self.num_blocks, strict=True):
            if num_blocks < 1:
                raise TrainingError(
                    f"{view.label} has {view.num_tokens} usable tokens, fewer than one sequence "
                    f"of {sequence_length} and the token after it",
                    hint="give it more text, or choose a smaller sequence_length",
                )
        self._permutation = lru_cache(4 * len(self.views))(self._make_permutation)

    @property
    def fingerprint(self) -> str:
        """A hash of all that decides the order and the text: a checkpoint resumes only with it."""
        content: list[object] = [view.fingerprint for view in self.views]
        content += [self.mixture.slots, self.sequence_length, self.seed]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    def place(self, sample: int) -> Place:
        """Return where a sample comes from; it may have any number from 0."""
        source, count = self.mixture.place(sample)
        epoch, place = divmod(count, self.num_blocks[source])
        return Place(source, epoch, self._permutation(source, epoch)[place])

    def block(self, sample: int) -> Block:
        """Return a sample."""
        place = self.place(sample)
        first = place.block * self.sequence_length
        tokens, starts = self.views[place.source].sequence(first, first + self.sequence_length + 1)
        return Block(tokens, starts, place.source)

    def epochs(self, num_samples: int) -> tuple[float, ...]:
        """Return how many passes over each source the first samples are."""
        counts = self.mixture.counts(num_samples)
        return tuple(n / blocks for n, blocks in zip(counts, self.num_blocks, strict=True))

    def _make_permutation(self, source: int, epoch: int) -> "Permutation":
        return Permutation(self.num_blocks[source], self.seed, source, epoch)


def check_sequence_length(sequence_length: int, max_position_embeddings: int) -> None:
    """Refuse sequences that are longer than the model's positions.

    Raises:
        UsageError: They are.
    """
    if sequence_length > max_position_embeddings:
        raise UsageError(
            f"sequence_length {sequence_length} is above the model's max_position_embeddings "
            f"{max_position_embeddings}",
            hint=argument("sequence_length", max_position_embeddings),
        )


class Mixture:
    """The sources of all samples, by weight: every source always within one sample of its share.

    Shares are whole numbers of a period, and the period's slots are given out like processor time:
    the j-th sample of a source with k slots of a period of D may come from slot floor(j D / k) on
    and must have come by slot ceil((j + 1) D / k); whichever is due first is next. So after any
    number n of samples a source has had more than n k / D - 1 and fewer than n k / D + 1.

    Source: Baruah, Cohen, Plaxton and Varvel 1996, "Proportionate progress: a notion of fairness in
    resource allocation", Sec. 2; for one processor, the earliest deadline first keeps all of them.

    Args:
        weights: The share of every source, relative to the others'. Decimals such as 0.7 are
            exact; shares that are no fractions of at most 65,536 are rounded to such.

    Raises:
        UsageError: A weight is not above 0, or there are too many.
    """

    def __init__(self, weights: Sequence[float]) -> None:
        self.slots = _slots(weights)
        self.period = sum(self.slots)
        self._sources = _schedule(self.slots)
        one_hot = self._sources[:, None] == np.arange(len(self.slots))
        self._before = np.zeros((self.period + 1, len(self.slots)), np.int32)
        np.cumsum(one_hot, axis=0, out=self._before[1:])

    def source(self, sample: int) -> int:
        """Return the source of a sample, both from 0."""
        return int(self._sources[sample % self.period])

    def counts(self, num_samples: int) -> tuple[int, ...]:
        """Return how many of the first samples come from each source."""
        periods, rest = divmod(num_samples, self.period)
        before = self._before[rest].tolist()
        return tuple(periods * slots + n for slots, n in zip(self.slots, before, strict=True))

    def place(self, sample: int) -> tuple[int, int]:
        """Return the source of a sample, and how many samples of that source come before it."""
        source = self.source(sample)
        return source, self.counts(sample)[source]


def _slots(weights: Sequence[float]) -> tuple[int, ...]:
    if not 1 <= len(weights) <= MAX_PERIOD:
        raise UsageError(f"{len(weights)} sources cannot be mixed; expected 1 to {MAX_PERIOD}")
    for weight in weights:
        if not (isfinite(weight) and weight > 0):
            raise UsageError(f"the weight {weight} of a source must be above 0")
    # The decimal that a float was written as, not the binary number that it is.
    exact = [Fraction(repr(float(weight))) for weight in weights]
    scale = lcm(*(share.denominator for share in exact))
    whole = [int(share * scale) for share in exact]
    divisor = gcd(*whole)
    whole = [number // divisor for number in whole]
    total = sum(whole)
    if total <= MAX_PERIOD:
        return tuple(whole)
    return _rounded(whole, total)


def _rounded(whole: Sequence[int], total: int) -> tuple[int, ...]:
    """Round shares to slots of the longest period, the largest remainders up, each at least 1."""
    spare = MAX_PERIOD - len(whole)
    floors = [number * spare // total for number in whole]
    by_remainder = sorted(range(len(whole)), key=lambda i: -(whole[i] * spare % total))
    for i in by_remainder[: spare - sum(floors)]:
        floors[i] += 1
    return tuple(1 + floor for floor in floors)


def _schedule(slots: Sequence[int]) -> npt.NDArray[np.int32]:
    period = sum(slots)
    released: list[list[int]] = [[] for _ in range(period)]
    for source in range(len(slots)):
        released[0].append(source)
    done = [0] * len(slots)
    due: list[tuple[int, int]] = []
    schedule = np.zeros(period, np.int32)
    for slot in range(period):
        for source in released[slot]:
            heappush(due, (-(-(done[source] + 1) * period // slots[source]), source))
        _, source = heappop(due)
        schedule[slot] = source
        done[source] += 1
        if done[source] < slots[source]:
            # Released by now at the earliest, or a source could have two slots at once.
            next_slot = max(slot + 1, done[source] * period // slots[source])
            released[next_slot].append(source)
    return schedule


class Permutation:
    """An order of the numbers 0 to size - 1, in which the place of each is computed on its own.

    A Feistel network permutes the numbers below the next power of four; a result of `size` or more
    is put through it again until one is below ("cycle walking"). The order takes no memory, and has
    no state.

    Source: Black and Rogaway 2002, "Ciphers with arbitrary finite domains", Sec. 3 and 4.

    Args:
        size: How many there are, at least 1.
        seeds: What decides the order.
    """

    def __init__(self, size: int, *seeds: int | str) -> None:
        self.size = size
        self._half_bits = max(1, ((size - 1).bit_length() + 1) // 2)
        self._keys = [key("permutation", *seeds, i) for i in range(_ROUNDS)]

    def __getitem__(self, place: int) -> int:
        """Return the number at a place, from 0."""
        if not 0 <= place < self.size:
            raise IndexError(f"place {place} of {self.size}")
        number = self._network(place)
        while number >= self.size:
            number = self._network(number)
        return number

    def _network(self, number: int) -> int:
        mask = (1 << self._half_bits) - 1
        left, right = number >> self._half_bits, number & mask
        for round_key in self._keys:
            left, right = right, left ^ (mix(right ^ round_key) & mask)
        return left << self._half_bits | right
