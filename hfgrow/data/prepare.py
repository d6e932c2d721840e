"""Tokenise text once, into a folder that appears complete or not at all.

Sources are identified by their content first: what is there already is opened, not made again.
"""

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import chain, repeat
from pathlib import Path
from typing import Any

from hfgrow.checkpoint.staging import staged
from hfgrow.console import Progress, Silent, counting
from hfgrow.data.columns import pinned, read_columns, read_dataset, read_table
from hfgrow.data.data_files import (
    ARROW,
    ENDS_OF_TEXT,
    MEGATRON,
    NANOSET,
    PARQUET,
    PART,
    TABLE,
    TEXT,
    DataFile,
    beside,
    end_of_text_in,
    endings_of,
    failures,
    opened,
    parts_of,
)
from hfgrow.data.documents import Advance, Piece, TextPiece, TokenPiece, read_json, read_text
from hfgrow.data.foreign_tokens import copied, read_tokens
from hfgrow.data.sources import DEMO, TWO_BLANK_LINES, VALIDATION, TextSource, text_files_of
from hfgrow.data.text_tokenizer import TextTokenizer
from hfgrow.data.token_folder import (
    INDEX,
    MAX_SHARD_NBYTES,
    ShardWriter,
    TokenFiles,
    TokenIndex,
    fingerprint,
    read_index,
    refuse_other_tokenizer,
)
from hfgrow.data.tokenise import check_token, tokenise
from hfgrow.errors import (
    HubUnreachableError,
    OutputError,
    TrainingError,
    UsageError,
    argument,
    printable,
)
from hfgrow.hub.client import HubClient

_MAX_VOCAB_SIZE = 1 << 32


def prepare(
    sources: Sequence[TextSource],
    tokenizer: TextTokenizer,
    folder: Path,
    *,
    vocab_size: int,
    overwrite: bool = False,
    verify: bool = False,
    max_shard_nbytes: int = MAX_SHARD_NBYTES,
    client: HubClient | None = None,
    progress: Progress | None = None,
    keep_commits: bool = False,
) -> TokenFiles:
    """Tokenise sources into a folder, or open the folder if it holds just that already.

    One process at a time; the others of a distributed run open the folder afterwards. Memory does
    not grow with the text, except 24 bytes or so a document where the tokens are used.

    Args:
        sources: What to read; the part of a split is not applied here, but by `TokenView.part`.
        folder: The folder to make.
        vocab_size: The rows of the model's embedding: a token must be below.
        overwrite: Whether prepared tokens of other text or another tokenizer are replaced.
        verify: Whether tokens that are there are read and compared with their hashes.
        max_shard_nbytes: The most bytes of one file of tokens.
        client: The connection to the Hub; None is the usual one.
        progress: Told how it goes on; None tells nobody.
        keep_commits: Whether tokens of a dataset that are there are good, though its branch moved.

    Raises:
        TrainingError: The text cannot be used, or the folder holds another tokenizer's tokens.
        ModelError: The tokenizer makes tokens that the model does not have.
        OutputError: The folder holds something else, or cannot be written.
    """
    progress = progress or Silent()
    if not sources:
        raise UsageError("there is no source of text")
    if not 1 <= vocab_size <= _MAX_VOCAB_SIZE:
        raise UsageError(f"vocab_size {vocab_size} cannot be; expected 1 to {_MAX_VOCAB_SIZE}")
    for source in sources:
        _check_outside(folder, source)
    earlier = _earlier(folder, progress, overwrite=overwrite, verify=verify)
    if earlier is not None and not overwrite:
        hint = f"choose another folder, or add {argument('overwrite')}"
        refuse_other_tokenizer(earlier, tokenizer, folder, hint)
    identities = _identities(
        sources, earlier, client, progress, anew=overwrite, keep_commits=keep_commits
    )
    wanted = fingerprint(tokenizer.identity, identities)
    if earlier is not None:
        known = [source.identity for source in earlier.sources]
        before = fingerprint(tokenizer.identity, _as_named_before(identities, known))
        if before == earlier.fingerprint:
            wanted = before
        if earlier.fingerprint == wanted:
            check_token(earlier.max_token, vocab_size, tokenizer)
            return TokenFiles(folder)
        if not overwrite:
            raise TrainingError(
                f"{printable(folder, 200)} holds the tokens of other text",
                hint=f"choose another folder, or add {argument('overwrite')}",
            )
    with (
        staged(folder, overwrite=overwrite) as staging,
        ShardWriter(staging, 2 if vocab_size <= 1 << 16 else 4, max_shard_nbytes) as writer,
    ):
        records, max_token = [], 0
        for source, identity in zip(sources, identities, strict=True):
            for note in _notes_of(source, identity):
                progress.say(f"Note: {note}")
            with counting(progress, f"Tokenising {source.label}", size_of(source)) as advance:
                read = documents_of(source, identity, advance, client)
                pieces = _watched(_alike(read, source.label), source.label, progress)
                first = next(pieces, None)
                # What comes after the first is of its kind.
                every: Any = pieces if first is None else chain([first], pieces)
                is_tokens = isinstance(first, TokenPiece)
                make = partial(copied, say=progress.say) if is_tokens else tokenise
                record, largest = make(source, identity, every, tokenizer, writer, vocab_size)
            records.append(record)
            max_token = max(max_token, largest)
        shards, lists = writer.finish()
        index = TokenIndex(
            dtype="uint16" if vocab_size <= 1 << 16 else "uint32",
            tokenizer=tokenizer.identity,
            fingerprint=wanted,
            max_token=max_token,
            shards=shards,
            lists=lists,
            sources=tuple(records),
        )
        (staging / INDEX).write_text(index.to_json(), encoding="utf-8")
    return TokenFiles(folder)


