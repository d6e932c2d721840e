"""How far an upload is, where the client shows no bars: how far it has read its files."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread

from hfgrow.console import Progress, counting

_INTERVAL_S = 0.5
_DESCRIPTORS, _POSITIONS = Path("/proc/self/fd"), Path("/proc/self/fdinfo")


@contextmanager
def telling(progress: Progress, what: str, paths: Sequence[Path]) -> Iterator[None]:
    """Count the bytes of files that a library in this process sends, while the block runs.

    The library tells nobody; but it reads what it sends, and the kernel says how far.

    Args:
        progress: Told how many bytes are done.
        what: What is done.
        paths: The files.
    """
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled

    if not are_progress_bars_disabled():
        # On a terminal the client shows what it sends, and what it need not send.
        yield
        return
    reading = Reading(paths)
    ended = Event()
    with counting(progress, what, reading.total_nbytes) as advance:

        def watch() -> None:
            while not ended.wait(_INTERVAL_S):
                advance(reading.more())

        watcher = Thread(target=watch, name="upload", daemon=True)
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
