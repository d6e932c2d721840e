"""Run the installed program `hfgrow`: in a process of its own, or in this one for speed."""

import contextlib
import io
import os
import resource
import shutil
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

# Every test runs with this token in its environment; it must not come out anywhere.
CANARY = "hf_" + "CanaryTokenThatMustNeverShow".ljust(34, "x")

Finished = subprocess.CompletedProcess[str]
_Handler = Callable[[int, Any], Any] | int | None

# As a terminal starts a program. nohup ignores SIGHUP, a script SIGINT and SIGQUIT for its
# background jobs, and whatever these start inherits that.
TERMINAL: dict[int, _Handler] = {
    signal.SIGINT: signal.default_int_handler,
    signal.SIGTERM: signal.SIG_DFL,
    signal.SIGHUP: signal.SIG_DFL,
    signal.SIGQUIT: signal.SIG_DFL,
}


def environment(**changes: str) -> dict[str, str]:
    """Return the environment of a subprocess: offline, with the canary token."""
    inherited = {name: value for name, value in os.environ.items() if name != "HF_DEBUG"}
    return {**inherited, "HF_HUB_OFFLINE": "1", "HF_TOKEN": CANARY, **changes}


def program() -> str:
    """Return the path of the installed console script."""
    beside = Path(sysconfig.get_path("scripts"), "hfgrow")
    return str(beside) if beside.is_file() else shutil.which("hfgrow") or "hfgrow"


def run_hfgrow(
    *args: str | Path,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float = 60,
    address_space_nbytes: int | None = None,
    file_nbytes: int | None = None,
    umask: int = -1,
) -> Finished:
    """Run the console script in a process of its own.

    Args:
        args: The command line.
        cwd: Where it runs.
        env: Changes to the environment.
        timeout: Seconds until the test fails.
        address_space_nbytes: The most addresses it may use.
        file_nbytes: The largest file it may write.
        umask: Its umask; -1 is that of the tests.
    """

    def limit() -> None:
        for which, most in (
            (resource.RLIMIT_AS, address_space_nbytes),
            (resource.RLIMIT_FSIZE, file_nbytes),
        ):
            if most is not None:
                resource.setrlimit(which, (most, most))

    finished = subprocess.run(
        [program(), *map(str, args)],
        cwd=cwd,
        env=environment(**(env or {})),
        capture_output=True,
        encoding="utf-8",
        errors="surrogateescape",
        timeout=timeout,
        umask=umask,
        preexec_fn=limit,
        check=False,
    )
    assert CANARY not in finished.stdout + finished.stderr
    return finished


def call_hfgrow(*args: str | Path, cwd: Path | None = None) -> Finished:
    """Run the console script's function in this process; an import of torch is paid once."""
    (script,) = entry_points(group="console_scripts", name="hfgrow")
    main = script.load()
    words = [str(arg) for arg in args]
    stdout, stderr = io.StringIO(), io.StringIO()
    code: object = 0
    with (
        _invoked_as(words, cwd),
        contextlib.redirect_stdout(stdout),
        contextlib.redirect_stderr(stderr),
    ):
        try:
            main()
        except SystemExit as stop:
            code = stop.code
    returncode = code if isinstance(code, int) else int(code is not None)
    finished = Finished(words, returncode, stdout.getvalue(), stderr.getvalue())
    assert CANARY not in finished.stdout + finished.stderr
    return finished


@contextlib.contextmanager
def handling(handlers: Mapping[int, _Handler]) -> Iterator[None]:
    """Handle signals so in this process; what is ignored here is so in a program it starts."""
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _invoked_as(args: list[str], cwd: Path | None) -> Iterator[None]:
    argv, variables = sys.argv, dict(os.environ)
    sys.argv = ["hfgrow", *args]
    try:
        with (
            handling({number: signal.getsignal(number) for number in TERMINAL}),
            contextlib.chdir(cwd or Path.cwd()),
        ):
            yield
    finally:
        sys.argv = argv
        os.environ.clear()
        os.environ.update(variables)
