"""Text as documents, streamed in pieces: plain text, JSON lines, parquet, datasets of the Hub.

Memory does not grow with a file or its lines, and no code of a dataset is ever run.
"""

import codecs
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import import_module
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from hfgrow.data.sources import DataFile, TextSource
from hfgrow.errors import GrowthError, TrainingError, UsageError, argument, printable
from hfgrow.hub.client import HubClient
from hfgrow.hub.listing import is_sha
from hfgrow.hub.names import check_repo_id, check_revision

_BLOCK_NBYTES = 1 << 20
# Newlines at the end of a document are dropped as long as no more than this many follow each other.
_MOST_HELD = 1024
# An object must be parsed whole; far above any document.
_MAX_LINE_NBYTES = 1 << 28
_MOST_COLUMNS_SHOWN = 20
# Older ones would run a loading script if somebody said yes.
_FIRST_WITHOUT_SCRIPTS = 4


Advance = Callable[[int], None]


class TextPiece(NamedTuple):
    """A part of a document; a document that stands in memory anyway is one piece."""

    text: str
    is_last: bool


def read_text(stream: BinaryIO, shown: str, separator: str | None) -> Iterator[TextPiece]:
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
        # The end may be the first half of a separator, or newlines that end the document.
        tail = rest[-_MOST_HELD:]
        num_held = max(len(tail) - len(tail.rstrip("\n")), len(separator or "") - 1)
        text, rest = rest[: len(rest) - num_held], rest[max(0, len(rest) - num_held) :]
        text = text if is_begun else text.lstrip("\n")
        if text:
            yield TextPiece(text, False)
            is_begun = True
    rest = rest.rstrip("\n") if is_begun else rest.strip("\n")
    if rest or is_begun:
        yield TextPiece(rest, True)


def read_json_lines(stream: BinaryIO, shown: str, column: str) -> Iterator[TextPiece]:
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
            yield TextPiece(text_of(row, column, where), True)


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


def read_parquet(file: DataFile, column: str) -> Iterator[TextPiece]:
    """Read the documents of a parquet file.

    Args:
        file: The file.
        column: The column of the text.

    Raises:
        TrainingError: It is no parquet file, or has no text in the column.
        UsageError: `datasets` is not installed.
    """
    load_dataset = _loader(f"reading {file.shown}")
    try:
        rows = load_dataset("parquet", data_files=[str(file.path)], split="train", streaming=True)
        yield from _documents_of_rows(rows, file.shown, column)
    except GrowthError:
        raise
    except Exception as error:
        raise TrainingError(
            f"{file.shown} cannot be read as parquet: {_innermost(error)}"
        ) from error


def read_dataset(source: TextSource, sha: str, client: HubClient) -> Iterator[TextPiece]:
    """Read the documents of a split of a dataset on the Hub.

    Args:
        source: The dataset, configuration, split and column.
        sha: The commit to read.
        client: The connection to the Hub.

    Raises:
        TrainingError: It needs a loading script, has no such split, or no text in the column.
        GrowthError: The Hub says no, or does not answer.
    """
    load_dataset = _loader(f"the dataset {source.label}")
    repo_id = source.dataset or ""
    with client.translating(f"reading the dataset {source.label}", repo_id):
        try:
            rows = load_dataset(
                repo_id,
                source.name,
                split=source.whole_split,
                revision=sha,
                streaming=True,
                token=client.api.token,
            )
            yield from _documents_of_rows(rows, source.label, source.text_column)
        except RuntimeError as error:
            if "script" not in str(error):
                raise
            raise TrainingError(
                f"the dataset {source.label} needs a loading script, and hfgrow runs no code of "
                "others",
                hint="use one stored as parquet or JSON, or convert it",
            ) from error
        except ValueError as error:
            raise TrainingError(
                f"the dataset {source.label}: {printable(_innermost(error), 300)}"
            ) from error


def pinned(source: TextSource, client: HubClient) -> str:
    """Return the commit of a dataset.

    Raises:
        GrowthError: The name cannot be, or the Hub does not have it or does not answer.
    """
    repo_id, revision = source.dataset or "", source.revision
    check_repo_id(repo_id)
    if revision is not None:
        check_revision(revision)
        if is_sha(revision):
            return revision
    here = "" if Path(repo_id).exists() else " (there is no such file here)"
    what = f"looking up the dataset {printable(repo_id)}{here}"
    sha = client.ask(what, lambda: client.api.dataset_info(repo_id, revision=revision).sha, repo_id)
    if sha is None or not is_sha(sha):
        raise TrainingError(f"the Hub names no commit of the dataset {printable(repo_id)}")
    return sha


def _documents_of_rows(rows: Any, shown: str, column: str) -> Iterator[TextPiece]:
    features = rows.features
    if features is not None:
        if column not in features:
            is_text = [k for k, v in features.items() if "string" in str(getattr(v, "dtype", ""))]
            raise no_column(column, list(features), shown, is_text)
        rows = rows.select_columns([column])
    for i, row in enumerate(rows, 1):
        yield TextPiece(text_of(row, column, f"{shown} row {i}"), True)


def _loader(what: str) -> Any:
    if find_spec("datasets") is None:
        raise UsageError(
            f"{what} needs datasets, which is not installed", hint="pip install datasets"
        )
    datasets = import_module("datasets")
    version = str(datasets.__version__)
    if int(version.partition(".")[0]) < _FIRST_WITHOUT_SCRIPTS:
        raise UsageError(
            f"{what} needs datasets {_FIRST_WITHOUT_SCRIPTS} or later, not {printable(version)}",
            hint="pip install -U datasets",
        )
    return datasets.load_dataset


def _innermost(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return printable(error, 200)


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
    hint = argument("text_column", printable(text_columns[0])) if text_columns else ""
    return TrainingError(
        f"{where} has no column {printable(column)}; the columns are {known}", hint=hint
    )


def not_utf8(shown: str, offset: int, raw: bytes, start: int) -> TrainingError:
    """Return the error for bytes that are no UTF-8.

    Args:
        shown: The file, as messages name it.
        offset: Where `raw` begins in the file, in bytes.
        raw: The bytes.
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
