"""Copy a range between files without reading it: shared blocks, in-kernel copy, or a plain loop."""

import errno
import fcntl
import os
import struct
from collections.abc import Callable

from hfgrow.checkpoint.header import BLOCK_NBYTES
from hfgrow.errors import ModelError

# _IOW(0x94, 13, struct file_clone_range) on Linux.
_FICLONERANGE = 0x4020940D
# One call: large enough to cost nothing, small enough for progress and for an interrupt to act.
_CHUNK_NBYTES = 64 << 20
_BUFFER_NBYTES = 1 << 20
_CANNOT = frozenset(
    {errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.ENOSYS, errno.EPERM}
    | {errno.ETXTBSY}
)
Advance = Callable[[int], None]


class Copier:
    """Copies ranges by the best way the file systems have, remembering which ways failed.

    Attributes:
        cloned_nbytes: Bytes that share their blocks with the base.
        copied_nbytes: Bytes that were copied.
    """

    def __init__(self, advance: Advance) -> None:
        self._advance = advance
        self._can_clone = hasattr(fcntl, "ioctl")
        self._can_copy = hasattr(os, "copy_file_range")
        self.cloned_nbytes = 0
        self.copied_nbytes = 0

    def copy(
        self, source: int, target: int, source_offset: int, target_offset: int, nbytes: int
    ) -> None:
        """Copy `nbytes` between two open files.

        Blocks are shared where the two offsets are congruent modulo the block size; the unaligned
        ends go by copying.

        Raises:
            ModelError: The source ended early: somebody changed it.
            OSError: The target cannot take the bytes.
        """
        head = -source_offset % BLOCK_NBYTES
        middle = (nbytes - head) // BLOCK_NBYTES * BLOCK_NBYTES
        if (source_offset - target_offset) % BLOCK_NBYTES or middle <= 0 or not self._can_clone:
            self._copy(source, target, source_offset, target_offset, nbytes)
            return
        self._copy(source, target, source_offset, target_offset, head)
        at = head
        if self._clone(source, target, source_offset + at, target_offset + at, middle):
            at += middle
        self._copy(source, target, source_offset + at, target_offset + at, nbytes - at)

    def _clone(
        self, source: int, target: int, source_offset: int, target_offset: int, nbytes: int
    ) -> bool:
        request = struct.pack("qQQQ", source, source_offset, nbytes, target_offset)
        try:
            fcntl.ioctl(target, _FICLONERANGE, request)
        except OSError as error:
            if error.errno in _CANNOT:
                self._can_clone = False
                return False
            raise
        self.cloned_nbytes += nbytes
        self._advance(nbytes)
        return True

    def _copy(
        self, source: int, target: int, source_offset: int, target_offset: int, nbytes: int
    ) -> None:
        done = 0
        while done < nbytes:
            step = self._copy_some(
                source, target, source_offset + done, target_offset + done, nbytes - done
            )
            if step == 0:
                raise ModelError(
                    "the input changed while it was read: a weight file ended early",
                    hint="run again when nothing writes to the base",
                )
            done += step
            self.copied_nbytes += step
            self._advance(step)

    def _copy_some(
        self, source: int, target: int, source_offset: int, target_offset: int, nbytes: int
    ) -> int:
        if self._can_copy:
            try:
                step = os.copy_file_range(
                    source, target, min(nbytes, _CHUNK_NBYTES), source_offset, target_offset
                )
            except OSError as error:
                if error.errno not in _CANNOT:
                    raise
                step = 0
            if step:
                return step
            # Some file systems answer 0 instead of an error; only a plain read tells the end.
            self._can_copy = False
        buffer = os.pread(source, min(nbytes, _BUFFER_NBYTES), source_offset)
        return os.pwrite(target, buffer, target_offset) if buffer else 0
