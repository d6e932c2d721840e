"""The text of a study, tokenised once before runs that begin at the same time would each do it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hfgrow.checkpoint.staging import translated
from hfgrow.console import Progress, Silent
from hfgrow.data.corpus import corpus_of, open_sources
from hfgrow.data.tokenizer import open_tokenizer
from hfgrow.data.views import TokenView
from hfgrow.errors import printable
from hfgrow.growth.models import local_folder, locate
from hfgrow.hub.client import HubClient
from hfgrow.train.recipe.parts import FreshModel, Source
from hfgrow.train.recipe.recipe import Recipe
from hfgrow.train.text import text_source
from hfgrow.train.weights import fresh_config


def tokenise(recipe: Recipe, tokens: Path, progress: Progress) -> dict[str, Any]:
    """Tokenise the text of a study, and return what it is.

    Args:
        recipe: Of one of its runs.
        tokens: The folder of tokenised text.
        progress: Told how it goes on.

    Returns:
        `train` and `validation`, of each text `label`, `num_tokens` and `fingerprint`; and `notes`,
        such as that the two share documents.

    Raises:
        GrowthError: A text or the tokenizer is not there, or cannot be trained on.
    """
    assert isinstance(recipe.base, FreshModel)
    assert recipe.tokenizer is not None
    client = HubClient()
    ref = locate(recipe.tokenizer, None, client, progress)
    tokenizer = open_tokenizer(local_folder(ref, client, Silent()))
    vocab_size = int(fresh_config(recipe.base.config).vocab_size)
    with translated(printable(tokens, 200)):
        tokens.mkdir(parents=True, exist_ok=True)

    def views(sources: Sequence[Source]) -> tuple[TokenView, ...]:
        return open_sources(
            [text_source(source) for source in sources],
            tokenizer,
            tokens,
            vocab_size=vocab_size,
            client=client,
            progress=progress,
        )

    train, validation = views(recipe.data.train), views(recipe.data.validation)
    length = recipe.data.sequence_length
    corpus = corpus_of(train, validation, sequence_length=length, seed=recipe.seed)
    for note in corpus.notes:
        progress.say(f"Note: {note}")
    return {
        "train": [_described(view) for view in train],
        "validation": [_described(view) for view in validation],
        "notes": list(corpus.notes),
    }


def text_lines(text: dict[str, Any] | None, num_read: int) -> list[str]:
    """Return what was read, in a few lines.

    Args:
        text: What `tokenise` returned; None if nobody wrote it down.
        num_read: Tokens of the longest run.
    """
    if text is None:
        return ["Which text the runs read is not recorded."]
    parts = {
        what: ", ".join(f"{one['label']} ({one['num_tokens']:,} tokens)" for one in text[what])
        for what in ("train", "validation")
    }
    num_tokens = sum(one["num_tokens"] for one in text["train"])
    held_out = parts["validation"] or "a part of that, another one for each seed"
    return [
        f"Text: {parts['train']}, of which the longest run read {num_read:,} tokens, "
        f"{num_read / num_tokens:.2g} times as many as there are. Held out: {held_out}.",
        *(f"Note: {note}." for note in text["notes"]),
    ]


def _described(view: TokenView) -> dict[str, Any]:
    label = printable(view.label, 200)
    return {"label": label, "num_tokens": view.num_tokens, "fingerprint": view.fingerprint}
