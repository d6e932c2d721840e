"""A folder of tokens, opened: memory-mapped shards read as one long row of numbers."""

import hashlib
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hfgrow.errors import TrainingError, printable
from hfgrow.train.data.index import (
    HASHES,
    NBYTES,
    SKETCHES,
    STARTS,
    Index,
    SourceRecord,
    prepare_again,
    read_index,
)
from hfgrow.train.data.sketch import Hashes, Sketch
from hfgrow.train.data.tokenizer import TextTokenizer

Tokens = npt.NDArray[np.int64]
Positions = npt.NDArray[np.int64]


class TokenFiles:
    """Tokens that `prepare` wrote.

    Args:
        folder: The folder.

    Raises:
        TrainingError: It holds no tokens, or is damaged.

    Attributes:
        folder: The folder.
        index: What lies there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.index: Index = read_index(folder)
        dtype = np.dtype(self.index.dtype).newbyteorder("<")
        self._shards = [
            np.memmap(folder / shard.file, dtype, mode="r") for shard in self.index.shards
        ]
        sizes = [len(shard) for shard in self._shards]
        self._first = np.concatenate(([0], np.cumsum(sizes, dtype=np.int64)))
        starts = self.starts
        if int(starts[0]) != 0 or int(starts[-1]) != self.num_tokens:
            raise TrainingError(
                f"{printable(folder / STARTS, 200)} does not fit the shards",
                hint=prepare_again(folder),
            )

    @property
    def num_tokens(self) -> int:
        """The tokens of all sources."""
        return self.index.num_tokens

    @property
    def sources(self) -> tuple[SourceRecord, ...]:
        """The sources, in the order of their tokens."""
        return self.index.sources

    @cached_property
    def starts(self) -> Hashes:
        """Where every document begins, and at last where the last one ends."""
        return self._list(STARTS)

    @cached_property
    def hashes(self) -> Hashes:
        """The hash of every document's text."""
        return self._list(HASHES)

    @cached_property
    def nbytes(self) -> Hashes:
        """The bytes of every document's text in UTF-8."""
        return self._list(NBYTES)

    def read(self, start: int, stop: int) -> Tokens:
        """Return the tokens [start, stop) of all.

        Raises:
            TrainingError: One is larger than the index says that any is.
        """
        if not 0 <= start <= stop <= self.num_tokens:
            raise IndexError(f"tokens [{start}, {stop}) of {self.num_tokens}")
        parts = []
        i = int(np.searchsorted(self._first, start, side="right")) - 1
        while start < stop:
            first, end = int(self._first[i]), int(self._first[i + 1])
            parts.append(self._shards[i][start - first : min(stop, end) - first])
            start, i = min(stop, end), i + 1
        tokens = np.concatenate(parts).astype(np.int64) if parts else np.zeros(0, np.int64)
        if tokens.max(initial=0) > self.index.max_token:
            raise TrainingError(
                f"{printable(self.folder, 200)} is damaged: it holds the token {tokens.max()}, and "
                f"its index says that {self.index.max_token} is the largest",
                hint=prepare_again(self.folder),
            )
        return tokens

    def documents_between(self, start: int, stop: int) -> Positions:
        """Return where in [start, stop) documents begin, counted from the first token of all."""
        lo, hi = np.searchsorted(self.starts[:-1], np.array([start, stop], np.uint64))
        return np.asarray(self.starts[lo:hi]).astype(np.int64)

    def sketch(self, source: int) -> Sketch:
        """Return the sample of passages of a source."""
        first = sum(record.sketch_size for record in self.sources[:source])
        record = self.sources[source]
        hashes = self._list(SKETCHES)[first : first + record.sketch_size]
        return Sketch(np.asarray(hashes), record.sketch_shift)

    def check_tokenizer(self, tokenizer: TextTokenizer, vocab_size: int) -> None:
        """Refuse tokens that another tokenizer made, or that the model does not have.

        Raises:
            TrainingError: They do not fit.
        """
        hint = "prepare the text again, in another folder"
        refuse_other_tokenizer(self.index, tokenizer, self.folder, hint)
        if self.index.max_token >= vocab_size:
            raise TrainingError(
                f"{printable(self.folder, 200)} holds the token {self.index.max_token}, "
                f"but the model's vocab_size is {vocab_size}"
            )

    def verify(self) -> None:
        """Read every file and compare its hash with the index.

        Raises:
            TrainingError: One is damaged.
        """
        for record in (*self.index.shards, *self.index.lists):
            path = self.folder / record.file
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
            if found != record.sha256:
                raise TrainingError(
                    f"{printable(path, 200)} is damaged: its sha256 is {found[:12]}, not "
                    f"{record.sha256[:12]}",
                    hint=prepare_again(self.folder),
                )

    def _list(self, name: str) -> Hashes:
        path = self.folder / name
        if not path.stat().st_size:
            return np.zeros(0, np.uint64)
        return np.memmap(path, "<u8", mode="r")


def refuse_other_tokenizer(index: Index, tokenizer: TextTokenizer, folder: Path, hint: str) -> None:
    """Refuse tokens of a folder that another tokenizer made.

    Raises:
        TrainingError: They are.
    """
    if index.tokenizer != tokenizer.identity:
        raise TrainingError(
            f"{printable(folder, 200)} was tokenised with another tokenizer "
            f"({str(index.tokenizer.get('sha256'))[:12]}, not {tokenizer.sha256[:12]})",
            hint=hint,
        )
