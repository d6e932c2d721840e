"""index.json of a folder of tokens: what lies there, checked in full when it is read."""

import hashlib
import json
import re
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from hfgrow.errors import TrainingError, printable

INDEX = "index.json"
SCHEMA = 1
KIND = "hfgrow tokens"
STARTS, HASHES, NBYTES, SKETCHES = "starts.u64", "hashes.u64", "nbytes.u64", "sketches.u64"
DTYPES = ("uint16", "uint32")
_MAX_INDEX_NBYTES = 1 << 27
_SHARD = re.compile(r"tokens-\d{5,}\.bin", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)


@dataclass(frozen=True)
class FileRecord:
    """A file of the folder: a shard of tokens, or one of the lists of 64-bit numbers.

    The lists have an entry a document: `starts` where it begins, with one more entry for the end of
    the last one; `hashes` of its text; `nbytes` of its text in UTF-8. `sketches` has the samples of
    all sources, one after the other.
    """

    file: str
    nbytes: int
    sha256: str


@dataclass(frozen=True)
class SourceRecord:
    """A source as it lies in the folder: tokens and documents [first, first + number)."""

    label: str
    identity: dict[str, Any]
    first_token: int
    num_tokens: int
    first_document: int
    num_documents: int
    num_blank: int
    num_bytes: int
    sketch_size: int
    sketch_shift: int


@dataclass(frozen=True)
class Index:
    """The content of index.json; `fingerprint` stands for everything that decides the tokens."""

    dtype: str
    tokenizer: dict[str, Any]
    fingerprint: str
    max_token: int
    shards: tuple[FileRecord, ...]
    lists: tuple[FileRecord, ...]
    sources: tuple[SourceRecord, ...]

    @property
    def num_tokens(self) -> int:
        """The tokens of all sources."""
        return sum(source.num_tokens for source in self.sources)

    @property
    def num_documents(self) -> int:
        """The documents of all sources."""
        return sum(source.num_documents for source in self.sources)

    @property
    def itemsize(self) -> int:
        """Bytes of a token."""
        return 2 if self.dtype == "uint16" else 4

    def to_json(self) -> str:
        """Return the text of index.json."""
        content = {"kind": KIND, "schema": SCHEMA, "num_tokens": self.num_tokens, **asdict(self)}
        return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def fingerprint(tokenizer: dict[str, Any], identities: list[dict[str, Any]]) -> str:
    """Return the hash of what decides the tokens; when a file was written does not."""
    sources = [
        {**identity, "files": [_without_time(file) for file in identity.get("files", ())]}
        for identity in identities
    ]
    content = {"schema": SCHEMA, "tokenizer": tokenizer, "sources": sources}
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def read_index(folder: Path) -> Index:
    """Read index.json and compare it with the sizes of the files beside it.

    Raises:
        TrainingError: There is none, it is damaged, or a file is missing or of another size.
    """
    path = folder / INDEX
    shown = printable(path, 200)
    try:
        if path.stat().st_size > _MAX_INDEX_NBYTES:
            raise TrainingError(f"{shown} has more than {_MAX_INDEX_NBYTES} bytes")
        content = json.loads(path.read_text(encoding="utf-8"))
        if (content["kind"], content["schema"]) != (KIND, SCHEMA):
            raise TrainingError(f"{shown} is no index of tokens that this hfgrow reads")
        index = _index(content)
    except FileNotFoundError as error:
        what = "holds no prepared tokens" if folder.is_dir() else "does not exist"
        raise TrainingError(
            f"{printable(folder, 200)} {what}",
            hint="hfgrow data prepare SOURCE --tokenizer MODEL --out DIR makes such a folder",
        ) from error
    except (OSError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise TrainingError(
            f"{shown} is damaged: {printable(error, 120)}", hint=prepare_again(folder)
        ) from error
    for record in (*index.shards, *index.lists):
        file = folder / record.file
        found = file.stat().st_size if file.is_file() else None
        if found != record.nbytes:
            was = "is missing" if found is None else f"has {found} bytes"
            raise TrainingError(
                f"{printable(file, 200)} {was}, {INDEX} says {record.nbytes} bytes",
                hint=prepare_again(folder),
            )
    return index


def prepare_again(folder: Path) -> str:
    """Return what to do about a damaged folder."""
    return f"prepare the text again with --overwrite, or remove {printable(folder, 200)} first"


def _index(content: dict[str, Any]) -> Index:
    index = Index(
        dtype=content["dtype"],
        tokenizer=dict(content["tokenizer"]),
        fingerprint=content["fingerprint"],
        max_token=_count(content["max_token"]),
        shards=tuple(_file(entry) for entry in content["shards"]),
        lists=tuple(_file(entry) for entry in content["lists"]),
        sources=tuple(_source(entry) for entry in content["sources"]),
    )
    first_token = first_document = 0
    for source in index.sources:
        numbers = {k: v for k, v in asdict(source).items() if k not in ("label", "identity")}
        if not all(_count(number) >= 0 for number in numbers.values()) or source.sketch_shift > 63:
            raise ValueError("a source has an impossible number")
        if (source.first_token, source.first_document) != (first_token, first_document):
            raise ValueError("the sources do not follow each other")
        first_token += source.num_tokens
        first_document += source.num_documents
    sizes = {
        STARTS: index.num_documents + 1,
        HASHES: index.num_documents,
        NBYTES: index.num_documents,
        SKETCHES: sum(source.sketch_size for source in index.sources),
    }
    if index.dtype not in DTYPES or not all(_SHARD.fullmatch(s.file) for s in index.shards):
        raise ValueError("the shards are not understood")
    if {record.file: record.nbytes for record in index.lists} != {
        name: 8 * size for name, size in sizes.items()
    }:
        raise ValueError("the lists do not fit the number of documents")
    if index.max_token >= 1 << 8 * index.itemsize:
        raise ValueError("the largest token is too large")
    nbytes = [shard.nbytes for shard in index.shards]
    if sum(nbytes) != index.num_tokens * index.itemsize or any(n % index.itemsize for n in nbytes):
        raise ValueError("the shards do not fit the number of tokens")
    if not all(nbytes):
        raise ValueError("a shard is empty")
    return index


def _source(entry: dict[str, Any]) -> SourceRecord:
    record = SourceRecord(**entry)
    if not isinstance(record.label, str) or not isinstance(record.identity, dict):
        raise TypeError("a source has no label or identity")
    return replace(record, label=printable(record.label, 200))


def _file(entry: dict[str, Any]) -> FileRecord:
    record = FileRecord(**entry)
    if not _SHA256.fullmatch(record.sha256) or _count(record.nbytes) < 0:
        raise ValueError("a file has no sha256 or size")
    return record


def _count(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 62:
        raise ValueError(f"{value!r} is no count")
    return value


def _without_time(file: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in file.items() if key != "mtime_ns"}
