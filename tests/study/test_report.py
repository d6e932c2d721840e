"""The report says what the runs measured, and no more."""

from dataclasses import replace
from pathlib import Path

import pytest

from hfgrow.study import report_page
from hfgrow.study.design import selected
from hfgrow.study.folder import Machine, text_lines, where_ran, words_of
from hfgrow.study.summary import summary
from tests.study.made_up import MACHINE, planned, runs, text_of


def test_five_seeds_have_an_interval(tmp_path: Path) -> None:
    plan = planned(tmp_path, seeds=list(range(5)))
    assert "95% bootstrap interval" in text_of(plan, runs(plan))


def test_a_report_says_what_text_was_read_and_how_often() -> None:
    view = {"label": "a.txt", "num_tokens": 1000, "fingerprint": "f"}
    text = {"train": [view], "validation": [], "notes": ["both hold a.txt"]}
    first, note = text_lines(text, 4500)
    assert "a.txt (1,000 tokens)" in first
    assert "read 4,500 tokens, 4.5 times as many as there are" in first
    assert note == "Note: both hold a.txt."


def test_a_mean_comes_with_its_range(tmp_path: Path) -> None:
    plan = planned(tmp_path)
    stack = summary(plan, runs(plan), {}).arms[1]
    assert stack.loss is not None
    assert (stack.loss.mean, stack.loss.low, stack.loss.high) == pytest.approx((2.05, 2.0, 2.1))
    text = text_of(plan, runs(plan))
    assert "2.0500 (2.0000 to 2.1000)" in text
    assert "the lowest and the highest of the seeds" in text
    assert "A \\<CPU\\>, 2 cores" in text
    assert "25.0%" in text


def test_runs_on_two_machines_are_told_apart(tmp_path: Path) -> None:
    plan = planned(tmp_path)
    other = Machine("B", 8, ("A GPU",), {"torch": "2"}).to_json()
    places = {
        "scratch-seed0": [{"command": "one", "machine": MACHINE}],
        "stack-seed0": [{"command": "two", "machine": other}],
    }
    ran = where_ran(plan, places)
    assert [one.runs for one in ran] == [("scratch-seed0",), ("stack-seed0",)]
    text = text_of(plan, runs(plan), ran)
    assert "Machine of stack-seed0: B, 8 cores; A GPU" in text
    assert "Command of scratch-seed0:" in text


def test_one_core_is_no_cores() -> None:
    assert words_of(Machine("A", 1, (), {"torch": "2"}).to_json()) == "A, 1 core; torch 2"


def test_a_question_of_several_lines_is_one_paragraph(tmp_path: Path) -> None:
    plan = planned(tmp_path, question="Is it\nbetter?\n")
    assert "Is it better?" in text_of(plan, runs(plan))


def test_a_report_says_where_an_arm_has_the_compute_of_arms_that_are_left_out(
    tmp_path: Path,
) -> None:
    arms = {
        "scratch": {"scratch": "equal-compute"},
        "stack": {"grow": {"operator": "stack", "g": 2}},
        "longer": {"grow": {"operator": "stack", "g": 2}, "train": {"tokens": 8192}},
    }
    whole = planned(tmp_path, arms=arms)
    some = selected(whole, frozenset({"scratch", "stack"}), frozenset({0, 1}))
    said = "scratch trained for the compute of the costliest arm of the whole study, though longer"
    assert said in text_of(some, runs(some))
    assert "costliest arm" not in text_of(planned(tmp_path), runs(planned(tmp_path)))


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


def test_html_escapes_everything_that_somebody_wrote() -> None:
    evil = '<script>"&\x1b'
    shown = report_page.html(
        evil,
        [
            report_page.Heading(evil),
            report_page.Paragraph(evil, code=True),
            report_page.Table([evil], [[evil]]),
        ],
    )
    assert "<script" not in shown
    assert "\x1b" not in shown
    assert shown.count("&lt;script&gt;&quot;&amp;") == 6


def test_a_table_in_markdown_keeps_its_cells() -> None:
    shown = report_page.markdown("T", [report_page.Table(["a", "b"], [["1|2", "x\ny"]])], "plots")
    assert "| 1\\|2 | x\ufffdy |" in shown
