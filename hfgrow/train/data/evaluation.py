"""Held-out text in order, every token of it predicted once, the same work for every rank."""

from collections.abc import Iterator

import numpy as np

from hfgrow.errors import TrainingError
from hfgrow.train.data.batches import NO_TARGET, collate
from hfgrow.train.data.loader import MicroBatch, ahead, as_tensors
from hfgrow.train.data.order import Block
from hfgrow.train.data.views import TokenView


def num_evaluation_blocks(
    view: TokenView, sequence_length: int, max_tokens: int | None = None
) -> int:
    """Return how many sequences the evaluation of a text has, the last one perhaps short.

    Raises:
        TrainingError: The text has no token to predict.
    """
    num_targets = view.num_tokens - 1
    if num_targets < 1:
        raise TrainingError(f"{view.label} has {view.num_tokens} usable tokens to validate on")
    num_blocks = -(-num_targets // sequence_length)
    if max_tokens is None:
        return num_blocks
    return max(1, min(num_blocks, max_tokens // sequence_length))


def evaluation_batches(
    view: TokenView,
    *,
    sequence_length: int,
    micro_batch_size: int,
    rank: int = 0,
    world_size: int = 1,
    max_tokens: int | None = None,
    document_mask: bool = False,
) -> Iterator[MicroBatch]:
    """Yield a rank's micro-batches of held-out text.

    Every rank has as many batches as the others; what is missing at the end are tokens without a
    target. Sum losses and `num_targets` over all of them.

    Args:
        view: The text.
        sequence_length: Tokens of a sequence.
        micro_batch_size: Sequences of a batch.
        rank: The process, from 0.
        world_size: Processes.
        max_tokens: Stop after about that many tokens; None takes all.
        document_mask: Whether documents do not see each other.

    Raises:
        TrainingError: The text has no token to predict.
    """
    num_blocks = num_evaluation_blocks(view, sequence_length, max_tokens)
    stride = world_size * micro_batch_size

    def load(first: int) -> MicroBatch:
        numbers = range(first, first + micro_batch_size)
        arrays = collate(
            [_block(view, min(n, num_blocks - 1), sequence_length) for n in numbers],
            document_mask=document_mask,
        )
        for row, number in zip(arrays.targets, numbers, strict=True):
            rest = view.num_tokens - 1 - number * sequence_length
            row[max(0, rest) if number < num_blocks else 0 :] = NO_TARGET
        return as_tensors(arrays, numbers, document_mask=document_mask)

    starts = range(rank * micro_batch_size, -(-num_blocks // stride) * stride, stride)
    return ahead(iter(starts), load, 1)


def _block(view: TokenView, number: int, sequence_length: int) -> Block:
    first = number * sequence_length
    tokens, starts = view.read(first, min(first + sequence_length + 1, view.num_tokens))
    padding = np.zeros(sequence_length + 1 - len(tokens), np.int64)
    return Block(np.concatenate((tokens, padding)), starts, 0)
