"""NaN and infinity in weights: found by sums, which cost nothing beside reading, then counted."""

from collections.abc import Callable, Iterator
from functools import partial
from math import prod
from typing import Any

from hfgrow.checkpoint.dtypes import torch_dtype
from hfgrow.checkpoint.files import Files
from hfgrow.checkpoint.threads import in_threads
from hfgrow.errors import ModelError, printable
from hfgrow.plan import GrowthPlan, stored_in
from hfgrow.tensor_recipes import DTYPE_NBYTES, Stored

_CHUNK_NBYTES = 4 << 20


def check_finite(
    files: Files, plan: GrowthPlan, *, advance: Callable[[int], None] = lambda nbytes: None
) -> None:
    """Read every weight of a checkpoint and refuse NaN and infinity.

    Args:
        files: Where it lies.
        plan: What `read` returned for it.
        advance: Called with the number of bytes as they are read.

    Raises:
        ModelError: A tensor holds some: the message names it, its file, and how many.
    """
    bad: dict[Stored, int] = {}
    work = (
        partial(_count_range, files, stored, start)
        for stored in map(stored_in, plan.tensors.values())
        for start in range(0, stored.nbytes, _CHUNK_NBYTES)
    )
    for stored, nbytes, num_bad in in_threads(work):
        advance(nbytes)
        if num_bad:
            bad[stored] = bad.get(stored, 0) + num_bad
    if bad:
        raise not_finite(*next(iter(bad.items())), num_others=len(bad) - 1)


def not_finite(stored: Stored, num_bad: int, num_others: int = 0) -> ModelError:
    """Return the error for a stored tensor that holds NaN or infinity."""
    more = f", and {num_others} more tensors hold some" if num_others else ""
    return ModelError(
        f"{printable(stored.file, 200)}: {stored.name} holds {num_bad} values that are NaN or "
        f"infinite, of {prod(stored.shape)}{more}",
        hint="such a model computes nothing; --allow-nonfinite grows it all the same",
    )


def is_finite(numbers: Any) -> bool:
    """Say whether all numbers of a tensor are: a sum is quick, and shows what is not."""
    # The sum of finite numbers may overflow by itself, which only looking at each can tell.
    return bool(numbers.sum().isfinite()) or bool(numbers.isfinite().all())


def count_nonfinite(numbers: Any) -> int:
    """Return how many numbers of a tensor are NaN or infinite."""
    return 0 if is_finite(numbers) else int((~numbers.isfinite()).sum())


def rows_of(stored: Stored, max_nbytes: int = _CHUNK_NBYTES) -> Iterator[tuple[int, int]]:
    """Part a stored tensor in ranges of rows that take at most about so many bytes."""
    row_nbytes = prod(stored.shape[1:]) * DTYPE_NBYTES[stored.dtype]
    step = max(1, max_nbytes // row_nbytes)
    for start in range(0, stored.shape[0], step):
        yield start, min(start + step, stored.shape[0])


def _count_range(files: Files, stored: Stored, start: int) -> tuple[Stored, int, int]:
    import torch

    nbytes = min(_CHUNK_NBYTES, stored.nbytes - start)
    raw = bytearray(files.read(stored.file, stored.offset + start, nbytes))
    if len(raw) != nbytes:
        raise ModelError(f"the input changed while it was read: {stored.name} ended early")
    return stored, nbytes, count_nonfinite(torch.frombuffer(raw, dtype=torch_dtype(stored.dtype)))
