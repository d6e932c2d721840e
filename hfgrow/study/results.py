"""What the runs of a study measured, and what follows: speed-ups, timings, dead gradients."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from math import exp, inf, log
from typing import Any

from hfgrow.errors import GrowthError
from hfgrow.plan.families.table import layer_of
from hfgrow.study.accounting import ACCOUNTINGS, ALL_IN, Spent, spent_at
from hfgrow.study.design import Design, StudyRun
from hfgrow.study.runs import DONE, Outcome, is_done, outcome_of, recorded
from hfgrow.train.metrics import read_metrics
from hfgrow.train.run_folder import RunFolder

Curve = Sequence[tuple[float, float]]
CONFIDENCE = 0.95
LEAST_FOR_INTERVAL = 5
_NUM_SAMPLES = 10_000
_LEAST_TIMINGS = 3
_NUM_BUDGETS = 4
_MOST_PARAMETERS = 200_000_000
_NUM_TOKENS = 512


@dataclass(frozen=True, slots=True)
class Point:
    """An evaluation.

    Attributes:
        stage: The stage of the run, from 0.
        when: `start`, `inside` or `end` of the stage, or `base` before a first growth.
        step: Optimizer steps of the run, the base's among them.
        spent: What the run had cost.
        loss: Nats a token of the held-out text, all of its sources together.
        bits_per_byte: The same in bits a byte.
    """

    stage: int
    when: str
    step: int
    spent: Spent
    loss: float
    bits_per_byte: float

    def to_json(self) -> dict[str, object]:
        """Return all fields in one mapping."""
        content = asdict(self)
        return {**content.pop("spent"), **content}


@dataclass(frozen=True, slots=True)
class Jump:
    """What a first growth did to the loss.

    Attributes:
        before: The last loss of the base.
        after: The loss just after growth.
        next: The loss at the first evaluation after that, and its tokens after the base.
    """

    before: float
    after: float
    next: tuple[float, int] | None


@dataclass(frozen=True, slots=True)
class Result:
    """What a run of an arm measured.

    Attributes:
        arm: The arm.
        seed: The seed.
        status: How the run stands: `done`, `failed`, `not run` or `open`.
        message: What was wrong with it, if anything was.
        points: Its evaluations, the base's among them.
        first_grown: The first stage of training after the first growth; 0 where nothing grows.
        as_target: The first after the last growth, which trains a model of the target's size.
        falls: Whether its learning rate falls, so that losses before its end are not finished ones.
        seconds: What its training took, the base's included; None if it is not finished.
    """

    arm: str
    seed: int
    status: str
    message: str
    points: tuple[Point, ...]
    first_grown: int
    as_target: int
    falls: bool
    seconds: float | None

    @property
    def grown(self) -> tuple[Point, ...]:
        """The evaluations after the first growth, or all of an arm from scratch."""
        return tuple(p for p in self.points if p.stage >= self.first_grown and p.when != "base")

    @property
    def final(self) -> Point | None:
        """The last evaluation of a finished run."""
        return self.points[-1] if self.status == DONE and self.points else None

    @property
    def jump(self) -> Jump | None:
        """What its first growth did; None if nothing grew, or nothing was measured before."""
        earlier = [p for p in self.points if p.stage < self.first_grown or p.when == "base"]
        if not earlier or not self.grown:
            return None
        first, *rest = self.grown
        if first.when != "start":
            return None
        after = (rest[0].loss, rest[0].spent.tokens_after_base) if rest else None
        return Jump(earlier[-1].loss, first.loss, after)

    def curve(self, accounting: str) -> list[tuple[float, float]]:
        """Return cost and loss of the evaluations as a model of the target's size, in order."""
        cost = ACCOUNTINGS[accounting]
        return [(cost(p.spent), p.loss) for p in self.grown if p.stage >= self.as_target]

    def path(self, accounting: str) -> list[tuple[float, float]]:
        """Return cost and loss of all evaluations after the first growth, in order."""
        cost = ACCOUNTINGS[accounting]
        return [(cost(p.spent), p.loss) for p in self.grown]

    def to_json(self) -> dict[str, object]:
        """Return what results.json has of it."""
        return {
            "arm": self.arm,
            "seed": self.seed,
            "status": self.status,
            "message": self.message,
            "seconds": self.seconds,
            "evaluations": [point.to_json() for point in self.points],
        }


