"""A run of a study as a process of its own."""

import json
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from hfgrow.checkpoint.staging import replace_text, translated
from hfgrow.errors import printable
from hfgrow.study.job import StudyRun
from hfgrow.study.ledgers import recorded
from hfgrow.train.processes import end_all, launch_command, start, tell
from hfgrow.train.run_folder import RunFolder

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
        job: The run.
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
