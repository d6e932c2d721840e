"""A folder for the time of one run: gone when it ends, or swept by the next if it was killed."""

import errno
import os
import re
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from hfgrow.checkpoint.lock import lock_at, release, undisturbed
from hfgrow.errors import OutputError, printable

if TYPE_CHECKING:
    from filelock import FileLock

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
            else "choose a folder you can write to: --out DIR",
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
