r"""Tokens that others wrote: Megatron's .bin and .idx, datatrove's .ds, columns of token ids.

Megatron-LM (megatron/core/datasets/indexed_dataset.py). The .bin holds the numbers of all
sequences, one behind the other, little endian. The .idx begins with the nine bytes MMIDIDX\0\0, the
version 1 in 8 bytes, the code of the dtype in one, the number of sequences and that of entries in
the list of documents in 8 each. Then follow the length of every sequence (int32), the byte of the
.bin at which it begins (int64), and the sequence that each document begins with (int64), at last
the number of sequences. Behind that a dataset of images and text has a byte for each sequence.

datatrove (pipeline/tokens/tokenizer.py), whose files nanotron calls nanosets. The .ds holds tokens
of 2 or 4 bytes, little endian; the .ds.index the token behind each document (uint64). A
.ds.metadata, which need not be there, tells the name of the tokenizer, in newer ones with `|` and
the bytes of a token behind it, and the number of tokens.

Neither says enough of the tokenizer to compare it. So every token must be one of the tokenizer that
it is read with, and documents get hash and bytes of the text that it makes of them, as text has.
"""

import hashlib
import os
import struct
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from hfgrow.data.data_files import MEGATRON, DataFile, failures, parts_of
from hfgrow.data.documents import Advance, TokenPiece
from hfgrow.data.sources import TextSource
from hfgrow.data.text_tokenizer import TextTokenizer
from hfgrow.data.token_folder import ShardWriter, SourceRecord
from hfgrow.data.tokenise import SourceTokens
from hfgrow.errors import ModelError, TrainingError, foreign, printable

_MAGIC, _VERSION = b"MMIDIDX\0\0", 1
_HEADER = struct.Struct("<9sQBQQ")
# By the code in the index; floats, 6 and 7, are no tokens.
_DTYPES = {1: "u1", 2: "i1", 3: "<i2", 4: "<i4", 5: "<i8", 8: "<u2"}
_SIZE, _POINTER = 4, 8
_MOST_METADATA_NBYTES = 1 << 12
# Tokens read at a time, and encoded or decoded at a time.
_MOST_TOKENS = 1 << 20
# Numbers of an index read at a time.
_MOST_NUMBERS = 1 << 16
_HINT = "it is damaged, or not what its name says"
Lengths = npt.NDArray[np.int64]


def read_tokens(file: DataFile, advance: Advance) -> Iterator[TokenPiece]:
    """Read the documents of a Megatron index or of a .ds file, from the file of tokens beside it.

    Args:
        file: The index, or the .ds file.
        advance: Told how many bytes of tokens were read.

    Raises:
        TrainingError: The files do not fit each other, or are none such.
    """
    index = file.path if file.kind == MEGATRON else parts_of(file.path, file.kind)[0]
    with failures(file), index.open("rb") as opened_index:
        numbers = _Numbers(opened_index, printable(index, 200))
        described = _megatron if file.kind == MEGATRON else _nanoset
        path, dtype, lengths = described(file, numbers)
        with path.open("rb") as raw:
            for some in lengths:
                for length in some.tolist():
                    yield from _document(raw.read, length, dtype, path, advance)


@dataclass(frozen=True, slots=True)
class _Numbers:
    """An index, of which some numbers are in memory at a time."""

    raw: BinaryIO
    shown: str

    @property
    def nbytes(self) -> int:
        return os.fstat(self.raw.fileno()).st_size

    def read(self, dtype: str, offset: int, count: int) -> npt.NDArray[Any]:
        numbers = np.dtype(dtype)
        self.raw.seek(offset)
        data = self.raw.read(count * numbers.itemsize)
        if len(data) != count * numbers.itemsize:
            raise TrainingError(f"{self.shown} changed while it was read")
        return np.frombuffer(data, numbers)

    def one(self, dtype: str, offset: int) -> int:
        return int(self.read(dtype, offset, 1)[0])

    def chunks(
        self, dtype: str, offset: int, stop: int, start: int = 0
    ) -> Iterator[tuple[int, npt.NDArray[Any]]]:
        """Yield the numbers from start to stop of those at an offset, and where each chunk is."""
        itemsize = np.dtype(dtype).itemsize
        for first in range(start, stop, _MOST_NUMBERS):
            count = min(_MOST_NUMBERS, stop - first)
            yield first, self.read(dtype, offset + itemsize * first, count)


