"""The runs of a study as processes: so many at a time, each after its base.

A run that fails is reported, and the others go on. What is finished is not done again, and what was
stopped goes on from its last checkpoint. An arm begins in a fork of its base's folder: the model,
the last checkpoint and the metrics, large files linked and never written again.
"""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from hfgrow.checkpoint.files import RUN
from hfgrow.checkpoint.locks import scratch_folder
from hfgrow.checkpoint.staging import replace_text, translated
from hfgrow.console import Progress, short_count
from hfgrow.errors import GrowthError, OutputError, TrainingError, printable
from hfgrow.lineage.ledger import ledger
from hfgrow.lineage.reading import read_manifest
from hfgrow.study.accounting import exact_total, total
from hfgrow.study.design import Design, StudyRun
from hfgrow.study.folder import StudyFolder, tokenise
from hfgrow.train.metrics import read_metrics
from hfgrow.train.processes import SCRIPT, end_all, launch_command, start, tell
from hfgrow.train.run_folder import METRICS, RunFolder

DONE, FAILED, SKIPPED, OPEN = "done", "failed", "not run", "open"
_POLL_S = 0.1
_STOP_S = 120.0
_QUIET_S = 10.0
_LINKED = (".safetensors",)
# How far the ledger may be from what was planned: roundings of decimals.
_TOLERANCE = 1e-6


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended.

    Attributes:
        status: `done`, `failed`, `not run` because its base failed, or `open`.
        message: What was wrong; empty if nothing was.
    """

    status: str
    message: str = ""


def run_study(
    design: Design,
    folder: StudyFolder,
    place: Mapping[str, Any],
    *,
    num_parallel: int,
    on_cpu: bool,
    progress: Progress,
) -> dict[str, Outcome]:
    """Carry out all runs of a study that are not done.

    Args:
        folder: The folder of the study, which we hold.
        place: The command and the machine, for the record.
        num_parallel: How many run at a time.
        on_cpu: Whether accelerators are left alone.

    Returns:
        How each run ended, by its name.

    Raises:
        GrowthError: The study cannot begin.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    devices = () if on_cpu or num_parallel == 1 else _gpus()
    queue = Queue(folder, place, num_parallel, on_cpu, progress, devices)
    if not all(map(is_done, design.jobs)):
        folder.note_text(tokenise(design.jobs[0].recipe, folder.tokens, progress))
    return queue.run(design.jobs)


