"""The runs of a study as processes of their own: so many at a time, each after its base.

A run that fails is told, and the others go on. What is finished is not done again, and what was
stopped goes on from its last checkpoint.
"""

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.resources import as_file, files
from pathlib import Path

from hfgrow.checkpoint.staging import translated
from hfgrow.errors import GrowthError, UsageError, printable
from hfgrow.progress import Progress
from hfgrow.study.design import Job
from hfgrow.study.fork import prepare_folder
from hfgrow.train.launch import (
    SCRIPT,
    STATUS_VARIABLE,
    end_with_parent,
    launch_command,
    workers,
)
from hfgrow.train.run_folder import RunFolder

_POLL_S = 0.1
_STOP_S = 120.0
DONE, FAILED, SKIPPED, OPEN = "done", "failed", "not run", "open"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended.

    Attributes:
        status: `done`, `failed`, `not run` because its base failed, or `open`.
        message: What was wrong; empty if nothing was.
    """

    status: str
    message: str = ""


@dataclass
class _Running:
    job: Job
    process: "subprocess.Popen[bytes]"
    status: Path
    started: float
    device: str | None


@dataclass
class Runner:
    """Carries out the runs of a study.

    Attributes:
        tokens: The folder of tokenised text that they share.
        recipes: The folder that their recipes are written to.
        num_parallel: How many run at a time.
        on_cpu: Whether accelerators are left alone.
        progress: Told what begins and ends.
        devices: The GPUs that runs of one process are spread over; empty leaves it to them.
    """

    tokens: Path
    recipes: Path
    num_parallel: int
    on_cpu: bool
    progress: Progress
    devices: tuple[str, ...] = ()
    _running: list[_Running] = field(default_factory=list)

    def run(self, jobs: Sequence[Job]) -> dict[str, Outcome]:
        """Carry out what is not done; return how each run ended, by its name.

        Raises:
            UsageError: A run was begun with another recipe.
            KeyboardInterrupt: Or whatever else stops us: the runs save a checkpoint and end.
        """
        outcomes = {job.name: Outcome(DONE) for job in jobs if is_done(job)}
        for job in jobs:
            _check_unchanged(job, self.recipes)
        waiting = [job for job in jobs if job.name not in outcomes]
        self._count, self._total = len(outcomes), len(jobs)
        if outcomes:
            self.progress.say(f"{len(outcomes)} of {len(jobs)} runs are finished already")
        with (
            as_file(files("hfgrow_recipes") / SCRIPT) as script,
            tempfile.TemporaryDirectory(prefix="hfgrow-study-") as scratch,
        ):
            try:
                while waiting or self._running:
                    self._collect(outcomes)
                    for job in list(waiting):
                        base = outcomes.get(job.base.name) if job.base else Outcome(DONE)
                        if base is None:
                            continue
                        if base.status != DONE:
                            waiting.remove(job)
                            self._end(job, Outcome(SKIPPED, "its base failed"), outcomes)
                        elif len(self._running) < self.num_parallel:
                            waiting.remove(job)
                            self._start(job, script, Path(scratch), outcomes)
                    time.sleep(_POLL_S)
            finally:
                self._stop()
        return outcomes

    def _start(self, job: Job, script: Path, scratch: Path, outcomes: dict[str, Outcome]) -> None:
        try:
            recipe = _write_recipe(job, self.recipes)
            prepare_folder(job, self.tokens)
        except GrowthError as error:
            self._end(job, Outcome(FAILED, str(error)), outcomes)
            return
        arguments = [str(recipe), "--resume", *(["--cpu"] if self.on_cpu else [])]
        world = job.recipe.world.processes
        status = scratch / f"{job.name}.json"
        environment = os.environ | {STATUS_VARIABLE: str(status)}
        if self.on_cpu:
            environment["ACCELERATE_USE_CPU"] = "true"
            share = len(os.sched_getaffinity(0)) // (self.num_parallel * world)
            environment.setdefault("OMP_NUM_THREADS", str(max(1, share)))
        device = self._free_device() if world == 1 else None
        if device is not None:
            environment["CUDA_VISIBLE_DEVICES"] = device
        with log_of(job).open("ab") as log:
            process = subprocess.Popen(
                launch_command(script, arguments, num_processes=world),
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=end_with_parent,
            )
        self._running.append(_Running(job, process, status, time.monotonic(), device))

    def _free_device(self) -> str | None:
        """Return the GPU that the fewest runs are on."""
        taken = [item.device for item in self._running]
        return min(self.devices, key=taken.count, default=None)

    def _collect(self, outcomes: dict[str, Outcome]) -> None:
        for item in list(self._running):
            if item.process.poll() is not None:
                self._running.remove(item)
                outcome = _outcome(item)
                if outcome.status == DONE and item.job.arm is not None:
                    # Only what grows from a run needs its optimizer, and nothing grows from an arm.
                    shutil.rmtree(RunFolder(item.job.folder).checkpoints, ignore_errors=True)
                seconds = time.monotonic() - item.started
                self._end(item.job, outcome, outcomes, f" in {seconds:,.0f} s")

    def _end(
        self, job: Job, outcome: Outcome, outcomes: dict[str, Outcome], more: str = ""
    ) -> None:
        outcomes[job.name] = outcome
        self._count += 1
        said = f"[{self._count}/{self._total}] {job.name}: {outcome.status}{more}"
        self.progress.say(f"{said}: {outcome.message}" if outcome.message else said)

    def _stop(self) -> None:
        """Let the runs save a checkpoint and end, and wait for it."""
        for item in self._running:
            _signal(item, signal.SIGTERM)
        deadline = time.monotonic() + _STOP_S
        for item in self._running:
            try:
                item.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                with suppress(ProcessLookupError):
                    os.killpg(item.process.pid, signal.SIGKILL)
                item.process.wait()
        self._running.clear()


def is_done(job: Job) -> bool:
    """Say whether a run is finished."""
    return RunFolder(job.folder).final.is_dir()


def log_of(job: Job) -> Path:
    """Return the file that a run tells its words to."""
    return job.folder.with_name(f"{job.folder.name}.log")


def _outcome(item: _Running) -> Outcome:
    if is_done(item.job):
        return Outcome(DONE)
    message = f"it ended with code {item.process.returncode}"
    with suppress(OSError, ValueError):
        status = json.loads(item.status.read_text(encoding="utf-8"))
        message = str(status["error"]["message"] if "error" in status else status["message"])
    return Outcome(FAILED, f"{printable(message, 300)}; see {printable(log_of(item.job), 200)}")


def _signal(item: _Running, number: int) -> None:
    """Tell a run, or the processes that its launcher started, which would not let them save."""
    launched = item.job.recipe.world.processes > 1
    for pid in (launched and workers(item.process.pid)) or [item.process.pid]:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def _recipe_path(job: Job, recipes: Path) -> Path:
    return recipes / f"{job.name}.yaml"


def _write_recipe(job: Job, recipes: Path) -> Path:
    path = _recipe_path(job, recipes)
    with translated(printable(recipes, 200)):
        recipes.mkdir(parents=True, exist_ok=True)
        path.write_text(job.recipe.to_yaml(), encoding="utf-8")
    return path


def _check_unchanged(job: Job, recipes: Path) -> None:
    """Refuse a study that says something else than the runs in its folder did."""
    path = _recipe_path(job, recipes)
    if job.folder.exists() and path.is_file():
        before = path.read_text(encoding="utf-8")
        if before != job.recipe.to_yaml():
            shown = printable(job.folder, 200)
            raise UsageError(
                f"{shown} was begun with another recipe: {_first_change(before, job)}",
                hint="give the study that it was begun with, another --out, or remove that folder",
            )


def _first_change(before: str, job: Job) -> str:
    pairs: Iterable[tuple[str, str]] = zip(
        before.splitlines(), job.recipe.to_yaml().splitlines(), strict=False
    )
    old, new = next(((o, n) for o, n in pairs if o != n), ("", ""))
    return f"it said {printable(old.strip(), 100)}, this says {printable(new.strip(), 100)}"
