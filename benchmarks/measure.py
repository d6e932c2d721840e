"""Run a command and measure it; say what machine it ran on; turn rounds into medians and tables."""

import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

_READ_NBYTES = 4 << 20
_SAMPLE_S = 0.2


@dataclass(frozen=True)
class Run:
    """What one command took.

    Attributes:
        wall_s: From start to exit.
        user_s: CPU time of the process outside the kernel.
        sys_s: CPU time of the process inside the kernel.
        peak_mib: The most resident memory: of the process by the kernel's account, or of it and
            its children by samples, whichever is more.
        fsync_s: How long it then took until all of its output was on the disk.
        output_nbytes: The size of its output.
        load: The one-minute load average when it started.
        exit_code: Its exit code.
        last_line: The last line it printed.
    """

    wall_s: float
    user_s: float
    sys_s: float
    peak_mib: float
    fsync_s: float
    output_nbytes: int
    load: float
    exit_code: int
    last_line: str

    @property
    def total_s(self) -> float:
        """Wall time until the output is on the disk."""
        return self.wall_s + self.fsync_s


def measure(
    command: Sequence[str],
    output: Path | None = None,
    *,
    strict: bool = True,
    environment: Mapping[str, str] | None = None,
) -> Run:
    """Run a command, then fsync what it wrote.

    Args:
        command: The program and its arguments.
        output: The folder it writes.
        strict: End the benchmark if the command fails.
        environment: What it is told beside the environment of the benchmark; None keeps it off
            the network.
    """
    load = os.getloadavg()[0]
    offline = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    told = {**os.environ, **(offline if environment is None else environment)}
    read, write = os.pipe()
    start = time.perf_counter()
    process = subprocess.Popen(command, env=told, stdout=write, stderr=write)
    os.close(write)
    family = _Family(process.pid)
    with os.fdopen(read, "rb") as pipe:
        text = pipe.read().decode(errors="replace")
    family.stop()
    # wait4 gives the usage of this one child, which RUSAGE_CHILDREN does not.
    _, status, usage = os.wait4(process.pid, 0)
    wall_s = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if strict and process.returncode:
        sys.exit(f"{command[0]} ended with {process.returncode}:\n{text[-2000:]}")
    fsync_s, nbytes = fsync(output) if output is not None else (0.0, 0)
    return Run(
        wall_s=wall_s,
        user_s=usage.ru_utime,
        sys_s=usage.ru_stime,
        peak_mib=max(usage.ru_maxrss / 1024, family.peak_nbytes / 2**20),
        fsync_s=fsync_s,
        output_nbytes=nbytes,
        load=load,
        exit_code=process.returncode,
        last_line=lines[-1] if lines else "",
    )


def one_after_another(runs: Sequence[Run]) -> Run:
    """Return what a job of several commands took: the sum of the times, the highest peak."""
    last = runs[-1]
    return Run(
        wall_s=sum(run.wall_s for run in runs),
        user_s=sum(run.user_s for run in runs),
        sys_s=sum(run.sys_s for run in runs),
        peak_mib=max(run.peak_mib for run in runs),
        fsync_s=last.fsync_s,
        output_nbytes=last.output_nbytes,
        load=runs[0].load,
        exit_code=last.exit_code,
        last_line=last.last_line,
    )


class _Family:
    """Samples the resident memory of a process that has children, until it is stopped.

    The kernel's account is of each process alone; of one without children it is exact, and
    nothing is added up here.
    """

    def __init__(self, pid: int) -> None:
        self.peak_nbytes = 0
        self._pid = pid
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(_SAMPLE_S):
            pids = _with_children(self._pid)
            if len(pids) > 1:
                self.peak_nbytes = max(self.peak_nbytes, sum(map(_resident_nbytes, pids)))


def _with_children(pid: int) -> list[int]:
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The name before the state stands in brackets, and may hold anything.
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
        except OSError:
            # It has ended meanwhile.
            continue
    found = [pid]
    for parent in found:
        found += [child for child, of in parents.items() if of == parent]
    return found


