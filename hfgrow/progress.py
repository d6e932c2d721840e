"""Who is told how the work goes on; the command line brings a bar, a library caller nothing."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol


class ProgressBar(Protocol):
    """Counts bytes until it is closed."""

    def advance(self, nbytes: int) -> None:
        """Count."""
        ...

    def close(self) -> None:
        """Stop counting."""
        ...


class Progress(Protocol):
    """Takes single lines, and starts bars."""

    def say(self, text: str) -> None:
        """Tell one line, such as what a name was resolved to."""
        ...

    def bytes(self, what: str, total: int) -> ProgressBar:
        """Start to count bytes."""
        ...


class Silent:
    """Tells nobody anything; a bar of its own too."""

    def say(self, text: str) -> None:
        """Drop a line."""

    def bytes(self, what: str, total: int) -> "Silent":
        """Start to count nothing."""
        return self

    def advance(self, nbytes: int) -> None:
        """Drop a count."""

    def close(self) -> None:
        """Stop counting nothing."""


@contextmanager
def counting(progress: Progress, what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Count bytes on a bar that is closed at the end, whatever happens."""
    bar = progress.bytes(what, total)
    try:
        yield bar.advance
    finally:
        bar.close()
