"""File contents on disk, each under its SHA-256, so that uploads of gigabytes stay off the heap."""

from __future__ import annotations

import hashlib
import re
import shutil
import uuid
from pathlib import Path

_CHUNK_BYTES = 1 << 20


class Blobs:
    """A folder of contents named by their SHA-256, and a scratch folder for unfinished uploads.

    Args:
        folder: where the two lie.
        hollow: whether of uploads only hash and size are kept, and the rest is a hole.
    """

    def __init__(self, folder: Path, *, hollow: bool = False) -> None:
        """Create the two folders if they are absent."""
        self.hollow = hollow
        self.folder = folder / "blobs"
        self.scratch_folder = folder / "incoming"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.scratch_folder.mkdir(parents=True, exist_ok=True)

    def path(self, sha256: str) -> Path:
        """Return where the content with this hash lies, or would lie."""
        return self.folder / _checked(sha256)

    def part(self, sha256: str, number: int) -> Path:
        """Return where one part of an unfinished content lies, or would lie."""
        return self.scratch_folder / _checked(sha256) / str(number)

    def has(self, sha256: str) -> bool:
        """Tell whether the content with this hash is complete."""
        return self.path(sha256).exists()

    def scratch(self) -> Path:
        """Return a fresh path to write an unfinished content to."""
        return self.scratch_folder / uuid.uuid4().hex

    def put(self, data: bytes) -> str:
        """Store bytes and return their SHA-256."""
        sha256 = hashlib.sha256(data).hexdigest()
        if not self.has(sha256):
            scratch = self.scratch()
            scratch.write_bytes(data)
            scratch.replace(self.path(sha256))
        return sha256

    def copy(self, source: Path) -> str:
        """Store a copy of a file and return its SHA-256."""
        sha256 = sha256_of(source)
        if not self.has(sha256):
            scratch = self.scratch()
            shutil.copyfile(source, scratch)
            scratch.replace(self.path(sha256))
        return sha256

    def adopt(self, scratch: Path, sha256: str, found: str) -> bool:
        """Move a finished scratch file into place; drop it and say False if the hash differs."""
        if found != sha256:
            scratch.unlink()
            return False
        scratch.replace(self.path(sha256))
        return True


def _checked(sha256: str) -> str:
    if re.fullmatch("[0-9a-f]{64}", sha256) is None:
        raise ValueError(f"not a SHA-256: {sha256!r}")
    return sha256


def sha256_of(path: Path) -> str:
    """Hash a file without reading it whole."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def git_oid(data: bytes) -> str:
    """Return the git object id of a blob."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def lfs_pointer(sha256: str, size: int) -> bytes:
    """Return the pointer file that git keeps in place of an LFS object."""
    text = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n"
    return text.encode()
