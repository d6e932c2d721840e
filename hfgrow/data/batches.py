"""Samples as the numbers that a model is given: a rank's micro-batches, read ahead by threads.

Their order does not depend on the threads. Held-out text comes in order, every token of it
predicted once, the same work for every rank.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from hfgrow.data.order import Block, BlockOrder
from hfgrow.data.token_folder import Tokens
from hfgrow.data.views import TokenView
from hfgrow.errors import TrainingError, UsageError, argument

if TYPE_CHECKING:
    import torch

# What torch's cross-entropy leaves out.
NO_TARGET = -100
Item = TypeVar("Item")
Done = TypeVar("Done")


@dataclass(frozen=True, kw_only=True)
class BatchPlan:
    """How the samples of a step are parted.

    Attributes:
        world_size: Processes.
        micro_batch_size: Samples that a process takes at once.
        accumulation: Micro-batches of a process in a step.
    """

    world_size: int
    micro_batch_size: int
    accumulation: int

    def __post_init__(self) -> None:
        for name in ("world_size", "micro_batch_size", "accumulation"):
            if (value := getattr(self, name)) < 1:
                raise UsageError(f"{name} must be at least 1, not {value}")

    @classmethod
    def of_tokens(
        cls, batch_tokens: int, *, sequence_length: int, micro_batch_size: int, world_size: int
    ) -> "BatchPlan":
        """Return the plan of steps of `batch_tokens` tokens over all processes.

        Raises:
            UsageError: They are no whole number of micro-batches for every process.
        """
        unit = sequence_length * micro_batch_size * world_size
        if batch_tokens < unit or batch_tokens % unit:
            below, above = batch_tokens // unit * unit, -(-batch_tokens // unit) * unit
            raise UsageError(
                f"batch_tokens {batch_tokens} is no multiple of sequence_length {sequence_length} "
                f"x micro_batch_size {micro_batch_size} x {world_size} processes = {unit}",
                hint=" or ".join(argument("batch_tokens", n) for n in (below, above) if n),
            )
        return cls(
            world_size=world_size,
            micro_batch_size=micro_batch_size,
            accumulation=batch_tokens // unit,
        )

    @property
    def num_samples(self) -> int:
        """Samples of a step, over all processes."""
        return self.world_size * self.micro_batch_size * self.accumulation

    def samples(self, first_sample: int, rank: int) -> tuple[range, ...]:
        """Return the samples of a rank's micro-batches in the step that begins at `first_sample`.

        All ranks together take [first_sample, first_sample + num_samples), each sample once; with
        the same `num_samples` that is the same batch for any number of ranks.

        Args:
            first_sample: Samples consumed before the step.
            rank: The process, from 0.
        """
        if not 0 <= rank < self.world_size:
            raise UsageError(f"rank {rank} of {self.world_size} processes")
        stride = self.world_size * self.micro_batch_size
        begin = first_sample + rank * self.micro_batch_size
        starts = (begin + i * stride for i in range(self.accumulation))
        return tuple(range(start, start + self.micro_batch_size) for start in starts)


@dataclass(frozen=True, eq=False, kw_only=True)
class Arrays:
    """Samples of one length, as numbers. All have the shape [samples, sequence_length].

    Attributes:
        input_ids: Tokens, int64.
        targets: The token after each, int64; -100 where there is none to predict.
        segment_ids: The document of each token in the sample, from 0, int32.
    """

    input_ids: Tokens
    targets: Tokens
    segment_ids: "np.ndarray[tuple[int, ...], np.dtype[np.int32]]"

    @property
    def num_targets(self) -> int:
        """How many tokens are predicted."""
        return int((self.targets != NO_TARGET).sum())


@dataclass(frozen=True, eq=False, kw_only=True)
class MicroBatch:
    """What a model is given at once; tensors of the shape [micro_batch_size, sequence_length].

    Attributes:
        input_ids: Tokens, int64.
        targets: The token after each, int64; -100 where there is none to predict. They are shifted
            already, which `labels` of transformers are not.
        segment_ids: The document of each token, int32; None without document mask.
        num_targets: How many tokens are predicted.
        samples: The numbers of the samples.
    """

    input_ids: "torch.Tensor"
    targets: "torch.Tensor"
    segment_ids: "torch.Tensor | None"
    num_targets: int
    samples: range

    def to(self, device: "torch.device | str") -> "MicroBatch":
        """Return the micro-batch on a device; from pinned memory it is not waited for."""
        return MicroBatch(
            input_ids=self.input_ids.to(device, non_blocking=True),
            targets=self.targets.to(device, non_blocking=True),
            segment_ids=None
            if self.segment_ids is None
            else self.segment_ids.to(device, non_blocking=True),
            num_targets=self.num_targets,
            samples=self.samples,
        )


def micro_batches(
    order: BlockOrder,
    plan: BatchPlan,
    *,
    rank: int = 0,
    first_sample: int = 0,
    document_mask: bool = False,
    num_workers: int = 1,
    pin_memory: bool = False,
) -> Generator[tuple[MicroBatch, ...]]:
    """Yield the micro-batches of step after step, without end.

    Close the iterator, or use it up, to end its threads.

    Args:
        order: The samples.
        plan: How a step is parted.
        rank: The process, from 0.
        first_sample: Samples consumed before: where a resumed run goes on.
        document_mask: Whether documents do not see each other.
        num_workers: Threads that read ahead, two steps each; 0 reads when asked.
        pin_memory: Whether the tensors are put where a GPU can fetch them.
    """

    def steps() -> Iterator[tuple[range, ...]]:
        sample = first_sample
        while True:
            yield plan.samples(sample, rank)
            sample += plan.num_samples

    def load(step: tuple[range, ...]) -> tuple[MicroBatch, ...]:
        return tuple(
            as_tensors(
                collate([order.block(n) for n in samples], document_mask=document_mask),
                samples,
                document_mask=document_mask,
                pin_memory=pin_memory,
            )
            for samples in step
        )

    return ahead(steps(), load, num_workers)


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
        micro_batch_size: Sequences of a batch.
        rank: The process, from 0.
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


def _block(view: TokenView, number: int, sequence_length: int) -> Block:
    first = number * sequence_length
    tokens, starts = view.sequence(first, min(first + sequence_length + 1, view.num_tokens))
    padding = np.zeros(sequence_length + 1 - len(tokens), np.int64)
    return Block(np.concatenate((tokens, padding)), starts, 0)


def collate(blocks: Sequence[Block], *, document_mask: bool) -> Arrays:
    """Put samples together.

    Args:
        blocks: Samples of one length.
        document_mask: Whether documents do not see each other. Then the first token of a document
            is no target. Else a sample counts as one document, whatever is in it.
    """
    tokens = np.stack([block.tokens for block in blocks])
    inputs, targets = tokens[:, :-1], tokens[:, 1:].copy()
    is_start = np.zeros(tokens.shape, bool)
    if document_mask:
        for row, block in zip(is_start, blocks, strict=True):
            row[block.starts] = True
        targets[is_start[:, 1:]] = NO_TARGET
    is_start[:, 0] = False
    is_start = is_start[:, :-1]
    return Arrays(
        input_ids=np.ascontiguousarray(inputs),
        targets=targets,
        segment_ids=np.cumsum(is_start, axis=1, dtype=np.int32),
    )


def as_tensors(
    arrays: Arrays, samples: range, *, document_mask: bool, pin_memory: bool = False
) -> MicroBatch:
    """Return arrays as tensors."""
    import torch

    def tensor(array: object) -> "torch.Tensor":
        made = torch.as_tensor(array)
        return made.pin_memory() if pin_memory else made

    return MicroBatch(
        input_ids=tensor(arrays.input_ids),
        targets=tensor(arrays.targets),
        segment_ids=tensor(arrays.segment_ids) if document_mask else None,
        num_targets=arrays.num_targets,
        samples=samples,
    )


def ahead(items: Iterator[Item], work: Callable[[Item], Done], num_workers: int) -> Generator[Done]:
    """Yield the results of some work in the order of its items, done ahead by threads.

    Args:
        work: What to do.
        num_workers: Threads, with two items each under way; 0 works when asked.
    """
    if num_workers < 1:
        yield from map(work, items)
        return
    pool = ThreadPoolExecutor(num_workers, thread_name_prefix="hfgrow-data")
    futures: deque[Future[Done]] = deque()
    try:
        for item in items:
            futures.append(pool.submit(work, item))
            if len(futures) > 2 * num_workers:
                yield futures.popleft().result()
        while futures:
            yield futures.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