def _earlier(
    folder: Path, progress: Progress, *, overwrite: bool, verify: bool
) -> TokenIndex | None:
    """Return what was prepared in the folder; what is damaged counts as nothing to overwrite."""
    if not folder.is_dir() or not any(folder.iterdir()):
        return None
    if not (folder / INDEX).is_file():
        raise OutputError(
            f"{printable(folder, 200)} exists and holds no prepared tokens",
            hint="choose another folder",
        )
    try:
        index = read_index(folder)
        if verify:
            TokenFiles(folder).verify(progress)
        return index
    except TrainingError as error:
        if overwrite:
            progress.say(f"Note: {error}; the text is prepared again")
            return None
        raise


def _notes_of(source: TextSource, identity: Mapping[str, Any]) -> Iterator[str]:
    yield from text_files_of(source).notes
    if mark := identity.get("end_of_text"):
        yield f"{source.label}: {mark} ends a document"


_NULL = TextPiece("", True)


def _alike(pieces: Iterator[Piece], label: str) -> Iterator[Piece]:
    kind: type[Piece] | None = None
    num_empty = 0
    for piece in pieces:
        if isinstance(piece, TextPiece) and piece == _NULL and kind is not TextPiece:
            # A null is of the kind that the others are.
            num_empty += 1
            continue
        if kind is not None and type(piece) is not kind:
            raise TrainingError(
                f"{label} holds text and token ids",
                hint="name them as two sources",
            )
        kind = type(piece)
        if kind is TextPiece:
            yield from repeat(_NULL, num_empty)
            num_empty = 0
        yield piece
    if kind is None:
        yield from repeat(_NULL, num_empty)


def _watched(pieces: Iterator[Piece], label: str, progress: Progress) -> Iterator[Piece]:
    """Yield pieces of text; note once where they can hardly be text, or one document each."""
    faults = {"\0": "NUL characters, so it may be no text"} | {
        mark: f"{mark} inside documents, which does not end them" for mark in ENDS_OF_TEXT
    }
    for piece in pieces:
        text = piece.text if isinstance(piece, TextPiece) else ""
        for found in [mark for mark in faults if mark in text]:
            progress.say(f"Note: {label} holds {faults.pop(found)}")
        yield piece


def _check_outside(folder: Path, source: TextSource) -> None:
    """Refuse to write into a folder of text: what is written would be read as text next time."""
    text = Path(source.path).expanduser() if source.path is not None else None
    if text is not None and text.is_dir() and text.resolve() in (folder / INDEX).resolve().parents:
        raise OutputError(
            f"{printable(folder, 200)} lies in the folder of the text, {printable(text, 200)}",
            hint="choose a folder beside it",
        )


