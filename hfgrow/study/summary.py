"""The numbers of a report: for every arm its losses, its cost, and its speed-up over scratch."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import inf
from typing import Any

from hfgrow.plan.plan import connection_rate
from hfgrow.study.accounting import ACCOUNTINGS, ALL_IN, total
from hfgrow.study.design import Design, StudyRun
from hfgrow.study.results import Result, by_arm, common_loss, interval, loss_at, mean, speedup

SHARES = (0.25, 0.5, 0.75, 0.9)
MEASURED, AT_LEAST, AT_GROWTH = "measured", "at least", "at growth"
NOT_REACHED, FALLING = "not reached", "falling"


@dataclass(frozen=True, slots=True)
class Spread:
    """A number over seeds.

    Attributes:
        mean: Its mean.
        low: The lowest.
        high: The highest.
        num_seeds: How many there are.
        interval: The bootstrap interval of the mean; None with fewer than five seeds.
    """

    mean: float
    low: float
    high: float
    num_seeds: int
    interval: tuple[float, float] | None


@dataclass(frozen=True, slots=True)
class Speedup:
    """A speed-up over the reference, over pairs of runs with the same seed.

    Attributes:
        outcome: `measured`; `at least`, where a run was down at the loss when it had grown;
            `at growth`, where that cost nothing; `not reached`; or `falling`, where the learning
            rate of one of the two falls, so that losses on the way are not finished ones.
        num_pairs: Pairs of runs.
        spread: The numbers; None if there is none.
    """

    outcome: str
    num_pairs: int
    spread: Spread | None


@dataclass(frozen=True, slots=True)
class ArmSummary:
    """What an arm came to.

    Attributes:
        arm: Its name.
        num_seeds: Finished runs.
        num_parameters: Parameters of what it ends as.
        tokens_after_base: Tokens after the base.
        flops: 6ND FLOPs, the base's among them.
        base_flops: Those of the base.
        loss: The last held-out loss.
        bits_per_byte: The same in bits a byte.
        jump: The loss before growth, just after, and at the next evaluation; None without growth.
        jump_tokens: Tokens from growth to that evaluation.
        rc: Connection rate of its layers; None if their number did not grow.
        dead: The share of weights without a gradient in the first step after growth; None if it
            was not measured.
        equal_loss: The lowest loss that it and the reference both came down to.
        speedups: Speed-up over the reference at that loss, by accounting; nothing without finished
            runs to compare.
        at_losses: Speed-up, all-in, at the losses of the reference on its way; likewise.
    """

    arm: str
    num_seeds: int
    num_parameters: int
    tokens_after_base: int
    flops: float
    base_flops: float
    loss: Spread | None
    bits_per_byte: Spread | None
    jump: tuple[Spread, Spread, Spread | None] | None
    jump_tokens: int | None
    rc: float | None
    dead: float | None
    equal_loss: Spread | None
    speedups: Mapping[str, Speedup]
    at_losses: Sequence[Speedup]

    @property
    def all_speedups(self) -> tuple[Speedup, ...]:
        """Its speed-ups at the equal loss and on the way."""
        return (*self.speedups.values(), *self.at_losses)

    def to_json(self) -> dict[str, Any]:
        """Return all fields."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Summary:
    """What a study came to.

    Attributes:
        reference: The arm that the others are compared with; None if there is none.
        losses: Mean losses of it on its way.
        arms: What every arm came to, in order.
    """

    reference: str | None
    losses: tuple[float, ...]
    arms: tuple[ArmSummary, ...]

    def to_json(self) -> dict[str, Any]:
        """Return all fields."""
        arms = [arm.to_json() for arm in self.arms]
        return {"reference": self.reference, "losses": list(self.losses), "arms": arms}


