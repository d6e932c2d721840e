"""The report says what the runs measured, and no more: several seeds, no end, no reference."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from hfgrow.study import page
from hfgrow.study.accounting import ALL_IN, MARGINAL, TOKENS, spent_at
from hfgrow.study.design import Design, Job, design
from hfgrow.study.machine import Machine
from hfgrow.study.recipe import load_study
from hfgrow.study.results import Point, Result
from hfgrow.study.sections import blocks
from hfgrow.study.summary import summary
from tests.study.studies import tiny

MACHINE = Machine("A <CPU>", 2, (), {"torch": "2"})


def planned(folder: Path, **changes: Any) -> Design:
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(tiny(folder, seeds=[0, 1], **changes)))
    return design(load_study(path), folder / "out")


def measured(job: Job, losses: list[float], status: str = "done") -> Result:
    """Return a run whose loss was measured at equal distances, a base's share first."""
    first = next(cost.number for cost in job.costs if not cost.is_base)
    base = sum(cost.tokens for cost in job.costs if cost.is_base)
    points = [Point(0, "end", 0, spent_at(job.costs, base), 5.0, 2.0)] if base else []
    for i, loss in enumerate(losses):
        spent = spent_at(job.costs, base + 512 * i)
        points.append(Point(first, "inside" if i else "start", i, spent, loss, loss / 2))
    return Result(job.arm or "", job.seed, status, "", tuple(points), first, 1.0)


def runs(plan: Design) -> list[Result]:
    losses = {"scratch": [7.0, 6.0, 5.0, 4.0, 3.5], "stack": [5.5, 4.0, 3.0, 2.5, 2.0]}
    return [
        measured(job, [loss + job.seed / 10 for loss in losses[job.arm or ""]]) for job in plan.arms
    ]


def text_of(plan: Design, found: list[Result]) -> str:
    summed = summary(plan, found, {"stack": 0.25})
    return page.markdown("T", blocks(plan, found, summed, [], "hfgrow study", MACHINE), "plots")


def test_a_mean_comes_with_its_range_and_its_interval(tmp_path: Path) -> None:
    plan = planned(tmp_path)
    stack = summary(plan, runs(plan), {}).arms[1]
    assert stack.loss is not None
    assert (stack.loss.mean, stack.loss.low, stack.loss.high) == pytest.approx((2.05, 2.0, 2.1))
    text = text_of(plan, runs(plan))
    assert "2.0500 (2.0000 to 2.1000)" in text
    assert "95% bootstrap interval" in text
    assert "A \\<CPU\\>, 2 cores" in text
    assert "25.0%" in text


def test_speedups_are_those_of_the_accountings(tmp_path: Path) -> None:
    """Stack is down at scratch's 3.5 halfway between 512 and 1024 tokens after its base."""
    plan = planned(tmp_path)
    found = summary(plan, runs(plan), {}).arms[1].speedups
    tokens, marginal, all_in = found[TOKENS], found[MARGINAL], found[ALL_IN]
    assert tokens is not None
    assert marginal is not None
    assert all_in is not None
    assert tokens.mean == pytest.approx(2048 / (512 * 1024) ** 0.5 - 1)
    assert marginal.mean == pytest.approx(tokens.mean)
    assert all_in.mean < marginal.mean


def test_what_growth_did_is_told(tmp_path: Path) -> None:
    plan = planned(tmp_path)
    jump = summary(plan, runs(plan), {}).arms[1].jump
    assert jump is not None
    assert [spread and spread.mean for spread in jump] == pytest.approx([5.0, 5.55, 4.05])


def test_a_loss_that_was_not_reached_has_no_speedup(tmp_path: Path) -> None:
    plan = planned(tmp_path)
    found = [replace(r, points=r.points[:2]) if r.arm == "stack" else r for r in runs(plan)]
    stack = summary(plan, found, {}).arms[1]
    assert stack.equal_loss is None
    assert set(stack.speedups.values()) == {None}
    assert "not reached" in text_of(plan, found)


def test_a_run_that_is_not_finished_is_listed_and_not_counted(tmp_path: Path) -> None:
    plan = planned(tmp_path)
    found = [replace(r, status="open") if r.arm == "stack" else r for r in runs(plan)]
    stack = summary(plan, found, {}).arms[1]
    assert stack.num_seeds == 0
    assert stack.loss is None
    assert not stack.speedups
    text = text_of(plan, found)
    assert "| stack | 1 | open |" in text
    assert "not reached" not in text


def test_a_study_without_an_arm_from_scratch_has_no_speedups(tmp_path: Path) -> None:
    plan = planned(tmp_path, arms={"stack": {"grow": {"operator": "stack", "g": 2}}})
    found = runs(plan)
    assert summary(plan, found, {}).reference is None
    assert "Speed-up" not in text_of(plan, found)


def test_html_escapes_everything_that_somebody_wrote() -> None:
    evil = '<script>"&\x1b'
    shown = page.html(
        evil, [page.Heading(evil), page.Paragraph(evil, code=True), page.Table([evil], [[evil]])]
    )
    assert "<script" not in shown
    assert "\x1b" not in shown
    assert shown.count("&lt;script&gt;&quot;&amp;") == 6


def test_a_table_in_markdown_keeps_its_cells() -> None:
    shown = page.markdown("T", [page.Table(["a", "b"], [["1|2", "x\ny"]])], "plots")
    assert "| 1\\|2 | x\ufffdy |" in shown
