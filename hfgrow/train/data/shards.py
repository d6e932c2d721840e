"""Write tokens to flat files of bounded size, and the lists of documents beside them."""

import hashlib
from array import array
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from hfgrow.train.data.index import HASHES, NBYTES, SKETCHES, STARTS, FileRecord

MAX_SHARD_NBYTES = 1 << 30


class Stream:
    """A file that is written once from the start, and hashed on the way."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.nbytes = 0
        self._file: BinaryIO = path.open("xb")
        self._sha256 = hashlib.sha256()

    def write(self, raw: bytes) -> None:
        """Append bytes."""
        self._file.write(raw)
        self._sha256.update(raw)
        self.nbytes += len(raw)

    def abandon(self) -> None:
        """Close the file, finished or not."""
        self._file.close()

    def close(self) -> FileRecord:
        """Finish the file and return its record."""
        self._file.close()
        return FileRecord(self.path.name, self.nbytes, self._sha256.hexdigest())


class ShardWriter:
    """Writes the tokens and documents of all sources into a folder, little endian.

    Args:
        folder: An empty folder.
        itemsize: Bytes of a token: 2 or 4.
        max_shard_nbytes: The most bytes of one file of tokens.
    """

    def __init__(self, folder: Path, itemsize: int, max_shard_nbytes: int) -> None:
        self._folder = folder
        self._dtype = np.dtype(f"<u{itemsize}")
        self._most_tokens = max(1, max_shard_nbytes // itemsize)
        self._shard: Stream | None = None
        self._in_shard = 0
        self._shards: list[FileRecord] = []
        self._lists = {name: Stream(folder / name) for name in (STARTS, HASHES, NBYTES, SKETCHES)}
        self.num_tokens = 0
        self.num_documents = 0

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(self, *error: object) -> None:
        for stream in filter(None, (self._shard, *self._lists.values())):
            stream.abandon()

    def append(
        self,
        tokens: npt.NDArray[np.uint32],
        starts: "array[int]",
        hashes: "array[int]",
        nbytes: "array[int]",
    ) -> None:
        """Append tokens, and what is known of the documents that begin and end in them.

        Args:
            tokens: The tokens.
            starts: Where documents begin, counted from the first token of all.
            hashes: The hashes of the documents that end here.
            nbytes: The bytes of their text.
        """
        small = tokens.astype(self._dtype)
        while len(small):
            if self._shard is None:
                self._shard = Stream(self._folder / f"tokens-{len(self._shards):05d}.bin")
                self._in_shard = 0
            part = small[: self._most_tokens - self._in_shard]
            self._shard.write(part.tobytes())
            self._in_shard += len(part)
            if self._in_shard == self._most_tokens:
                self._close_shard()
            small = small[len(part) :]
        self.num_tokens += len(tokens)
        self.num_documents += len(hashes)
        for name, numbers in ((STARTS, starts), (HASHES, hashes), (NBYTES, nbytes)):
            self.append_list(name, np.array(numbers, np.uint64))

    def append_list(self, name: str, numbers: npt.NDArray[np.uint64]) -> None:
        """Append to one of the lists."""
        self._lists[name].write(numbers.astype("<u8").tobytes())

    def finish(self) -> tuple[tuple[FileRecord, ...], tuple[FileRecord, ...]]:
        """Close all files; return the records of the shards and of the lists."""
        self._close_shard()
        self.append_list(STARTS, np.array([self.num_tokens], np.uint64))
        return tuple(self._shards), tuple(stream.close() for stream in self._lists.values())

    def _close_shard(self) -> None:
        if self._shard is not None:
            self._shards.append(self._shard.close())
            self._shard = None
