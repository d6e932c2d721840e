"""A report opens with what was measured, in a sentence, and says where it cannot tell."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hfgrow.lineage import canvas
from hfgrow.study import plots, report, report_page
from hfgrow.study.accounting import ALL_IN
from hfgrow.study.answer import answer
from hfgrow.study.results import Result, by_arm
from hfgrow.study.summary import Summary, summary
from tests.study.made_up import measured, planned, runs

ARMS: dict[str, Any] = {
    "scratch": {"scratch": "equal-compute"},
    "stack": {"grow": {"operator": "stack", "g": 2}},
    "zero-depth": {"grow": {"operator": "zero-depth", "g": 2}},
}
SCRATCH = [7.0, 6.0, 5.0, 4.0, 3.5]


def summed(folder: Path, losses: Mapping[str, Sequence[Sequence[float]]], **more: Any) -> Summary:
    """Sum up a study whose arms measured these losses, one list for each seed."""
    num_seeds = max(map(len, losses.values()))
    arms = {arm: ARMS[arm] for arm in losses}
    plan = planned(folder, seeds=list(range(num_seeds)), arms=arms, **more)
    found = [measured(job, list(losses[job.arm or ""][job.seed])) for job in plan.arms]
    return summary(plan, found, {})


def test_an_arm_that_is_ahead_in_every_seed_is_the_answer(tmp_path: Path) -> None:
    plan = planned(tmp_path)
    assert answer(summary(plan, runs(plan), {})).startswith(
        "At equal loss and with its base counted, stack has a speed-up over scratch of +"
    )


def test_one_seed_is_not_taken_for_an_answer(tmp_path: Path) -> None:
    found = summed(tmp_path, {"scratch": [SCRATCH], "stack": [[5.5, 4, 3, 2.5, 2]]})
    assert answer(found).startswith("One seed cannot tell a difference from chance; in this one, ")


def test_a_range_that_holds_nothing_gained_is_no_answer(tmp_path: Path) -> None:
    slow, fast = [6.9, 6.5, 6.0, 5.0, 4.5], [5.5, 4.0, 3.0, 2.5, 2.0]
    found = summed(tmp_path, {"scratch": [SCRATCH, SCRATCH], "stack": [slow, fast]})
    assert answer(found).startswith(
        "This study cannot tell whether growing is ahead of scratch: at equal loss"
    )


def test_an_arm_that_is_behind_in_every_seed_is_not_called_ahead(tmp_path: Path) -> None:
    slow = [6.99, 6.8, 6.5, 6.0, 5.5]
    found = summed(tmp_path, {"scratch": [SCRATCH, SCRATCH], "stack": [slow, slow]})
    assert answer(found).startswith("No arm is ahead of scratch: at equal loss")


def test_arms_whose_ranges_overlap_are_not_told_apart(tmp_path: Path) -> None:
    one = [[5.5, 4.0, 3.0, 2.5, 2.0], [5.5, 4.2, 3.2, 2.6, 2.1]]
    losses = {"scratch": [SCRATCH, SCRATCH], "stack": one, "zero-depth": one[::-1]}
    assert answer(summed(tmp_path, losses)).endswith("; zero-depth cannot be told from it.")


def test_without_speedups_the_ends_are_compared(tmp_path: Path) -> None:
    def falling(result: Result) -> Result:
        return replace(result, falls=True)

    plan = planned(tmp_path)
    found = answer(summary(plan, list(map(falling, runs(plan))), {}))
    assert found.startswith("Stack ends at the lowest held-out loss, 2.0500 (2.0000 to 2.1000 over")


def test_a_study_without_finished_runs_has_no_answer(tmp_path: Path) -> None:
    plan = planned(tmp_path)
    found = [replace(result, status="open") for result in runs(plan)]
    assert answer(summary(plan, found, {})) == (
        "There is no answer yet: fewer than two arms are finished."
    )


def test_a_report_opens_with_the_answer(tmp_path: Path) -> None:
    plan = planned(tmp_path)
    found = summary(plan, runs(plan), {})
    page = report_page.html("T", report.blocks(plan, runs(plan), found, [], (), None))
    assert page.split("<h1>T</h1>\n")[1].startswith('<p class="lead">At equal loss')


def test_nothing_but_what_was_measured_looks_like_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names stand beside the axes, and nothing leads from them to the ends."""
    figures: list[Any] = []

    def kept(figure: Any, kind: str = "png") -> bytes:
        figures.append(figure)
        return canvas.picture_bytes(figure, kind)

    monkeypatch.setattr(plots, "picture_bytes", kept)
    plan = planned(tmp_path)
    plots.loss_picture(by_arm(runs(plan)), "scratch", ALL_IN)
    (axes,) = figures[0].axes
    assert {text.get_text() for text in axes.texts} == {"scratch", "stack"}
    for name in axes.texts:
        assert name.arrow_patch is None
        assert name.xy[0] > 1
    outside = [line for line in axes.lines if line.get_transform() == axes.transAxes]
    assert all(min(line.get_xdata()) > 1 for line in outside)
    assert len(outside) == 2
