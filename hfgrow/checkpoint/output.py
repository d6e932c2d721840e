"""A new file, and the ways in which its file system takes bytes: chosen here, and nowhere else.

- Blocks that two files can share are cloned, as on XFS and Btrfs: nothing is moved.
- On a network file system copy_file_range may let the server copy.
- A local disk gets whole blocks past the page cache, with O_DIRECT: a buffered write costs a page
  of memory for each page of output, its clearing and its writeback.
- All else is written plainly: on tmpfs, where O_DIRECT is refused, and what is no whole block.

What a file system is says statfs; what it can shows when it is tried, and what was refused is not
tried again.
"""

import ctypes
import errno
import fcntl
import mmap
import os
import struct
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from hfgrow.checkpoint.files import file_stamp, open_regular, read_into
from hfgrow.checkpoint.header import BLOCK_NBYTES
from hfgrow.errors import ModelError, printable

# linux/magic.h, and for those that are not in it what statfs(2) lists.
_IN_MEMORY = frozenset({0x01021994, 0x858458F6})  # tmpfs, ramfs
_ON_NETWORK = frozenset(
    {
        0x6969,  # NFS
        0x517B,  # SMB
        0xFF534D42,  # CIFS
        0xFE534D42,  # SMB 2 and 3
        0x00C36400,  # Ceph
        0x5346414F,  # AFS
        0x6B414653,  # AFS in the kernel
        0x01021997,  # 9p
        0x65735546,  # FUSE, such as sshfs, GlusterFS and virtiofs
        0x0BD00BD0,  # Lustre
        0x47504653,  # GPFS
        0x01161970,  # GFS2
        0x7461636F,  # OCFS2
        0x19830326,  # BeeGFS
    }
)
# _IOW(0x94, 13, struct file_clone_range) on Linux.
_FICLONERANGE = 0x4020940D
# One call: large enough to cost nothing, small enough for progress and for an interrupt to act.
_COPY_NBYTES = 64 << 20
_READ_NBYTES = 8 << 20
# That a way does not exist, and not that the bytes find no place.
_CANNOT = frozenset(
    {errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.ENOSYS, errno.EPERM}
    | {errno.ETXTBSY}
)
_NOT_DIRECT = frozenset({errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTTY, errno.ENOSYS})


class OutputFile:
    """A new file of a known size, a hole until something is written.

    Args:
        path: Where it is made.
        nbytes: Its size.

    Raises:
        OSError: The file system refuses.
    """

    def __init__(self, path: Path, nbytes: int) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        self._direct: int | None = None
        try:
            os.ftruncate(self._descriptor, nbytes)
            kind = file_system_of(self._descriptor)
            self._can_clone = kind not in _IN_MEMORY
            self._can_copy = hasattr(os, "copy_file_range") and kind in _ON_NETWORK
            if kind is not None and kind not in _IN_MEMORY | _ON_NETWORK:
                self._direct = _opened_direct(path)
        except BaseException:
            self.close()
            raise
        self._is_direct = self._direct is not None

    def __enter__(self) -> "OutputFile":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def is_direct(self) -> bool:
        """Whether whole blocks go past the page cache, as far as is known."""
        return self._is_direct

    def clone(
        self, source: int, source_offset: int, offset: int, nbytes: int
    ) -> tuple[int, int] | None:
        """Share the blocks of a range of another file, where both offsets are congruent.

        Returns:
            The part of this file that is in place now, whole blocks; None if there is none.

        Raises:
            OSError: The file cannot take it.
        """
        head = -source_offset % BLOCK_NBYTES
        middle = (nbytes - head) // BLOCK_NBYTES * BLOCK_NBYTES
        if not self._can_clone or (source_offset - offset) % BLOCK_NBYTES or middle <= 0:
            return None
        self._can_clone = _cloned(
            source, self._descriptor, source_offset + head, offset + head, middle
        )
        return (offset + head, offset + head + middle) if self._can_clone else None

    def copy(
        self,
        source: int,
        source_offset: int,
        offset: int,
        nbytes: int,
        advance: Callable[[int], None],
    ) -> tuple[int, int] | None:
        """Have a server copy a range of another file.

        Returns:
            The part of this file that is in place now; None if there is none.

        Raises:
            OSError: The file cannot take it.
        """
        done = 0
        while self._can_copy and done < nbytes:
            wanted = min(nbytes - done, _COPY_NBYTES)
            try:
                step = os.copy_file_range(
                    source, self._descriptor, wanted, source_offset + done, offset + done
                )
            except OSError as error:
                if error.errno not in _CANNOT:
                    raise
                step = 0
            # Some file systems answer 0 instead of an error; only a plain read tells the end.
            self._can_copy = step > 0
            done += step
            advance(step)
        return (offset, offset + done) if done else None

    def write(self, content: memoryview, offset: int) -> None:
        """Write all of `content`.

        Args:
            content: To go past the page cache it starts at the start of a block of memory.
            offset: Where, and then at the start of a block of the file.

        Raises:
            OSError: The file cannot take it.
        """
        done = 0
        while done < len(content):
            step = self._write_blocks(content[done:], offset + done)
            if step == 0:
                rest = content[done:]
                step = os.pwrite(
                    self._descriptor,
                    rest[:BLOCK_NBYTES] if self._is_direct else rest,
                    offset + done,
                )
            if step == 0:
                raise OSError(errno.EIO, "the file system took no byte")
            done += step

    def _write_blocks(self, content: memoryview, offset: int) -> int:
        """Write whole blocks past the page cache, and return how many bytes got there."""
        nbytes = len(content) // BLOCK_NBYTES * BLOCK_NBYTES
        if not self._is_direct or not nbytes or self._direct is None:
            return 0
        try:
            step = os.pwrite(self._direct, content[:nbytes], offset)
        except OSError as error:
            if error.errno not in _NOT_DIRECT:
                raise
            self._is_direct = False
            return 0
        # Where it ended inside a block, that block is written again.
        return step // BLOCK_NBYTES * BLOCK_NBYTES

    def close(self) -> None:
        """Close the file."""
        with ExitStack() as both:
            # A server may say only now that it has no room.
            for descriptor in (self._descriptor, self._direct):
                if descriptor is not None:
                    both.callback(os.close, descriptor)


