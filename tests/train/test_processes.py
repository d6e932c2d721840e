"""Runs in processes of their own: how many there are, how they end, what they agree on."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from hfgrow.train.processes import STATUS_VARIABLE, told_in
from recipes import continue_pretraining
from tests.train import runs

DDP = {"processes": 2, "strategy": "ddp"}
FSDP2 = {"processes": 2, "strategy": "fsdp2"}


def in_folder(folder: Path, **changes: Any) -> dict[str, Any]:
    folder.mkdir()
    return runs.recipe(folder, **changes)


def check_that_two_compute_what_one_does(
    folder: Path, world: dict[str, Any], tolerance: float, **changes: Any
) -> None:
    one = in_folder(folder / "one", **changes)
    two = in_folder(folder / "two", **changes, world=world)
    for recipe in (one, two):
        recipe["data"]["document_mask"] = True
    runs.carry(one)
    done = runs.run(two, Path(two["output"]).parent)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    expected, found = (torch.tensor(runs.losses(recipe)) for recipe in (one, two))
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance)


def test_two_processes_compute_what_one_does(tmp_path: Path) -> None:
    """With the same batch, to the rounding of sums in another order.

    Documents do not see each other, so every process has another number of targets.
    """
    check_that_two_compute_what_one_does(tmp_path, DDP, 2e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 2e-4), ("bf16", 3e-2)])
@pytest.mark.parametrize("world", [DDP, FSDP2], ids=["ddp", "fsdp2"])
def test_copies_and_shards_compute_what_one_process_does(
    tmp_path: Path, world: dict[str, Any], precision: str, tolerance: float
) -> None:
    check_that_two_compute_what_one_does(tmp_path, world, tolerance, precision=precision)


def test_a_run_that_cannot_say_how_it_ended_says_it_aloud(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """As on a disk that is full, by which the run may have ended."""
    status = tmp_path / "absent" / "status.json"
    monkeypatch.setenv(STATUS_VARIABLE, str(status))
    told = {"error": {"message": "no space left"}, "is_shared": True}
    assert continue_pretraining._end(told, 7, "Error: no space left") == 7
    assert capfd.readouterr().err == "Error: no space left\n"
    assert told_in(status) is None
    cut = tmp_path / "cut.json"
    cut.write_text('{"error": {"mess')
    assert told_in(cut) is None


@pytest.mark.case("E12")
@pytest.mark.slow
def test_sigterm_saves_a_checkpoint_and_the_run_goes_on_from_it(tmp_path: Path) -> None:
    recipe = runs.recipe(tmp_path, checkpoint={}, stages=[{"train": LONG}])
    stopped = runs.stop_at(recipe, tmp_path, 3, signal.SIGTERM)
    assert stopped.returncode == 128 + signal.SIGTERM, stopped.stderr
    assert "Stopped at step" in stopped.stderr
    saved = [path.name for path in Path(recipe["output"], "checkpoints").iterdir()]
    assert saved == [f"step-{len(runs.losses(recipe)):08d}"]


LONG = {"tokens": 256_000, "learning_rate": 1e-3}


def test_a_number_of_processes_that_nobody_asked_for_is_refused(tmp_path: Path) -> None:
    """Accelerate would train one process, or two that know nothing of each other."""
    recipe = runs.recipe(tmp_path, world=DDP)
    words, environment = runs.command(recipe, tmp_path)
    alone = words[words.index(str(runs.SCRIPT)) :]
    done = runs.finish([words[0], *alone], environment)
    assert done.returncode == 2
    assert "1 processes were started, the recipe wants 2" in done.stderr
    assert not Path(recipe["output"]).exists()


@pytest.mark.case("H5")
@pytest.mark.slow
def test_h5_another_number_of_processes_is_refused_or_allowed(tmp_path: Path) -> None:
    recipe = runs.recipe(tmp_path, world=DDP)
    runs.stop_at(recipe, tmp_path, 5, signal.SIGKILL)
    alone = recipe | {"world": {"processes": 1}}
    refused = runs.run(alone, tmp_path, "--resume")
    assert refused.returncode == 8
    assert "world.processes was 2, is 1" in refused.stderr
    assert "--allow-world-size-change" in refused.stderr
    allowed = runs.run(alone, tmp_path, "--resume", "--allow-world-size-change")
    assert allowed.returncode == 0, allowed.stderr
    assert len(runs.losses(recipe)) == 12


@pytest.mark.case("H19")
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_h19_a_process_that_dies_or_hangs_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    recipe = runs.recipe(tmp_path, world=DDP, stages=[{"train": LONG}])
    monkeypatch.setenv("HFGROW_TIMEOUT_S", "5")
    ended = runs.stop_at(recipe, tmp_path, 3, number, whom="last", by_program=True)
    assert ended.returncode == 8
    assert "another process is gone or hangs" in ended.stderr
    assert not Path(recipe["output"], "final").exists()


@pytest.mark.case("H19")
@pytest.mark.slow
@pytest.mark.parametrize(
    ("by_program", "whom"), [(True, "first"), (False, "all")], ids=["hfgrow", "everybody"]
)
def test_two_processes_stop_together_and_go_on(tmp_path: Path, by_program: bool, whom: str) -> None:
    """Whether the one that started them is asked, or a job scheduler asks them all."""
    recipe = runs.recipe(tmp_path, world=DDP, checkpoint={}, stages=[{"train": LONG}])
    stopped = runs.stop_at(recipe, tmp_path, 3, signal.SIGTERM, whom=whom, by_program=by_program)
    assert stopped.returncode == 143 if by_program else stopped.returncode != 0
    assert "Stopped at step" in stopped.stderr
    (saved,) = Path(recipe["output"], "checkpoints").iterdir()
    state = json.loads((saved / "state.json").read_text())
    assert state["position"]["step"] == len(runs.losses(recipe))


def run_oddly(recipe: dict[str, Any], folder: Path, how: str) -> tuple[int, dict[str, Any]]:
    """Run a recipe whose last process behaves oddly; return the code and what was reported."""
    words, environment = runs.command(recipe, folder)
    odd = Path(__file__).with_name("odd_process.py")
    words[words.index(str(runs.SCRIPT))] = str(odd)
    status = folder / "status.json"
    environment |= {"ODD": how, "HFGROW_STATUS_FILE": str(status)}
    environment |= {"PYTHONPATH": str(runs.ROOT)}
    done = runs.finish(words, environment)
    return done.returncode, json.loads(status.read_text())


@pytest.mark.slow
def test_h19_an_error_of_one_process_alone_is_told_and_ends_all(tmp_path: Path) -> None:
    code, status = run_oddly(runs.recipe(tmp_path, world=DDP), tmp_path, "raises")
    assert code != 0
    assert status["error"]["message"] == "this process alone has it"


@pytest.mark.slow
def test_processes_wait_for_the_main_one_as_long_as_it_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Text of many gigabytes takes longer to tokenise than a process may hang."""
    monkeypatch.setenv("HFGROW_TIMEOUT_S", "8")
    code, status = run_oddly(runs.recipe(tmp_path, world=DDP), tmp_path, "waits")
    assert code == 0
    assert "result" in status


