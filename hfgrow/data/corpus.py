"""From the sources of a recipe to views of tokens: prepared where needed, opened where not."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hfgrow.console import Progress
from hfgrow.data.hashing import key
from hfgrow.data.held_out import hold_out, overlaps
from hfgrow.data.prepare import prepare, prepared_before
from hfgrow.data.sources import TextSource
from hfgrow.data.text_tokenizer import TextTokenizer
from hfgrow.data.token_folder import INDEX, TokenFiles
from hfgrow.data.views import TokenView
from hfgrow.hub.client import HubClient

# The part of a training text that is held out where no validation text is named.
HELD_OUT = 0.005
_NOT_A_NAME = re.compile(r"[^\w.-]+", re.ASCII)


@dataclass(frozen=True)
class Corpus:
    """The text of a run: a view for every source to train on, and to validate on.

    Attributes:
        train: What is trained on.
        validation: What is held out.
        notes: Lines for the user: text in both, how text was held out.
    """

    train: tuple[TokenView, ...]
    validation: tuple[TokenView, ...]
    notes: tuple[str, ...]


def open_sources(
    sources: Sequence[TextSource],
    tokenizer: TextTokenizer,
    cache: Path,
    *,
    vocab_size: int,
    client: HubClient | None = None,
    progress: Progress | None = None,
) -> tuple[TokenView, ...]:
    """Return the tokens of every source, prepared once into a folder of its own below `cache`.

    A source whose path is a folder that `prepare` wrote is used where it lies. In the cache, tokens
    of text that changed are replaced.

    Args:
        sources: What to read.
        tokenizer: What to tokenise with.
        vocab_size: The rows of the model's embedding.
        client: The connection to the Hub; None is the usual one.
        progress: Told how it goes on; None tells nobody.

    Raises:
        GrowthError: As `prepare`; or a prepared folder fits neither tokenizer nor model.
    """
    folders = token_folders(
        sources, tokenizer, cache, vocab_size=vocab_size, client=client, progress=progress
    )
    return views_of(sources, folders)


def token_folders(
    sources: Sequence[TextSource],
    tokenizer: TextTokenizer,
    cache: Path,
    *,
    vocab_size: int,
    client: HubClient | None = None,
    progress: Progress | None = None,
    keep_commits: bool = False,
) -> tuple[Path, ...]:
    """Return where the tokens of every source lie, which are prepared unless they do already.

    Tokens that lie there are read and compared with their hashes: those of the cache are prepared
    again where they are damaged. With `keep_commits`, which is that of `prepare`, they are good
    where text was moved or renamed; other arguments and errors are those of `open_sources`.
    """
    folders = []
    for source in sources:
        if source.path is not None and (Path(source.path).expanduser() / INDEX).is_file():
            files = TokenFiles(Path(source.path).expanduser())
            files.check_tokenizer(tokenizer, vocab_size)
            files.verify(progress)
        else:
            folder = cache / _folder_name(source, tokenizer)
            if keep_commits and not folder.exists():
                folder = prepared_before(source, tokenizer, cache) or folder
            files = prepare(
                [source],
                tokenizer,
                folder,
                vocab_size=vocab_size,
                overwrite=True,
                verify=True,
                client=client,
                progress=progress,
                keep_commits=keep_commits,
            )
        folders.append(files.folder)
    return tuple(folders)


def views_of(sources: Sequence[TextSource], folders: Sequence[Path]) -> tuple[TokenView, ...]:
    """Return the tokens of every source from its folder; its text is not looked at.

    Raises:
        TrainingError: A folder holds no tokens, or is damaged.
    """
    pairs = zip(sources, folders, strict=True)
    return tuple(TokenView.of(TokenFiles(folder)).part(*s.part) for s, folder in pairs)


def corpus_of(
    train: Sequence[TokenView],
    validation: Sequence[TokenView],
    *,
    sequence_length: int,
    seed: int,
    fraction: float = HELD_OUT,
) -> Corpus:
    """Make sure that there is validation text, and look for it in the training text.

    Args:
        train: What to train on.
        validation: What to validate on; without, a part of every training text is held out.
        sequence_length: Tokens of a sequence; no less is held out of a text.
        seed: Decides what is held out.
        fraction: The part of the tokens to hold out.

    Raises:
        TrainingError: A text is too small to hold any of it out.
    """
    if validation:
        warnings = tuple(overlap.warning for overlap in overlaps(validation, train))
        return Corpus(tuple(train), tuple(validation), warnings)
    held = [hold_out(view, fraction, at_least=sequence_length + 1, seed=seed) for view in train]
    notes = [
        f"no document of {part.validation.label} is short enough to be held out: its last "
        f"{part.validation.num_tokens} tokens are"
        for part in held
        if not part.by_documents
    ]
    trained = tuple(part.train for part in held)
    validation = tuple(part.validation for part in held)
    notes += [overlap.warning for overlap in overlaps(validation, trained)]
    return Corpus(trained, validation, tuple(notes))


def _folder_name(source: TextSource, tokenizer: TextTokenizer) -> str:
    """Name the folder of a source by what it is and how it is read, not by its content."""
    where = source.path and Path(source.path).expanduser().absolute()
    how = (source.name, source.whole_split, source.text_column, source.revision)
    what = (where, source.dataset, *how, source.document_separator, tokenizer.identity)
    name = _NOT_A_NAME.sub("-", source.label)[:60].strip(".-") or "text"
    return f"{name}-{key('folder', *map(repr, what)):016x}"