def _identities(
    sources: Sequence[TextSource],
    earlier: TokenIndex | None,
    client: HubClient | None,
    progress: Progress,
    *,
    anew: bool,
    keep_commits: bool,
) -> list[dict[str, Any]]:
    """Identify every source; a dataset that was prepared is enough where the Hub is not reached."""
    known = [source.identity for source in earlier.sources] if earlier else []
    found = []
    for i, source in enumerate(sources):
        before = known[i] if i < len(known) else {}
        asked = {"dataset": source.dataset, "name": source.name, "split": source.whole_split}
        asked["text_column"] = source.text_column
        is_known = source.revision is None and asked.items() <= before.items()
        if keep_commits and is_known:
            found.append(before)
            continue
        try:
            found.append(identify(source, before, client, anew=anew))
        except HubUnreachableError:
            if not is_known:
                raise
            progress.say(f"Note: the Hub does not answer; {source.label} is taken as prepared")
            found.append(before)
    return found


def prepared_before(source: TextSource, tokenizer: TextTokenizer, cache: Path) -> Path | None:
    """Return the folder of a cache with the tokens of a source, whatever its files are called.

    Raises:
        GrowthError: A file cannot be read.
    """
    paths = [] if source.path is None else sorted(cache.glob(f"*/{INDEX}"))
    for folder in (path.parent for path in paths):
        try:
            index = read_index(folder)
        except TrainingError:
            continue
        known = [one.identity for one in index.sources]
        wanted = _as_named_before([identify(source, next(iter(known), {}))], known)
        if fingerprint(tokenizer.identity, wanted) == index.fingerprint:
            return folder
    return None


