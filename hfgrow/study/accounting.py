"""What a run has cost at any of its tokens, counted in four ways.

With stages s that train N_s parameters on D_s tokens, the all-in cost of a grown model is

    C = sum over s of 6 N_s D_s                        (`all-in`; the base is one of the stages)

`marginal` leaves out the base, as if it had been there for nothing, `tokens` counts only the tokens
after it, and `exact` is `all-in` with the FLOPs of matrices and attention instead of 6 N. A growth
trains nothing and costs nothing here, but one by learned maps: it is a stage of its own, with the
parameters of the grown model and the tokens that the maps were learned from.

Source: Du et al. 2024, "Stacking Your Transformers", https://arxiv.org/abs/2405.15319, Sec. 3
(base included); Kaplan et al. 2020, https://arxiv.org/abs/2001.08361, Sec. 2.1 (6 N)
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

ALL_IN, MARGINAL, TOKENS, EXACT = "all-in", "marginal", "tokens", "exact"


@dataclass(frozen=True, slots=True)
class StageCost:
    """What a stage of training costs, or one of growth by learned maps.

    Attributes:
        number: Which stage of the recipe, from 0.
        tokens: Its tokens, whole batches.
        num_parameters: Parameters of the model that it trains.
        flops: 6 N, of one token.
        exact_flops: Those of matrices and attention that are computed, of one token.
        is_base: Whether it trains the base, before any growth of an arm.
        is_growth: Whether it is a growth, whose tokens the run does not count among its own.
    """

    number: int
    tokens: int
    num_parameters: int
    flops: float
    exact_flops: float
    is_base: bool
    is_growth: bool = False


@dataclass(frozen=True, slots=True)
class Spent:
    """What a run has cost so far.

    Attributes:
        tokens: All its tokens.
        tokens_after_base: Those after the base.
        flops: 6ND FLOPs, the base's among them.
        flops_after_base: Those after the base.
        exact_flops: FLOPs of matrices and attention, the base's among them.
    """

    tokens: int
    tokens_after_base: int
    flops: float
    flops_after_base: float
    exact_flops: float


# What is compared -> how it is read off.
ACCOUNTINGS: Mapping[str, Callable[[Spent], float]] = {
    ALL_IN: lambda spent: spent.flops,
    MARGINAL: lambda spent: spent.flops_after_base,
    TOKENS: lambda spent: float(spent.tokens_after_base),
    EXACT: lambda spent: spent.exact_flops,
}


def spent_at(costs: Sequence[StageCost], tokens: int, stage: int | None = None) -> Spent:
    """Return what a run has cost when it has trained on so many tokens.

    Args:
        costs: Its stages that cost anything, in order.
        tokens: Tokens that the run has trained on.
        stage: The stage where it stands, which tells the growths that it has done; None is beyond
            all of them.
    """
    left, after_base, learned = tokens, 0, 0
    flops = flops_after_base = exact = 0.0
    for cost in costs:
        if cost.is_growth:
            here = cost.tokens if stage is None or stage > cost.number else 0
            learned += here
        else:
            here = min(left, cost.tokens)
            left -= here
        flops += cost.flops * here
        exact += cost.exact_flops * here
        if not cost.is_base:
            after_base += here
            flops_after_base += cost.flops * here
    return Spent(tokens + learned, after_base, flops, flops_after_base, exact)


def total(costs: Sequence[StageCost]) -> float:
    """Return the 6ND FLOPs of all stages."""
    return sum(cost.flops * cost.tokens for cost in costs)


def exact_total(costs: Sequence[StageCost]) -> float:
    """Return the FLOPs of matrices and attention of all stages."""
    return sum(cost.exact_flops * cost.tokens for cost in costs)
