"""Which files hold text: their kinds, what of a folder is read, and what is left out and why."""

import bz2
import gzip
import io
import lzma
import re
import zlib
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO, cast

from hfgrow.errors import TrainingError, UsageError, printable, said

TEXT, JSON, PARQUET, ARROW, TABLE = "text", "json", "parquet", "arrow", "table"
# Tokens that others made: Megatron-LM's index, datatrove's tokens; what lies beside either.
MEGATRON, NANOSET, PART = "megatron", "nanoset", "part"
KINDS = {
    ".txt": TEXT,
    ".text": TEXT,
    ".md": TEXT,
    ".jsonl": JSON,
    ".ndjson": JSON,
    ".json": JSON,
    ".csv": TABLE,
    ".tsv": TABLE,
    ".parquet": PARQUET,
    ".arrow": ARROW,
    ".idx": MEGATRON,
    ".ds": NANOSET,
}
COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst")
# Kinds that are read as they lie, their compression inside.
_NEVER_COMPRESSED = (PARQUET, ARROW, MEGATRON, NANOSET)
# What lies beside text and tells of it; a licence on its own is no text to train on.
_BESIDE = re.compile(
    r"(licen[cs]e|notice|copying|citation|changelog|contributing|code_of_conduct|security)"
    r"([._-].*)?|requirements[\w-]*\.txt",
    re.IGNORECASE,
)
_CARD = re.compile(r"readme([._-].*)?", re.IGNORECASE)
# What datasets writes beside its arrow files, and keeps of what it computed.
_OF_DATASETS = re.compile(r"dataset_infos?\.json|state\.json|dataset_dict\.json|cache-.*\.arrow")
# As datasets finds splits: a word of a folder or file, between what is no letter.
_HELD_OUT = re.compile(
    r"(^|[^a-z])(test|testing|valid|validation|val|dev|eval|evaluation|heldout)(?![a-z])",
    re.IGNORECASE,
)
_MOST_NAMED = 5


@dataclass(frozen=True)
class DataFile:
    """A local file of text: its path, its kind, and its name below the source's path."""

    path: Path
    kind: str
    name: str

    @property
    def shown(self) -> str:
        """The file as messages name it."""
        return printable(self.path, 200)

    @property
    def compression(self) -> str:
        """The ending of its compression; empty if it has none."""
        return _compression(self.path)


@dataclass(frozen=True)
class TextFiles:
    """The files of a source, by name, and what to tell of those that are left out."""

    files: Sequence[DataFile]
    notes: Sequence[str] = ()


def text_files(path: Path) -> TextFiles:
    """List the files of a path: of a folder what is text to train on, else what is named.

    Of a folder the card, licences and the files of other splits are left out, as `datasets` leaves
    them out.

    Raises:
        UsageError: There is no such file, or none of a kind that can be read.
    """
    shown = printable(path, 200)
    if path.is_dir():
        try:
            found = [
                inner
                for inner in path.rglob("*")
                if inner.is_file()
                and not any(part.startswith(".") for part in inner.relative_to(path).parts)
            ]
        except OSError as error:
            raise UsageError(f"cannot look into {shown}: {error.strerror}") from error
        listed = _of_folder({p.relative_to(path).as_posix(): p for p in sorted(found)}, shown)
    elif path.is_file():
        if path.suffix == ".bin" and path.with_suffix(".idx").is_file():
            path = path.with_suffix(".idx")
        if not (kind := _kind_of_name(path)):
            raise UsageError(f"{shown} is none of {_kinds_shown()}", hint="convert it to one")
        listed = TextFiles([DataFile(path, kind, path.name)])
    elif "*" in path.name and path.parent.is_dir():
        found = [p for p in path.parent.glob(path.name) if p.is_file()]
        listed = _readable({p.name: p for p in found}, shown)
    else:
        raise UsageError(
            f"there is no file or folder {shown}",
            hint=megatron_hint(path)
            or "name one that is here; a dataset of the Hub stands under the key dataset",
        )
    files = [part for file in listed.files for part in (file, *beside(file))]
    return TextFiles(sorted(files, key=lambda file: file.name), listed.notes)


