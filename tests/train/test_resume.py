"""A run that was killed ends in the bits of one that was not: H6, F13 of the ecosystem's faults."""

import contextlib
import io
import random
import re
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.train import runs

STAGES: dict[str, list[dict[str, Any]]] = {
    "adamw": [{"train": {"tokens": 3072, "learning_rate": 1e-2}}],
    "schedule_free_adamw": [
        {"train": {"tokens": 3072, "learning_rate": 1e-2, "schedule": "constant"}}
    ],
}
WORLDS: dict[str, dict[str, Any]] = {
    "none": {"processes": 1},
    "ddp": {"processes": 2, "strategy": "ddp"},
    "fsdp2": {"processes": 2, "strategy": "fsdp2"},
}


def run_here(
    recipe: dict[str, Any], folder: Path, *flags: str
) -> "subprocess.CompletedProcess[str]":
    """Run a recipe to its end in this process: of one, only what is killed has to be another."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        runs.carry(recipe, resume="--resume" in flags, quiet=False)
    return subprocess.CompletedProcess([], 0, "", said.getvalue())


def check_that_a_killed_run_ends_alike(folder: Path, optimizer: str, world: str) -> None:
    run = run_here if world == "none" else runs.run
    changes: dict[str, Any] = {
        "optimizer": {"name": optimizer},
        "stages": STAGES[optimizer],
        "world": WORLDS[world],
    }
    whole, killed = (folder / name for name in ("whole", "killed"))
    for part in (whole, killed):
        part.mkdir()
    straight = runs.recipe(whole, **changes)
    done = run(straight, whole)
    assert done.returncode == 0, done.stderr
    broken = runs.recipe(killed, **changes)
    # From the step on at which there is a checkpoint to go on from.
    step = random.randint(3, 10)
    ended = runs.stop_at(broken, killed, step, signal.SIGKILL)
    assert ended.returncode != 0
    assert not Path(broken["output"], "final").exists()
    resumed = run(broken, killed, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    (reached,) = re.findall(r"Going on from step (\d+) ", resumed.stderr)
    assert step - 2 <= int(reached) < 12
    assert runs.losses(broken) == runs.losses(straight), f"killed at step {step}"
    assert runs.weights(broken) == runs.weights(straight), f"killed at step {step}"


@pytest.mark.case("E11", "H6")
@pytest.mark.parametrize(
    "optimizer", ["adamw", pytest.param("schedule_free_adamw", marks=pytest.mark.slow)]
)
def test_one_process_resumes_bit_by_bit_after_kill_9(tmp_path: Path, optimizer: str) -> None:
    check_that_a_killed_run_ends_alike(tmp_path, optimizer, "none")


@pytest.mark.case("E11", "H6")
@pytest.mark.slow
@pytest.mark.parametrize("world", ["ddp", "fsdp2"])
@pytest.mark.parametrize("optimizer", STAGES)
def test_two_processes_resume_bit_by_bit_after_kill_9(
    tmp_path: Path, optimizer: str, world: str
) -> None:
    check_that_a_killed_run_ends_alike(tmp_path, optimizer, world)