def _as_named_before(
    identities: Sequence[dict[str, Any]], known: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Return identities with the earlier names of files that have only been renamed since."""
    found = list(identities)
    for i, (identity, before) in enumerate(zip(identities, known, strict=False)):
        files, old = identity.get("files", []), before.get("files", [])
        if files and len(files) == len(old) and all(map(_is_renamed, files, old)):
            pairs = zip(files, old, strict=True)
            found[i] = identity | {"files": [file | {"name": one["name"]} for file, one in pairs]}
    return found


def _is_renamed(file: Mapping[str, Any], before: Mapping[str, Any]) -> bool:
    """Say whether two records are of one file: its bytes, and the ending that says how to read."""
    keys = ("sha256", "nbytes")
    return [file[key] for key in keys] == [before[key] for key in keys] and (
        endings_of(file["name"]) == endings_of(before["name"])
    )


def identify(
    source: TextSource,
    known: Mapping[str, Any],
    client: HubClient | None = None,
    *,
    anew: bool = False,
) -> dict[str, Any]:
    """Return what decides the documents of a source; no path is in it.

    Args:
        known: What was returned earlier: a file of the same size and time is not read again.
        client: The connection to the Hub; None is the usual one.
        anew: Whether documents may end elsewhere than they did when it was prepared earlier.

    Raises:
        GrowthError: A file cannot be read, or the Hub does not have the dataset.
    """
    identity: dict[str, Any] = {"text_column": source.text_column}
    if source.dataset == DEMO:
        split = source.whole_split
        text = "".join(piece.text for piece in demo_documents(split))
        digest = hashlib.sha256(text.encode()).hexdigest()
        return {"dataset": DEMO, "split": split, "sha256": digest}
    if source.dataset is not None:
        identity |= {"dataset": source.dataset, "name": source.name, "split": source.whole_split}
        return identity | {"revision": pinned(source, client or HubClient())}
    files = text_files_of(source).files
    if any(file.kind == TEXT for file in files):
        identity["document_separator"] = source.document_separator
        # What was prepared before marks were looked for keeps its documents.
        if (anew or "end_of_text" in known or not known) and (mark := _end_of_text(source, files)):
            identity["end_of_text"] = mark
    earlier = {file["name"]: file for file in known.get("files", ())}
    return identity | {"files": [_file(file, earlier.get(file.name, {})) for file in files]}


def _end_of_text(source: TextSource, files: Sequence[DataFile]) -> str:
    if source.document_separator != TWO_BLANK_LINES:
        return ""
    return next(filter(None, map(end_of_text_in, files)), "")


def size_of(source: TextSource) -> int:
    """Return the bytes that will be read, 0 where that is not known."""
    return sum(_read_path(file).stat().st_size for file in _read_files(source))


def _read_files(source: TextSource) -> list[DataFile]:
    """Return the files that documents come from, without what lies beside them."""
    return [file for file in text_files_of(source).files if file.kind != PART]


def _read_path(file: DataFile) -> Path:
    """Return the file whose bytes are counted: of an index the tokens beside it."""
    return parts_of(file.path, file.kind)[0] if file.kind == MEGATRON else file.path


def documents_of(
    source: TextSource,
    identity: Mapping[str, Any],
    advance: Advance,
    client: HubClient | None = None,
) -> Iterator[Piece]:
    """Read the documents of a source.

    Args:
        identity: What `identify` returned for it.
        advance: Told how many bytes of local files were read.
        client: The connection to the Hub; None is the usual one.

    Raises:
        TrainingError: What is read is no text; or a file changed since it was identified.
        GrowthError: The Hub says no, or does not answer.
    """
    if source.dataset == DEMO:
        yield from demo_documents(source.whole_split)
    elif source.dataset is not None:
        yield from read_dataset(source, identity["revision"], client or HubClient())
    known = {file["name"]: (file["nbytes"], file["mtime_ns"]) for file in identity.get("files", ())}
    for file in _read_files(source):
        yield from _read(file, source, identity.get("end_of_text"), advance)
        # What lies beside it is read with it.
        for one in (file, *beside(file)):
            with failures(one):
                if _stamp(one) != known.get(one.name):
                    raise TrainingError(f"{one.shown} changed while it was read")


def _read(
    file: DataFile, source: TextSource, end_of_text: str | None, advance: Advance
) -> Iterator[Piece]:
    if file.kind in (MEGATRON, NANOSET):
        yield from read_tokens(file, advance)
        return
    if file.kind in (PARQUET, ARROW):
        yield from read_columns(file, source.text_column)
        advance(file.path.stat().st_size)
        return
    separator = source.document_separator
    if end_of_text and end_of_text_in(file) == end_of_text:
        separator = end_of_text
    with opened(file) as (stream, raw):
        pieces: Iterator[Piece]
        if file.kind == TEXT:
            pieces = read_text(stream, file.shown, separator)
        elif file.kind == TABLE:
            tab = ".tsv" in (suffix.lower() for suffix in file.path.suffixes)
            pieces = read_table(stream, file.shown, source.text_column, "\t" if tab else ",")
        else:
            pieces = read_json(stream, file.shown, source.text_column)
        done = 0
        for piece in pieces:
            yield piece
            if (position := raw.tell()) != done:
                advance(position - done)
                done = position


def _file(file: DataFile, earlier: Mapping[str, Any]) -> dict[str, Any]:
    with failures(file):
        nbytes, mtime_ns = _stamp(file)
        record = {"name": file.name, "nbytes": nbytes, "mtime_ns": mtime_ns}
        if (nbytes, mtime_ns) == (earlier.get("nbytes"), earlier.get("mtime_ns")):
            return record | {"sha256": earlier["sha256"]}
        with file.path.open("rb") as raw:
            return record | {"sha256": hashlib.file_digest(raw, "sha256").hexdigest()}


def _stamp(file: DataFile) -> tuple[int, int]:
    found = os.stat(file.path)
    return found.st_size, found.st_mtime_ns


def demo_documents(split: str) -> Sequence[TextPiece]:
    """Return the topics that `help()` of Python shows: those to train on, or those held out.

    Held out are the topics that the demo model was not trained on; paragraphs that stand in these
    too are not trained on either.
    """
    from pydoc_data.topics import topics

    texts = [topics[name].strip() + "\n" for name in sorted(topics)]
    held_out = [text for text in texts if is_held_out(text)]
    if split == VALIDATION:
        return [TextPiece(text, True) for text in held_out]
    known = {" ".join(part.split()) for text in held_out for part in text.split("\n\n")}
    return [
        TextPiece(
            "\n\n".join(p for p in text.split("\n\n") if " ".join(p.split()) not in known), True
        )
        for text in texts
        if text not in held_out
    ]


def is_held_out(text: str) -> bool:
    """Say whether the demo model was never trained on a document: about one in 20, by sha256."""
    return hashlib.sha256(text.encode()).digest()[0] % 20 == 0
