"""What a study ran on."""

import os
import platform
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from hfgrow.errors import printable
from hfgrow.record import versions_of
from hfgrow.train.record import PACKAGES


@dataclass(frozen=True, slots=True)
class Machine:
    """What a study ran on.

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
        import torch

        devices: tuple[str, ...] = ()
        if not on_cpu and torch.cuda.is_available():
            devices = tuple(map(torch.cuda.get_device_name, range(torch.cuda.device_count())))
        num_cores = len(os.sched_getaffinity(0))
        return cls(_processor(), num_cores, devices, versions_of(*PACKAGES))

    @property
    def words(self) -> str:
        """It in one line."""
        parts = [f"{self.processor}, {self.num_cores} cores", *self.devices]
        return "; ".join([*parts, ", ".join(f"{k} {v}" for k, v in self.versions.items())])


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return printable(line.partition(":")[2].strip(), 100)
    return printable(platform.processor() or platform.machine(), 100)
