"""Documents in chunks of bounded length, cut where no tokenizer joins what stands on both sides."""

import hashlib
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from hfgrow.train.data.pieces import Piece

CHUNK_LENGTH = 1 << 16
_WINDOW_LENGTH = 1 << 12
# Between two words, and not beside digits, marks or other spaces, which some tokenizers join.
_BETWEEN_WORDS = re.compile(r"(?<=[^\W\d_]) (?=[^\W\d_])")


class DocumentEnd(NamedTuple):
    """What is known when a document ends: a hash of 64 bits, and its bytes in UTF-8."""

    hash: int
    nbytes: int


class Chunk(NamedTuple):
    """A part of a document to tokenise on its own."""

    text: str
    is_first: bool
    end: DocumentEnd | None


class Chunker:
    """Turns pieces of documents into chunks.

    A cut depends on the document alone, not on how it was read. Documents that are empty or only
    space are left out and counted.

    Args:
        keeps_space: Whether the space at a cut begins the next chunk, or is dropped because the
            tokenizer adds it.
    """

    def __init__(self, *, keeps_space: bool) -> None:
        self._skipped = 0 if keeps_space else 1
        self.num_blank = 0

    def chunks(self, pieces: Iterable[Piece]) -> Iterator[Chunk]:
        """Yield the chunks of all documents, in order."""
        rest, digest, nbytes, is_first = "", hashlib.blake2b(digest_size=8), 0, True
        for piece in pieces:
            raw = piece.text.encode()
            digest.update(raw)
            nbytes += len(raw)
            text, start = rest + piece.text, 0
            while len(text) - start > CHUNK_LENGTH:
                stop, after = self._cut(text, start)
                if not is_first or not text[start:stop].isspace():
                    yield Chunk(text[start:stop], is_first, None)
                    is_first = False
                start = after
            rest = text[start:]
            if not piece.is_last:
                continue
            if is_first and not rest.strip():
                self.num_blank += 1
            else:
                end = DocumentEnd(int.from_bytes(digest.digest(), "little"), nbytes)
                yield Chunk(rest, is_first, end)
            rest, digest, nbytes, is_first = "", hashlib.blake2b(digest_size=8), 0, True

    def _cut(self, text: str, start: int) -> tuple[int, int]:
        """Return where the chunk ends and the next one begins."""
        limit = start + CHUNK_LENGTH
        spaces = [m.start() for m in _BETWEEN_WORDS.finditer(text, limit - _WINDOW_LENGTH, limit)]
        if spaces:
            return spaces[-1], spaces[-1] + self._skipped
        for i in range(limit - 1, limit - _WINDOW_LENGTH, -1):
            if text[i].isspace() and not text[i - 1].isspace():
                return i, i
        return limit, limit
