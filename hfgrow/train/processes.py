"""The processes of a run, from outside: started by `accelerate launch`, asked to stop. No torch.

Measured with accelerate 1.15: `--cpu --num_processes 2` starts one process; what starts two on CPUs
is `--multi_gpu` with ACCELERATE_USE_CPU. A run that is asked to stop does so between two steps of
training, or in work that can be undone.
"""

import ctypes
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from importlib.resources import as_file, files
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any, NoReturn

from hfgrow.checkpoint.locks import scratch_folder
from hfgrow.errors import TrainingError, UsageError, command, error_named, printable

# Where the main process says how the run ended, for whoever launched it.
STATUS_VARIABLE = "HFGROW_STATUS_FILE"
SCRIPT = "continue_pretraining.py"
_PR_SET_PDEATHSIG = 1
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_OF_LAUNCHER = (*_SIGNALS, signal.SIGQUIT)


def launch_command(
    script: Path,
    arguments: Sequence[str],
    *,
    num_processes: int,
    extra: Sequence[str] = (),
) -> list[str]:
    """Return the command that starts the script in as many processes.

    Args:
        script: The bundled script.
        num_processes: Processes on all machines together.
        extra: What goes to `accelerate launch`, such as `--num_machines 2`.

    Raises:
        UsageError: That asks for another number of processes.
    """
    _check_processes(extra, num_processes)
    if num_processes == 1 and not extra:
        # All that accelerate would add is a process between us and the script.
        return [sys.executable, "-P", str(script), *arguments]
    # Isolated: an accelerate.py in the working folder is no part of the run.
    command = [sys.executable, "-P", "-m", "accelerate.commands.launch"]
    given = {word.partition("=")[0].replace("-", "_") for word in extra if word.startswith("--")}
    for option, values in (
        ("--num_processes", [str(num_processes)]),
        ("--num_machines", ["1"]),
        ("--mixed_precision", ["no"]),
        ("--dynamo_backend", ["no"]),
        ("--multi_gpu", []),
        ("--main_process_port", ["0"]),
    ):
        if option.replace("-", "_") in given:
            continue
        if option in ("--multi_gpu", "--main_process_port") and num_processes == 1:
            continue
        if option == "--main_process_port" and "__num_machines" in given:
            # Machines find each other at a port that all of them know.
            continue
        command += [option, *values]
    return [*command, *extra, str(script), *arguments]


def _check_processes(extra: Sequence[str], num_processes: int) -> None:
    """Refuse another number behind `--`: accelerate would start processes that share nothing."""
    for i, word in enumerate(extra):
        option, _, value = word.partition("=")
        if option.replace("-", "_") != "__num_processes":
            continue
        value = value or next(iter(extra[i + 1 :]), "")
        if value != str(num_processes):
            raise UsageError(
                f"accelerate is asked for {printable(value)} processes, the recipe for "
                f"{num_processes}",
                hint=command("train RECIPE.yaml", num_processes=printable(value))
                + ", without it behind --",
            )


def launch(
    arguments: Sequence[str],
    *,
    num_processes: int,
    on_cpu: bool,
    extra: Sequence[str] = (),
    token: str | None = None,
    again: str,
) -> dict[str, Any]:
    """Run the bundled script and return what it said in the end.

    Args:
        arguments: Of the script.
        num_processes: Processes on all machines together.
        on_cpu: Whether accelerators are left alone.
        extra: What goes to `accelerate launch`.
        token: The Hub token; None leaves the environment's.
        again: The command that goes on with the run.

    Returns:
        The result of the run; `stopped` holds the number of a signal that stopped it.

    Raises:
        GrowthError: The run ended with an error, which is raised again here.
        TrainingError: Its processes ended without a word.
    """
    with (
        as_file(files("hfgrow_recipes") / SCRIPT) as script,
        scratch_folder() as scratch,
    ):
        status = scratch / "status.json"
        process = start(
            launch_command(script, arguments, num_processes=num_processes, extra=extra),
            status,
            num_processes=num_processes,
            on_cpu=on_cpu,
            # Not on the command line, which every user of the machine can read.
            more={} if token is None else {"HF_TOKEN": token},
        )
        code, stopped = _wait(process)
        if (told := told_in(status)) is not None:
            return _outcome(told)
    stopped = stopped or (-code if -code in _SIGNALS else 0)
    if stopped:
        return {"stopped": stopped, "message": "Stopped before training began"}
    if code < 0:
        raise TrainingError(f"the run was ended by signal {-code}", hint=f"go on with: {again}")
    raise TrainingError(
        f"a process of the run ended with code {code} before it was done",
        hint=f"what it said stands above; go on from the last checkpoint with: {again}",
    )


