"""Ways in which a file system may have files written, real ones and played ones.

A file system that is not here says that it is another one, or refuses calls.
"""

import errno
import fcntl
import os
import random
from collections.abc import Callable

import pytest

from hfgrow.checkpoint import output
from hfgrow.checkpoint.header import BLOCK_NBYTES

NFS, TMPFS, EXT4 = 0x6969, 0x01021994, 0xEF53
# No four bytes of it are a number that is none.
CONTENT = bytes(byte & 0x3F for byte in random.Random(1).randbytes(300_000))
pwrite, copy_file_range, open_file = os.pwrite, os.copy_file_range, os.open


def is_direct(descriptor: int) -> bool:
    return bool(fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_DIRECT)


def says(patch: pytest.MonkeyPatch, kind: int | None) -> None:
    patch.setattr(output, "file_system_of", lambda descriptor: kind)


def as_it_is(patch: pytest.MonkeyPatch) -> None:
    pass


def on_a_server(patch: pytest.MonkeyPatch) -> None:
    says(patch, NFS)


def on_a_server_that_copies_nothing(patch: pytest.MonkeyPatch) -> None:
    says(patch, NFS)

    def refuse(*arguments: object) -> int:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    patch.setattr(os, "copy_file_range", refuse)


def on_a_server_that_copies_a_little(patch: pytest.MonkeyPatch) -> None:
    says(patch, NFS)
    counts = iter([100, 5000, 0])

    def copy_some(source: int, target: int, count: int, at: int, to: int) -> int:
        count = min(count, next(counts, 0))
        return copy_file_range(source, target, count, at, to) if count else 0

    patch.setattr(os, "copy_file_range", copy_some)


def in_memory(patch: pytest.MonkeyPatch) -> None:
    says(patch, TMPFS)


def on_something_unknown(patch: pytest.MonkeyPatch) -> None:
    says(patch, None)


def where_direct_is_refused(patch: pytest.MonkeyPatch) -> None:
    says(patch, EXT4)

    def open_some(path: object, flags: int, *rest: int) -> int:
        if flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, "Invalid argument")
        return open_file(path, flags, *rest)  # type: ignore[arg-type]

    patch.setattr(os, "open", open_some)


def where_the_first_direct_write_is_refused(patch: pytest.MonkeyPatch) -> None:
    says(patch, EXT4)

    def write_some(descriptor: int, content: bytes, offset: int) -> int:
        if is_direct(descriptor):
            raise OSError(errno.EINVAL, "Invalid argument")
        return pwrite(descriptor, content, offset)

    patch.setattr(os, "pwrite", write_some)


def where_each_write_is_short(patch: pytest.MonkeyPatch) -> None:
    def write_some(descriptor: int, content: bytes, offset: int) -> int:
        # Of direct writes too, which a file system ends where it likes.
        whole = len(content) // 2 // BLOCK_NBYTES * BLOCK_NBYTES
        count = (whole if is_direct(descriptor) else len(content) // 2) or len(content)
        return pwrite(descriptor, content[:count], offset)

    patch.setattr(os, "pwrite", write_some)


def where_a_direct_write_ends_inside_a_block(patch: pytest.MonkeyPatch) -> None:
    def write_some(descriptor: int, content: bytes, offset: int) -> int:
        done = pwrite(descriptor, content, offset)
        return min(done, BLOCK_NBYTES + 700) if is_direct(descriptor) else done

    patch.setattr(os, "pwrite", write_some)


def where_a_direct_write_gets_nowhere(patch: pytest.MonkeyPatch) -> None:
    def write_some(descriptor: int, content: bytes, offset: int) -> int:
        return 0 if is_direct(descriptor) else pwrite(descriptor, content, offset)

    patch.setattr(os, "pwrite", write_some)


Way = Callable[[pytest.MonkeyPatch], None]
WAYS: list[Way] = [
    as_it_is,
    on_a_server,
    on_a_server_that_copies_nothing,
    on_a_server_that_copies_a_little,
    in_memory,
    on_something_unknown,
    where_direct_is_refused,
    where_the_first_direct_write_is_refused,
    where_each_write_is_short,
    where_a_direct_write_ends_inside_a_block,
    where_a_direct_write_gets_nowhere,
]
