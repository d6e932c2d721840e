"""What text is read from: local files, a dataset of the Hub, or the text that Python carries."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hfgrow.errors import UsageError, printable

DEMO = "demo"
TRAIN, VALIDATION = "train", "validation"
TEXT, JSON_LINES, PARQUET = "text", "jsonl", "parquet"
KINDS = {
    ".txt": TEXT,
    ".text": TEXT,
    ".md": TEXT,
    ".jsonl": JSON_LINES,
    ".ndjson": JSON_LINES,
    ".json": JSON_LINES,
    ".parquet": PARQUET,
}
# Paragraphs end in a blank line, so two blank lines end a document.
TWO_BLANK_LINES = "\n\n\n"
_DATASET_URL = "hf://datasets/"
_SPLIT = re.compile(r"([\w.-]+)(?:\[(?:(\d{1,3})%)?:(?:(\d{1,3})%)?\])?", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class TextSource:
    """One source of text.

    Attributes:
        path: A text, jsonl or parquet file, a folder of these, or a pattern with `*`.
        dataset: A dataset on the Hub instead, org/name; `demo` is the documentation of Python's
            language that every Python carries.
        name: The configuration of the dataset.
        split: The split. Local text has the one split `train`. A part of any split by per cent of
            its tokens: `train[:99%]`, `train[99%:]`. That of `demo` has `validation` too: what the
            demo model was not trained on.
        text_column: The column of jsonl, parquet and datasets that holds the text.
        revision: Branch, tag or commit of the dataset.
        document_separator: Ends a document in a text file; None makes every file one document.
    """

    path: str | Path | None = None
    dataset: str | None = None
    name: str | None = None
    split: str = "train"
    text_column: str = "text"
    revision: str | None = None
    document_separator: str | None = TWO_BLANK_LINES

    def __post_init__(self) -> None:
        if (self.path is None) == (self.dataset is None):
            raise UsageError("a source of text has either a path or a dataset")
        if self.document_separator == "":
            raise UsageError("document_separator is empty; null makes every file one document")
        split, start, stop = _parsed_split(self.split)
        if not 0 <= start < stop <= 100:
            raise UsageError(f"the split {printable(self.split)} is no part of the text")
        known = (TRAIN, VALIDATION) if self.dataset == DEMO else (TRAIN,)
        if split not in known and (self.path is not None or self.dataset == DEMO):
            raise UsageError(
                f"{self.label} has no split {printable(split)}; it has {' and '.join(known)}, and "
                "parts such as train[:99%]"
            )

    @property
    def label(self) -> str:
        """A short name for messages and records, without the folders above it."""
        if self.path is not None:
            return printable(Path(self.path).name or "text")
        return printable("/".join(filter(None, (self.dataset, self.name))))

    @property
    def whole_split(self) -> str:
        """The split without its part."""
        return _parsed_split(self.split)[0]

    @property
    def part(self) -> tuple[int, int]:
        """Where the part of the split begins and ends, in per cent of its tokens."""
        return _parsed_split(self.split)[1:]


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


def text_files_of(source: TextSource) -> Sequence[DataFile]:
    """List the files of a local source, by name.

    Raises:
        UsageError: There is no such file, or none of a kind that can be read.
    """
    if source.path is None:
        return ()
    path = Path(source.path).expanduser()
    shown = printable(path, 200)
    if path.is_dir():
        try:
            found = [
                inner
                for inner in path.rglob("*")
                if not any(part.startswith(".") for part in inner.relative_to(path).parts)
            ]
        except OSError as error:
            raise UsageError(f"cannot look into {shown}: {error.strerror}") from error
        files = [DataFile(p, k, p.relative_to(path).as_posix()) for p in found if (k := _kind(p))]
    elif path.is_file():
        if not (kind := _kind(path)):
            raise UsageError(f"{shown} is none of {_kinds_shown()}", hint="name it by what it is")
        files = [DataFile(path, kind, path.name)]
    elif "*" in path.name and path.parent.is_dir():
        files = [DataFile(p, k, p.name) for p in path.parent.glob(path.name) if (k := _kind(p))]
    else:
        raise UsageError(f"there is no file or folder {shown}")
    if not files:
        raise UsageError(f"{shown} holds none of {_kinds_shown()}")
    return sorted(files, key=lambda file: file.name)


def is_compressed(path: Path) -> bool:
    """Say whether a file is read through gzip."""
    return path.suffix == ".gz"


def has_known_ending(path: Path) -> bool:
    """Say whether a name ends as that of a file of text does, whether it is there or not."""
    return _kind_of_name(path) is not None


def _kind(path: Path) -> str | None:
    return _kind_of_name(path) if path.is_file() else None


def _kind_of_name(path: Path) -> str | None:
    name = path.with_suffix("") if is_compressed(path) else path
    kind = KINDS.get(name.suffix.lower())
    return None if kind == PARQUET and is_compressed(path) else kind


def _kinds_shown() -> str:
    return ", ".join(f"*{suffix}" for suffix in KINDS) + " (all but parquet also as .gz)"


def _parsed_split(split: str) -> tuple[str, int, int]:
    if not (match := _SPLIT.fullmatch(split)):
        raise UsageError(
            f"the split {printable(split)} is not understood; expected such as train or train[:99%]"
        )
    return match[1], int(match[2] or 0), int(match[3] or 100)


def named_source(text: str, text_column: str = "text", split: str = TRAIN) -> TextSource:
    """Return the source of text that one word names: a file, a folder, a pattern or a dataset.

    What has the ending of a text file, or lies in a folder that is here, was meant as a file.

    Raises:
        UsageError: It is neither a file or folder nor the name of a dataset.
    """
    path = Path(text).expanduser()
    if text == DEMO and not path.exists():
        return TextSource(dataset=DEMO)
    if path.exists() or any(character in text for character in "*?["):
        return TextSource(path=path, text_column=text_column)
    dataset = text.removeprefix(_DATASET_URL)
    is_id = dataset.count("/") == 1 and not dataset.startswith((".", "/", "~"))
    is_file = dataset == text and (has_known_ending(path) or path.parent.is_dir())
    if not is_id or is_file:
        name = f"{_DATASET_URL}{printable(text, 200)}" if is_id else "org/name"
        raise UsageError(
            f"there is no file or folder {printable(text, 200)}",
            hint=f"name a file, a folder, or a dataset of the Hub as {name}",
        )
    return TextSource(dataset=dataset, text_column=text_column, split=split)