def told_in(status: Path) -> dict[str, Any] | None:
    """Return what a run said in the end; None if it said nothing, or a full disk cut it short."""
    try:
        found: dict[str, Any] = json.loads(status.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return found


def start(
    command: Sequence[str],
    status: Path,
    *,
    num_processes: int,
    on_cpu: bool,
    num_runs: int = 1,
    more: Mapping[str, str] = MappingProxyType({}),
    log: IO[bytes] | None = None,
) -> "subprocess.Popen[bytes]":
    """Start a run in a group of processes of its own, which ends when this process is gone.

    Args:
        command: Of `launch_command`.
        status: The file where the run says how it ended.
        num_processes: Processes on all machines together.
        on_cpu: Whether accelerators are left alone.
        num_runs: How many runs share the machine.
        more: What else goes into its environment.
        log: What it says goes there; None leaves it where ours goes.
    """
    heard = [number.name for number in _OF_LAUNCHER if not _is_ignored(number)]
    environment = os.environ | {
        STATUS_VARIABLE: str(status),
        # What a process of the run starts in turn, such as a compiler, is isolated too.
        "PYTHONSAFEPATH": "1",
        # torch's launcher would hear, and end by, what nohup lets us ignore.
        "PET_SIGNALS_TO_HANDLE": ",".join(heard),
        **more,
    }
    if on_cpu:
        environment["ACCELERATE_USE_CPU"] = "true"
    if num_processes > 1 or (on_cpu and num_runs > 1):
        # What torch would set, but with a warning; each process has its share of the cores.
        share = max(1, len(os.sched_getaffinity(0)) // (num_processes * num_runs))
        environment.setdefault("OMP_NUM_THREADS", str(share if on_cpu else 1))
    return subprocess.Popen(
        command,
        env=environment,
        stdin=None if log is None else subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,
        preexec_fn=end_with_parent,
    )


def tell(process: "subprocess.Popen[bytes]", number: int) -> None:
    """Send a signal to the processes of a run that train.

    Told itself, torch's launcher would end its workers 30 s later, checkpoint or not.
    """
    words = process.args
    is_launched = isinstance(words, list) and "-m" in words[:3]
    for pid in (is_launched and workers(process.pid)) or [process.pid]:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def end_all(process: "subprocess.Popen[bytes]") -> None:
    """End what is left of the processes of a run."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _wait(process: "subprocess.Popen[bytes]") -> tuple[int, int]:
    """Wait for a run whose processes get the signals that we get.

    Returns:
        Its exit code, and the first of those signals or 0.
    """
    numbers: list[int] = []

    def forward(number: int, frame: object) -> None:
        numbers.append(number)
        tell(process, number)

    # What was ignored, as under nohup, stays so.
    heard = [number for number in _SIGNALS if not _is_ignored(number)]
    before = {number: signal.signal(number, forward) for number in heard}
    try:
        return process.wait(), next(iter(numbers), 0)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        end_all(process)


def _is_ignored(number: signal.Signals) -> bool:
    return signal.getsignal(number) is signal.SIG_IGN


def workers(pid: int) -> list[int]:
    """Return the processes that a launcher started; none where nobody can say."""
    found = []
    with suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            for child in (thread / "children").read_text().split():
                if SCRIPT.encode() in Path(f"/proc/{child}/cmdline").read_bytes():
                    found.append(int(child))
    return found


def end_with_parent() -> None:
    """Let the kernel send SIGTERM to this process when the one that started it is gone."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _outcome(status: dict[str, Any]) -> dict[str, Any]:
    error = status.get("error")
    if error is None:
        return status
    raise error_named(**error)


_SCRIPT = "script"


def check_launch_options(words: Sequence[str]) -> None:
    """Refuse what `accelerate launch` does not take; it would print all its options, and end.

    Args:
        words: Its options, such as `--num_machines 2`.

    Raises:
        UsageError: One is none, or has no such value.
    """
    if not words:
        return
    # Untyped, and it takes a second to import.
    parser: Any = import_module("accelerate.commands.launch").launch_command_parser()

    def refuse(said: str) -> NoReturn:
        raise UsageError(
            f"accelerate launch, which gets what stands behind --, says: {printable(said, 300)}",
            hint="accelerate launch --help lists its options",
        )

    parser.error = refuse
    if any(word in ("-h", "--help") for word in words):
        refuse("its help was asked for")
    script = parser.parse_args([*words, "--", _SCRIPT]).training_script
    if script != _SCRIPT:
        refuse(f"{script} is no option")


class StoppedError(BaseException):
    """The run was stopped by a signal; what it had saved stays.

    No Exception: what libraries do about those must not keep it from ending the run.

    Args:
        number: The signal.
        message: Where the run stands.
    """

    def __init__(self, number: int, message: str = "Stopped; what was saved stays") -> None:
        super().__init__(message)
        self.number = number


class StopRequest:
    """Remembers a signal, and is asked between steps.

    Attributes:
        number: The signal that came, or 0.
    """

    def __init__(self) -> None:
        self.number = 0
        self._raises = self._is_held = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Remember SIGTERM, SIGINT and SIGHUP instead of ending; an impatient SIGINT ends at once.

        SIGTERM may come twice for one stop: from whoever stops the run, and from the launcher. What
        was ignored, as SIGHUP is under nohup, stays so.
        """

        def remember(number: int, frame: object) -> None:
            if self.number and number == signal.SIGINT:
                signal.signal(number, signal.SIG_DFL)
                signal.raise_signal(number)
            self.number = self.number or number
            self._end()

        heard = [number for number in _SIGNALS if not _is_ignored(number)]
        before = {number: signal.signal(number, remember) for number in heard}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def heeded(self) -> Iterator[None]:
        """Let a signal end the block, or one that came before it; not inside `held`.

        Raises:
            StoppedError: There is such a signal.
        """
        self._raises = not self._is_held
        try:
            if self.number:
                self._end()
            yield
        finally:
            self._raises = False

    @contextmanager
    def held(self) -> Iterator[None]:
        """Only remember signals inside the block, which asks for them itself."""
        self._is_held = True
        try:
            yield
        finally:
            self._is_held = False

    def _end(self) -> None:
        if self._raises:
            # Once: the next signal finds the work being undone.
            self._raises = False
            raise StoppedError(self.number)
