"""How far an upload or a download is, where the client shows no bars of its own.

The library that transfers tells nobody; but it reads what it sends and writes what it gets, and
the kernel says how far.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread
from typing import Protocol

from hfgrow.console import Progress, Silent, counting

_INTERVAL_S = 0.5
_SILENCE_S = 10.0
_DESCRIPTORS, _POSITIONS = Path("/proc/self/fd"), Path("/proc/self/fdinfo")
_BLOCK_NBYTES = 512


class Transfer(Protocol):
    """Something whose bytes can be counted while it goes on."""

    @property
    def total_nbytes(self) -> int:
        """How many bytes there are."""
        ...

    def more(self) -> int:
        """Return by how many bytes it has come further since the last call."""
        ...


@contextmanager
def telling(progress: Progress, what: str, transfer: Transfer) -> Iterator[None]:
    """Count the bytes of a transfer while the block runs.

    Args:
        progress: Told how many bytes are done.
        what: What is done.
        transfer: Looked at now and then, in a thread of its own.
    """
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled

    # On a terminal the client shows what it transfers, and what it need not.
    counter = progress if are_progress_bars_disabled() else Silent()
    ended = Event()
    with counting(counter, what, transfer.total_nbytes) as advance:

        def watch() -> None:
            idle_s = 0.0
            while not ended.wait(_INTERVAL_S):
                advance(nbytes := transfer.more())
                idle_s = 0.0 if nbytes else idle_s + _INTERVAL_S
                if idle_s and idle_s % _SILENCE_S == 0:
                    progress.say(f"{what}: the other side has been silent for {idle_s:.0f} s")

        watcher = Thread(target=watch, name="transfer", daemon=True)
        watcher.start()
        try:
            yield
        finally:
            ended.set()
            watcher.join()


class Reading:
    """How far this process has read some files, whoever in it does so.

    Args:
        paths: The files.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._nbytes = {str(path.resolve()): path.stat().st_size for path in paths}
        self._done = dict.fromkeys(self._nbytes, 0)

    @property
    def total_nbytes(self) -> int:
        """The size of all files."""
        return sum(self._nbytes.values())

    def more(self) -> int:
        """Return by how many bytes it has come further since the last call."""
        before = sum(self._done.values())
        for name, position in self._positions().items():
            # What is sent again, or looked at before, is not counted twice.
            self._done[name] = max(self._done[name], min(position, self._nbytes[name]))
        return sum(self._done.values()) - before

    def _positions(self) -> Mapping[str, int]:
        found: dict[str, int] = {}
        # A system without /proc tells nothing, and a file may be closed at any moment.
        with suppress(OSError):
            for descriptor in _DESCRIPTORS.iterdir():
                with suppress(OSError, ValueError, IndexError):
                    name = os.readlink(descriptor)
                    if name in self._nbytes:
                        first = (_POSITIONS / descriptor.name).read_text().split("\n", 1)[0]
                        found[name] = max(found.get(name, 0), int(first.split()[1]))
        return found


class Arriving:
    """How much a folder of plain files has grown on the disk.

    Args:
        folder: The folder, which may not exist yet.
        total_nbytes: How many bytes are to come.
    """

    def __init__(self, folder: Path, total_nbytes: int) -> None:
        self._folder = folder
        self._total_nbytes = total_nbytes
        self._before = self._nbytes()
        self._done = 0

    @property
    def total_nbytes(self) -> int:
        """How many bytes are to come."""
        return self._total_nbytes

    def more(self) -> int:
        """Return by how many bytes it has grown since the last call."""
        found = min(self._nbytes() - self._before, self._total_nbytes)
        before, self._done = self._done, max(self._done, found)
        return self._done - before

    def _nbytes(self) -> int:
        found = 0
        with suppress(OSError):
            for entry in os.scandir(self._folder):
                with suppress(OSError):
                    # Blocks, since a file may have its length before its bytes.
                    found += entry.stat(follow_symlinks=False).st_blocks * _BLOCK_NBYTES
        return found
