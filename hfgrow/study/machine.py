"""What a run of a study runs on, and by which command."""

import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hfgrow.errors import printable
from hfgrow.lineage.manifest import PACKAGES, versions_of

_NAMES = "import torch; [print(torch.cuda.get_device_name(i)) for i in range({})]"
_PATIENCE_S = 120


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine.

    Attributes:
        processor: Model of the CPU.
        num_cores: Cores that this process may use.
        devices: Names of the GPUs; empty on a CPU.
        versions: Package -> version.
    """

    processor: str
    num_cores: int
    devices: tuple[str, ...]
    versions: dict[str, str]

    @classmethod
    def here(cls, *, on_cpu: bool) -> "Machine":
        """Return this machine."""
        num_cores = len(os.sched_getaffinity(0))
        devices = () if on_cpu else _devices()
        return cls(_processor(), num_cores, devices, versions_of(*PACKAGES))

    def to_json(self) -> dict[str, Any]:
        """Return all fields."""
        return {**asdict(self), "devices": list(self.devices)}


def words_of(machine: Mapping[str, Any]) -> str:
    """Return a machine in one line.

    Args:
        machine: What `Machine.to_json` gave.
    """
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    parts = [f"{machine['processor']}, {machine['num_cores']} cores", *machine["devices"]]
    return "; ".join([*parts, versions])


def _devices() -> tuple[str, ...]:
    """Return the names of the GPUs, asked in another process: here, they would stay open."""
    import torch

    if not torch.cuda.is_available():
        return ()
    words = [sys.executable, "-c", _NAMES.format(torch.cuda.device_count())]
    with suppress(OSError, subprocess.SubprocessError):
        found = subprocess.run(
            words, capture_output=True, text=True, check=True, timeout=_PATIENCE_S
        )
        return tuple(printable(line, 100) for line in found.stdout.splitlines())
    return ("unknown GPU",)


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return printable(line.partition(":")[2].strip(), 100)
    return printable(platform.processor() or platform.machine(), 100)
