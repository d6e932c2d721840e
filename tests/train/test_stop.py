"""Signals: heard wherever a run stands, and what it had saved stays (E12)."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from hfgrow.train.processes import StoppedError, StopRequest
from tests.train import runs

NUMBERS = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])


def at_call(monkeypatch: pytest.MonkeyPatch, module: Any, name: str, nth: int, number: int) -> None:
    """Let this process get a signal when a function is called for the nth time, from 0."""
    original, calls = getattr(module, name), iter(range(1000))

    def signalled(*arguments: Any, **options: Any) -> Any:
        if next(calls) == nth:
            os.kill(os.getpid(), number)
        return original(*arguments, **options)

    monkeypatch.setattr(module, name, signalled)


@pytest.mark.case("E12")
@NUMBERS
def test_a_signal_in_a_step_saves_a_checkpoint_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    from hfgrow.train import loop

    recipe = runs.recipe(tmp_path, checkpoint={})
    at_call(monkeypatch, loop, "_step", 2, number)
    with pytest.raises(StoppedError, match="Stopped at step 3") as caught:
        runs.carry(recipe)
    assert caught.value.number == number
    assert runs.last_checkpoint(recipe).name == "step-00000003"


@pytest.mark.case("E12")
@pytest.mark.parametrize(
    ("module", "name"), [("text", "token_folders"), ("walk", "grow_stage"), ("export", "staged")]
)
def test_a_signal_between_the_steps_stops_the_run_which_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, name: str
) -> None:
    """While text is prepared, while a model grows, while one is written."""
    from importlib import import_module

    recipe = runs.recipe(tmp_path, stages=runs.GROWN)
    with monkeypatch.context() as patch:
        at_call(patch, import_module(f"hfgrow.train.{module}"), name, 0, signal.SIGTERM)
        with pytest.raises(StoppedError):
            runs.carry(recipe)
    runs.carry(recipe, resume=True)
    assert len(runs.losses(recipe)) == 8


def test_a_signal_that_came_before_ends_work_at_its_start() -> None:
    stop = StopRequest()
    with stop.listening():
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(StoppedError), stop.heeded():
            raise AssertionError


def test_a_held_signal_is_only_remembered() -> None:
    stop = StopRequest()
    with stop.listening(), stop.held(), stop.heeded():
        os.kill(os.getpid(), signal.SIGTERM)
    assert stop.number == signal.SIGTERM


def test_a_second_sigterm_does_not_end_the_undoing() -> None:
    stop = StopRequest()
    undone: list[bool] = []

    def work() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            undone.append(True)

    with stop.listening(), pytest.raises(StoppedError), stop.heeded():
        work()
    assert undone


def test_a_signal_that_was_ignored_stays_so() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        stop = StopRequest()
        with stop.listening():
            os.kill(os.getpid(), signal.SIGHUP)
        assert stop.number == 0
    finally:
        signal.signal(signal.SIGHUP, before)
