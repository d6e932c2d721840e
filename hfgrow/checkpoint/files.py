"""Where the bytes of a checkpoint come from: a folder here, or a repository on the Hub."""

import os
import stat
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Protocol

from hfgrow.errors import ModelError, printable

_CHUNK_NBYTES = 8 << 20


class Files(Protocol):
    """A flat set of named files that can be read by ranges."""

    @property
    def label(self) -> str:
        """How messages name the set: a path or a repository."""
        ...

    @property
    def folder(self) -> str:
        """The local folder of the files, or an empty string if they lie on the Hub."""
        ...

    def names(self) -> list[str]:
        """Return the names of all files at the top level."""
        ...

    def nbytes(self, name: str) -> int:
        """Return the size of a file.

        Raises:
            ModelError: There is no such regular file.
        """
        ...

    def stamp(self, name: str) -> tuple[int, ...]:
        """Return what changes when the file does, or nothing if that cannot happen."""
        ...

    def read(self, name: str, start: int, nbytes: int) -> bytes:
        """Return up to `nbytes` bytes from `start`, fewer only at the end of the file."""
        ...


def open_regular(path: Path) -> int:
    """Open a regular file for reading, without ever blocking on a FIFO or a device.

    Raises:
        ModelError: The file is missing, unreadable, not regular, or a link out of its folder.
    """
    refuse_foreign_link(path)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise ModelError(f"cannot open {printable(path, 200)}: {error.strerror}") from error
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise ModelError(f"{printable(path, 200)} is not a regular file")
    return fd


def refuse_foreign_link(path: Path) -> None:
    """Refuse a symbolic link that leaves the model folder, except into the Hub cache's own blobs.

    The cache of huggingface_hub links `snapshots/SHA/NAME` to `../../blobs/HASH`.
    """
    if not path.is_symlink():
        return
    target = Path(os.path.realpath(path))
    folder = Path(os.path.realpath(path.parent))
    blobs = folder.parent.parent / "blobs"
    if target.parent not in (folder, blobs) or (
        target.parent == blobs and folder.parent.name != "snapshots"
    ):
        raise ModelError(
            f"{printable(path.name)} is a symbolic link that leaves the model folder",
            hint="copy the file into the folder",
        )


class LocalFolder:
    """The files of a folder on this machine."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def label(self) -> str:
        """The path, as given."""
        return printable(self.path, 200)

    @property
    def folder(self) -> str:
        """The path, absolute."""
        return str(self.path.absolute())

    def names(self) -> list[str]:
        """Return the sorted names of the entries of the folder."""
        try:
            return sorted(os.listdir(self.path))
        except OSError as error:
            raise ModelError(f"cannot list {self.label}: {error.strerror}") from error

    def nbytes(self, name: str) -> int:
        """Return the size of a regular file."""
        fd = open_regular(self.path / name)
        try:
            return os.fstat(fd).st_size
        finally:
            os.close(fd)

    def stamp(self, name: str) -> tuple[int, ...]:
        """Return (device, inode, size, mtime in ns)."""
        return file_stamp(os.stat(self.path / name))

    def read(self, name: str, start: int, nbytes: int) -> bytes:
        """Read a range with pread, so that a file that shrinks cannot raise SIGBUS."""
        fd = open_regular(self.path / name)
        try:
            return os.pread(fd, nbytes, start)
        finally:
            os.close(fd)


def file_stamp(status: os.stat_result) -> tuple[int, int, int, int]:
    """Return what identifies a file's content cheaply: (device, inode, size, mtime in ns)."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def hash_file(path: Path, *, advance: Callable[[int], None] = lambda nbytes: None) -> str:
    """Return the sha256 of a file, and refuse one that changes meanwhile.

    Raises:
        ModelError: The file is not regular, or changed while it was read.
    """
    descriptor = open_regular(path)
    digest = sha256()
    buffer = bytearray(_CHUNK_NBYTES)
    view = memoryview(buffer)
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        before = file_stamp(os.fstat(descriptor))
        while read_nbytes := file.readinto(buffer):
            digest.update(view[:read_nbytes])
            advance(read_nbytes)
        if file_stamp(os.fstat(descriptor)) != before:
            raise ModelError(f"{printable(path.name)} changed while it was read")
    return digest.hexdigest()