def _document(
    read: Any, length: int, dtype: np.dtype[Any], path: Path, advance: Advance
) -> Iterator[TokenPiece]:
    while True:
        count = min(length, _MOST_TOKENS)
        data = read(count * dtype.itemsize)
        if len(data) != count * dtype.itemsize:
            raise TrainingError(f"{printable(path, 200)} changed while it was read")
        length -= count
        yield TokenPiece(np.frombuffer(data, dtype).astype(np.int64), not length)
        advance(len(data))
        if not length:
            return


def _megatron(file: DataFile, index: _Numbers) -> tuple[Path, np.dtype[Any], Iterator[Lengths]]:
    """Check an index; return the file of tokens, their dtype, and the lengths of all documents."""
    (tokens,) = parts_of(file.path, file.kind)
    head = index.raw.read(_HEADER.size)
    if not head.startswith(_MAGIC) or len(head) < _HEADER.size:
        raise _wrong(file, f"begins with {head[:9]!r}, not {_MAGIC!r}: it is no index of Megatron")
    _, version, code, num_sequences, num_entries = _HEADER.unpack(head)
    if version != _VERSION:
        raise _wrong(file, f"has version {version}, not {_VERSION}")
    if code not in _DTYPES:
        known = ", ".join(map(str, _DTYPES))
        raise _wrong(file, f"has the dtype code {code}, which is none of tokens: {known}")
    pointers = _HEADER.size + _SIZE * num_sequences
    documents = pointers + _POINTER * num_sequences
    expected = documents + _POINTER * num_entries
    if index.nbytes == expected + num_sequences and num_sequences:
        raise TrainingError(
            f"{file.shown} has a mode for every sequence: it is of text and images",
            hint="only tokens of text can be read",
        )
    if index.nbytes != expected:
        raise _wrong(
            file,
            f"has {index.nbytes} bytes; {num_sequences} sequences and {num_entries} entries of "
            f"documents take {expected}",
        )
    dtype = np.dtype(_DTYPES[code])
    # The ends first, so that what is damaged or a hole is not read to its end.
    ends = [index.one("<i8", at) for at in (documents, expected - _POINTER) if num_entries]
    if ends != [0, num_sequences]:
        raise _wrong(file, f"has documents that do not go from 0 to sequence {num_sequences}")
    end = 0
    if num_sequences:
        last = index.one("<i4", pointers - _SIZE)
        end = index.one("<i8", documents - _POINTER) + last * dtype.itemsize
    _check_size(tokens, end, file)
    _check_sequences(file, index, num_sequences, dtype.itemsize)
    before = 0
    for _, some in index.chunks("<i8", documents, num_entries):
        if (np.diff(some, prepend=before) < 0).any():
            raise _wrong(file, "has documents that do not follow each other")
        before = int(some[-1])
    begins = _begins_of_documents(index, pointers, num_sequences, documents, num_entries, end)
    return tokens, dtype, _lengths(some // dtype.itemsize for some in begins)


def _check_sequences(file: DataFile, index: _Numbers, count: int, itemsize: int) -> None:
    """Refuse sequences of which one does not begin where the one before it ends."""
    before = 0
    pointers = index.chunks("<i8", _HEADER.size + _SIZE * count, count)
    for first, sizes in index.chunks("<i4", _HEADER.size, count):
        if (sizes < 0).any():
            raise _wrong(file, f"has a sequence of {int(sizes.min())} tokens")
        _, found = next(pointers)
        ends = before + itemsize * np.cumsum(sizes, dtype=np.int64)
        begins = np.concatenate((np.array([before]), ends[:-1]))
        odd = np.flatnonzero(found != begins)
        if len(odd):
            i = int(odd[0])
            raise _wrong(
                file,
                f"has sequence {first + i} begin at byte {int(found[i])}, not {int(begins[i])}, "
                "where the one before it ends",
            )
        before = int(ends[-1])


def _begins_of_documents(
    index: _Numbers, pointers: int, num_sequences: int, documents: int, num_entries: int, end: int
) -> Iterator[Lengths]:
    """Yield the byte at which each document begins, and at last the end."""
    for _, some in index.chunks("<i8", documents, num_entries):
        begins = np.full(len(some), end, np.int64)
        stop = min(int(some[-1]) + 1, num_sequences)
        for first, found in index.chunks("<i8", pointers, stop, int(some[0])):
            low, high = np.searchsorted(some, (first, first + len(found)))
            begins[low:high] = found[some[low:high] - first]
        yield begins


def _lengths(begins: Iterator[Lengths]) -> Iterator[Lengths]:
    """Yield how far each is from the one before it, the first left out."""
    before: int | None = None
    for some in begins:
        yield np.diff(some) if before is None else np.diff(some, prepend=before)
        before = int(some[-1])


def _nanoset(file: DataFile, index: _Numbers) -> tuple[Path, np.dtype[Any], Iterator[Lengths]]:
    """Check a .ds file; return it, the dtype of its tokens, and the lengths of all documents."""
    _, *metadata = parts_of(file.path, file.kind)
    shown, nbytes = index.shown, index.nbytes
    if not nbytes or nbytes % _POINTER:
        raise TrainingError(f"{shown} has {nbytes} bytes, not 8 a document", hint=_HINT)
    last, total = index.one("<u8", nbytes - _POINTER), os.stat(file.path).st_size
    itemsize = next((size for size in (2, 4) if size * last == total), 0)
    if not itemsize:
        raise TrainingError(
            f"{file.shown} has {total} bytes, and {shown} says {last} tokens of 2 or 4",
            hint=_HINT,
        )
    before = 0
    for _, ends in index.chunks("<u8", 0, nbytes // _POINTER):
        if int(ends[0]) < before or (ends[1:] < ends[:-1]).any():
            raise TrainingError(f"{shown} has documents that do not follow each other", hint=_HINT)
        before = int(ends[-1])
    for path in metadata:
        with path.open("rb") as raw:
            first = raw.read(_MOST_METADATA_NBYTES).partition(b"\n")[0].decode("utf-8", "replace")
        said = first.rpartition("|")[2] if "|" in first else str(itemsize)
        if said != str(itemsize):
            raise TrainingError(
                f"{printable(path, 200)} says {printable(said, 20)} bytes a token, and "
                f"{file.shown} has {itemsize}",
                hint=_HINT,
            )
    read = index.chunks("<u8", 0, nbytes // _POINTER)
    ends_of_documents = (some.astype(np.int64) for _, some in read)
    lengths = _lengths(chain([np.zeros(1, np.int64)], ends_of_documents))
    return file.path, np.dtype(f"<u{itemsize}"), lengths


def _check_size(tokens: Path, expected: int, index: DataFile) -> None:
    if (nbytes := os.stat(tokens).st_size) != expected:
        raise TrainingError(
            f"{printable(tokens, 200)} has {nbytes} bytes, and {index.shown} says {expected}",
            hint="the two are not of one dataset, or one of them is damaged",
        )


def _wrong(file: DataFile, what: str) -> TrainingError:
    return TrainingError(f"{file.shown} {printable(what, 300)}", hint=_HINT)


def copied(
    source: TextSource,
    identity: dict[str, Any],
    pieces: Iterator[TokenPiece],
    tokenizer: TextTokenizer,
    writer: ShardWriter,
    vocab_size: int,
    *,
    say: Callable[[str], None] = lambda text: None,
) -> tuple[SourceRecord, int]:
    """Append tokens that others made to the shards, as they are, nothing put around documents.

    Args:
        identity: What identifies its content, for the record.
        tokenizer: What they were made with, to be believed.
        writer: Where to write.
        vocab_size: The rows of the model's embedding.
        say: Told what of them is unlike what this tokenizer makes.

    Returns:
        The record of the source, and its largest token.

    Raises:
        TrainingError: There is no token in it, or one that tokenizer or model do not have.
        ModelError: The tokenizer cannot decode.
    """
    written = SourceTokens(source, identity, writer)
    limit = min(vocab_size, tokenizer.encoder.get_vocab_size())
    digest = hashlib.blake2b(digest_size=8)
    num_blank = num_bytes = nbytes = 0
    is_first, number = True, 1
    for batch in _batches(pieces):
        texts = _decoded(tokenizer, batch, limit, source.label, number)
        if written.is_empty:
            both = zip(batch, texts, strict=True)
            first = next((one for one in both if len(one[0].tokens)), None)
            for note in _notes(tokenizer, *first) if first else ():
                say(f"Note: {source.label}: {note}")
        starts, hashes, sizes = array("Q"), array("Q"), array("Q")
        at = writer.num_tokens
        for piece, text in zip(batch, texts, strict=True):
            if is_first and len(piece.tokens):
                starts.append(at)
                is_first = False
            at += len(piece.tokens)
            raw = text.encode()
            digest.update(raw)
            nbytes += len(raw)
            if not piece.is_last:
                continue
            if is_first:
                num_blank += 1
            else:
                hashes.append(int.from_bytes(digest.digest(), "little"))
                sizes.append(nbytes)
            num_bytes, nbytes, digest = num_bytes + nbytes, 0, hashlib.blake2b(digest_size=8)
            is_first, number = True, number + 1
        tokens = np.concatenate([piece.tokens for piece in batch]).astype(np.uint32)
        written.seen(tokens)
        written.append(tokens, starts, hashes, sizes)
    if written.is_empty:
        raise TrainingError(f"{source.label} has no tokens ({num_blank} empty documents)")
    return written.record(num_blank=num_blank, num_bytes=num_bytes), written.max_token


def _notes(tokenizer: TextTokenizer, piece: TokenPiece, text: str) -> Iterator[str]:
    """Yield in what the first document is unlike one that this tokenizer makes; it has tokens."""
    around = {*tokenizer.prefix, *tokenizer.suffix}
    ids = piece.tokens.tolist()
    if piece.is_last and tokenizer.encode([text])[0] != [n for n in ids if n not in around]:
        yield (
            "its first document becomes other tokens when it is tokenised again; was it made with "
            "this tokenizer?"
        )
    if piece.is_last and not around & {*ids[:1], *ids[-1:]}:
        yield "its first document has no token that parts it from the next; none is put there"


def _batches(pieces: Iterable[TokenPiece]) -> Iterator[list[TokenPiece]]:
    batch: list[TokenPiece] = []
    length = 0
    for piece in pieces:
        batch.append(piece)
        # A document without tokens takes memory too.
        length += len(piece.tokens) + 1
        if length >= _MOST_TOKENS:
            yield batch
            batch, length = [], 0
    if batch:
        yield batch


def _decoded(
    tokenizer: TextTokenizer, batch: Sequence[TokenPiece], limit: int, label: str, number: int
) -> list[str]:
    """Return the text of every piece, whose tokens must be from 0 to below a limit."""
    for piece in batch:
        least, most = int(piece.tokens.min(initial=0)), int(piece.tokens.max(initial=0))
        if least < 0 or most >= limit:
            raise TrainingError(
                f"{label}: document {number} holds the token {least if least < 0 else most}; "
                f"tokenizer and model have those from 0 to {limit - 1}",
                hint="name the tokenizer that it was made with, and a base that has it",
            )
        number += piece.is_last
    with foreign(lambda said: ModelError(f"the tokenizer cannot decode {label}: {said}")):
        return tokenizer.encoder.decode_batch([piece.tokens.tolist() for piece in batch])
