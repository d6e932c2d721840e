"""The folder of tokens: memory-mapped shards, the lists of documents, and an index of both.

Opened, it reads as one long row of numbers. index.json is checked in full, and against the sizes of
the files, whenever it is read.
"""

import hashlib
import json
import re
from array import array
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from hfgrow.console import Progress, Silent, counting
from hfgrow.data.sketch import Hashes, Sketch
from hfgrow.data.text_tokenizer import TextTokenizer
from hfgrow.errors import TrainingError, argument, command, printable, said

INDEX = "index.json"
SCHEMA = 1
KIND = "hfgrow tokens"
STARTS, HASHES, NBYTES, SKETCHES = "starts.u64", "hashes.u64", "nbytes.u64", "sketches.u64"
DTYPES = ("uint16", "uint32")
_MAX_INDEX_NBYTES = 1 << 27
_SHARD = re.compile(r"tokens-\d{5,}\.bin", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
Tokens = npt.NDArray[np.int64]
Positions = npt.NDArray[np.int64]
MAX_SHARD_NBYTES = 1 << 30
_READ_NBYTES = 8 << 20


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
class TokenIndex:
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


class TokenFiles:
    """Tokens that `prepare` wrote.

    Raises:
        TrainingError: It holds no tokens, or is damaged.

    Attributes:
        folder: The folder.
        index: What lies there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.index: TokenIndex = read_index(folder)
        dtype = np.dtype(self.index.dtype).newbyteorder("<")
        self._shards = [
            np.memmap(folder / shard.file, dtype, mode="r") for shard in self.index.shards
        ]
        sizes = [len(shard) for shard in self._shards]
        self._first = np.concatenate(([0], np.cumsum(sizes, dtype=np.int64)))
        starts = self.starts
        if int(starts[0]) != 0 or int(starts[-1]) != self.num_tokens:
            raise TrainingError(
                f"{printable(folder / STARTS, 200)} does not fit the shards",
                hint=prepare_again(folder),
            )

    @property
    def num_tokens(self) -> int:
        """The tokens of all sources."""
        return self.index.num_tokens

    @property
    def sources(self) -> tuple[SourceRecord, ...]:
        """The sources, in the order of their tokens."""
        return self.index.sources

    @cached_property
    def starts(self) -> Hashes:
        """Where every document begins, and at last where the last one ends."""
        return self._list(STARTS)

    @cached_property
    def hashes(self) -> Hashes:
        """The hash of every document's text."""
        return self._list(HASHES)

    @cached_property
    def nbytes(self) -> Hashes:
        """The bytes of every document's text in UTF-8."""
        return self._list(NBYTES)

    def read(self, start: int, stop: int) -> Tokens:
        """Return the tokens [start, stop) of all.

        Raises:
            TrainingError: One is larger than the index says that any is.
        """
        if not 0 <= start <= stop <= self.num_tokens:
            raise IndexError(f"tokens [{start}, {stop}) of {self.num_tokens}")
        parts = []
        i = int(np.searchsorted(self._first, start, side="right")) - 1
        while start < stop:
            first, end = int(self._first[i]), int(self._first[i + 1])
            parts.append(self._shards[i][start - first : min(stop, end) - first])
            start, i = min(stop, end), i + 1
        tokens = np.concatenate(parts).astype(np.int64) if parts else np.zeros(0, np.int64)
        if tokens.max(initial=0) > self.index.max_token:
            raise TrainingError(
                f"{printable(self.folder, 200)} is damaged: it holds the token {tokens.max()}, and "
                f"its index says that {self.index.max_token} is the largest",
                hint=prepare_again(self.folder),
            )
        return tokens

    def documents_between(self, start: int, stop: int) -> Positions:
        """Return where in [start, stop) documents begin, counted from the first token of all."""
        lo, hi = np.searchsorted(self.starts[:-1], np.array([start, stop], np.uint64))
        return np.asarray(self.starts[lo:hi]).astype(np.int64)

    def sketch(self, source: int) -> Sketch:
        """Return the sample of passages of a source."""
        first = sum(record.sketch_size for record in self.sources[:source])
        record = self.sources[source]
        hashes = self._list(SKETCHES)[first : first + record.sketch_size]
        return Sketch(np.asarray(hashes), record.sketch_shift)

    def check_tokenizer(self, tokenizer: TextTokenizer, vocab_size: int) -> None:
        """Refuse tokens that another tokenizer made, or that the model does not have.

        Raises:
            TrainingError: They do not fit.
        """
        hint = "prepare the text again, in another folder"
        refuse_other_tokenizer(self.index, tokenizer, self.folder, hint)
        if self.index.max_token >= vocab_size:
            raise TrainingError(
                f"{printable(self.folder, 200)} holds the token {self.index.max_token}, "
                f"but the model's vocab_size is {vocab_size}"
            )

    def verify(self, progress: Progress | None = None) -> None:
        """Read every file and compare its hash with the index.

        Args:
            progress: Told how far it is; None tells nobody.

        Raises:
            TrainingError: One is damaged.
        """
        records = (*self.index.shards, *self.index.lists)
        total = sum(record.nbytes for record in records)
        with counting(progress or Silent(), "Checking tokens", total) as advance:
            for record in records:
                path, digest = self.folder / record.file, hashlib.sha256()
                with path.open("rb", buffering=0) as file:
                    while piece := file.read(_READ_NBYTES):
                        digest.update(piece)
                        advance(len(piece))
                found = digest.hexdigest()
                if found != record.sha256:
                    raise TrainingError(
                        f"{printable(path, 200)} is damaged: its sha256 is {found[:12]}, not "
                        f"{record.sha256[:12]}",
                        hint=prepare_again(self.folder),
                    )

    def _list(self, name: str) -> Hashes:
        path = self.folder / name
        if not path.stat().st_size:
            return np.zeros(0, np.uint64)
        return np.memmap(path, "<u8", mode="r")


def refuse_other_tokenizer(
    index: TokenIndex, tokenizer: TextTokenizer, folder: Path, hint: str
) -> None:
    """Refuse tokens of a folder that another tokenizer made.

    Raises:
        TrainingError: They are.
    """
    if index.tokenizer != tokenizer.identity:
        raise TrainingError(
            f"{printable(folder, 200)} was tokenised with another tokenizer "
            f"({str(index.tokenizer.get('sha256'))[:12]}, not {tokenizer.sha256[:12]})",
            hint=hint,
        )


def fingerprint(tokenizer: dict[str, Any], identities: list[dict[str, Any]]) -> str:
    """Return the hash of what decides the tokens; when a file was written does not."""
    sources = [
        {**identity, "files": [_without_time(file) for file in identity.get("files", ())]}
        for identity in identities
    ]
    content = {"schema": SCHEMA, "tokenizer": tokenizer, "sources": sources}
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def read_index(folder: Path) -> TokenIndex:
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
            hint=command("data prepare SOURCE", tokenizer="MODEL", out="DIR")
            + " makes such a folder",
        ) from error
    except (OSError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise TrainingError(
            f"{shown} is damaged: {said(error, 120)}", hint=prepare_again(folder)
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
    shown = printable(folder, 200)
    return f"prepare the text again with {argument('overwrite')}, or remove {shown} first"


def _index(content: dict[str, Any]) -> TokenIndex:
    index = TokenIndex(
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


class Stream:
    """A file that is written once from the start, and hashed on the way."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.nbytes = 0
        self._file: BinaryIO = path.open("xb")
        self._sha256 = hashlib.sha256()

    def write(self, raw: bytes) -> None:
        """Append bytes."""
        self._file.write(raw)
        self._sha256.update(raw)
        self.nbytes += len(raw)

    def abandon(self) -> None:
        """Close the file, finished or not."""
        self._file.close()

    def close(self) -> FileRecord:
        """Finish the file and return its record."""
        self._file.close()
        return FileRecord(self.path.name, self.nbytes, self._sha256.hexdigest())


class ShardWriter:
    """Writes the tokens and documents of all sources into a folder, little endian.

    Args:
        folder: An empty folder.
        itemsize: Bytes of a token: 2 or 4.
        max_shard_nbytes: The most bytes of one file of tokens.
    """

    def __init__(self, folder: Path, itemsize: int, max_shard_nbytes: int) -> None:
        self._folder = folder
        self._dtype = np.dtype(f"<u{itemsize}")
        self._most_tokens = max(1, max_shard_nbytes // itemsize)
        self._shard: Stream | None = None
        self._in_shard = 0
        self._shards: list[FileRecord] = []
        self._lists = {name: Stream(folder / name) for name in (STARTS, HASHES, NBYTES, SKETCHES)}
        self.num_tokens = 0
        self.num_documents = 0

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(self, *error: object) -> None:
        for stream in filter(None, (self._shard, *self._lists.values())):
            stream.abandon()

    def append(
        self,
        tokens: npt.NDArray[np.uint32],
        starts: "array[int]",
        hashes: "array[int]",
        nbytes: "array[int]",
    ) -> None:
        """Append tokens, and what is known of the documents that begin and end in them.

        Args:
            starts: Where documents begin, counted from the first token of all.
            hashes: The hashes of the documents that end here.
            nbytes: The bytes of their text.
        """
        small = tokens.astype(self._dtype)
        while len(small):
            if self._shard is None:
                self._shard = Stream(self._folder / f"tokens-{len(self._shards):05d}.bin")
                self._in_shard = 0
            part = small[: self._most_tokens - self._in_shard]
            self._shard.write(part.tobytes())
            self._in_shard += len(part)
            if self._in_shard == self._most_tokens:
                self._close_shard()
            small = small[len(part) :]
        self.num_tokens += len(tokens)
        self.num_documents += len(hashes)
        for name, numbers in ((STARTS, starts), (HASHES, hashes), (NBYTES, nbytes)):
            self.append_list(name, np.array(numbers, np.uint64))

    def append_list(self, name: str, numbers: npt.NDArray[np.uint64]) -> None:
        """Append to one of the lists."""
        self._lists[name].write(numbers.astype("<u8").tobytes())

    def finish(self) -> tuple[tuple[FileRecord, ...], tuple[FileRecord, ...]]:
        """Close all files; return the records of the shards and of the lists."""
        self._close_shard()
        self.append_list(STARTS, np.array([self.num_tokens], np.uint64))
        return tuple(self._shards), tuple(stream.close() for stream in self._lists.values())

    def _close_shard(self) -> None:
        if self._shard is not None:
            self._shards.append(self._shard.close())
            self._shard = None
