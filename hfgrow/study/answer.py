"""What a study answers, in a sentence: no more than what was measured, and what it cannot tell."""

from collections.abc import Sequence

from hfgrow.study.accounting import ALL_IN
from hfgrow.study.results import CONFIDENCE, LEAST_FOR_INTERVAL
from hfgrow.study.summary import AT_LEAST, ArmSummary, Spread, Summary

# More names say less.
_MOST_NAMES = 4


def answer(found: Summary) -> str:
    """Return the answer of a study.

    Where every arm came down to a loss of the reference, speed-ups in FLOPs with the base included
    decide; else the losses at the end. Two arms are told apart where their intervals over seeds do
    not overlap, or with fewer than five seeds the lowest and the highest; one seed tells nothing
    apart.
    """
    finished = [arm for arm in found.arms if arm.loss is not None]
    if len(finished) < 2:
        return "There is no answer yet: fewer than two arms are finished."
    others = [arm for arm in finished if arm.arm != found.reference]
    if found.reference is not None and all(_speedup(arm) for arm in others):
        return _by_speedup(found.reference, others)
    return _by_loss(finished)


def _by_speedup(reference: str, arms: Sequence[ArmSummary]) -> str:
    first, *rest = sorted(arms, key=lambda arm: -_gain(arm).mean)
    gain = _gain(first)
    least = "at least " if first.speedups[ALL_IN].outcome == AT_LEAST else ""
    told = (
        f"at equal loss and with its base counted, {first.arm} has a speed-up over {reference} of "
        f"{least}{gain.mean:+.0%} in FLOPs{_over(gain, '.0%', sign='+')}"
    )
    bounds = _bounds(gain)
    if bounds is None:
        return f"One seed cannot tell a difference from chance; in this one, {told}."
    if bounds[0] <= 0 < bounds[1]:
        return f"This study cannot tell whether growing is ahead of {reference}: {told}."
    if bounds[1] <= 0:
        return f"No arm is ahead of {reference}: {told}, and that is the best of them."
    return f"{_capital(told)}{_not_told_apart(first, rest)}."


def _by_loss(arms: Sequence[ArmSummary]) -> str:
    first, *rest = sorted(arms, key=lambda arm: _loss(arm).mean)
    loss, second = _loss(first), _loss(rest[0])
    told = (
        f"{first.arm} ends at the lowest held-out loss, {loss.mean:.4f}{_over(loss, '.4f')} for "
        f"{first.flops:.3g} FLOPs, before {rest[0].arm}, {second.mean:.4f} for "
        f"{rest[0].flops:.3g}"
    )
    if _bounds(loss) is None:
        return f"One seed cannot tell a difference from chance; in this one, {told}."
    if _overlap(loss, second):
        names = _names([first, *(arm for arm in rest if _overlap(loss, _loss(arm)))])
        return f"This study cannot tell {names} apart: {told}, and their ranges overlap."
    return f"{_capital(told)}."


def _speedup(arm: ArmSummary) -> Spread | None:
    return arm.speedups[ALL_IN].spread if ALL_IN in arm.speedups else None


def _gain(arm: ArmSummary) -> Spread:
    spread = _speedup(arm)
    assert spread is not None
    return spread


def _loss(arm: ArmSummary) -> Spread:
    assert arm.loss is not None
    return arm.loss


def _bounds(spread: Spread) -> tuple[float, float] | None:
    """Return the interval of a number, the lowest and the highest of few seeds; None for one."""
    if spread.num_seeds < 2:
        return None
    return spread.interval or (spread.low, spread.high)


def _overlap(one: Spread, other: Spread) -> bool:
    """Say whether two numbers cannot be told apart."""
    a, b = _bounds(one), _bounds(other)
    return a is None or b is None or (a[0] <= b[1] and b[0] <= a[1])


def _over(spread: Spread, form: str, *, sign: str = "") -> str:
    """Return the range of a number in words, for behind it."""
    bounds = _bounds(spread)
    if bounds is None:
        return ""
    low, high = (f"{bound:{sign}{form}}" for bound in bounds)
    if spread.num_seeds < LEAST_FOR_INTERVAL:
        return f" ({low} to {high} over {spread.num_seeds} seeds)"
    return f" ({CONFIDENCE:.0%} interval {low} to {high}, {spread.num_seeds} seeds)"


def _not_told_apart(first: ArmSummary, rest: Sequence[ArmSummary]) -> str:
    alike = [
        arm
        for arm in rest
        if _overlap(_gain(first), _gain(arm)) or arm.speedups[ALL_IN].outcome == AT_LEAST
    ]
    return f"; {_names(alike)} cannot be told from it" if alike else ""


def _names(arms: Sequence[ArmSummary]) -> str:
    names = [arm.arm for arm in arms]
    if len(names) > _MOST_NAMES:
        names = [*names[: _MOST_NAMES - 1], f"{len(names) - _MOST_NAMES + 1} more"]
    *some, last = names
    return f"{', '.join(some)} and {last}" if some else last


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
