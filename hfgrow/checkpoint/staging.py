"""An output folder appears complete or not at all: checked, staged beside it, synced, renamed."""

import ctypes
import errno
import glob
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hfgrow.checkpoint.files import CONFIG, MANIFEST
from hfgrow.checkpoint.locks import acquire, lock_at, release, undisturbed
from hfgrow.errors import GrowthError, OutputError, argument, out_of_memory, printable

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_LOCK = ".hfgrow-lock"


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
    staging = _staging(target)
    lock = lock_at(target.parent / f".{target.name}{_LOCK}")
    # A signal may come between any two lines: what is made is made inside the block that undoes it.
    try:
        with translated(shown):
            target.parent.mkdir(parents=True, exist_ok=True)
            acquire(lock, target, hint=f"wait for it, or choose another {argument('out', 'DIR')}")
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


def sweep_beside(folder: Path, *, dry_run: bool = False) -> list[Path]:
    """Remove what killed runs left hidden in a folder; what is being written stays.

    Returns:
        What was removed: unfinished outputs. A complete one takes its name again.

    Raises:
        OutputError: The file system refuses.
    """
    removed = []
    with translated(printable(folder, 200)):
        for mark in folder.glob(f".*{_LOCK}"):
            target = folder / mark.name.removeprefix(".").removesuffix(_LOCK)
            staging = _staging(target)
            lock = lock_at(mark)
            try:
                acquire(lock, target, hint="")
            except OutputError:
                continue
            try:
                found = [path for path in (staging, _aside(staging)) if path.exists()]
                if not dry_run:
                    _restore(_aside(staging), target)
                    _sweep(staging)
                removed += found or [mark]
            finally:
                release(lock)
                if dry_run:
                    # By its mark it is found again.
                    mark.touch()
    return sorted(removed)


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
        raise out_of_memory(error) or OutputError(
            _explain(error, shown), hint=_hint(error)
        ) from error


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
    sync(target.parent)


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


def _staging(target: Path) -> Path:
    return target.parent / f".{target.name}.hfgrow-staging"


def _aside(staging: Path) -> Path:
    return staging.with_name(staging.name + "-old")


def _restore(aside: Path, target: Path) -> None:
    """Bring back the old target of a run that was killed between two renames."""
    if aside.is_dir() and not target.exists():
        os.rename(aside, target)
    _sweep(aside)


def _sync_all(folder: Path) -> None:
    """Bring every file of a folder to the disk; one after the other they share the journal."""
    for path, _, names in os.walk(folder):
        for name in names:
            sync(Path(path, name))
        sync(Path(path))


def sync(path: Path) -> None:
    """Bring a file, or the names in a folder, to the disk."""
    fd = os.open(path, os.O_RDONLY)
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
        return (
            f"free some space, or choose another {argument('out', 'DIR')}; nothing was left behind"
        )
    return f"choose a folder you can write to: {argument('out', 'DIR')}"


def check_target(
    target: Path, base: Path | None, *, overwrite: bool, replaceable: bool = True
) -> None:
    """Refuse an output folder that must not be written.

    Args:
        target: The folder to create.
        base: The folder of the base, which must not be touched.
        overwrite: Whether a model that stands there may be replaced.
        replaceable: Whether that can be asked for.

    Raises:
        OutputError: The target exists, is or holds the base or a folder one works in, or is inside
            the base; or it exists and is no model, so that replacing it would lose something else.
    """
    shown = printable(target, 200)
    try:
        here = Path.cwd()
    except FileNotFoundError as error:
        if not target.is_absolute():
            raise OutputError(
                "the working folder does not exist any more", hint="cd to one"
            ) from error
        here = Path("/")
    real = Path(os.path.realpath(target))
    home = Path(os.path.realpath(Path.home()))
    if real in (real.parent, here, home, *here.parents, *home.parents):
        raise OutputError(
            f"{shown} cannot be an output folder",
            hint=f"name a new folder: {argument('out', 'DIR')}",
        )
    if base is not None:
        check_apart(target, base)
    try:
        if target.is_symlink() or (target.exists() and not target.is_dir()):
            raise OutputError(
                f"{shown} exists and is not a folder",
                hint=f"name another: {argument('out', 'DIR')}",
            )
        found = os.listdir(target) if target.is_dir() else []
    except OSError as error:
        raise OutputError(f"cannot look into {shown}: {error.strerror}") from error
    if found and not overwrite:
        raise exists(target, replaceable=replaceable)
    if found and CONFIG not in found and MANIFEST not in found:
        raise OutputError(
            f"{shown} exists and holds no model ({len(found)} entries, no {CONFIG})",
            hint=f"{argument('overwrite')} replaces models only; choose another "
            f"{argument('out', 'DIR')}",
        )


def check_apart(target: Path, base: Path) -> None:
    """Refuse an output that is the base, holds it, or lies in it.

    Raises:
        OutputError: It does.
    """
    real, source = Path(os.path.realpath(target)), Path(os.path.realpath(base))
    if real == source or source in real.parents or real in source.parents:
        raise OutputError(
            f"the output {printable(target, 200)} and the base {printable(base, 200)} must be "
            "apart",
            hint=f"name a folder outside the base: {argument('out', 'DIR')}",
        )


def exists(target: Path, *, replaceable: bool = True) -> OutputError:
    """Return the error for an output that is there already."""
    another = f"choose another {argument('out', 'DIR')}"
    return OutputError(
        f"the output folder {printable(target, 200)} exists",
        hint=f"add {argument('overwrite')}, or {another}" if replaceable else another,
    )


_SUFFIX = ".hfgrow-new"


def replace_text(path: Path, text: str) -> None:
    """Write a text file; see `replace_bytes`. A text may hold the odd bytes of a path."""
    replace_bytes(path, text.encode("utf-8", errors="surrogateescape"))


def replace_bytes(path: Path, content: bytes) -> None:
    """Write a file, complete or not at all.

    What stood there under that name is replaced, and if it was a link, not followed. What processes
    that are gone have left of it is removed; those that live have each their own.

    Raises:
        OSError: The file system refuses; the old file is as it was.
    """
    for left in path.parent.glob(f".{glob.escape(path.name)}.*{_SUFFIX}"):
        if not _is_alive(left.name.removesuffix(_SUFFIX).rpartition(".")[2]):
            left.unlink(missing_ok=True)
    new = path.with_name(f".{path.name}.{os.getpid()}{_SUFFIX}")
    try:
        new.unlink(missing_ok=True)
        with new.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise


def _is_alive(pid: str) -> bool:
    """Say whether a process is there; what is no number of one is left alone."""
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, OverflowError):
        return False
    except (PermissionError, ValueError):
        return True
    return True