def results(design: Design, outcomes: Mapping[str, Outcome]) -> tuple[Result, ...]:
    """Read what the runs of all arms measured so far.

    Args:
        outcomes: How runs ended, if they were just carried out.
    """
    return tuple(_result(job, outcomes.get(job.name)) for job in design.arms)


def by_arm(found: Iterable[Result]) -> dict[str, list[Result]]:
    """Return results by arm, in order, only those of finished runs."""
    arms: dict[str, list[Result]] = {}
    for result in found:
        arms.setdefault(result.arm, [])
        if result.status == DONE:
            arms[result.arm].append(result)
    return arms


def _result(job: StudyRun, outcome: Outcome | None) -> Result:
    outcome = outcome or outcome_of(job)
    return Result(
        arm=job.arm or "",
        seed=job.seed,
        status=outcome.status,
        message=outcome.message,
        points=tuple(_points(job, read_metrics(job.folder))),
        first_grown=job.first_grown,
        as_target=job.as_target,
        falls=job.falls,
        seconds=recorded(job).device_seconds if is_done(job) else None,
    )


def _points(job: StudyRun, lines: Sequence[Mapping[str, Any]]) -> Iterable[Point]:
    # A run that was stopped just after an evaluation measures once more when it goes on.
    last = {(line["stage"], line["when"], line["step"]): line for line in lines if _measures(line)}
    for line in last.values():
        texts = list(line["validation"].values())
        nats = sum(text["loss"] * text["num_tokens"] for text in texts)
        nbytes = sum(
            text["loss"] * text["num_tokens"] / log(2) / text["bits_per_byte"] for text in texts
        )
        yield Point(
            stage=line["stage"],
            when=line["when"],
            step=line["step"],
            spent=spent_at(job.costs, line["tokens"], line["stage"]),
            loss=nats / sum(text["num_tokens"] for text in texts),
            bits_per_byte=nats / log(2) / nbytes,
        )


def _measures(line: Mapping[str, Any]) -> bool:
    """Say whether a line holds losses, all of them finite: a run that diverged writes null."""
    texts = (line.get("validation") or {}).values()
    losses = [(text["loss"], text["bits_per_byte"]) for text in texts]
    return bool(losses) and all(value is not None for pair in losses for value in pair)


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
    """Return the speed-up at a loss: cost_scratch(L) / cost_grown(L) - 1.

    A loss that a run never came down to has no cost, and a speed-up there does not exist. Where the
    grown run was down at L as soon as it had grown, L cost at most what it had cost by then.

    Source: Du et al. 2024, "Stacking Your Transformers", https://arxiv.org/abs/2405.15319, Sec. 3

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


def cost_at(curve: Curve, loss: float) -> float | None:
    """Return the first cost at which a curve is down at a loss.

    Between two evaluations the loss is taken as linear in the logarithm of the cost.

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

    Source: Efron 1979, "Bootstrap Methods", https://doi.org/10.1214/aos/1176344552 (percentiles)
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


def timings(design: Design, found: Sequence[Result]) -> list[dict[str, Any]]:
    """Return the losses of growth timings at budgets that all of them reached.

    Arms that differ in the tokens of their base alone tell at which of these the loss is lowest for
    a budget of compute, as `hfgrow budget --fit` reads it. Under a constant learning rate every
    cost on the way is such a budget.

    Returns:
        For each budget `parameters` (N of the target), `flops` (C, 6ND, the base's among them) and
        `losses`: `base_tokens` (d) and `loss` (nats a token, the mean over seeds) of each timing.
        Nothing if fewer than three timings were tried, or the learning rate was not constant.
    """
    jobs = {job.arm: job for job in design.arms}
    groups: dict[str, dict[int, list[Result]]] = {}
    for arm, finished in by_arm(found).items():
        timing = _base_tokens(jobs[arm])
        if finished and timing and _is_constant(design, arm):
            groups.setdefault(_all_but_timing(design, jobs[arm]), {})[timing] = finished
    return [
        budget
        for group in groups.values()
        if len(group) >= _LEAST_TIMINGS
        for budget in _budgets(group, design.arms[0].costs[-1].num_parameters)
    ]


