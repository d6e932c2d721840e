"""What text is read from: local files, a dataset of the Hub, or the text that Python carries."""

import re
from dataclasses import dataclass, replace
from pathlib import Path

from hfgrow.data.data_files import (
    ARROW,
    PARQUET,
    TextFiles,
    has_known_ending,
    megatron_hint,
    text_files,
)
from hfgrow.errors import UsageError, argument, printable

DEMO = "demo"
TRAIN, VALIDATION = "train", "validation"
# Paragraphs end in a blank line, so two blank lines end a document.
TWO_BLANK_LINES = "\n\n\n"
_DATASET_URL = "hf://datasets/"
_SPLIT = re.compile(r"([\w.-]+)(?:\[(?:(\d{1,3})%)?:(?:(\d{1,3})%)?\])?", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class TextSource:
    """One source of text.

    Attributes:
        path: A file of text, JSON, CSV, parquet or arrow, or of tokens, Megatron's .idx or
            datatrove's .ds; a folder of these, or a pattern with `*`.
        dataset: A dataset on the Hub instead, org/name; `demo` is the documentation of Python's
            language that every Python carries.
        name: The configuration of the dataset.
        split: The split. Local text has the one split `train`. A part of any split by per cent of
            its tokens: `train[:99%]`, `train[99%:]`. That of `demo` has `validation` too: what the
            demo model was not trained on.
        text_column: The column of JSON, tables and datasets that holds the text, or lists of
            tokens.
        revision: Branch, tag or commit of the dataset.
        document_separator: Ends a document in a text file; None makes every file one document. Two
            blank lines where nothing is said, or the mark of the end of a text, such as
            `<|endoftext|>`, where the file begins with a document that ends so.
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


def text_files_of(source: TextSource) -> TextFiles:
    """List the files of a local source, by name; a dataset has none here.

    Raises:
        UsageError: There is no such file, or none of a kind that can be read.
    """
    return TextFiles(()) if source.path is None else text_files(Path(source.path).expanduser())


def most_tokens(source: TextSource) -> int | None:
    """Return what the tokens of a local source are hardly more than: its bytes.

    Returns:
        None for a dataset of the Hub, and for files that are compressed, whole or inside.

    Raises:
        UsageError: As `text_files_of`.
    """
    files = text_files_of(source).files
    if not files or any(file.compression or file.kind in (ARROW, PARQUET) for file in files):
        return None
    start, stop = source.part
    return sum(file.path.stat().st_size for file in files) * (stop - start) // 100


def _parsed_split(split: str) -> tuple[str, int, int]:
    if not (match := _SPLIT.fullmatch(split)):
        raise UsageError(
            f"the split {printable(split)} is not understood; expected such as train or train[:99%]"
        )
    return match[1], int(match[2] or 0), int(match[3] or 100)


def held_out_source(
    text: str, text_column: str = "text", split: str | None = None, name: str | None = None
) -> TextSource:
    """Return the source of text to measure on: of a dataset, its validation where nobody says.

    Raises:
        UsageError: As `named_source`.
    """
    source = named_source(text, text_column, name=name)
    return replace(source, split=split or (TRAIN if source.path is not None else VALIDATION))


def named_source(
    text: str, text_column: str = "text", split: str = TRAIN, name: str | None = None
) -> TextSource:
    """Return the source of text that one word names: a file, a folder, a pattern or a dataset.

    What has the ending of a text file, or lies in a folder that is here, was meant as a file.

    Raises:
        UsageError: It is neither a file or folder nor the name of a dataset; or a file that is
            asked for a configuration or another split.
    """
    path = Path(text).expanduser()
    if text == DEMO and not path.exists():
        return TextSource(dataset=DEMO, split=split)
    if path.exists() or any(character in text for character in "*?["):
        if name is not None:
            raise UsageError(
                f"{argument('name', name)} is of a dataset of the Hub; files have no configurations"
            )
        return TextSource(path=path, text_column=text_column, split=split)
    dataset = text.removeprefix(_DATASET_URL)
    is_id = dataset.count("/") == 1 and not dataset.startswith((".", "/", "~"))
    is_file = dataset == text and (has_known_ending(path) or path.parent.is_dir())
    if not is_id or is_file:
        shown = f"{_DATASET_URL}{printable(text, 200)}" if is_id else "org/name"
        raise UsageError(
            f"there is no file or folder {printable(text, 200)}",
            hint=megatron_hint(path)
            or f"name a file, a folder, or a dataset of the Hub as {shown}",
        )
    return TextSource(dataset=dataset, text_column=text_column, split=split, name=name)
