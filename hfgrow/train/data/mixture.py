"""Which source each sample comes from: every source always within one sample of its share.

Shares are whole numbers of a period, and the period's slots are given out like processor time:
the j-th sample of a source with k slots of a period of D may come from slot floor(j D / k) on and
must have come by slot ceil((j + 1) D / k); whichever is due first is next. So after any number n of
samples a source has had more than n k / D - 1 and fewer than n k / D + 1.

Source: Baruah, Cohen, Plaxton and Varvel 1996, "Proportionate progress: a notion of fairness in
resource allocation", Sec. 2; for one processor, the earliest deadline first keeps all of them.
"""

from collections.abc import Sequence
from fractions import Fraction
from heapq import heappop, heappush
from math import gcd, isfinite, lcm

import numpy as np
import numpy.typing as npt

from hfgrow.errors import UsageError

# Shares that need a longer period are rounded to this many slots.
MAX_PERIOD = 1 << 16


class Mixture:
    """The sources of all samples, by weight.

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
