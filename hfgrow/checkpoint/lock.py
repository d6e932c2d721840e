"""One process at a time writes a folder: by a lock that the kernel drops with its holder."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from hfgrow.errors import OutputError, printable

if TYPE_CHECKING:
    from filelock import FileLock

LOCK = ".hfgrow-lock"
_POLITE = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_PATIENCE_S = 0.5


@contextmanager
def held(folder: Path, *, hint: str) -> Iterator[None]:
    """Keep other processes from writing a folder as long as the block runs; make it if need be.

    The lock lies in the folder: beside one that is a disk of its own nobody may write.

    Args:
        folder: The folder.
        hint: What to do where another process has it.

    Raises:
        OutputError: Another process has it, or the file system refuses.
    """
    shown = printable(folder, 200)
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{shown} exists and is no folder", hint="choose another output")
    lock = lock_at(folder / LOCK)
    try:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            acquire(lock, folder, hint=hint)
        except OSError as error:
            raise OutputError(f"cannot write {shown}: {error.strerror or error}") from error
        yield
    finally:
        with undisturbed():
            release(lock)


def lock_at(path: Path) -> "FileLock":
    """Return the lock that is a file, not held yet."""
    from filelock import FileLock

    return FileLock(path)


def acquire(lock: "FileLock", folder: Path, *, hint: str) -> None:
    """Take the lock of a folder, or give up soon.

    Raises:
        OutputError: Another process has it.
    """
    from filelock import Timeout

    try:
        lock.acquire(timeout=_PATIENCE_S)
    except Timeout:
        raise OutputError(f"another run is writing {printable(folder, 200)}", hint=hint) from None


def release(lock: "FileLock") -> None:
    """Let go of a lock, if it is held, and remove its file."""
    if lock.is_locked:
        # Removed while held: whoever waits on the old file sees it is gone and retries.
        with suppress(OSError):
            os.unlink(lock.lock_file)
        lock.release()


@contextmanager
def undisturbed() -> Iterator[None]:
    """Let signals wait until the block has ended."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _POLITE)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
