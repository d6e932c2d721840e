"""The runs of a study: so many at a time, each after its base.

A run that fails is told, and the others go on. What is finished is not done again, and what was
stopped goes on from its last checkpoint.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from hfgrow.checkpoint.locks import scratch_folder
from hfgrow.console import Progress
from hfgrow.errors import GrowthError
from hfgrow.study.child import (
    DONE,
    FAILED,
    SKIPPED,
    Child,
    Outcome,
    is_done,
    outcome_of,
    remove_state,
    start_child,
)
from hfgrow.study.folder import StudyFolder
from hfgrow.study.fork import prepare_folder
from hfgrow.study.job import StudyRun
from hfgrow.train.metrics import read_metrics
from hfgrow.train.processes import SCRIPT

_POLL_S = 0.1
_STOP_S = 120.0
_QUIET_S = 30.0


@dataclass
class Queue:
    """Carries out the runs of a study.

    Attributes:
        folder: The folder of the study, which we hold.
        place: The command and the machine, for the record.
        num_parallel: How many run at a time.
        on_cpu: Whether accelerators are left alone.
        progress: Told what begins and ends.
        devices: The GPUs that runs of one process are spread over; empty leaves it to them.
    """

    folder: StudyFolder
    place: Mapping[str, Any]
    num_parallel: int
    on_cpu: bool
    progress: Progress
    devices: tuple[str, ...] = ()
    _running: list[Child] = field(default_factory=list)
    _outcomes: dict[str, Outcome] = field(default_factory=dict)

    def run(self, jobs: Sequence[StudyRun]) -> dict[str, Outcome]:
        """Carry out what is not done; return how each run ended, by its name.

        Raises:
            UsageError: A run was begun with another recipe.
            KeyboardInterrupt: Or whatever else stops us: the runs save a checkpoint and end.
        """
        self.folder.check_unchanged(jobs)
        self._outcomes = {job.name: outcome_of(job) for job in jobs if is_done(job)}
        if self._outcomes:
            self.progress.say(f"{len(self._outcomes)} of {len(jobs)} runs are finished already")
        waiting = [job for job in jobs if job.name not in self._outcomes]
        with (
            as_file(files("hfgrow_recipes") / SCRIPT) as script,
            scratch_folder() as scratch,
        ):
            try:
                told = time.monotonic()
                while waiting or self._running:
                    if time.monotonic() - told > _QUIET_S:
                        told = time.monotonic()
                        self.progress.say(f"Running: {', '.join(map(_stand, self._running))}")
                    self._collect(len(jobs))
                    for job in self._ready(waiting, len(jobs)):
                        self._start(job, script, scratch, len(jobs))
                    time.sleep(_POLL_S)
            finally:
                self._stop()
        return self._outcomes

    def _ready(self, waiting: list[StudyRun], num_jobs: int) -> list[StudyRun]:
        """Take what can begin now out of what waits, and what never can."""
        ready: list[StudyRun] = []
        for job in list(waiting):
            base = self._outcomes.get(job.base.name) if job.base else Outcome(DONE)
            if base is None:
                continue
            if base.status != DONE:
                waiting.remove(job)
                self._end(job, Outcome(SKIPPED, "its base failed"), num_jobs)
            elif len(self._running) + len(ready) < self.num_parallel:
                waiting.remove(job)
                ready.append(job)
        return ready

    def _start(self, job: StudyRun, script: Path, scratch: Path, num_jobs: int) -> None:
        device = self._free_device() if job.recipe.world.processes == 1 else None
        try:
            prepare_folder(job, self.folder.tokens)
            self.folder.note(job.name, self.place)
            child = start_child(
                job,
                self.folder.recipe_of(job),
                script,
                scratch,
                num_parallel=self.num_parallel,
                on_cpu=self.on_cpu,
                device=device,
            )
        except GrowthError as error:
            self._end(job, Outcome(FAILED, str(error)), num_jobs)
        else:
            self._running.append(child)

    def _free_device(self) -> str | None:
        """Return the GPU that the fewest runs are on."""
        taken = [child.device for child in self._running]
        return min(self.devices, key=taken.count, default=None)

    def _collect(self, num_jobs: int) -> None:
        for child in list(self._running):
            outcome = child.outcome()
            if outcome is None:
                continue
            self._running.remove(child)
            if outcome.status == DONE:
                remove_state(child.job)
            seconds = time.monotonic() - child.started
            self._end(child.job, outcome, num_jobs, f" in {seconds:,.0f} s")

    def _end(self, job: StudyRun, outcome: Outcome, num_jobs: int, more: str = "") -> None:
        self._outcomes[job.name] = outcome
        said = f"[{len(self._outcomes)}/{num_jobs}] {job.name}: {outcome.status}{more}"
        self.progress.say(f"{said}: {outcome.message}" if outcome.message else said)

    def _stop(self) -> None:
        """Let the runs save a checkpoint and end, and wait for it."""
        if self._running:
            names = ", ".join(child.job.name for child in self._running)
            self.progress.say(f"Stopping {names}; the same command goes on from there")
        for child in self._running:
            child.stop()
        deadline = time.monotonic() + _STOP_S
        for child in self._running:
            child.wait(max(0.0, deadline - time.monotonic()))
        self._running.clear()


def _stand(child: Child) -> str:
    """Return the name of a run that is running, and how far it has come."""
    lines = read_metrics(child.job.folder)
    tokens = max((line.get("tokens", 0) for line in lines[-1:]), default=0)
    whole = sum(cost.tokens for cost in child.job.costs if not cost.is_growth)
    return f"{child.job.name} ({tokens / whole:.0%})"
