"""Tokenise text once, into a folder that appears complete or not at all."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hfgrow.checkpoint.staging import staged
from hfgrow.console import Progress, Silent, counting
from hfgrow.errors import (
    HubUnreachableError,
    OutputError,
    TrainingError,
    UsageError,
    printable,
)
from hfgrow.hub.client import HubClient
from hfgrow.train.data.index import (
    INDEX,
    Index,
    fingerprint,
    read_index,
)
from hfgrow.train.data.pieces import Piece
from hfgrow.train.data.reading import documents_of, identify, size_of
from hfgrow.train.data.shards import MAX_SHARD_NBYTES, ShardWriter
from hfgrow.train.data.sources import TextSource
from hfgrow.train.data.token_files import TokenFiles, refuse_other_tokenizer
from hfgrow.train.data.tokenise import check_token, tokenise
from hfgrow.train.data.tokenizer import TextTokenizer

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
) -> TokenFiles:
    """Tokenise sources into a folder, or open the folder if it holds just that already.

    One process at a time; the others of a distributed run open the folder afterwards. Memory does
    not grow with the text, except 24 bytes or so a document where the tokens are used.

    Args:
        sources: What to read; the part of a split is not applied here, but by `TokenView.part`.
        tokenizer: What to tokenise with.
        folder: The folder to make.
        vocab_size: The rows of the model's embedding: a token must be below.
        overwrite: Whether prepared tokens of other text or another tokenizer are replaced.
        verify: Whether tokens that are there are read and compared with their hashes.
        max_shard_nbytes: The most bytes of one file of tokens.
        client: The connection to the Hub; None is the usual one.
        progress: Told how it goes on; None tells nobody.

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
    earlier = _earlier(folder, overwrite=overwrite, verify=verify)
    if earlier is not None and not overwrite:
        hint = "choose another folder, or add --overwrite"
        refuse_other_tokenizer(earlier, tokenizer, folder, hint)
    identities = _identities(sources, earlier, client, progress)
    wanted = fingerprint(tokenizer.identity, identities)
    if earlier is not None:
        if earlier.fingerprint == wanted:
            check_token(earlier.max_token, vocab_size, tokenizer)
            return TokenFiles(folder)
        if not overwrite:
            raise TrainingError(
                f"{printable(folder, 200)} holds the tokens of other text",
                hint="choose another folder, or add --overwrite",
            )
    with (
        staged(folder, overwrite=overwrite) as staging,
        ShardWriter(staging, 2 if vocab_size <= 1 << 16 else 4, max_shard_nbytes) as writer,
    ):
        records, max_token = [], 0
        for source, identity in zip(sources, identities, strict=True):
            with counting(progress, f"Tokenising {source.label}", size_of(source)) as advance:
                read = documents_of(source, identity, advance, client)
                pieces = _watched(read, source.label, progress)
                record, largest = tokenise(source, identity, pieces, tokenizer, writer, vocab_size)
            records.append(record)
            max_token = max(max_token, largest)
        shards, lists = writer.finish()
        index = Index(
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


def _earlier(folder: Path, *, overwrite: bool, verify: bool) -> Index | None:
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
            TokenFiles(folder).verify()
        return index
    except TrainingError:
        if overwrite:
            return None
        raise


def _watched(pieces: Iterator[Piece], label: str, progress: Progress) -> Iterator[Piece]:
    """Yield pieces of text; note once where they can hardly be text."""
    is_noted = False
    for piece in pieces:
        if "\0" in piece.text and not is_noted:
            progress.say(f"Note: {label} holds NUL characters, so it may be no text")
            is_noted = True
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
    earlier: Index | None,
    client: HubClient | None,
    progress: Progress,
) -> list[dict[str, Any]]:
    """Identify every source; a dataset that was prepared is enough where the Hub is not reached."""
    known = [source.identity for source in earlier.sources] if earlier else []
    found = []
    for i, source in enumerate(sources):
        before = known[i] if i < len(known) else {}
        try:
            found.append(identify(source, before, client))
        except HubUnreachableError:
            asked = {"dataset": source.dataset, "name": source.name, "split": source.whole_split}
            asked["text_column"] = source.text_column
            if source.revision is not None or not asked.items() <= before.items():
                raise
            progress.say(f"Note: the Hub does not answer; {source.label} is taken as prepared")
            found.append(before)
    return found
