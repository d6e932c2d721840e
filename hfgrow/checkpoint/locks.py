"""One process at a time writes a folder; a scratch folder is gone with its process, or swept."""

import errno
import os
import re
import secrets
import shutil
import signal
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from hfgrow.errors import OutputError, argument, printable

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


_ATTEMPTS = 50
_NAME = re.compile(r"(\.hfgrow-scratch-[0-9a-f]{16})(\.lock)?")


@contextmanager
def scratch_folder(parent: Path | None = None) -> Iterator[Path]:
    """Give a private folder, and remove it with all in it.

    Args:
        parent: Where it lies; made if need be. None is the folder for temporary files.

    Raises:
        OutputError: It cannot be made.
    """
    where = parent
    try:
        where = where or Path(tempfile.gettempdir())
        where.mkdir(parents=True, exist_ok=True)
        _sweep(where)
        folder, lock = _own(where)
    except OSError as error:
        shown = printable(where or "the folder for temporary files", 200)
        raise OutputError(
            f"cannot write to {shown}: {error.strerror or printable(error)}",
            hint="TMPDIR names a folder for temporary files"
            if parent is None
            else f"choose a folder you can write to: {argument('out', 'DIR')}",
        ) from error
    try:
        yield folder
    finally:
        with undisturbed():
            shutil.rmtree(folder, ignore_errors=True)
            release(lock)


def _lock_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.lock")


def _own(where: Path) -> tuple[Path, "FileLock"]:
    """Make a folder under a name that nobody has; return it and its lock, held.

    Held before there is a folder: one whose lock is free has no owner any more.
    """
    from filelock import Timeout

    for _ in range(_ATTEMPTS):
        folder = where / f".hfgrow-scratch-{secrets.token_hex(8)}"
        lock = lock_at(_lock_of(folder))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            # A sweep came between the making of the lock's file and its locking; or none can be
            # made, which this says.
            _lock_of(folder).touch()
            continue
        try:
            folder.mkdir(mode=0o700)
        except OSError:
            release(lock)
            raise
        return folder, lock
    raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))


def _is_ours(path: Path) -> bool:
    """Say whether a file or folder, where others may write too, was made by this user."""
    with suppress(FileNotFoundError):
        found = path.lstat()
        is_plain = stat.S_ISDIR(found.st_mode) or stat.S_ISREG(found.st_mode)
        return is_plain and found.st_uid == os.geteuid()
    return False


def _sweep(parent: Path) -> None:
    """Remove what killed runs of this user left."""
    from filelock import Timeout

    matches = [match for name in os.listdir(parent) if (match := _NAME.fullmatch(name))]
    for name in {match[1] for match in matches if _is_ours(parent / match[0])}:
        folder = parent / name
        with suppress(OSError, Timeout), undisturbed():
            lock = lock_at(_lock_of(folder))
            lock.acquire(timeout=0)
            if _is_ours(folder):
                shutil.rmtree(folder, ignore_errors=True)
            release(lock)