def _resident_nbytes(pid: int) -> int:
    """Return the resident memory of a process; of what several share, its part."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8").splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    except (OSError, StopIteration):
        return 0


def fsync(folder: Path) -> tuple[float, int]:
    """Bring a folder to the disk; return the seconds that took, and its size in bytes."""
    start, nbytes = time.perf_counter(), 0
    for path in folder.rglob("*"):
        if path.is_file():
            nbytes += path.stat().st_size
            descriptor = os.open(path, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)
    return time.perf_counter() - start, nbytes


def clear(*folders: Path) -> None:
    """Remove what an earlier run wrote, and wait until the disk is quiet."""
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
    os.sync()


def available_nbytes() -> int:
    """Return the memory that can be had without swapping."""
    lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
    found = next(line for line in lines if line.startswith("MemAvailable:"))
    return 1024 * int(found.split()[1])


def warm(folder: Path) -> None:
    """Read every file, so that each command finds its input in memory."""
    for path in filter(Path.is_file, folder.iterdir()):
        with path.open("rb", buffering=0) as file:
            while file.read(_READ_NBYTES):
                pass


def touch_memory(nbytes: int) -> None:
    """Take memory and give it back, in a process of its own.

    A virtual machine may have to ask its host for a page that was never used, or not for long,
    which costs several times a page it has. Without this whoever comes first pays for all.
    """
    code = (
        "import mmap, sys; mmap.mmap(-1, int(sys.argv[1]), "
        "flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE)"
    )
    subprocess.run([sys.executable, "-c", code, str(nbytes)], check=True)


def ratio(
    rounds: Iterable[dict[str, Run]], one: str, other: str, what: Callable[[Run], float]
) -> tuple[float, float, float] | None:
    """Return median, least and greatest of the ratios within each round."""
    ratios = [what(r[one]) / max(what(r[other]), 1e-9) for r in rounds if one in r and other in r]
    return (statistics.median(ratios), min(ratios), max(ratios)) if ratios else None


def median(rounds: Iterable[dict[str, Run]], name: str, what: Callable[[Run], float]) -> float:
    """Return the median of a tool's runs."""
    return statistics.median(what(r[name]) for r in rounds if name in r)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def hfgrow_program() -> str:
    """Return the `hfgrow` that belongs to this interpreter."""
    beside = Path(sys.executable).with_name("hfgrow")
    return str(beside) if beside.is_file() else "hfgrow"


def version_in(python: Path | None, package: str) -> str | None:
    """Return the version of a package as another interpreter, or this one, has it."""
    if python is None:
        return version(package)
    code = f"import importlib.metadata as m; print(m.version({package!r}))"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    return done.stdout.strip() or None


def machine(folder: Path) -> dict[str, object]:
    """Say what the numbers were measured on, without naming the machine."""
    cpu = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    memory = Path("/proc/meminfo").read_text(encoding="utf-8").split()[1]
    models = [line.split(":")[1].strip() for line in cpu.splitlines() if "model name" in line]
    return {
        "cpu": models[0] if models else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(int(memory) / 2**20, 1),
        "file_system": _file_system(folder),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "hfgrow": version("hfgrow"),
    }


def _file_system(folder: Path) -> str:
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    inside = [m for m in mounts if folder.absolute().is_relative_to(m[1])]
    return max(inside, key=lambda mount: len(mount[1]))[2]


def write_json(path: Path | None, folder: Path, **document: object) -> None:
    """Write the rounds, the machine and the command as JSON, if a file is asked for."""
    if path is None:
        return
    command = [Path(sys.argv[0]).name, *sys.argv[1:]]
    whole = {"machine": machine(folder), "command": command, **document}
    text = json.dumps(whole, indent=2, default=lambda value: asdict(value))
    path.write_text(text + "\n", encoding="utf-8")
