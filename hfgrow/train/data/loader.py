"""Micro-batches as tensors, read ahead by threads; their order does not depend on the threads."""

from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from hfgrow.train.data.batches import Arrays, BatchPlan, collate
from hfgrow.train.data.order import BlockOrder

if TYPE_CHECKING:
    import torch

Item = TypeVar("Item")
Done = TypeVar("Done")


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


def ahead(items: Iterator[Item], work: Callable[[Item], Done], num_workers: int) -> Generator[Done]:
    """Yield the results of some work in the order of its items, done ahead by threads.

    Args:
        items: What to work on.
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
