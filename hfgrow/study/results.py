"""What the runs of a study measured: every evaluation, with what it had cost by then."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import log
from typing import Any

from hfgrow.study.accounting import ACCOUNTINGS, Spent, spent_at
from hfgrow.study.child import DONE, Outcome, is_done, outcome_of
from hfgrow.study.design import Design
from hfgrow.study.job import StudyRun
from hfgrow.study.ledgers import recorded
from hfgrow.train.metrics import read_metrics


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
        design: The runs.
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
