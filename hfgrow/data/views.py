"""Parts of a folder's tokens, read as if they stood side by side."""

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from hfgrow.data.sketch import Hashes
from hfgrow.data.token_folder import Positions, TokenFiles, Tokens

Ranges = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class TokenView:
    """Ranges of the tokens of a folder.

    Attributes:
        files: The folder.
        label: The text's name.
        ranges: Tokens [first, end) of the folder a row, in order and apart, shape [n, 2].
        bos: What every sequence begins with instead of its own first token; None leaves that.
    """

    files: TokenFiles
    label: str
    ranges: Ranges
    bos: int | None = None

    @classmethod
    def of(cls, files: TokenFiles, source: int | None = None) -> "TokenView":
        """Return all tokens of a source of the folder, counted from 0, or of all sources."""
        records = files.sources if source is None else files.sources[source : source + 1]
        end = records[-1].first_token + records[-1].num_tokens
        ranges = np.array([[records[0].first_token, end]], np.int64)
        return cls(files, " + ".join(record.label for record in records), ranges)

    @property
    def sources(self) -> list[int]:
        """The sources of the folder that have tokens in the view."""
        found = []
        for i, record in enumerate(self.files.sources):
            first, end = record.first_token, record.first_token + record.num_tokens
            if bool(((self.ranges[:, 0] < end) & (self.ranges[:, 1] > first)).any()):
                found.append(i)
        return found

    @cached_property
    def fingerprint(self) -> str:
        """A hash of what decides the tokens of the view."""
        begin = "" if self.bos is None else f"{self.bos} "
        of = f"{self.files.index.fingerprint} {begin}".encode()
        return hashlib.sha256(of + self.ranges.astype("<i8").tobytes()).hexdigest()

    @cached_property
    def _first(self) -> Positions:
        """Where every range begins in the view, and at last the length of all."""
        lengths = self.ranges[:, 1] - self.ranges[:, 0]
        return np.concatenate((np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)))

    @property
    def num_tokens(self) -> int:
        """The tokens of all ranges."""
        return int(self._first[-1])

    @cached_property
    def num_bytes(self) -> int:
        """The UTF-8 bytes of the text; that of a document in part by its part of the tokens."""
        starts, nbytes, total = self.files.starts, self.files.nbytes, 0.0
        for first, end in self.ranges.tolist():
            lo = int(np.searchsorted(starts, np.uint64(first), side="right")) - 1
            hi = int(np.searchsorted(starts, np.uint64(end), side="left"))
            begin = np.asarray(starts[lo:hi]).astype(np.float64)
            finish = np.asarray(starts[lo + 1 : hi + 1]).astype(np.float64)
            within = np.minimum(finish, end) - np.maximum(begin, first)
            total += float((np.asarray(nbytes[lo:hi]) * within / (finish - begin)).sum())
        return round(total)

    def document_hashes(self) -> Hashes:
        """Return the hashes of the documents that begin in the view."""
        found = [np.zeros(0, np.uint64)]
        for first, end in self.ranges.tolist():
            lo, hi = np.searchsorted(self.files.starts[:-1], np.array([first, end], np.uint64))
            found.append(np.asarray(self.files.hashes[lo:hi]))
        return np.concatenate(found)

    def read(self, start: int, stop: int) -> tuple[Tokens, Positions]:
        """Return tokens of the view, and where among them documents begin.

        What follows a gap counts as a document of its own.

        Args:
            start: The first token, from 0.
            stop: The token after the last.
        """
        if not 0 <= start <= stop <= self.num_tokens:
            raise IndexError(f"tokens [{start}, {stop}) of {self.num_tokens}")
        tokens, begins = [], []
        i = int(np.searchsorted(self._first, start, side="right")) - 1
        done = start
        while done < stop:
            after = min(stop, int(self._first[i + 1]))
            shift = int(self.ranges[i, 0]) - int(self._first[i])
            tokens.append(self.files.read(done + shift, after + shift))
            inner = self.files.documents_between(done + shift, after + shift) - shift - start
            seam = [done - start] if done == self._first[i] else []
            begins.append(np.union1d(inner, np.array(seam, np.int64)))
            done, i = after, i + 1
        if not tokens:
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        return np.concatenate(tokens), np.concatenate(begins)

    def sequence(self, start: int, stop: int) -> tuple[Tokens, Positions]:
        """Return what `read` does, as a sequence of its own.

        No token is predicted for it: the first is read in this sequence and a target of the one
        before.
        """
        tokens, starts = self.read(start, stop)
        if self.bos is not None and len(tokens):
            tokens[0] = self.bos
        return tokens, starts

    def part(self, start_percent: int, stop_percent: int) -> "TokenView":
        """Return the tokens between two per cents; parts that touch have no token in common."""
        start = self.num_tokens * start_percent // 100
        return self.between(start, self.num_tokens * stop_percent // 100)

    def between(self, start: int, stop: int) -> "TokenView":
        """Return the tokens [start, stop) of the view."""
        shift = self.ranges[:, 0] - self._first[:-1]
        lo, hi = np.maximum(self._first[:-1], start), np.minimum(self._first[1:], stop)
        ranges = np.stack((lo + shift, hi + shift), axis=1)[lo < hi]
        return replace(self, ranges=ranges)
