"""The output folder appears complete or not at all: lock, private sibling, fsync, rename."""

import ctypes
import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hfgrow.errors import GrowthError, OutputError, printable

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


def check_target(target: Path, base: Path | None, *, overwrite: bool) -> None:
    """Refuse an output folder that must not be written.

    Args:
        target: The folder to create.
        base: The folder of the base, which must not be touched.
        overwrite: Whether an existing folder may be replaced.

    Raises:
        OutputError: The target exists, is the base or inside it, or has no writable parent.
    """
    shown = printable(target, 200)
    try:
        real, here = Path(os.path.realpath(target)), Path.cwd()
    except FileNotFoundError as error:
        raise OutputError("the working folder does not exist any more", hint="cd to one") from error
    if real in (real.parent, here, Path.home()):
        raise OutputError(
            f"{shown} cannot be an output folder", hint="name a new folder: --out DIR"
        )
    if base is not None:
        source = Path(os.path.realpath(base))
        if real == source or source in real.parents or real in source.parents:
            raise OutputError(
                f"the output {shown} and the base {printable(base, 200)} must be apart",
                hint="name a folder outside the base: --out DIR",
            )
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise OutputError(f"{shown} exists and is not a folder", hint="name another: --out DIR")
    try:
        taken = target.is_dir() and any(target.iterdir())
    except OSError as error:
        raise OutputError(f"cannot look into {shown}: {error.strerror}") from error
    if taken and not overwrite:
        raise OutputError(
            f"the output folder {shown} exists", hint="add --overwrite, or choose another --out DIR"
        )


@contextmanager
def staged(target: Path) -> Iterator[Path]:
    """Give a private folder beside `target` that takes its name when the block ends well.

    One process at a time may write a target. What a killed run left behind is swept. An old
    target stays complete until the new one is; after an error nothing of the new one remains.

    Raises:
        OutputError: Another run holds the target, or the file system refuses.
    """
    from filelock import FileLock, Timeout

    shown = printable(target, 200)
    staging = target.parent / f".{target.name}.hfgrow-staging"
    lock_path = target.parent / f".{target.name}.hfgrow-lock"
    with _translated(shown):
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(lock_path)
        try:
            lock.acquire(timeout=0.5)
        except Timeout:
            raise OutputError(
                f"another run is writing {shown}", hint="wait for it, or choose another --out DIR"
            ) from None
    try:
        with _translated(shown):
            _sweep(staging)
            staging.mkdir()
            try:
                yield staging
                _sync_folder(staging)
                _publish(staging, target)
            except BaseException:
                _sweep(staging)
                raise
            _sweep(staging)
    finally:
        # Removed while it is held; whoever waits on the old file sees that it is gone and retries.
        with suppress(OSError):
            os.unlink(lock_path)
        lock.release()


def _publish(staging: Path, target: Path) -> None:
    if target.is_dir() and any(target.iterdir()):
        _exchange(staging, target)
    else:
        os.rename(staging, target)
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
    aside = one.with_name(one.name + "-old")
    os.rename(other, aside)
    os.rename(one, other)
    os.rename(aside, one)


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _sweep(folder: Path) -> None:
    if folder.is_symlink() or folder.exists():
        shutil.rmtree(folder)


@contextmanager
def _translated(shown: str) -> Iterator[None]:
    try:
        yield
    except GrowthError:
        raise
    except OSError as error:
        raise OutputError(_explain(error, shown), hint=_hint(error)) from error


def _explain(error: OSError, shown: str) -> str:
    reason = error.strerror or str(error)
    return (
        f"cannot write {shown}: {printable(reason)} ({errno.errorcode.get(error.errno or 0, '')})"
    )


def _hint(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return "free some space, or choose another --out DIR; nothing was left behind"
    return "choose a folder you can write to: --out DIR"
