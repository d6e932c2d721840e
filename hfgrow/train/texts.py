"""The text of a run: every source of its recipe, tokenised once, and the order it is read in."""

from collections.abc import Sequence
from pathlib import Path

from hfgrow.checkpoint.config import read_config
from hfgrow.checkpoint.files import LocalFolder
from hfgrow.hub.client import HubClient
from hfgrow.progress import Progress
from hfgrow.train.data.corpus import Corpus, corpus_of, open_sources
from hfgrow.train.data.order import BlockOrder
from hfgrow.train.data.sources import TextSource
from hfgrow.train.data.tokenizer import open_tokenizer
from hfgrow.train.data.views import TokenView
from hfgrow.train.devices import Devices
from hfgrow.train.recipe import Recipe
from hfgrow.train.recipe_parts import Source


def open_texts(
    recipe: Recipe,
    base: Path,
    tokenizer: Path,
    tokens: Path,
    devices: Devices,
    client: HubClient,
    progress: Progress,
) -> tuple[Corpus, BlockOrder]:
    """Open the text of a recipe, which the main process tokenises if nobody has.

    Args:
        recipe: The recipe.
        base: The model that the run begins with.
        tokenizer: A model folder whose tokenizer is used.
        tokens: Where tokenised text lies.
        devices: The processes.
        client: The connection to the Hub, for text that lies there.
        progress: Told how it goes on.

    Raises:
        GrowthError: The text or the tokenizer is not there, or cannot be trained on.
        TrainingError: Not all processes see the same text.
    """
    config, _, _ = read_config(LocalFolder(base))
    opened_tokenizer = open_tokenizer(tokenizer)

    def views(sources: Sequence[Source]) -> tuple[TokenView, ...]:
        return open_sources(
            [text_source(source) for source in sources],
            opened_tokenizer,
            tokens,
            vocab_size=int(config["vocab_size"]),
            client=client,
            progress=progress,
        )

    def opened() -> Corpus:
        return corpus_of(
            views(recipe.data.train),
            views(recipe.data.validation),
            sequence_length=recipe.data.sequence_length,
            seed=recipe.seed,
        )

    corpus = devices.on_main(opened) or opened()
    for note in corpus.notes:
        progress.say(f"Note: {note}")
    order = BlockOrder(
        corpus.train,
        [source.weight for source in recipe.data.train],
        sequence_length=recipe.data.sequence_length,
        seed=recipe.seed,
    )
    devices.check_same("text", order.fingerprint)
    return corpus, order


def text_source(source: Source) -> TextSource:
    """Return a source of a recipe as the data layer takes it."""
    return TextSource(
        path=source.path,
        dataset=source.dataset,
        name=source.name,
        split=source.split,
        text_column=source.text_column,
    )