def summary(design: Design, found: Sequence[Result], dead: Mapping[str, float]) -> Summary:
    """Return the numbers of a study.

    Args:
        found: What they measured.
        dead: The share of weights without a gradient, by arm.
    """
    reference = design.study.compared_with
    finished = by_arm(found)
    scratch = {result.seed: result for result in finished.get(reference or "", [])}
    losses = _losses_on_the_way(list(scratch.values()))
    first = {job.arm: job for job in reversed(design.arms)}
    arms = tuple(
        _arm(
            first[name],
            results,
            {} if name == reference else scratch,
            losses,
            dead.get(name),
        )
        for name, results in finished.items()
    )
    return Summary(reference, losses, arms)


def spread(values: Sequence[float]) -> Spread | None:
    """Return a number over seeds; None without any."""
    if not values:
        return None
    return Spread(mean(values), min(values), max(values), len(values), interval(values))


def _arm(
    job: StudyRun,
    found: Sequence[Result],
    scratch: Mapping[int, Result],
    losses: Sequence[float],
    dead: float | None,
) -> ArmSummary:
    finals = [result.final for result in found if result.final]
    pairs = [(scratch[result.seed], result) for result in found if result.seed in scratch]
    equal = [
        None if one.falls or other.falls else common_loss(one.curve(ALL_IN), other.curve(ALL_IN))
        for one, other in pairs
    ]
    jumps = [result.jump for result in found if result.jump]
    after = [jump.next for jump in jumps if jump.next]
    before, just_after = spread([j.before for j in jumps]), spread([j.after for j in jumps])
    grown = job.layer_map if job.layer_map and len(job.layer_map) > _base_depth(job) else None
    base_flops = sum(cost.flops * cost.tokens for cost in job.costs if cost.is_base)
    return ArmSummary(
        arm=job.arm or "",
        num_seeds=len(found),
        num_parameters=job.costs[-1].num_parameters,
        tokens_after_base=sum(cost.tokens for cost in job.costs if not cost.is_base),
        flops=total(job.costs),
        base_flops=base_flops,
        loss=spread([point.loss for point in finals]),
        bits_per_byte=spread([point.bits_per_byte for point in finals]),
        jump=(before, just_after, spread([loss for loss, _ in after]))
        if before and just_after
        else None,
        jump_tokens=after[0][1] if after else None,
        rc=None if grown is None else connection_rate(grown),
        dead=dead,
        equal_loss=spread([loss for loss in equal if loss is not None]),
        speedups={key: _speedup(pairs, key, equal) for key in ACCOUNTINGS} if pairs else {},
        at_losses=[_speedup(pairs, ALL_IN, [loss] * len(pairs)) for loss in losses]
        if pairs
        else [],
    )


def _speedup(
    pairs: Sequence[tuple[Result, Result]], accounting: str, losses: Sequence[float | None]
) -> Speedup:
    """Return a speed-up over seeds, of which all must have reached their loss."""
    if any(one.falls or other.falls for one, other in pairs):
        return Speedup(FALLING, len(pairs), None)
    gains = [
        None if loss is None else speedup(one.curve(accounting), other.curve(accounting), loss)
        for (one, other), loss in zip(pairs, losses, strict=True)
    ]
    known = [gain for gain in gains if gain is not None]
    if len(known) < len(gains):
        return Speedup(NOT_REACHED, len(pairs), None)
    if any(gain.value == inf for gain in known):
        return Speedup(AT_GROWTH, len(pairs), None)
    outcome = AT_LEAST if any(gain.is_bound for gain in known) else MEASURED
    return Speedup(outcome, len(pairs), spread([gain.value for gain in known]))


def _losses_on_the_way(scratch: Sequence[Result]) -> tuple[float, ...]:
    """Return the mean loss of the reference after shares of its compute."""
    curves = [result.curve(ALL_IN) for result in scratch]
    if not curves or not all(curves) or any(result.falls for result in scratch):
        return ()
    found = []
    for share in SHARES:
        at = [
            curve[0][1] if loss is None else loss
            for curve in curves
            for loss in [loss_at(curve, share * curve[-1][0])]
        ]
        found.append(mean(at))
    return tuple(found)


def _base_depth(job: StudyRun) -> int:
    assert not isinstance(job.recipe.base, str)
    depth = job.recipe.base.config.get("num_hidden_layers")
    return depth if isinstance(depth, int) else 0