def _gpus() -> tuple[str, ...]:
    """Return the GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return tuple(filter(None, given.split(",")))
    return tuple(map(str, range(torch.cuda.device_count())))


@dataclass(frozen=True, slots=True)
class Child:
    """A run that is running.

    Attributes:
        job: The run.
        process: Its process.
        status: Where it says how it ended.
        started: When it began, monotonic.
        device: The GPU that it was given; None leaves that to it.
    """

    job: StudyRun
    process: "subprocess.Popen[bytes]"
    status: Path
    started: float
    device: str | None

    def outcome(self) -> Outcome | None:
        """Return how it ended; None while it runs."""
        if self.process.poll() is None:
            return None
        end_all(self.process)
        found = outcome_of(self.job)
        if found.status != OPEN:
            return found
        message = f"it ended with code {self.process.returncode}"
        with suppress(OSError, ValueError):
            status = json.loads(self.status.read_text(encoding="utf-8"))
            message = str(status["error"]["message"] if "error" in status else status["message"])
        log = printable(log_of(self.job), 200)
        return Outcome(FAILED, f"{printable(message, 300)}; see {log}")

    def stop(self) -> None:
        """Ask it to save a checkpoint and end."""
        tell(self.process, signal.SIGTERM)

    def wait(self, patience_s: float) -> None:
        """Wait until it has ended, and end it if that takes too long."""
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(patience_s)
        end_all(self.process)
        self.process.wait()


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
                last_said = time.monotonic()
                while waiting or self._running:
                    if time.monotonic() - last_said > _QUIET_S:
                        last_said = time.monotonic()
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


def start_child(
    job: StudyRun,
    recipe: Path,
    script: Path,
    scratch: Path,
    *,
    num_parallel: int,
    on_cpu: bool,
    device: str | None,
) -> Child:
    """Start a run whose folder is prepared.

    Args:
        recipe: Where its recipe is written to.
        script: The script that carries it out.
        scratch: Where it says how it ended.
        num_parallel: How many run at a time.
        on_cpu: Whether accelerators are left alone.
        device: The GPU that it is given; None leaves that to it.

    Raises:
        OutputError: Its recipe or its log cannot be written.
    """
    with translated(printable(recipe, 200)):
        replace_text(recipe, job.recipe.to_yaml())
    arguments = [str(recipe), "--resume", *(["--cpu"] if on_cpu else [])]
    world = job.recipe.world.processes
    status = scratch / f"{job.name}.json"
    with translated(printable(log_of(job), 200)):
        log = log_of(job).open("ab")
    with log:
        process = start(
            launch_command(script, arguments, num_processes=world),
            status,
            num_processes=world,
            on_cpu=on_cpu,
            num_runs=num_parallel,
            more={} if device is None else {"CUDA_VISIBLE_DEVICES": device},
            log=log,
        )
    return Child(job, process, status, time.monotonic(), device)


def outcome_of(job: StudyRun) -> Outcome:
    """Return how a run stands by what lies in its folder: done, failed by its ledger, or open."""
    if not is_done(job):
        return Outcome(OPEN)
    fault = recorded(job).fault
    return Outcome(FAILED, fault) if fault else Outcome(DONE)


def is_done(job: StudyRun) -> bool:
    """Say whether a run is finished."""
    return RunFolder(job.folder).final.is_dir()


def log_of(job: StudyRun) -> Path:
    """Return the file that a run tells its words to."""
    return job.folder.with_name(f"{job.folder.name}.log")


def remove_state(job: StudyRun) -> None:
    """Remove what a finished run could go on from: nothing grows from an arm."""
    if job.arm is not None:
        shutil.rmtree(RunFolder(job.folder).checkpoints, ignore_errors=True)


def prepare_folder(job: StudyRun, tokens: Path) -> None:
    """Make the folder of a run that has none yet: empty, or forked from the run of its base.

    Args:
        tokens: The folder of tokenised text that all runs share.

    Raises:
        OutputError: It cannot be written.
        TrainingError: The run of its base is not finished.
    """
    folder = job.folder
    if folder.is_dir():
        return
    if folder.exists():
        shown = printable(folder, 200)
        raise OutputError(f"{shown} exists and is no folder of a run", hint="move it away")
    with translated(printable(folder, 200)):
        staging = folder.with_name(f".{folder.name}.forking")
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        RunFolder(staging).tokens.symlink_to(
            os.path.relpath(tokens, folder), target_is_directory=True
        )
        if job.base is not None:
            _fork(RunFolder(job.base.folder), RunFolder(staging), job)
        staging.rename(folder)


def _fork(base: RunFolder, fork: RunFolder, job: StudyRun) -> None:
    checkpoints = sorted(base.checkpoints.glob("step-*"))
    if not base.final.is_dir() or not checkpoints:
        raise TrainingError(
            f"the run of the base is not finished: {printable(base.path, 200)}",
            hint="remove its folder, and run the study again",
        )
    assert job.recipe.stages[0].train is not None
    name = f"base-{short_count(job.recipe.stages[0].train.tokens)}"
    _link_tree(base.final, fork.stage(0, name))
    _link_tree(base.fresh, fork.fresh)
    _link_tree(checkpoints[-1], fork.checkpoints / checkpoints[-1].name)
    for file in (RUN, METRICS):
        shutil.copyfile(base.path / file, fork.path / file)


def _link_tree(source: Path, target: Path) -> None:
    shutil.copytree(source, target, copy_function=_link_or_copy)


def _link_or_copy(source: str, target: str) -> None:
    link: Callable[[str, str], object] = os.link
    if source.endswith(_LINKED):
        try:
            link(source, target)
        except OSError:
            # Another file system, or one without links.
            pass
        else:
            return
    shutil.copy2(source, target)


@dataclass(frozen=True, slots=True)
class Recorded:
    """What a ledger says.

    Attributes:
        device_seconds: What all training took, the base's included; None if it does not say.
        fault: Where it does not say what was planned; empty if it does.
    """

    device_seconds: float | None
    fault: str


def recorded(job: StudyRun) -> Recorded:
    """Read the ledger of a finished run."""
    try:
        manifest = read_manifest(RunFolder(job.folder).final)
    except GrowthError as error:
        return Recorded(None, str(error))
    if manifest is None:
        return Recorded(None, "its model has no ledger")
    found = ledger(manifest)
    planned = (("", total(job.costs)), (" exact", exact_total(job.costs)))
    read = (found.total.flops, found.total.exact_flops)
    faults = [
        f"its ledger has {flops}{what} FLOPs instead of {wanted}"
        for (what, wanted), flops in zip(planned, read, strict=True)
        if flops is None or abs(flops - wanted) > _TOLERANCE * wanted
    ]
    return Recorded(found.recorded.device_seconds, "; ".join(faults))
