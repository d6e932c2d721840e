"""The same bytes of texts for several models, each as its own tokenizer makes tokens of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hfgrow.checkpoint.config import read_config
from hfgrow.checkpoint.files import LocalFolder
from hfgrow.console import Progress
from hfgrow.errors import ModelError
from hfgrow.hub.client import HubClient
from hfgrow.train.data.corpus import open_sources
from hfgrow.train.data.sources import TextSource
from hfgrow.train.data.tokenizer import open_tokenizer
from hfgrow.train.data.views import TokenView


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model to be measured.

    Attributes:
        name: How it is called.
        folder: Where it lies.
        tokenizer: The folder of its tokenizer.
    """

    name: str
    folder: Path
    tokenizer: Path


def same_bytes(
    candidates: Sequence[Candidate],
    sources: Sequence[TextSource],
    *,
    max_tokens: int,
    cache: Path,
    client: HubClient,
    progress: Progress,
) -> list[list[TokenView]]:
    """Return the same part of every text as each model's tokens.

    Args:
        candidates: The models.
        sources: The texts.
        max_tokens: The most tokens of a text, by the first model's tokenizer.
        cache: Where the tokens are to lie.
        client: The connection to the Hub, for texts.
        progress: Told how it goes on.

    Raises:
        GrowthError: A text or a tokenizer cannot be read.
    """
    found: list[list[TokenView]] = []
    for candidate in candidates:
        config, _, _ = read_config(LocalFolder(candidate.folder))
        try:
            tokenizer = open_tokenizer(candidate.tokenizer)
        except ModelError as error:
            hint = "name a model that has one: --tokenizer MODEL"
            raise ModelError(str(error), hint=hint) from error
        views = open_sources(
            sources,
            tokenizer,
            cache,
            vocab_size=int(config["vocab_size"]),
            client=client,
            progress=progress,
        )
        first = found[0] if found else None
        found.append(
            [
                # One more than is predicted: the first token of a text is only read.
                view.between(0, min(view.num_tokens, max_tokens + 1))
                if first is None
                else _of_bytes(view, first[i].num_bytes)
                for i, view in enumerate(views)
            ]
        )
    return found


def _of_bytes(view: TokenView, num_bytes: int) -> TokenView:
    """Return the start of a view that stands for so many bytes, as nearly as tokens go."""
    least, most = 0, view.num_tokens
    while least < most:
        middle = (least + most) // 2
        if view.between(0, middle).num_bytes < num_bytes:
            least = middle + 1
        else:
            most = middle
    # What has no bytes of its own, such as the token that ends a document, belongs to the text.
    rest = view.num_tokens - least
    return view if rest <= 1 else view.between(0, least)
