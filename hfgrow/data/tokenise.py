"""Documents to tokens: in chunks of bounded length, the next batch encoded while one is written.

A document is cut where no tokenizer joins what stands on both sides.
"""

import hashlib
import re
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from hfgrow.data.documents import TextPiece
from hfgrow.data.sketch import Sketcher
from hfgrow.data.sources import TextSource
from hfgrow.data.text_tokenizer import TextTokenizer
from hfgrow.data.token_folder import SKETCHES, ShardWriter, SourceRecord
from hfgrow.errors import ModelError, TrainingError, printable

CHUNK_LENGTH = 1 << 16
_WINDOW_LENGTH = 1 << 12
# Between two words, and not beside digits, marks or other spaces, which some tokenizers join.
_BETWEEN_WORDS = re.compile(r"(?<=[^\W\d_]) (?=[^\W\d_])")
_BATCH_LENGTH = 1 << 21
_BATCH_CHUNKS = 1 << 14


class DocumentEnd(NamedTuple):
    """What is known when a document ends: a hash of 64 bits, and its bytes in UTF-8."""

    hash: int
    nbytes: int


class TextChunk(NamedTuple):
    """A part of a document to tokenise on its own."""

    text: str
    is_first: bool
    end: DocumentEnd | None


class SourceTokens:
    """The tokens of one source on their way into the shards: appended, counted, sketched."""

    def __init__(self, source: TextSource, identity: dict[str, Any], writer: ShardWriter) -> None:
        self._source, self._identity, self._writer = source, identity, writer
        self._first_token, self._first_document = writer.num_tokens, writer.num_documents
        self._sketcher = Sketcher()
        self.max_token = 0

    @property
    def is_empty(self) -> bool:
        """Whether no token has come yet."""
        return self._writer.num_tokens == self._first_token

    def append(
        self, tokens: Any, starts: "array[int]", hashes: "array[int]", nbytes: "array[int]"
    ) -> None:
        """Write tokens, where documents begin in all that is written, and what ended among them."""
        self._writer.append(tokens, starts, hashes, nbytes)
        self._sketcher.update(tokens)

    def seen(self, tokens: Any) -> int:
        """Return the largest token so far, these among them."""
        self.max_token = max(self.max_token, int(tokens.max(initial=0)))
        return self.max_token

    def record(self, *, num_blank: int, num_bytes: int) -> SourceRecord:
        """Return what is recorded of the source, with its sketch written."""
        sketch = self._sketcher.finish()
        self._writer.append_list(SKETCHES, sketch.hashes)
        return SourceRecord(
            label=self._source.label,
            identity=self._identity,
            first_token=self._first_token,
            num_tokens=self._writer.num_tokens - self._first_token,
            first_document=self._first_document,
            num_documents=self._writer.num_documents - self._first_document,
            num_blank=num_blank,
            num_bytes=num_bytes,
            sketch_size=len(sketch.hashes),
            sketch_shift=sketch.shift,
        )


def tokenise(
    source: TextSource,
    identity: dict[str, Any],
    pieces: Iterator[TextPiece],
    tokenizer: TextTokenizer,
    writer: ShardWriter,
    vocab_size: int,
) -> tuple[SourceRecord, int]:
    """Append the tokens of a source to the shards.

    Args:
        identity: What identifies its content, for the record.
        pieces: Its documents.
        writer: Where to write.
        vocab_size: A token must be below.

    Returns:
        The record of the source, and its largest token.

    Raises:
        TrainingError: There is no text in it.
        ModelError: The tokenizer makes a token that the model does not have.
    """
    written = SourceTokens(source, identity, writer)
    chunker, num_bytes = Chunker(keeps_space=tokenizer.keeps_space), 0
    for batch, ids in _encoded(chunker.chunks(pieces), tokenizer.encode):
        flat, starts, hashes, nbytes = array("I"), array("Q"), array("Q"), array("Q")
        for chunk, part in zip(batch, ids, strict=True):
            if chunk.is_first:
                starts.append(writer.num_tokens + len(flat))
                flat.extend(tokenizer.prefix)
            flat.extend(part)
            if chunk.end is not None:
                flat.extend(tokenizer.suffix)
                hashes.append(chunk.end.hash)
                nbytes.append(chunk.end.nbytes)
        tokens = np.array(flat, np.uint32)
        check_token(written.seen(tokens), vocab_size, tokenizer)
        written.append(tokens, starts, hashes, nbytes)
        num_bytes += sum(nbytes)
    if written.is_empty:
        raise TrainingError(
            f"{source.label} has 0 usable tokens ({chunker.num_blank} blank documents)",
            hint="name files with text in them",
        )
    record = written.record(num_blank=chunker.num_blank, num_bytes=num_bytes)
    return record, written.max_token


def check_token(token: int, vocab_size: int, tokenizer: TextTokenizer) -> None:
    """Refuse a token that the model does not have.

    Raises:
        ModelError: It is not below `vocab_size`.
    """
    if token >= vocab_size:
        text = printable(repr(tokenizer.encoder.id_to_token(token)), 40)
        raise ModelError(
            f"the tokenizer makes token {token} ({text}), but the model's vocab_size is "
            f"{vocab_size}",
            hint="use the tokenizer of the base, or a base with a larger embedding",
        )


def _encoded(
    chunks: Iterator[TextChunk], encode: Callable[[Sequence[str]], list[list[int]]]
) -> Iterator[tuple[list[TextChunk], list[list[int]]]]:
    """Yield batches of chunks with their tokens; the next batch is encoded meanwhile."""
    with ThreadPoolExecutor(1) as pool:
        before = None
        for batch in _batches(chunks):
            future = pool.submit(encode, [chunk.text for chunk in batch])
            if before is not None:
                yield before[0], before[1].result()
            before = batch, future
        if before is not None:
            yield before[0], before[1].result()


def _batches(chunks: Iterator[TextChunk]) -> Iterator[list[TextChunk]]:
    batch: list[TextChunk] = []
    length = 0
    for chunk in chunks:
        batch.append(chunk)
        length += len(chunk.text)
        if length >= _BATCH_LENGTH or len(batch) >= _BATCH_CHUNKS:
            yield batch
            batch, length = [], 0
    if batch:
        yield batch


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

    def chunks(self, pieces: Iterable[TextPiece]) -> Iterator[TextChunk]:
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
                    yield TextChunk(text[start:stop], is_first, None)
                    is_first = False
                start = after
            rest = text[start:]
            if not piece.is_last:
                continue
            if is_first and not rest.strip():
                self.num_blank += 1
            else:
                end = DocumentEnd(int.from_bytes(digest.digest(), "little"), nbytes)
                yield TextChunk(rest, is_first, end)
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
