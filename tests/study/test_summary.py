"""What the losses of the runs come to: means, speed-ups and their bounds, jumps at growth.

What a run has cost, by hand.
"""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from hfgrow.study.accounting import (
    ACCOUNTINGS,
    ALL_IN,
    MARGINAL,
    TOKENS,
    StageCost,
    spent_at,
    total,
)
from hfgrow.study.results import Point, results
from hfgrow.study.runs import Outcome
from hfgrow.study.summary import Speedup, Spread, summary
from tests.study.made_up import measured, planned, result_of, runs, text_of
from tests.study.studies import tiny


def test_losses_on_the_way_are_those_at_their_share_of_the_compute(tmp_path: Path) -> None:
    """Scratch is evaluated at a quarter, a half, three quarters and the end of its tokens."""
    plan = planned(tmp_path, arms={"scratch": {"scratch": "target"}})
    found = [measured(job, [7.0, 6.0, 5.0, 4.0, 3.0]) for job in plan.arms]
    quarter, half, most, ninety = summary(plan, found, {}).losses
    assert (quarter, half, most) == pytest.approx((6.0, 5.0, 4.0))
    assert 3.0 < ninety < 4.0


def test_speedups_are_those_of_the_accountings(tmp_path: Path) -> None:
    """Stack is down at scratch's 3.5 halfway between 512 and 1024 tokens after its base."""
    plan = planned(tmp_path)
    found = summary(plan, runs(plan), {}).arms[1].speedups
    tokens, marginal, all_in = (numbers(found[key]) for key in (TOKENS, MARGINAL, ALL_IN))
    assert tokens.mean == pytest.approx(2048 / (512 * 1024) ** 0.5 - 1)
    assert marginal.mean == pytest.approx(tokens.mean)
    assert all_in.mean < marginal.mean


def numbers(found: Speedup, outcome: str = "measured") -> Spread:
    assert found.outcome == outcome
    assert found.spread is not None
    return found.spread


def test_a_loss_that_an_arm_had_at_growth_gives_a_lower_bound(tmp_path: Path) -> None:
    """Stack begins at 3.5, scratch ends at 4: what stack had cost by then is the most."""
    plan = planned(tmp_path)
    losses = {"scratch": [7.0, 6.0, 5.0, 4.5, 4.0], "stack": [3.5, 3.0]}
    found = [measured(job, losses[job.arm or ""]) for job in plan.arms]
    speedups = summary(plan, found, {}).arms[1].speedups
    scratch, stack = (next(j for j in plan.arms if j.arm == arm) for arm in ("scratch", "stack"))
    by_then = sum(c.flops * c.tokens for c in stack.costs if c.is_base)
    expected = spent_at(scratch.costs, 2048).flops / by_then - 1
    assert numbers(speedups[ALL_IN], "at least").mean == pytest.approx(expected)
    assert speedups[TOKENS].outcome == "at growth"
    text = text_of(plan, found)
    assert f"at least {expected:+.1%}" in text
    assert "at growth" in text
    assert "not reached" not in text


def test_losses_on_the_way_that_an_arm_had_at_growth_are_bounds_too(tmp_path: Path) -> None:
    plan = planned(tmp_path)
    outcomes = [gain.outcome for gain in summary(plan, runs(plan), {}).arms[1].at_losses]
    assert outcomes == ["at least", "measured", "measured", "measured"]


def test_a_speedup_says_of_how_many_pairs_it_is(tmp_path: Path) -> None:
    plan = planned(tmp_path)
    found = [
        replace(r, status="failed") if (r.arm, r.seed) == ("scratch", 1) else r for r in runs(plan)
    ]
    stack = summary(plan, found, {}).arms[1]
    assert {gain.num_pairs for gain in stack.speedups.values()} == {1}
    text = text_of(plan, found)
    assert "With one seed there is no interval" in text
    assert "| stack | 1 | +" in text


def test_losses_under_a_falling_learning_rate_are_not_compared_on_the_way(tmp_path: Path) -> None:
    plan = planned(
        tmp_path,
        arms={
            "scratch": {"scratch": "target"},
            "stack": {"grow": {"operator": "stack", "g": 2}, "train": {"schedule": "cosine"}},
        },
    )
    stack = summary(plan, runs(plan), {}).arms[1]
    assert stack.equal_loss is None
    assert {gain.outcome for gain in stack.all_speedups} == {"falling"}
    assert "Compare the losses where the runs end" in text_of(plan, runs(plan))


def test_an_arm_that_grows_in_steps_is_counted_from_its_last_growth(tmp_path: Path) -> None:
    """It was down at 1 as a smaller model, and comes no lower than 4 as the target."""
    plan = planned(
        tmp_path,
        bases={"small": {"config": {"num_hidden_layers": 1}}},
        model={**tiny(tmp_path)["model"], "num_hidden_layers": 4},
        arms={
            "scratch": {"scratch": "target"},
            "steps": {
                "stages": [
                    {"grow": {"operator": "stack", "g": 2}},
                    {"train": {"share": 0.5}},
                    {"grow": {"operator": "stack", "g": 2}},
                    {"train": {}},
                ]
            },
        },
    )
    job = next(job for job in plan.arms if job.arm == "steps")
    points = [Point(0, "end", 0, spent_at(job.costs, 1024), 5.0, 2.0)]
    for stage, when, tokens, loss in (
        (2, "start", 1024, 1.5),
        (2, "end", 2048, 1.0),
        (4, "start", 2048, 6.0),
        (4, "end", 3072, 4.0),
    ):
        points.append(Point(stage, when, 0, spent_at(job.costs, tokens), loss, 2.0))
    found = result_of(job, points)
    assert [loss for _, loss in found.curve(ALL_IN)] == [6.0, 4.0]
    assert [loss for _, loss in found.path(ALL_IN)] == [1.5, 1.0, 6.0, 4.0]
    assert found.jump is not None
    assert (found.jump.before, found.jump.after) == (5.0, 1.5)