def megatron_hint(path: Path) -> str:
    """Return what to name where a pair of files is named as Megatron does; else nothing."""
    index, tokens = (path.with_name(f"{path.name}{ending}") for ending in (".idx", ".bin"))
    is_pair = path.name and index.is_file() and tokens.is_file()
    return f"name {printable(index, 200)}" if is_pair else ""


def parts_of(path: Path, kind: str) -> list[Path]:
    """Return the files beside one of tokens that belong to it: the tokens, or their index.

    Raises:
        UsageError: One is missing.
    """
    needed, known = [], []
    if kind == MEGATRON:
        needed = [path.with_suffix(".bin")]
    elif kind == NANOSET:
        needed = [path.with_name(f"{path.name}.index")]
        known = [path.with_name(f"{path.name}.metadata")]
    for part in needed:
        if not part.is_file():
            raise UsageError(
                f"{printable(path, 200)} lacks {printable(part.name)} beside it",
                hint="put it there, under that name",
            )
    return [*needed, *(part for part in known if part.is_file())]


def _is_complete(path: Path) -> bool:
    """Say whether what belongs to a file of tokens is there; of other files nothing does."""
    try:
        parts_of(path, _kind_of_name(path) or "")
    except UsageError:
        return False
    return True


def beside(file: DataFile) -> list[DataFile]:
    """Return the files that belong to one of tokens, by their names below the source's path.

    Raises:
        UsageError: One is missing.
    """
    folder = Path(file.name).parent
    parts = parts_of(file.path, file.kind)
    return [DataFile(part, PART, (folder / part.name).as_posix()) for part in parts]


def _of_folder(paths: dict[str, Path], shown: str) -> TextFiles:
    beside = {name for name in paths if _BESIDE.fullmatch(Path(name).name)}
    beside |= {name for name in paths if _OF_DATASETS.fullmatch(Path(name).name)}
    # Prose has its README as its first page; a dataset has it as its card.
    cards = {name for name in paths if _CARD.fullmatch(Path(name).name)}
    data = [
        path
        for name, path in paths.items()
        if name not in beside | cards and path.suffix.lower() != ".md" and _kind_of_name(path)
    ]
    beside |= {name for name in cards if data or _has_metadata(paths[name])}
    rest = {name: path for name, path in paths.items() if name not in beside}
    held_out = {name for name in rest if _HELD_OUT.search(name)}
    if held_out == rest.keys():
        held_out = set()
    torn = {name for name, path in rest.items() if not _is_complete(path)}
    listed = _readable({n: p for n, p in rest.items() if n not in held_out | torn}, shown)
    notes = list(listed.notes)
    if torn:
        notes.append(f"tokens without their other file, left out of {shown}: {_named(torn)}")
    if told := {name for name in beside if not _OF_DATASETS.fullmatch(Path(name).name)}:
        notes.append(f"no text to train on, left out of {shown}: {_named(told)}")
    if held_out:
        notes.append(f"another split than train, left out of {shown}: {_named(held_out)}")
    return TextFiles(listed.files, notes)


def _readable(paths: dict[str, Path], shown: str) -> TextFiles:
    files = [DataFile(p, k, name) for name, p in paths.items() if (k := _kind_of_name(p))]
    unread = paths.keys() - {file.name for file in files}
    unread -= {part.name for file in files for part in beside(file)}
    if not files:
        found = f", only {_named(unread)}" if unread else ""
        raise UsageError(f"{shown} holds none of {_kinds_shown()}{found}")
    note = f"of no kind that is read, left out of {shown}: {_named(unread)}"
    return TextFiles(files, [note] if unread else [])


def _has_metadata(card: Path) -> bool:
    try:
        with card.open("rb") as file:
            return file.read(3) == b"---"
    except OSError:
        return False


def _named(names: Collection[str]) -> str:
    first = ", ".join(printable(name) for name in sorted(names)[:_MOST_NAMED])
    more = len(names) - _MOST_NAMED
    count = f"{len(names)} files, " if len(names) > 1 else ""
    return f"{count}{first}" + (f" and {more} more" if more > 0 else "")


