"""JSON lines as documents: one object a line, its text in one column."""

import json
from collections.abc import Iterator, Mapping
from itertools import count
from typing import Any, BinaryIO

from hfgrow.errors import TrainingError, printable
from hfgrow.train.data.pieces import Piece, not_utf8

# An object must be parsed whole; far above any document.
_MAX_LINE_NBYTES = 1 << 28
_MOST_COLUMNS_SHOWN = 20


def read_json_lines(stream: BinaryIO, shown: str, column: str) -> Iterator[Piece]:
    """Read the documents of a file of JSON lines; a null text is an empty document.

    Args:
        stream: The file, at its start.
        shown: The file, as messages name it.
        column: The key of the text.

    Raises:
        TrainingError: A line is not UTF-8, not an object of JSON, or has no text in the column;
            the message has its number, from 1.
    """
    offset = 0
    for number in count(1):
        line = stream.readline(_MAX_LINE_NBYTES + 1)
        if not line:
            return
        where = f"{shown} line {number}"
        if len(line) > _MAX_LINE_NBYTES:
            raise TrainingError(f"{where} has more than {_MAX_LINE_NBYTES} bytes")
        row = _row(line, offset, shown, where)
        offset += len(line)
        if row is not None:
            yield Piece(text_of(row, column, where), True)


def text_of(row: Mapping[str, Any], column: str, where: str) -> str:
    """Return the text of a row; that of a null is empty.

    Args:
        row: The values by column.
        column: The column of the text.
        where: The row, as messages name it.

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
        column: The one asked for.
        columns: Those that are there.
        where: The row or file, as messages name it.
        text_columns: Those of them that hold text.
    """
    known = ", ".join(printable(name) for name in columns[:_MOST_COLUMNS_SHOWN]) or "none"
    hint = f"--text-column {printable(text_columns[0])}" if text_columns else ""
    return TrainingError(
        f"{where} has no column {printable(column)}; the columns are {known}", hint=hint
    )


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
        raise TrainingError(f"{where} is not JSON: {printable(error, 120)}") from error
    if not isinstance(row, dict):
        raise TrainingError(
            f"{where} is a JSON {type(row).__name__}, not an object",
            hint='one object a line: {"text": "..."}',
        )
    return row
