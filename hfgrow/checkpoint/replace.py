"""Small files of a finished folder, replaced complete or not at all."""

import glob
import os
from pathlib import Path

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
