"""Text as documents, streamed in pieces: plain text, and JSON in lines or in one list.

Memory does not grow with a file; an object of JSON is held whole, of plain text no line.
"""

import codecs
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import count
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from hfgrow.errors import TrainingError, argument, printable, said

_BLOCK_NBYTES = 1 << 20
# Newlines at the end of a document are dropped as long as no more than this many follow each other.
_MOST_HELD = 1024
# An object must be parsed whole; far above any document.
_MAX_LINE_NBYTES = 1 << 28
_MOST_COLUMNS_SHOWN = 20
# What columns of tokens are called.
_TOKENS = "input_ids"


Advance = Callable[[int], None]


class TextPiece(NamedTuple):
    """A part of a document; a document that stands in memory anyway is one piece."""

    text: str
    is_last: bool


class TokenPiece(NamedTuple):
    """A part of a document that others have tokenised: numbers that nobody has looked at."""

    tokens: npt.NDArray[np.int64]
    is_last: bool


Piece = TextPiece | TokenPiece
_MOST_TOKEN = 1 << 32


def read_text(stream: BinaryIO, shown: str, separator: str | None) -> Iterator[TextPiece]:
    """Read the documents of a text file. Line ends become one newline, a byte order mark goes.

    Args:
        stream: The file, at its start.
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


def _documents(blocks: Iterable[str], separator: str | None) -> Iterator[TextPiece]:
    rest, is_begun = "", False
    for block in blocks:
        rest += block
        if separator is not None:
            *whole, rest = rest.split(separator)
            for text in whole:
                text = text.rstrip("\n") if is_begun else text.strip("\n")
                if text or is_begun:
                    yield TextPiece(text, True)
                is_begun = False
        # The end may be the first half of a separator, and newlines before it end the document.
        num_sure = max(0, len(rest) - len(separator or " ") + 1)
        tail = rest[max(0, num_sure - _MOST_HELD) : num_sure]
        num_told = num_sure - len(tail) + len(tail.rstrip("\n"))
        text, rest = rest[:num_told], rest[num_told:]
        text = text if is_begun else text.lstrip("\n")
        if text:
            yield TextPiece(text, False)
            is_begun = True
    rest = rest.rstrip("\n") if is_begun else rest.strip("\n")
    if rest or is_begun:
        yield TextPiece(rest, True)


def read_json(stream: BinaryIO, shown: str, column: str) -> Iterator[Piece]:
    """Read the documents of a file of JSON lines, or of one list of objects; null is empty.

    Args:
        stream: The file, at its start.
        column: The key of the text.

    Raises:
        TrainingError: A line or element is not UTF-8, not an object of JSON, or has no text in the
            column; the message has its number, from 1.
    """
    offset = 0
    for number in count(1):
        line = stream.readline(_BLOCK_NBYTES)
        if not line:
            return
        if offset == 0 and line.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"["):
            yield from _elements(line.removeprefix(codecs.BOM_UTF8), stream, shown, column)
            return
        if not line.endswith(b"\n"):
            line += stream.readline(_MAX_LINE_NBYTES + 1 - len(line))
        where = f"{shown} line {number}"
        if len(line) > _MAX_LINE_NBYTES:
            raise TrainingError(f"{where} has more than {_MAX_LINE_NBYTES} bytes")
        row = _row(line, offset, shown, where)
        # A byte order mark, or lines without text, may stand before a list.
        offset += len(line) if row is not None or offset else 0
        if row is not None:
            yield piece_of(row, column, where)


def _row(line: bytes, offset: int, shown: str, where: str) -> Mapping[str, Any] | None:
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        raise not_utf8(shown, offset, line, error.start) from error
    if offset == 0:
        text = text.removeprefix("\ufeff")
    if not text.strip():
        return None
    try:
        row = json.loads(text)
    except (ValueError, RecursionError) as error:
        hint = ""
        if offset == 0 and text.strip() == "{":
            hint = 'one object a line is read, or a list of objects: [{"text": "..."}, ...]'
        raise TrainingError(f"{where} is not JSON: {said(error, 120)}", hint=hint) from error
    return _object(row, where)


def _object(row: object, where: str) -> Mapping[str, Any]:
    if not isinstance(row, dict):
        raise TrainingError(
            f"{where} is a JSON {type(row).__name__}, not an object",
            hint='one object a line, or in a list: {"text": "..."}',
        )
    return row


def _elements(head: bytes, stream: BinaryIO, shown: str, column: str) -> Iterator[Piece]:
    """Read the documents of one list of objects, an object in memory at a time."""
    decode = json.JSONDecoder().raw_decode
    decoder = codecs.getincrementaldecoder("utf-8")()
    offset = len(head)
    is_over = False

    def more(wanted: int) -> str:
        nonlocal offset, is_over
        block = stream.read(max(_BLOCK_NBYTES, wanted))
        is_over = not block
        try:
            text = decoder.decode(block, not block)
        except UnicodeDecodeError as error:
            raise not_utf8(shown, offset, block, error.start) from error
        offset += len(block)
        return text

    try:
        buffer = decoder.decode(head).lstrip()[1:]
    except UnicodeDecodeError as error:
        raise not_utf8(shown, 0, head, error.start) from error
    at, number, is_first = 0, 1, True
    while True:
        where = f"{shown} element {number}"
        at = _text_at(buffer, at)
        while at == len(buffer) and not is_over:
            buffer = more(0)
            at = _text_at(buffer, 0)
        if buffer.startswith("]", at) or at == len(buffer):
            break
        begin = at
        if not is_first:
            if not buffer.startswith(",", at):
                raise TrainingError(f"{where} is not JSON: no comma before it")
            at = _text_at(buffer, at + 1)
        try:
            row, end = decode(buffer, at)
        except (ValueError, RecursionError) as error:
            nbytes = len(buffer) - begin
            if is_over or nbytes > _MAX_LINE_NBYTES or isinstance(error, RecursionError):
                raise TrainingError(f"{where} is not JSON: {said(error, 120)}") from error
            # Only here is what was read before taken off: each time would be work by the square.
            buffer, at = buffer[begin:] + more(nbytes), 0
            continue
        yield piece_of(_object(row, where), column, where)
        at, number, is_first = end, number + 1, False
    buffer = buffer[at:]
    while not is_over and not buffer[1:].strip():
        buffer += more(0)
    if not buffer.startswith("]"):
        raise TrainingError(f"{shown} ends inside its list")
    if buffer[1:].strip():
        raise TrainingError(f"{shown} goes on after its list, so it is no JSON")


def _text_at(text: str, at: int) -> int:
    """Return where text that is no white space begins, from a place on."""
    return next((i for i in range(at, len(text)) if not text[i].isspace()), len(text))


def piece_of(row: Mapping[str, Any], column: str, where: str) -> Piece:
    """Return the document of a row: text, or where the column holds lists their token ids.

    Raises:
        TrainingError: As in `text_of`; or a list holds something else than token ids.
    """
    value = row.get(column)
    if not isinstance(value, list):
        return TextPiece(text_of(row, column, where), True)
    for number in value:
        if type(number) is not int or not 0 <= number < _MOST_TOKEN:
            raise TrainingError(
                f"{where}: the column {printable(column)} holds a list with "
                f"{printable(repr(number), 40)} in it, which is no token id"
            )
    return TokenPiece(np.array(value, np.int64), True)


def text_of(row: Mapping[str, Any], column: str, where: str) -> str:
    """Return the text of a row; that of a null is empty.

    Args:
        row: The values by column.

    Raises:
        TrainingError: There is no such column, or no text in it.
    """
    if column not in row:
        raise no_column(column, list(row), where, [k for k, v in row.items() if type(v) is str])
    text = row[column]
    if text is None:
        return ""
    if not isinstance(text, str):
        raise TrainingError(
            f"{where}: the column {printable(column)} holds {printable(repr(text), 40)} "
            f"({type(text).__name__}), not text"
        )
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise TrainingError(
            f"{where}: the column {printable(column)} holds half of a surrogate pair"
        ) from error
    return text


def no_column(
    column: str, columns: list[str], where: str, text_columns: list[str]
) -> TrainingError:
    """Return the error for a column that is not there.

    Args:
        columns: Those that are there.
        where: The row or file, as messages name it.
        text_columns: Those of them that hold text; without any, tokens are suggested.
    """
    known = ", ".join(printable(name) for name in columns[:_MOST_COLUMNS_SHOWN]) or "none"
    likely = text_columns or [name for name in columns if name == _TOKENS]
    hint = argument("text_column", printable(likely[0])) if likely else ""
    return TrainingError(
        f"{where} has no column {printable(column)}; the columns are {known}", hint=hint
    )


def not_utf8(shown: str, offset: int, raw: bytes, start: int) -> TrainingError:
    """Return the error for bytes that are no UTF-8.

    Args:
        offset: Where `raw` begins in the file, in bytes.
        start: Where the offending byte stands in `raw`.
    """
    found = f"byte 0x{raw[start]:02x} at offset {offset + start}"
    if offset + start == 0 and raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return TrainingError(
            f"{shown} is UTF-16, not UTF-8 ({found})",
            hint="convert it: iconv -f UTF-16 -t UTF-8",
        )
    return TrainingError(
        f"{shown} is not UTF-8: {found}", hint="convert it: iconv -f ITS_ENCODING -t UTF-8"
    )
