"""Plain text as documents, read in blocks: memory does not grow with the file or its lines."""

import codecs
import io
from collections.abc import Iterable, Iterator
from typing import BinaryIO

from hfgrow.train.data.pieces import Piece, not_utf8

_BLOCK_NBYTES = 1 << 20
# Newlines at the end of a document are dropped as long as no more than this many follow each other.
_MOST_HELD = 1024


def read_text(stream: BinaryIO, shown: str, separator: str | None) -> Iterator[Piece]:
    """Read the documents of a text file. Line ends become one newline, a byte order mark goes.

    Args:
        stream: The file, at its start.
        shown: The file, as messages name it.
        separator: What stands between documents; None if the file is one.

    Raises:
        TrainingError: It is not UTF-8.
    """
    return _documents(_decoded(stream, shown), separator)


def _decoded(stream: BinaryIO, shown: str) -> Iterator[str]:
    newlines = io.IncrementalNewlineDecoder(None, translate=True)
    pending, offset = b"", 0
    while True:
        block = stream.read(_BLOCK_NBYTES)
        raw = pending + block
        try:
            text, consumed = codecs.utf_8_decode(raw, "strict", not block)
        except UnicodeDecodeError as error:
            raise not_utf8(shown, offset, raw, error.start) from error
        if offset == 0:
            text = text.removeprefix("\ufeff")
        yield newlines.decode(text, not block)
        if not block:
            return
        pending, offset = raw[consumed:], offset + consumed


def _documents(blocks: Iterable[str], separator: str | None) -> Iterator[Piece]:
    rest, is_begun = "", False
    for block in blocks:
        rest += block
        if separator is not None:
            *whole, rest = rest.split(separator)
            for text in whole:
                text = text.rstrip("\n") if is_begun else text.strip("\n")
                if text or is_begun:
                    yield Piece(text, True)
                is_begun = False
        # The end may be the first half of a separator, or newlines that end the document.
        tail = rest[-_MOST_HELD:]
        num_held = max(len(tail) - len(tail.rstrip("\n")), len(separator or "") - 1)
        text, rest = rest[: len(rest) - num_held], rest[max(0, len(rest) - num_held) :]
        text = text if is_begun else text.lstrip("\n")
        if text:
            yield Piece(text, False)
            is_begun = True
    rest = rest.rstrip("\n") if is_begun else rest.strip("\n")
    if rest or is_begun:
        yield Piece(rest, True)
