"""Search all that the suite has written for the tokens that its tests ran with."""

import os
from collections.abc import Iterator
from pathlib import Path

from tests.hub_server.access import USERS
from tests.program import CANARY

# The tail of a token says enough, and is found in what cuts the prefix off.
TOKENS = tuple(token.removeprefix("hf_").encode() for token in (CANARY, *USERS))
_CHUNK_NBYTES = 1 << 22
_OVERLAP = max(map(len, TOKENS)) - 1


def leaks(folder: Path) -> list[str]:
    """Return the files below a folder, and the names in it, that hold a token."""
    found = []
    for root, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(root, name)
            if _holds_token(os.fsencode(name)) or (path.is_symlink() and _link_holds(path)):
                found.append(f"the name {path}")
            elif name in files and path.is_file() and not path.is_symlink():
                found += [str(path)] * any(map(_holds_token, _written(path)))
    return found


def _holds_token(raw: bytes) -> bool:
    return any(token in raw for token in TOKENS)


def _link_holds(path: Path) -> bool:
    return _holds_token(os.fsencode(os.readlink(path)))


def _written(path: Path) -> Iterator[bytes]:
    """Yield what a file holds in overlapping parts, without the holes of a sparse one."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        end = os.fstat(descriptor).st_size
        at = 0
        while at < end:
            try:
                at = max(0, os.lseek(descriptor, at, os.SEEK_DATA) - _OVERLAP)
            except OSError:
                # Nothing but a hole follows.
                return
            part = os.pread(descriptor, _CHUNK_NBYTES, at)
            yield part
            at += max(len(part), 1)
    finally:
        os.close(descriptor)
