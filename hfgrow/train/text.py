"""The text of a run: every source of its recipe, tokenised once, and the order it is read in."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain, count
from pathlib import Path

from hfgrow.checkpoint.files import LocalFolder
from hfgrow.checkpoint.read import read
from hfgrow.console import Progress
from hfgrow.data.corpus import Corpus, corpus_of, token_folders, views_of
from hfgrow.data.order import BlockOrder
from hfgrow.data.text_tokenizer import TextTokenizer, open_tokenizer
from hfgrow.data.views import TokenView
from hfgrow.errors import ModelError
from hfgrow.hub.client import HubClient
from hfgrow.plan.families import FAMILIES
from hfgrow.train.devices import Devices
from hfgrow.train.recipe.parts import text_source
from hfgrow.train.recipe.recipe import Recipe


def open_texts(
    recipe: Recipe,
    base: Path,
    tokenizer: Path,
    tokens: Path,
    devices: Devices,
    client: HubClient,
    progress: Progress,
    *,
    resume: bool = False,
) -> tuple[Corpus, BlockOrder]:
    """Open the text of a recipe, which the main process tokenises if nobody has.

    Args:
        base: The model that the run begins with.
        tokenizer: A model folder whose tokenizer is used.
        tokens: Where tokenised text lies.
        client: The connection to the Hub, for text that lies there.
        resume: Whether a run goes on: datasets are then of the commits that it began with.

    Raises:
        GrowthError: The text or the tokenizer is not there, or cannot be trained on.
        TrainingError: Not all processes see the same text.
    """
    plan = read(LocalFolder(base))
    vocab_size = int(plan.settings["vocab_size"])
    opened_tokenizer = open_tokenizer(tokenizer)

    sources = [text_source(s) for s in (*recipe.data.train, *recipe.data.validation)]
    # The others neither read nor identify text: it may change while the main one reads it.
    folders = devices.shared(
        lambda: token_folders(
            sources,
            opened_tokenizer,
            tokens,
            vocab_size=vocab_size,
            client=client,
            progress=progress,
            keep_commits=resume,
        )
    )
    num_train = len(recipe.data.train)

    def opened() -> Corpus:
        views = begun(views_of(sources, folders), plan.family, opened_tokenizer, recipe.data.bos)
        found = corpus_of(
            views[:num_train],
            views[num_train:],
            sequence_length=recipe.data.sequence_length,
            seed=recipe.seed,
        )
        return replace(found, validation=_distinct(found.validation))

    corpus = devices.on_main(opened) or opened()
    for note in (*corpus.notes, *lacks(plan.family, opened_tokenizer, recipe.data.bos)):
        progress.say(f"Note: {note}")
    order = BlockOrder(
        corpus.train,
        [source.weight for source in recipe.data.train],
        sequence_length=recipe.data.sequence_length,
        seed=recipe.seed,
    )
    num_samples = recipe.tokens // recipe.data.sequence_length
    for view, num_epochs in zip(order.views, order.epochs(num_samples), strict=True):
        if num_epochs > 1:
            most = "at most " if recipe.may_end_early else ""
            progress.say(f"Note: {view.label} is read {most}{num_epochs:.1f} times")
    devices.check_same("text", order.fingerprint)
    return corpus, order


def begun(
    views: Sequence[TokenView], model_type: str, tokenizer: TextTokenizer, bos: str | None = None
) -> tuple[TokenView, ...]:
    """Return texts whose sequences begin as the family was trained with, or as is wanted.

    Args:
        tokenizer: What they were tokenised with.
        bos: `sequence` or `document`; None is what the family was trained with.

    Raises:
        ModelError: Sequences are to begin with a token that the tokenizer does not name.
    """
    if bos == "sequence" and tokenizer.bos is None:
        raise ModelError(
            "data.bos is sequence, but the tokenizer names no bos_token to begin one with",
            hint="set bos_token in tokenizer_config.json, or leave data.bos out",
        )
    begins = bos == "sequence" or (bos is None and _usually_begins(model_type))
    return tuple(replace(view, bos=tokenizer.bos if begins else None) for view in views)


def lacks(model_type: str, tokenizer: TextTokenizer, bos: str | None) -> tuple[str, ...]:
    """Return a note where sequences should begin with a token that the tokenizer does not name."""
    if bos is not None or tokenizer.bos is not None or not _usually_begins(model_type):
        return ()
    return (
        f"a {model_type} is trained on sequences that begin with bos_token, and the tokenizer "
        "names none: they begin as the text falls",
    )


def _usually_begins(model_type: str) -> bool:
    family = FAMILIES.get(model_type)
    return family is not None and family.begins_with_bos


def _distinct(views: Sequence[TokenView]) -> tuple[TokenView, ...]:
    """Return held-out texts with labels that differ, since losses are recorded by them."""
    labels: list[str] = []
    for view in views:
        numbered = (f"{view.label} ({i})" for i in count(2))
        labels.append(next(x for x in chain([view.label], numbered) if x not in labels))
    return tuple(replace(view, label=x) for view, x in zip(views, labels, strict=True))
