"""How much memory a model takes, and how much there is."""

import re
from contextlib import suppress
from pathlib import Path

from hfgrow.checkpoint.files import LocalFolder
from hfgrow.checkpoint.read import read


def weights_nbytes(folder: Path) -> int:
    """Return what the tensors of a model take."""
    return read(LocalFolder(folder)).nbytes


def available_nbytes() -> int:
    """Return the memory that can be had without swapping, and inside the container's limit."""
    limits = [1 << 62]
    with suppress(OSError, ValueError):
        found = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text())
        limits += [int(found[1]) * 1024] if found else []
    with suppress(OSError, ValueError):
        limits.append(int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return min(limits)
