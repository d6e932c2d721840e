"""Which samples a rank takes at a step, and samples as the numbers that a model is given."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hfgrow.errors import UsageError
from hfgrow.train.data.order import Block
from hfgrow.train.data.token_files import Tokens

# What torch's cross-entropy leaves out.
NO_TARGET = -100


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
                hint=" or ".join(f"--batch-tokens {n}" for n in (below, above) if n),
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
