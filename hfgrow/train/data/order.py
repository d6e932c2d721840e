"""The order of training: sample n is a pure function of n, the seed and the text.

Neither ranks nor workers nor what was read before have a part in it, so that to resume is to go on
at a number.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from hfgrow.errors import TrainingError, UsageError
from hfgrow.train.data.mixture import Mixture
from hfgrow.train.data.permutation import Permutation
from hfgrow.train.data.token_files import Positions, Tokens
from hfgrow.train.data.views import TokenView


@dataclass(frozen=True, eq=False)
class Block:
    """A sample.

    Attributes:
        tokens: Its tokens and the one after, int64 [sequence_length + 1].
        starts: Where in `tokens` documents begin, in order.
        source: The number of the source, from 0.
    """

    tokens: Tokens
    starts: Positions
    source: int


@dataclass(frozen=True)
class Place:
    """Where a sample comes from: the source, its pass over the source, and the block in it."""

    source: int
    epoch: int
    block: int


class BlockOrder:
    """The samples of a training run.

    The tokens of a source are parted into blocks of `sequence_length`; with a block goes the token
    after it, so that every token but the first is predicted once an epoch. Every epoch of every
    source has an order of its own.

    Args:
        views: The text, one view a source.
        weights: The share of every source.
        sequence_length: Tokens of a sample.
        seed: Decides the order.

    Raises:
        UsageError: A weight or the length cannot be.
        TrainingError: A source has less than one block.
    """

    def __init__(
        self,
        views: Sequence[TokenView],
        weights: Sequence[float],
        *,
        sequence_length: int,
        seed: int,
    ) -> None:
        if len(views) != len(weights):
            raise UsageError(f"{len(views)} sources have {len(weights)} weights")
        if sequence_length < 1:
            raise UsageError(f"sequence_length must be at least 1, not {sequence_length}")
        self.views = tuple(views)
        self.mixture = Mixture(weights)
        self.sequence_length = sequence_length
        self.seed = seed
        self.num_blocks = tuple((view.num_tokens - 1) // sequence_length for view in views)
        for view, num_blocks in zip(views, self.num_blocks, strict=True):
            if num_blocks < 1:
                raise TrainingError(
                    f"{view.label} has {view.num_tokens} usable tokens, fewer than one sequence "
                    f"of {sequence_length} and the token after it",
                    hint="give it more text, or choose a smaller sequence_length",
                )
        self._permutation = lru_cache(4 * len(self.views))(self._make_permutation)

    @property
    def fingerprint(self) -> str:
        """A hash of all that decides the order and the text: a checkpoint resumes only with it."""
        content: list[object] = [view.fingerprint for view in self.views]
        content += [self.mixture.slots, self.sequence_length, self.seed]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    def place(self, sample: int) -> Place:
        """Return where a sample comes from; it may have any number from 0."""
        source, count = self.mixture.place(sample)
        epoch, place = divmod(count, self.num_blocks[source])
        return Place(source, epoch, self._permutation(source, epoch)[place])

    def block(self, sample: int) -> Block:
        """Return a sample."""
        place = self.place(sample)
        first = place.block * self.sequence_length
        tokens, starts = self.views[place.source].read(first, first + self.sequence_length + 1)
        return Block(tokens, starts, place.source)

    def epochs(self, num_samples: int) -> tuple[float, ...]:
        """Return how many passes over each source the first samples are."""
        counts = self.mixture.counts(num_samples)
        return tuple(n / blocks for n, blocks in zip(counts, self.num_blocks, strict=True))

    def _make_permutation(self, source: int, epoch: int) -> Permutation:
        return Permutation(self.num_blocks[source], self.seed, source, epoch)


def check_sequence_length(sequence_length: int, max_position_embeddings: int) -> None:
    """Refuse sequences that are longer than the model's positions.

    Raises:
        UsageError: They are.
    """
    if sequence_length > max_position_embeddings:
        raise UsageError(
            f"sequence_length {sequence_length} is above the model's max_position_embeddings "
            f"{max_position_embeddings}",
            hint=f"--sequence-length {max_position_embeddings}",
        )
