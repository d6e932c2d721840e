"""Runs of a study one by one: what fails, what is not run, what is dead just after growth."""

import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest

from hfgrow.console import Silent
from hfgrow.growth.grow import grow
from hfgrow.growth.request import GrowthRequest
from hfgrow.study.design import Design, StudyRun
from hfgrow.study.folder import StudyFolder
from hfgrow.study.results import dead_gradients
from hfgrow.study.runs import Child, Queue, start_child
from hfgrow.train.initial_weights import write_fresh
from hfgrow.train.recipe.parts import FreshModel
from hfgrow.train.run_folder import RunFolder
from tests.study.made_up import planned

DEMO = Path(__file__).parents[2] / "hfgrow" / "demo"
_TELL = "import os, time; print(os.environ.get('CUDA_VISIBLE_DEVICES'), flush=True); time.sleep(60)"


def of_arm(plan: Design, arm: str) -> StudyRun:
    return next(job for job in plan.arms if job.arm == arm)


def test_what_grows_from_a_base_that_failed_is_not_run(tmp_path: Path) -> None:
    plan = planned(tmp_path, arms={"stack": {"grow": {"operator": "stack", "g": 2}}})
    folder = StudyFolder(tmp_path / "out")
    with folder.taken_up():
        for seed in (0, 1):
            (folder.runs / f"base-small-seed{seed}").write_text("somebody's")
        queue = Queue(folder, {}, 1, True, Silent())
        found = queue.run(plan.jobs)
    assert {name: outcome.status for name, outcome in found.items()} == {
        **{f"base-small-seed{seed}": "failed" for seed in (0, 1)},
        **{f"stack-seed{seed}": "not run" for seed in (0, 1)},
    }
    assert "no folder of a run" in found["base-small-seed0"].message


@pytest.fixture
def child(tmp_path: Path) -> Child:
    """A run whose script only says which GPU it has, and waits."""
    job = of_arm(planned(tmp_path), "scratch")
    job.folder.mkdir(parents=True)
    script = tmp_path / "script.py"
    script.write_text(_TELL)
    return start_child(
        job, tmp_path / "r.yaml", script, tmp_path, num_parallel=2, on_cpu=False, device="1"
    )


def ended(child: Child) -> str:
    deadline = time.monotonic() + 60
    while (found := child.outcome()) is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert found.status == "failed"
    return found.message


def test_a_run_that_is_killed_has_failed(child: Child) -> None:
    os.kill(child.process.pid, signal.SIGKILL)
    assert "it ended with code -9; see" in ended(child)


def test_a_run_gets_the_gpu_that_it_is_given(child: Child, tmp_path: Path) -> None:
    log = child.job.folder.with_name("scratch-seed0.log")
    while not log.read_text():
        time.sleep(0.02)
    child.stop()
    ended(child)
    assert log.read_text() == "1\n"


def test_a_log_that_cannot_be_opened_is_the_failure_of_its_run(tmp_path: Path) -> None:
    plan = planned(tmp_path, arms={"scratch": {"scratch": "target"}})
    folder = StudyFolder(tmp_path / "out")
    with folder.taken_up():
        for seed in (0, 1):
            (folder.runs / f"scratch-seed{seed}.log").mkdir()
        found = Queue(folder, {}, 1, True, Silent()).run(plan.jobs)
    assert {outcome.status for outcome in found.values()} == {"failed"}
    assert "scratch-seed0.log" in found["scratch-seed0"].message


@pytest.mark.parametrize("is_late", [False, True])
def test_dead_weights_are_those_of_the_model_just_after_growth(
    tmp_path: Path, is_late: bool
) -> None:
    """What reads the zeros of a new layer's o_proj and down_proj: q, k, v, gate and up."""
    growth = {"grow": {"operator": "zero-depth", "g": 2}}
    arm = {"stages": [{"train": {"share": 0.5}}, growth, {"train": {}}]} if is_late else growth
    plan = planned(tmp_path, arms={"zero": arm})
    job = of_arm(plan, "zero")
    folder, number = RunFolder(job.folder), 2 if is_late else 1
    assert isinstance(job.recipe.base, FreshModel)
    write_fresh(job.recipe.base, DEMO, 0, folder.fresh)
    stage = job.recipe.stages[number].grow
    assert stage is not None
    if is_late:
        write_fresh(job.recipe.base, DEMO, 0, folder.stage(1, "trained"))
    grown = folder.stage(number, "grown")
    grow(GrowthRequest(model=str(folder.fresh), steps=[stage.step], out=grown), Silent())
    folder.final.mkdir()
    one = replace(plan, jobs=(job,))
    assert dead_gradients(one) == {"zero": pytest.approx(1536 / 4608)}
