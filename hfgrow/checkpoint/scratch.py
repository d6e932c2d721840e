"""A folder for the time of one run: gone when it ends, or swept by the next if it was killed."""

import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hfgrow.checkpoint.lock import lock_at, release, undisturbed
from hfgrow.errors import OutputError, printable

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
        folder = where / f".hfgrow-scratch-{secrets.token_hex(8)}"
        lock = lock_at(_lock_of(folder))
        # Held before there is a folder: one whose lock is free has no owner any more.
        lock.acquire(timeout=0)
    except OSError as error:
        shown = printable(where or "the folder for temporary files", 200)
        raise OutputError(
            f"cannot write to {shown}: {error.strerror or printable(error)}",
            hint="TMPDIR names a folder for temporary files"
            if parent is None
            else "choose a folder you can write to: --out DIR",
        ) from error
    try:
        folder.mkdir(mode=0o700)
        yield folder
    finally:
        with undisturbed():
            shutil.rmtree(folder, ignore_errors=True)
            release(lock)


def _lock_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.lock")


def _is_ours(entry: "os.DirEntry[str]") -> bool:
    """Say whether a name of the folder, which others may write to, was made by this user."""
    return not entry.is_symlink() and entry.stat(follow_symlinks=False).st_uid == os.geteuid()


def _sweep(parent: Path) -> None:
    """Remove what killed runs of this user left."""
    from filelock import Timeout

    entries = [entry for entry in os.scandir(parent) if _is_ours(entry)]
    found = {match[1] for entry in entries if (match := _NAME.fullmatch(entry.name))}
    for name in found:
        folder = parent / name
        with suppress(OSError, Timeout), undisturbed():
            lock = lock_at(_lock_of(folder))
            lock.acquire(timeout=0)
            shutil.rmtree(folder, ignore_errors=True)
            release(lock)