def has_known_ending(path: Path) -> bool:
    """Say whether a name ends as that of a file of text does, whether it is there or not."""
    return _kind_of_name(path) is not None


def endings_of(name: str) -> tuple[str, ...]:
    """Return the endings that say how a file is read, such as (.jsonl, .zst)."""
    path = Path(name)
    if compression := _compression(path):
        return path.with_suffix("").suffix.lower(), compression
    return (path.suffix.lower(),)


def _compression(path: Path) -> str:
    suffix = path.suffix.lower()
    return suffix if suffix in COMPRESSIONS else ""


def _kind_of_name(path: Path) -> str | None:
    compression = _compression(path)
    kind = KINDS.get((path.with_suffix("") if compression else path).suffix.lower())
    return None if compression and kind in _NEVER_COMPRESSED else kind


def _kinds_shown() -> str:
    known = ", ".join(f"*{suffix}" for suffix in KINDS)
    return f"{known} (text, JSON and tables also as {', '.join(COMPRESSIONS)})"


@contextmanager
def opened(file: DataFile) -> Iterator[tuple[BinaryIO, BinaryIO]]:
    """Open a file for reading: what it holds, decompressed, and the file as it lies.

    Raises:
        TrainingError: It cannot be read, now or in the block.
        UsageError: What decompresses it is not installed.
    """
    with failures(file), file.path.open("rb") as raw:
        yield _decompressed(raw, file), raw


def _decompressed(raw: BinaryIO, file: DataFile) -> BinaryIO:
    # These streams have all that is used of a binary one.
    match file.compression:
        case ".gz":
            return cast(BinaryIO, gzip.GzipFile(fileobj=raw))
        case ".bz2":
            return cast(BinaryIO, bz2.BZ2File(raw))
        case ".xz":
            return cast(BinaryIO, lzma.LZMAFile(raw))
        case ".zst":
            return _from_zstd(raw, file)
    return raw


def _from_zstd(raw: BinaryIO, file: DataFile) -> BinaryIO:
    if find_spec("pyarrow") is None:
        raise UsageError(
            f"reading {file.shown} needs pyarrow, which is not installed",
            hint=f"pip install datasets, or decompress it: zstd -d {file.shown}",
        )
    arrow: Any = import_module("pyarrow")
    stream = arrow.CompressedInputStream(arrow.PythonFile(raw, mode="r"), "zstd")
    return cast(BinaryIO, io.BufferedReader(stream, 1 << 20))


@contextmanager
def failures(file: DataFile) -> Iterator[None]:
    """Turn what reading a file raises into one of our errors.

    Raises:
        TrainingError: It cannot be read or decompressed.
    """
    try:
        yield
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        reason = getattr(error, "strerror", None) or said(error)
        hint = "it is damaged, or not what its name says" if file.compression else ""
        what = f"decompress {file.shown}" if file.compression else f"read {file.shown}"
        raise TrainingError(f"cannot {what}: {reason}", hint=hint) from error


ENDS_OF_TEXT = ("<|endoftext|>", "<|end_of_text|>")
# Standing at an end of a line, these end a document; the others alone in one.
_ENDS = re.compile(
    r"^[ \t]*(<\|endoftext\|>|<\|end_of_text\|>)|(<\|endoftext\|>|<\|end_of_text\|>)[ \t]*$"
    r"|^[ \t]*(</s>|<eos>)[ \t]*$",
    re.MULTILINE,
)
_HEAD_NBYTES = 1 << 20


def end_of_text_in(file: DataFile) -> str:
    """Return the mark that ends documents in a text file, by its beginning; empty if none does.

    As in TinyStories, and where texts were joined for GPT-2.

    Raises:
        TrainingError: The file cannot be read.
    """
    if file.kind != TEXT:
        return ""
    with opened(file) as (stream, _):
        head = stream.read(_HEAD_NBYTES).decode("utf-8", errors="replace").replace("\r\n", "\n")
    found = _ENDS.search(head)
    return next(filter(None, found.groups()), "") if found else ""