def test_what_training_before_growth_measures_is_before_growth(tmp_path: Path) -> None:
    stages = [{"train": {"share": 0.5}}, {"grow": {"operator": "stack", "g": 2}}, {"train": {}}]
    plan = planned(tmp_path, arms={"late": {"stages": stages}})
    job = plan.arms[0]
    points = [
        Point(stage, when, 0, spent_at(job.costs, tokens), loss, 1.0)
        for stage, when, tokens, loss in (
            (0, "end", 1024, 5.0),
            (1, "start", 1024, 5.0),
            (1, "end", 2048, 4.0),
            (3, "start", 2048, 4.5),
            (3, "end", 3072, 3.0),
        )
    ]
    jump = result_of(job, points).jump
    assert jump is not None
    assert (jump.before, jump.after) == (4.0, 4.5)


def test_a_loss_that_is_no_number_is_no_point(tmp_path: Path) -> None:
    plan = planned(tmp_path)
    job = plan.arms[0]
    lost = {"loss": None, "num_tokens": 10, "bits_per_byte": None}
    whole = {"loss": 2.0, "num_tokens": 10, "bits_per_byte": 1.0}
    job.folder.mkdir(parents=True)
    lines = [
        {"stage": 0, "when": when, "step": step, "tokens": 256 * step, "validation": {"t": text}}
        for step, (when, text) in enumerate((("start", whole), ("inside", lost)))
    ]
    (job.folder / "metrics.jsonl").write_text("".join(f"{json.dumps(x)}\n" for x in lines))
    found = results(plan, {job.name: Outcome("failed", "diverged")})[0]
    assert [point.loss for point in found.points] == [2.0]
    assert (found.status, found.message) == ("failed", "diverged")


def test_what_growth_did_is_told(tmp_path: Path) -> None:
    plan = planned(tmp_path)
    jump = summary(plan, runs(plan), {}).arms[1].jump
    assert jump is not None
    assert [spread and spread.mean for spread in jump] == pytest.approx([5.0, 5.55, 4.05])


def test_a_loss_that_was_not_reached_has_no_speedup(tmp_path: Path) -> None:
    plan = planned(tmp_path)
    losses = {"scratch": [7.0, 6.0], "stack": [9.0, 8.0]}
    found = [measured(job, losses[job.arm or ""]) for job in plan.arms]
    stack = summary(plan, found, {}).arms[1]
    assert stack.equal_loss is None
    assert {gain.outcome for gain in stack.speedups.values()} == {"not reached"}
    assert "not reached" in text_of(plan, found)


def test_a_study_without_an_arm_from_scratch_has_no_speedups(tmp_path: Path) -> None:
    plan = planned(tmp_path, arms={"stack": {"grow": {"operator": "stack", "g": 2}}})
    found = runs(plan)
    assert summary(plan, found, {}).reference is None
    assert "Speed-up" not in text_of(plan, found)


BASE = StageCost(0, 100, 10, 60.0, 50.0, is_base=True)
GROWN = StageCost(2, 300, 40, 240.0, 200.0, is_base=False)


@pytest.mark.parametrize(
    ("tokens", "all_in", "marginal", "after", "exact"),
    [
        (0, 0.0, 0.0, 0, 0.0),
        (50, 3000.0, 0.0, 0, 2500.0),
        (100, 6000.0, 0.0, 0, 5000.0),
        (150, 18000.0, 12000.0, 50, 15000.0),
        (400, 78000.0, 72000.0, 300, 65000.0),
    ],
)
def test_a_run_is_charged_stage_by_stage(
    tokens: int, all_in: float, marginal: float, after: int, exact: float
) -> None:
    spent = spent_at((BASE, GROWN), tokens)
    assert [read(spent) for read in ACCOUNTINGS.values()] == [all_in, marginal, after, exact]


def test_all_stages_together_are_the_last_token() -> None:
    assert total((BASE, GROWN)) == spent_at((BASE, GROWN), 400).flops


def test_without_a_base_all_accountings_count_the_same_tokens() -> None:
    spent = spent_at((GROWN,), 200)
    assert spent.tokens == spent.tokens_after_base
    assert spent.flops == spent.flops_after_base


def test_a_growth_that_learns_is_charged_once_the_run_is_past_it() -> None:
    """Its tokens are none of those that the run counts."""
    learned = StageCost(1, 20, 40, 240.0, 200.0, is_base=False, is_growth=True)
    costs = (BASE, learned, GROWN)
    before, after = spent_at(costs, 100, stage=1), spent_at(costs, 100, stage=2)
    assert (before.tokens, before.flops, before.tokens_after_base) == (100, 6000.0, 0)
    assert (after.tokens, after.flops, after.tokens_after_base) == (120, 10800.0, 20)
    assert total(costs) == spent_at(costs, 400).flops
