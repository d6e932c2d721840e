"""The output folder appears complete or not at all: lock, private sibling, fsync, rename."""

import ctypes
import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hfgrow.checkpoint.lock import acquire, lock_at, release, undisturbed
from hfgrow.checkpoint.target import exists
from hfgrow.errors import GrowthError, OutputError, printable

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


@contextmanager
def staged(target: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Give a private folder beside `target` that takes its name when the block ends well.

    One process at a time may write a target. What a killed run left behind is swept. An old
    target stays complete until the new one is; after an error nothing of the new one remains.

    Args:
        target: The folder to create.
        overwrite: Whether a folder that stands there when the block ends is replaced.

    Raises:
        OutputError: Another run holds the target, it exists, or the file system refuses.
    """
    shown = printable(target, 200)
    staging = target.parent / f".{target.name}.hfgrow-staging"
    lock = lock_at(target.parent / f".{target.name}.hfgrow-lock")
    # A signal may come between any two lines: what is made is made inside the block that undoes it.
    try:
        with translated(shown):
            target.parent.mkdir(parents=True, exist_ok=True)
            acquire(lock, target, hint="wait for it, or choose another --out DIR")
            _restore(_aside(staging), target)
            _sweep(staging)
            if not overwrite and _is_taken(target):
                raise exists(target)
            try:
                staging.mkdir()
                yield staging
                _sync_all(staging)
                _publish(staging, target, overwrite=overwrite)
            except BaseException:
                _sweep(staging)
                raise
            _sweep(staging)
    finally:
        with undisturbed():
            if lock.is_locked:
                # A second signal may have come before the first sweep began.
                with suppress(OSError):
                    _sweep(staging)
                release(lock)


@contextmanager
def translated(shown: str) -> Iterator[None]:
    """Turn what the file system says inside the block into one of our errors.

    Args:
        shown: What is being written, as messages name it.

    Raises:
        OutputError: For every OSError.
    """
    try:
        yield
    except GrowthError:
        raise
    except OSError as error:
        raise OutputError(_explain(error, shown), hint=_hint(error)) from error


def _is_taken(target: Path) -> bool:
    return target.is_dir() and any(target.iterdir())


def _publish(staging: Path, target: Path, *, overwrite: bool) -> None:
    if overwrite and _is_taken(target):
        _exchange(staging, target)
    else:
        try:
            os.rename(staging, target)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise exists(target) from error
            raise
    _sync_folder(target.parent)


def _exchange(one: Path, other: Path) -> None:
    """Swap two folders in one step, so that there is never a moment without a complete one."""
    libc = ctypes.CDLL(None, use_errno=True)
    swap = getattr(libc, "renameat2", None)
    names = os.fsencode(one), os.fsencode(other)
    if swap and swap(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) == 0:
        return
    failure = ctypes.get_errno()
    if swap and failure not in (errno.EINVAL, errno.ENOSYS):
        raise OSError(failure, os.strerror(failure), str(other))
    aside = _aside(one)
    os.rename(other, aside)
    try:
        os.rename(one, other)
    except BaseException:
        os.rename(aside, other)
        raise
    os.rename(aside, one)


def _aside(staging: Path) -> Path:
    return staging.with_name(staging.name + "-old")


def _restore(aside: Path, target: Path) -> None:
    """Bring back the old target of a run that was killed between two renames."""
    if aside.is_dir() and not target.exists():
        os.rename(aside, target)
    _sweep(aside)


def _sync_all(folder: Path) -> None:
    """Bring every file of a folder to the disk; one after the other they share the journal."""
    for entry in os.scandir(folder):
        _sync(Path(entry.path), os.O_RDONLY)
    _sync_folder(folder)


def _sync_folder(folder: Path) -> None:
    _sync(folder, os.O_RDONLY | os.O_DIRECTORY)


def _sync(path: Path, flags: int) -> None:
    fd = os.open(path, flags)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _sweep(folder: Path) -> None:
    """Remove a folder, and let no second Ctrl-C leave half of it."""
    with undisturbed():
        if folder.is_symlink() or folder.exists():
            shutil.rmtree(folder)


def _explain(error: OSError, shown: str) -> str:
    reason = error.strerror or str(error)
    return (
        f"cannot write {shown}: {printable(reason)} ({errno.errorcode.get(error.errno or 0, '')})"
    )


def _hint(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return "free some space, or choose another --out DIR; nothing was left behind"
    return "choose a folder you can write to: --out DIR"