def copy_file(
    source: Path, target: Path, advance: Callable[[int], None] = lambda nbytes: None
) -> None:
    """Copy a file; blocks are shared, or copied by a server, where that can be.

    Args:
        source: A regular file, or a link to one that its folder may have.
        target: The file to make.
        advance: Called with the number of bytes as they are there.

    Raises:
        ModelError: The source cannot be read, is a link out of its folder, or changed meanwhile.
        OSError: The file system refuses.
    """
    with os.fdopen(open_regular(source), "rb") as reading:
        descriptor = reading.fileno()
        before = os.fstat(descriptor)
        nbytes = before.st_size
        with OutputFile(target, nbytes) as output:
            if (shared := output.clone(descriptor, 0, 0, nbytes)) is not None:
                advance(shared[1])
            done = shared or output.copy(descriptor, 0, 0, nbytes, advance) or (0, 0)
            is_whole = True
            memory = memoryview(mmap.mmap(-1, _READ_NBYTES))
            for at in range(done[1], nbytes, _READ_NBYTES):
                part = memory[: nbytes - at]
                if not (is_whole := read_into(part, descriptor, at)):
                    break
                output.write(part, at)
                advance(len(part))
        if not is_whole or file_stamp(os.fstat(descriptor)) != file_stamp(before):
            raise ModelError(
                f"{printable(source, 200)} changed while it was read",
                hint="run again when nothing writes to it",
            )


def shares_blocks(base: Path, folder: Path) -> bool:
    """Say whether files of a folder can share blocks with those of the base, by trying."""
    import tempfile

    if base.stat().st_dev != folder.stat().st_dev:
        return False
    with tempfile.TemporaryFile(dir=folder) as one, tempfile.TemporaryFile(dir=folder) as other:
        one.write(bytes(BLOCK_NBYTES))
        one.flush()
        return _cloned(one.fileno(), other.fileno(), 0, 0, BLOCK_NBYTES)


def _cloned(source: int, target: int, source_offset: int, offset: int, nbytes: int) -> bool:
    request = struct.pack("qQQQ", source, source_offset, nbytes, offset)
    try:
        fcntl.ioctl(target, _FICLONERANGE, request)
    except OSError as error:
        if error.errno not in _CANNOT:
            raise
        return False
    return True


def file_system_of(descriptor: int) -> int | None:
    """Return the magic number of the file system that an open file lies on, None if unknown."""
    try:
        fstatfs = ctypes.CDLL(None, use_errno=True).fstatfs
    except (OSError, AttributeError):
        return None
    # struct statfs begins with it; 512 bytes hold the struct of every machine.
    buffer = (ctypes.c_long * 64)()
    return buffer[0] & 0xFFFFFFFF if fstatfs(descriptor, buffer) == 0 else None


def _opened_direct(path: Path) -> int | None:
    if not hasattr(os, "O_DIRECT"):
        return None
    try:
        return os.open(path, os.O_WRONLY | os.O_DIRECT | os.O_CLOEXEC)
    except OSError as error:
        if error.errno not in _NOT_DIRECT:
            raise
        return None
