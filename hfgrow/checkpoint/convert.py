"""Other dtypes, and the bytes of every tensor that has to be computed, a chunk at a time."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from math import prod
from typing import Any

from hfgrow.checkpoint.dtypes import CONFIG_DTYPES, CONFIG_NAMES, torch_dtype
from hfgrow.checkpoint.evaluate import Evaluator, ReadRows
from hfgrow.checkpoint.finite import count_nonfinite, is_finite, not_finite, rows_of
from hfgrow.errors import ModelError, UsageError, printable
from hfgrow.plan import GrowthPlan, TensorPlan
from hfgrow.tensor_recipes import DTYPE_NBYTES, Fill, Lift, Recipe, Stored, leaves

# Few calls, and yet what is computed stays in the cache.
_CHUNK_ELEMENTS = 1 << 19


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some rows of a planned tensor, which one piece of work computes once.

    Attributes:
        name: The tensor's name.
        tensor: Its plan.
        start: The first row.
        stop: The row after the last.
        num_repeats: How often the rows stand in the tensor, at equal distances.
    """

    name: str
    tensor: TensorPlan
    start: int
    stop: int
    num_repeats: int = 1

    @property
    def offsets(self) -> list[int]:
        """Where its bytes start each time, counted from those of the tensor."""
        start = self.start * _row_nbytes(self.tensor)
        return [start + i * self.tensor.nbytes // self.num_repeats for i in range(self.num_repeats)]

    @property
    def nbytes(self) -> int:
        """How many bytes it has each time."""
        return (self.stop - self.start) * _row_nbytes(self.tensor)


def with_dtype(plan: GrowthPlan, dtype: str | None) -> GrowthPlan:
    """Return the plan with every tensor in another dtype, and the config saying so.

    Args:
        plan: Any plan.
        dtype: A dtype as config.json names it, such as bfloat16; None keeps every tensor's own.

    Raises:
        UsageError: The dtype is unknown.
    """
    if dtype is None:
        return plan
    if dtype not in CONFIG_DTYPES:
        raise UsageError(
            f"dtype {printable(dtype)} is unknown; choose one of {', '.join(CONFIG_DTYPES)}"
        )
    tensors = {
        name: replace(tensor, dtype=CONFIG_DTYPES[dtype]) for name, tensor in plan.tensors.items()
    }
    keys = [key for key in ("dtype", "torch_dtype") if key in plan.config] or ["dtype"]
    return replace(plan, tensors=tensors, config={**plan.config, **dict.fromkeys(keys, dtype)})


def needs_torch(tensor: TensorPlan) -> bool:
    """Say whether a tensor's numbers have to be computed; copies and zeros are bytes."""
    return not tensor.is_copy and not is_zero(tensor)


def is_zero(tensor: TensorPlan) -> bool:
    """Say whether a tensor is all zeros, whose bytes are zeros in every dtype."""
    return isinstance(tensor.recipe, Fill) and tensor.recipe.value == 0


def chunks(name: str, tensor: TensorPlan) -> Iterator[Chunk]:
    """Part a tensor in rows of about half a million elements, no row twice."""
    num_repeats = _num_repeats(tensor.recipe)
    num_rows = tensor.shape[0] // num_repeats if tensor.shape else 1
    step = max(1, _CHUNK_ELEMENTS // max(1, prod(tensor.shape[1:])))
    for start in range(0, num_rows, step):
        yield Chunk(name, tensor, start, min(start + step, num_rows), num_repeats)


def _num_repeats(recipe: Recipe) -> int:
    if not isinstance(recipe, Lift) or recipe.noise or recipe.fresh.is_random:
        return 1
    return recipe.rows.num_repeats


def computed(chunk: Chunk, evaluator: Evaluator, *, allow_nonfinite: bool = True) -> memoryview:
    """Compute the bytes of a chunk, rounded once, to nearest even.

    Args:
        chunk: What to compute.
        evaluator: Computes its numbers.
        allow_nonfinite: Whether what is NaN or infinite in the base stays so.

    Raises:
        ModelError: A finite number does not fit in the dtype, a number is none and may not be, or
            the source ended early.
    """
    import torch

    dtype = torch_dtype(chunk.tensor.dtype)
    numbers = evaluator.rows(chunk.tensor.recipe, chunk.start, chunk.stop, chunk.tensor.dtype)
    rounded = numbers.to(dtype)
    if not is_finite(rounded):
        overflown = int((rounded.isinf() & numbers.isfinite()).sum())
        if overflown:
            raise ModelError(
                f"{chunk.name}: {overflown} values are too large for "
                f"{CONFIG_NAMES[chunk.tensor.dtype]}",
                hint="choose --dtype bfloat16",
            )
        if not allow_nonfinite:
            raise _source_not_finite(chunk, evaluator, count_nonfinite(rounded))
    return memoryview(rounded.contiguous().view(torch.uint8).flatten().numpy().data)


def _source_not_finite(chunk: Chunk, evaluator: Evaluator, num_bad: int) -> ModelError:
    """Return the error that names the tensor of the base whose numbers are none."""
    for leaf in leaves(chunk.tensor.recipe):
        parts = (evaluator.rows(leaf, *rows, leaf.dtype) for rows in rows_of(leaf))
        if found := sum(map(count_nonfinite, parts)):
            return not_finite(leaf, found)
    return ModelError(f"{chunk.name}: {num_bad} values came out NaN or infinite")


def rows_of_files(descriptor_of: Callable[[str], int]) -> ReadRows:
    """Return the function that reads rows of stored tensors from open files."""

    def read(stored: Stored, start: int, stop: int) -> Any:
        import torch

        row_nbytes = prod(stored.shape[1:]) * DTYPE_NBYTES[stored.dtype]
        shape = (stop - start, *stored.shape[1:])
        numbers = torch.empty(shape, dtype=torch_dtype(stored.dtype))
        buffer = memoryview(numbers.flatten().view(torch.uint8).numpy().data)
        offset = stored.offset + start * row_nbytes
        if not _fill(buffer, descriptor_of(stored.file), offset):
            raise ModelError(f"the input changed while it was read: {stored.name} ended early")
        return numbers

    return read


def _row_nbytes(tensor: TensorPlan) -> int:
    return prod(tensor.shape[1:]) * DTYPE_NBYTES[tensor.dtype]


def _fill(buffer: memoryview, source: int, offset: int) -> bool:
    done = 0
    while done < len(buffer):
        step = os.preadv(source, [buffer[done:]], offset + done)
        if step == 0:
            return False
        done += step
    return True