@pytest.mark.slow
def test_processes_that_do_not_see_the_same_are_refused(tmp_path: Path) -> None:
    _, status = run_oddly(runs.recipe(tmp_path, world=DDP), tmp_path, "reads-other-text")
    assert "do not see the same text" in status["error"]["message"]


@pytest.mark.slow
def test_processes_that_write_to_other_places_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    _, status = run_oddly(
        runs.recipe(tmp_path, world=DDP, output="run"), tmp_path, "stands-elsewhere"
    )
    assert "do not see the same output" in status["error"]["message"]


@pytest.mark.slow
def test_growth_in_a_run_of_two_processes(tmp_path: Path) -> None:
    stages = [
        {"train": {"tokens": 512, "learning_rate": 1e-3}},
        {"grow": {"operator": "stack", "g": 2, "optimizer_state": "copy-v"}},
        {"train": {"tokens": 512, "learning_rate": 1e-3}},
    ]
    recipe = runs.recipe(tmp_path, world=FSDP2, stages=stages)
    done = runs.run(recipe, tmp_path)
    assert done.returncode == 0, done.stderr
    config = json.loads(Path(recipe["output"], "final", "config.json").read_text())
    assert config["num_hidden_layers"] == 4
    assert os.listdir(Path(recipe["output"], "stages", "01")) == ["base-512-stack-g2"]
