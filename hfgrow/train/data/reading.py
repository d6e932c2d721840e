"""Open sources: what identifies their content, and their documents as a stream."""

import gzip
import hashlib
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO, cast

from hfgrow.errors import TrainingError
from hfgrow.hub.client import HubClient
from hfgrow.train.data.json_lines import read_json_lines
from hfgrow.train.data.pieces import Advance, Piece
from hfgrow.train.data.sources import (
    DEMO,
    PARQUET,
    TEXT,
    VALIDATION,
    DataFile,
    TextSource,
    files_of,
    is_compressed,
)
from hfgrow.train.data.tables import pinned, read_dataset, read_parquet
from hfgrow.train.data.text_files import read_text


def identify(
    source: TextSource, known: Mapping[str, Any], client: HubClient | None = None
) -> dict[str, Any]:
    """Return what decides the documents of a source; no path is in it.

    Args:
        source: The source.
        known: What was returned earlier: a file of the same size and time is not read again.
        client: The connection to the Hub; None is the usual one.

    Raises:
        GrowthError: A file cannot be read, or the Hub does not have the dataset.
    """
    identity: dict[str, Any] = {"text_column": source.text_column}
    if source.dataset == DEMO:
        split = source.whole_split
        text = "".join(piece.text for piece in _demo(split))
        digest = hashlib.sha256(text.encode()).hexdigest()
        return {"dataset": DEMO, "split": split, "sha256": digest}
    if source.dataset is not None:
        identity |= {"dataset": source.dataset, "name": source.name, "split": source.whole_split}
        return identity | {"revision": pinned(source, client or HubClient())}
    files = files_of(source)
    if any(file.kind == TEXT for file in files):
        identity["document_separator"] = source.document_separator
    earlier = {file["name"]: file for file in known.get("files", ())}
    return identity | {"files": [_file(file, earlier.get(file.name, {})) for file in files]}


def size_of(source: TextSource) -> int:
    """Return the bytes that will be read, 0 where that is not known."""
    return sum(file.path.stat().st_size for file in files_of(source))


def documents_of(
    source: TextSource,
    identity: Mapping[str, Any],
    advance: Advance,
    client: HubClient | None = None,
) -> Iterator[Piece]:
    """Read the documents of a source.

    Args:
        source: The source.
        identity: What `identify` returned for it.
        advance: Told how many bytes of local files were read.
        client: The connection to the Hub; None is the usual one.

    Raises:
        TrainingError: What is read is no text; or a file changed since it was identified.
        GrowthError: The Hub says no, or does not answer.
    """
    if source.dataset == DEMO:
        yield from _demo(source.whole_split)
    elif source.dataset is not None:
        yield from read_dataset(source, identity["revision"], client or HubClient())
    for file, record in zip(files_of(source), identity.get("files", ()), strict=True):
        yield from _read(file, source, advance)
        if _stamp(file) != (record["nbytes"], record["mtime_ns"]):
            raise TrainingError(f"{file.shown} changed while it was read")


def _read(file: DataFile, source: TextSource, advance: Advance) -> Iterator[Piece]:
    if file.kind == PARQUET:
        yield from read_parquet(file, source.text_column)
        advance(file.path.stat().st_size)
        return
    with _failures(file), file.path.open("rb") as raw:
        # gzip's stream has all that is used of a binary one.
        stream = cast(BinaryIO, gzip.GzipFile(fileobj=raw)) if is_compressed(file.path) else raw
        if file.kind == TEXT:
            pieces = read_text(stream, file.shown, source.document_separator)
        else:
            pieces = read_json_lines(stream, file.shown, source.text_column)
        done = 0
        for piece in pieces:
            yield piece
            if (position := raw.tell()) != done:
                advance(position - done)
                done = position


def _file(file: DataFile, earlier: Mapping[str, Any]) -> dict[str, Any]:
    with _failures(file):
        nbytes, mtime_ns = _stamp(file)
        record = {"name": file.name, "nbytes": nbytes, "mtime_ns": mtime_ns}
        if (nbytes, mtime_ns) == (earlier.get("nbytes"), earlier.get("mtime_ns")):
            return record | {"sha256": earlier["sha256"]}
        with file.path.open("rb") as raw:
            return record | {"sha256": hashlib.file_digest(raw, "sha256").hexdigest()}


def _stamp(file: DataFile) -> tuple[int, int]:
    found = os.stat(file.path)
    return found.st_size, found.st_mtime_ns


@contextmanager
def _failures(file: DataFile) -> Iterator[None]:
    try:
        yield
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise TrainingError(f"cannot read {file.shown}: {reason}") from error


def _demo(split: str) -> Sequence[Piece]:
    """Return the topics that `help()` of Python shows: those to train on, or those held out.

    Held out are the topics that the demo model was not trained on; paragraphs that stand in these
    too are not trained on either.
    """
    from pydoc_data.topics import topics

    texts = [topics[name].strip() + "\n" for name in sorted(topics)]
    held_out = [text for text in texts if is_held_out(text)]
    if split == VALIDATION:
        return [Piece(text, True) for text in held_out]
    known = {" ".join(part.split()) for text in held_out for part in text.split("\n\n")}
    return [
        Piece("\n\n".join(p for p in text.split("\n\n") if " ".join(p.split()) not in known), True)
        for text in texts
        if text not in held_out
    ]


def is_held_out(text: str) -> bool:
    """Say whether the demo model was never trained on a document: about one in 20, by sha256."""
    return hashlib.sha256(text.encode()).digest()[0] % 20 == 0
