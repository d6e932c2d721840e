"""Speed-up at equal loss, and how sure it is.

    speed-up(L) = cost_scratch(L) / cost_grown(L) - 1

with `cost(L)` the first cost at which the held-out loss is down at `L`: between two evaluations the
loss is taken as linear in the logarithm of the cost. A loss that a run never came down to has no
cost, and a speed-up there does not exist. Where the grown run was down at `L` as soon as it had
grown, `L` cost at most what it had cost by then, and the speed-up is at least what that gives.

Sources: Du et al. 2024, "Stacking Your Transformers", https://arxiv.org/abs/2405.15319, Sec. 3;
Efron 1979, "Bootstrap Methods", https://doi.org/10.1214/aos/1176344552 (percentile intervals)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import exp, inf, log

Curve = Sequence[tuple[float, float]]
CONFIDENCE = 0.95
LEAST_FOR_INTERVAL = 5
_NUM_SAMPLES = 10_000


def cost_at(curve: Curve, loss: float) -> float | None:
    """Return the first cost at which a curve is down at a loss.

    Args:
        curve: Cost and loss of each evaluation, in the order of rising cost.
        loss: Nats a token.

    Returns:
        None if it never is.
    """
    if not curve:
        return None
    if curve[0][1] <= loss:
        return curve[0][0]
    for (cost, high), (next_cost, low) in pairwise(curve):
        if low <= loss:
            share = (high - loss) / (high - low)
            if cost <= 0:
                return next_cost * share
            return exp(log(cost) + share * (log(next_cost) - log(cost)))
    return None


def loss_at(curve: Curve, cost: float) -> float | None:
    """Return the loss of a curve at a cost; None outside of it, or where it begins at nothing."""
    for (before, high), (after, low) in pairwise(curve):
        if 0 < before <= cost <= after:
            share = log(cost / before) / log(after / before) if after > before else 1.0
            return high + share * (low - high)
    return None


@dataclass(frozen=True, slots=True)
class Gain:
    """A speed-up of one pair of runs at a loss.

    Attributes:
        value: How much cheaper the loss was.
        is_bound: Whether the grown run was down at the loss when it had grown: then it is at least
            so much; infinite where growth is all that is counted.
    """

    value: float
    is_bound: bool


def speedup(scratch: Curve, grown: Curve, loss: float) -> Gain | None:
    """Return the speed-up at a loss.

    Args:
        scratch: The curve of the reference.
        grown: The curve of the other, from its last growth.
        loss: Nats a token.

    Returns:
        None if one of the two did not come down to the loss.
    """
    slow, fast = cost_at(scratch, loss), cost_at(grown, loss)
    if slow is None or fast is None:
        return None
    return Gain(slow / fast - 1 if fast else inf, is_bound=grown[0][1] <= loss)


def common_loss(scratch: Curve, grown: Curve) -> float | None:
    """Return the lowest loss that both came down to.

    Returns:
        None if the reference began there: then there is nothing to compare.
    """
    if not scratch or not grown:
        return None
    lowest = max(min(loss for _, loss in curve) for curve in (scratch, grown))
    return lowest if lowest < scratch[0][1] else None


def interval(values: Sequence[float]) -> tuple[float, float] | None:
    """Return the bootstrap interval of a mean over seeds; None for fewer than five.

    Of fewer it would be the lowest and the highest: of three, one of 27 samples draws the lowest
    three times. The same values always give the same interval.
    """
    import numpy as np

    if len(values) < LEAST_FOR_INTERVAL:
        return None
    generator = np.random.default_rng(0)
    drawn = generator.choice(np.asarray(values), (_NUM_SAMPLES, len(values)))
    outside = (1 - CONFIDENCE) / 2
    low, high = np.quantile(drawn.mean(axis=1), (outside, 1 - outside))
    return float(low), float(high)


def mean(values: Sequence[float]) -> float:
    """Return the mean of at least one value."""
    return sum(values) / len(values)