def _base_tokens(job: StudyRun) -> int:
    return sum(cost.tokens for cost in job.costs if cost.is_base)


def _is_constant(design: Design, arm: str) -> bool:
    train = design.study.train | design.study.arms[arm].train
    return train.get("schedule") == "constant"


def _all_but_timing(design: Design, job: StudyRun) -> str:
    """Return what an arm is, but for how long its base is trained."""
    arm = design.study.arms[job.arm or ""]
    base = design.study.bases[design.study.base_of(arm) or ""]
    alike = (arm.model_dump(exclude={"base", "paper"}), base.model_dump(exclude={"factor"}))
    return json.dumps(alike, sort_keys=True)


def _budgets(group: dict[int, list[Result]], num_parameters: int) -> list[dict[str, Any]]:
    seeds = set.intersection(*({result.seed for result in found} for found in group.values()))
    curves = {
        timing: [result.curve(ALL_IN) for result in found if result.seed in seeds]
        for timing, found in group.items()
    }
    every = [curve for some in curves.values() for curve in some]
    if not every or min(map(len, every)) < 2:
        return []
    # Just after growth, where a curve begins, the loss has jumped.
    low, high = max(curve[1][0] for curve in every), min(curve[-1][0] for curve in every)
    if low >= high:
        return []
    found = []
    for i in range(_NUM_BUDGETS):
        flops = high * (low / high) ** (i / _NUM_BUDGETS)
        losses = []
        for timing, some in sorted(curves.items()):
            at = [loss for curve in some if (loss := loss_at(curve, flops)) is not None]
            losses.append({"base_tokens": timing, "loss": mean(at)})
        found.append({"parameters": num_parameters, "flops": flops, "losses": losses})
    return found


def dead_gradients(design: Design) -> dict[str, float]:
    """Return the share of dead weights of every arm that grew, by its first finished run.

    Where growth inserts zeros, what reads or feeds them may have a gradient of exactly zero in the
    first step, and starts to learn only when they have moved. Embeddings are not counted: rows of
    tokens that are not in the text have none in any model. What was not kept, or is too large to be
    loaded for this, is left out.
    """
    found: dict[str, float] = {}
    for job in design.arms:
        if job.arm is not None and job.arm not in found and job.layer_map and is_done(job):
            share = _share(job)
            if share is not None:
                found[job.arm] = share
    return found


def _share(job: StudyRun) -> float | None:
    """Return the share of the matrices' weights whose gradient is zero in the first step."""
    import torch

    from hfgrow.growth.mask import attach_mask
    from hfgrow.train.growing import last_growth
    from hfgrow.train.stage import load_model

    number = job.first_grown
    folders = sorted(RunFolder(job.folder).stage(number - 1, "").glob("*"))
    train = job.recipe.stages[number].train
    if len(folders) != 1 or train is None or job.costs[-1].num_parameters > _MOST_PARAMETERS:
        return None
    try:
        model = load_model(folders[0])
        growth = last_growth(folders[0])
    except GrowthError:
        return None
    if train.mask_ramp is not None and growth is not None:
        opened = job.recipe.batch_tokens / max(1, train.mask_ramp_tokens)
        attach_mask(model, growth, min(1.0, opened))
    length = min(job.recipe.data.sequence_length, _NUM_TOKENS)
    shape = (max(1, _NUM_TOKENS // length), length)
    generator = torch.Generator().manual_seed(job.seed)
    tokens = torch.randint(0, model.config.vocab_size, shape, generator=generator)
    model(tokens, labels=tokens).loss.backward()
    num_dead = num_weights = 0
    for name, parameter in model.named_parameters():
        if layer_of(name) and parameter.ndim == 2:
            num_weights += parameter.numel()
            gradient = parameter.grad
            num_dead += parameter.numel() if gradient is None else int((gradient == 0).sum().item())
    return num_dead / num_weights
