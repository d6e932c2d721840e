"""Signals: heard wherever a run stands, and what it had saved stays (E12).

The bundled script in this process: how it ends, and what it tells whoever launched it.
"""

import json
import os
import signal
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml

from cli.terminal import OPTIONS
from hfgrow.errors import GrowthError, UsageError, argument, command, growth, one_of
from hfgrow.train.processes import StoppedError, StopRequest, _outcome, start
from hfgrow.train.recipe.speech import keys
from tests.program import CANARY, TERMINAL, handling
from tests.train import runs

pytestmark = pytest.mark.usefixtures("in_a_terminal")

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
    at_call(monkeypatch, loop, "take_step", 2, number)
    with pytest.raises(StoppedError, match="Stopped at step 3") as caught:
        runs.carry(recipe)
    assert caught.value.number == number
    assert runs.last_checkpoint(recipe).name == "step-00000003"


@pytest.mark.case("E12")
@pytest.mark.parametrize(
    ("module", "name"),
    [("text", "token_folders"), ("stage_runner", "grow_stage"), ("export", "staged")],
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
    stop = StopRequest()
    with handling({signal.SIGHUP: signal.SIG_IGN}), stop.listening():
        os.kill(os.getpid(), signal.SIGHUP)
    assert stop.number == 0


@pytest.mark.case("E12")
@pytest.mark.slow
def test_a_run_that_nohup_starts_outlives_the_hangup(tmp_path: Path) -> None:
    recipe = runs.recipe(tmp_path)
    with handling({signal.SIGHUP: signal.SIG_IGN}):
        done = runs.stop_at(recipe, tmp_path, 3, signal.SIGHUP, by_program=True)
    assert done.returncode == 0, done.stderr
    assert len(runs.losses(recipe)) == 12


@pytest.mark.slow
def test_two_processes_that_nohup_starts_outlive_the_hangup(tmp_path: Path) -> None:
    recipe = runs.recipe(tmp_path, world={"processes": 2, "strategy": "ddp"})
    with handling({signal.SIGHUP: signal.SIG_IGN}):
        done = runs.stop_at(recipe, tmp_path, 3, signal.SIGHUP, by_program=True)
    assert done.returncode == 0, done.stderr
    assert len(runs.losses(recipe)) == 12


def test_the_launcher_of_several_processes_hears_no_signal_that_is_ignored(tmp_path: Path) -> None:
    code = "import os; print(os.environ['PET_SIGNALS_TO_HANDLE'])"
    log = tmp_path / "log"
    with handling({**TERMINAL, signal.SIGHUP: signal.SIG_IGN}), log.open("wb") as file:
        words = [sys.executable, "-c", code]
        process = start(words, tmp_path / "status", num_processes=2, on_cpu=True, log=file)
        assert process.wait() == 0
    assert log.read_text() == "SIGTERM,SIGINT,SIGQUIT\n"


script: Any = import_module("hfgrow_recipes.continue_pretraining")


def run_with(
    error: Exception, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[int, dict[str, Any]]:
    """Run the script where the run ends in an error; return its code and what it told."""

    def failing(job: object) -> None:
        raise error

    monkeypatch.setattr("hfgrow.train.run.run_recipe", failing)
    monkeypatch.setattr(script, "end_with_parent", lambda: None)
    monkeypatch.setenv("HFGROW_STATUS_FILE", str(folder / "status.json"))
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(runs.recipe(folder)))
    code = script.main([str(path)])
    return code, json.loads((folder / "status.json").read_text())


def test_a_bug_is_told_as_one_and_keeps_its_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, status = run_with(ValueError("odd"), tmp_path, monkeypatch)
    with pytest.raises(GrowthError, match="a bug in hfgrow: ValueError: odd") as caught:
        _outcome(status)
    assert code == caught.value.exit_code == 1
    assert "Traceback" in capsys.readouterr().err


def test_an_error_keeps_its_details_on_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    details: dict[str, object] = {"candidates": ["a/b"], "error": "mine"}
    _, status = run_with(UsageError("no", details=details), tmp_path, monkeypatch)
    with pytest.raises(UsageError) as caught:
        _outcome(status)
    assert caught.value.details == details


def test_a_hint_names_the_key_of_a_recipe_and_no_option_of_another_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, status = run_with(
        UsageError("no", hint=f"another {argument('out', 'DIR')}"), tmp_path, monkeypatch
    )
    assert status["error"]["hint"] == "another --set output=DIR"


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (f"a factor {argument('g')} or {argument('layers')}", "a factor g or layers"),
        (f"try {argument('hidden_size', 512)}", "try hidden_size: 512"),
        (f"use stack: {growth('stack', g=4)}", "use stack: operator: stack, g: 4"),
        (f"choose {argument('dtype', 'bfloat16')}", "choose --set dtype=bfloat16"),
        (argument("sequence_length", 512), "--set data.sequence_length=512"),
        (argument("text_column", "content"), "text_column: content"),
        (f"add {argument('resume')}, or --set seed=1", "add --resume, or --set seed=1"),
        (growth("stack", g=4, untie=True), "hfgrow stack MODEL --g 4 --untie True"),
        (command("data prepare A", out="DIR"), "hfgrow data prepare A --out DIR"),
        (
            f"another {one_of(argument('repo', 'NAME'), argument('create_pr'))}",
            "another --set push.repo=NAME",
        ),
    ],
)
def test_arguments_of_operators_are_the_keys_of_their_stage(said: str, told: str) -> None:
    assert keys(OPTIONS).spell(said) == told


@pytest.mark.parametrize(("is_shared", "code"), [(True, 0), (False, 2)])
def test_the_main_process_ends_the_others_where_it_failed_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_shared: bool, code: int
) -> None:
    details: dict[str, object] = {"is_shared": True} if is_shared else {}
    found, _ = run_with(UsageError("no", details=details), tmp_path, monkeypatch)
    assert found == code


def test_a_timeout_that_is_no_number_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HFGROW_TIMEOUT_S", "10m")
    with pytest.raises(UsageError, match="HFGROW_TIMEOUT_S is 10m; expected seconds"):
        runs.carry(runs.recipe(tmp_path))


@pytest.mark.case("G1")
def test_a_process_that_trains_shows_no_token(tmp_path: Path) -> None:
    done = runs.finish([sys.executable, str(runs.SCRIPT), f"{CANARY}.yaml"], dict(os.environ))
    assert done.returncode == 2
    assert "hf_***" in done.stderr
    assert CANARY not in done.stdout + done.stderr
