"""When checkpoints are saved by default, and that a run says what it had trained and not saved."""

import json
from pathlib import Path
from typing import Any

import pytest

from hfgrow.train.cadence import Cadence, cadence_line, never_saved
from hfgrow.train.recipe.parts import Checkpoint
from tests.train.runs import carry, last_checkpoint, lines, recipe, stop_after


class Clock:
    """Seconds that pass when a test says so."""

    now = 0.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr("hfgrow.train.cadence.time.monotonic", lambda: made.now)
    return made


def saved_steps(asked: Checkpoint, clock: Clock, *, num_steps: int, step_s: float) -> list[int]:
    """Return behind which steps of a stage a checkpoint is saved."""
    kept = Cadence(asked, batch_tokens=100)
    kept.begin(0)
    steps = []
    for step in range(1, num_steps + 1):
        clock.now += step_s
        if kept.is_due(100 * step, step, num_steps):
            steps.append(step)
            with kept.saving(step):
                pass
    return steps


def test_by_default_a_stage_is_saved_at_each_twentieth(clock: Clock) -> None:
    saved = saved_steps(Checkpoint(), clock, num_steps=200, step_s=30)
    assert saved == list(range(10, 201, 10))


def test_long_twentieths_are_saved_inside_each_half_hour(clock: Clock) -> None:
    saved = saved_steps(Checkpoint(), clock, num_steps=2000, step_s=60)
    assert saved == list(range(30, 2001, 30))


def test_a_stage_of_seconds_is_saved_at_its_end_alone(clock: Clock) -> None:
    assert saved_steps(Checkpoint(), clock, num_steps=100, step_s=0.5) == []


def test_saving_takes_a_tenth_of_the_time_at_most(clock: Clock) -> None:
    kept = Cadence(Checkpoint(), batch_tokens=100)
    kept.begin(0)
    clock.now = 100
    with kept.saving(50):
        clock.now += 40
    clock.now += 399
    assert not kept.is_due(0, 100, 100)
    clock.now += 1
    assert kept.is_due(0, 100, 100)


def test_what_a_recipe_says_stands_in_place_of_the_default(clock: Clock) -> None:
    by_tokens = saved_steps(Checkpoint(every_tokens=3000), clock, num_steps=100, step_s=3600)
    assert by_tokens == [30, 60, 90]
    by_time = saved_steps(Checkpoint(every_minutes=2), clock, num_steps=10, step_s=60)
    assert by_time == [2, 4, 6, 8, 10]
    both = Checkpoint(every_tokens=400, every_minutes=1)
    assert saved_steps(both, clock, num_steps=8, step_s=20) == [3, 4, 7, 8]


def test_the_cadence_is_said_as_it_is() -> None:
    assert cadence_line(Checkpoint()).startswith("every 1/20 of a stage once a minute is over")
    said = cadence_line(Checkpoint(every_tokens=1_000_000, every_minutes=30))
    assert said == "every 1,000,000 tokens and every 30 min, and at the end of each stage"


def test_steps_that_were_never_saved_are_counted() -> None:
    record: list[dict[str, Any]] = [
        {"step": 1, "loss": 2.0},
        {"step": 2, "loss": 1.0},
        {"step": 9, "validation": {}},
    ]
    assert never_saved(record, 0) == 2
    assert never_saved(record, 2) == 0


def test_a_run_saves_by_the_clock(tmp_path: Path) -> None:
    asked = recipe(tmp_path, checkpoint={"every_minutes": 1e-9, "keep": 20})
    carry(asked)
    assert len(list(Path(asked["output"], "checkpoints").iterdir())) == 12


@pytest.mark.parametrize("resume", [False, True])
def test_a_start_over_a_run_that_saved_nothing_says_how_much_is_lost(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    resume: bool,
) -> None:
    asked = recipe(tmp_path, checkpoint={})
    stop_after(monkeypatch, asked, 5)
    carry(asked, resume=resume, quiet=False)
    said = capsys.readouterr().err
    assert "Note: 5 steps were trained here and never saved" in said
    assert sum("loss" in line for line in lines(asked)) == 12


def test_a_run_that_goes_on_says_which_steps_were_not_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = recipe(tmp_path)
    stop_after(monkeypatch, asked, 5)
    state = json.loads((last_checkpoint(asked) / "state.json").read_text())
    assert state["position"]["step"] == 4
    carry(asked, resume=True, quiet=False)
    said = capsys.readouterr().err
    assert "Going on from step 4 (1,024 tokens); 1 later step was not saved, so train" in said
