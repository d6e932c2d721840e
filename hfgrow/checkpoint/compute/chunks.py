"""The bytes of every tensor that has to be computed, a chunk at a time.

NaN and infinity in weights, counted and told by tensor.

Work that releases the interpreter's lock, done on every core, its results in order.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any, TypeVar

from hfgrow.checkpoint.compute.dtypes import all_finite, count_nonfinite, finite, stored_dtype
from hfgrow.checkpoint.compute.products import torch_in_worker, torch_is_given_back
from hfgrow.checkpoint.compute.recipe_rows import Evaluator, ReadRows
from hfgrow.checkpoint.files import Files, read_into
from hfgrow.errors import ModelError, argument, printable
from hfgrow.plan.plan import GrowthPlan, TensorPlan, stored_in
from hfgrow.plan.tensors import CONFIG_NAMES, DTYPE_NBYTES, Lift, Recipe, Stored, leaves

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


def chunks(name: str, tensor: TensorPlan, *, in_order: bool = False) -> Iterator[Chunk]:
    """Part a tensor in rows of about half a million elements, no row twice but `in_order`."""
    num_repeats = 1 if in_order else _num_repeats(tensor.recipe)
    num_rows = tensor.shape[0] // num_repeats if tensor.shape else 1
    step = max(1, _CHUNK_ELEMENTS // max(1, prod(tensor.shape[1:])))
    for start in range(0, num_rows, step):
        yield Chunk(name, tensor, start, min(start + step, num_rows), num_repeats)


def _num_repeats(recipe: Recipe) -> int:
    if not isinstance(recipe, Lift) or recipe.noise or recipe.fresh.is_random:
        return 1
    return recipe.rows.num_repeats


def computed(
    chunk: Chunk,
    evaluator: Evaluator,
    *,
    allow_nonfinite: bool = True,
    into: memoryview | None = None,
) -> memoryview:
    """Compute the bytes of a chunk, rounded once, to nearest even.

    Args:
        evaluator: Computes its numbers.
        allow_nonfinite: Whether what is NaN or infinite in the base stays so.
        into: Where to, as many bytes as the chunk has; None allocates them.

    Returns:
        The bytes.

    Raises:
        ModelError: A finite number does not fit in the dtype, a number is none and may not be, or
            the source ended early.
    """
    import numpy as np

    recipe, dtype = chunk.tensor.recipe, chunk.tensor.dtype
    content = np.empty(chunk.nbytes, np.uint8).data if into is None else into
    rows = np.frombuffer(content, stored_dtype(dtype))
    rows = rows.reshape(chunk.stop - chunk.start, *chunk.tensor.shape[1:])
    evaluator.fill(rows, recipe, chunk.start, dtype)
    if not all_finite(rows, dtype):
        is_finite = finite(rows, dtype)
        numbers = evaluator.rows(recipe, chunk.start, chunk.stop, dtype)
        overflown = int((np.isfinite(numbers) & ~is_finite).sum())
        if overflown:
            raise ModelError(
                f"{chunk.name}: {overflown} values are too large for {CONFIG_NAMES[dtype]}",
                hint=f"choose {argument('dtype', 'bfloat16')}",
            )
        if not allow_nonfinite:
            raise _source_not_finite(chunk, evaluator, int((~is_finite).sum()))
    return content


def _source_not_finite(chunk: Chunk, evaluator: Evaluator, num_bad: int) -> ModelError:
    """Return the error that names the tensor of the base whose numbers are none, if one is."""
    import numpy as np

    for leaf in leaves(chunk.tensor.recipe):
        parts = (evaluator.rows(leaf, *rows, leaf.dtype) for rows in rows_of(leaf))
        if found := sum(int((~np.isfinite(part)).sum()) for part in parts):
            return not_finite(leaf, found)
    return ModelError(
        f"{chunk.name}: {num_bad} values came out NaN or infinite, of a base that is finite",
        hint="what this growth multiplies by is too large for it",
    )


def rows_of_files(descriptor_of: Callable[[str], int]) -> ReadRows:
    """Return the function that reads rows of stored tensors from open files."""

    def read(stored: Stored, start: int, stop: int) -> Any:
        import numpy as np

        row_nbytes = prod(stored.shape[1:]) * DTYPE_NBYTES[stored.dtype]
        numbers = np.empty((stop - start, *stored.shape[1:]), stored_dtype(stored.dtype))
        buffer = numbers.reshape(-1).view(np.uint8).data
        if not read_into(buffer, descriptor_of(stored.file), stored.offset + start * row_nbytes):
            raise ModelError(f"the input changed while it was read: {stored.name} ended early")
        return numbers

    return read


def _row_nbytes(tensor: TensorPlan) -> int:
    return prod(tensor.shape[1:]) * DTYPE_NBYTES[tensor.dtype]


_CHUNK_NBYTES = 4 << 20


def check_finite(
    files: Files, plan: GrowthPlan, *, advance: Callable[[int], None] = lambda nbytes: None
) -> None:
    """Read every weight of a checkpoint and refuse NaN and infinity.

    Args:
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
        hint=f"such a model computes nothing; {argument('allow_nonfinite')} grows it all the same",
    )


def rows_of(stored: Stored) -> Iterator[tuple[int, int]]:
    """Part a stored tensor in ranges of rows of about a chunk."""
    row_nbytes = prod(stored.shape[1:]) * DTYPE_NBYTES[stored.dtype]
    step = max(1, _CHUNK_NBYTES // row_nbytes)
    for start in range(0, stored.shape[0], step):
        yield start, min(start + step, stored.shape[0])


def _count_range(files: Files, stored: Stored, start: int) -> tuple[Stored, int, int]:
    nbytes = min(_CHUNK_NBYTES, stored.nbytes - start)
    raw = files.read(stored.file, stored.offset + start, nbytes)
    if len(raw) != nbytes:
        raise ModelError(f"the input changed while it was read: {stored.name} ended early")
    return stored, nbytes, count_nonfinite(raw, stored.dtype)


T = TypeVar("T")
_MAX_THREADS = 8


def in_threads(
    work: Iterable[Callable[[], T]],
    on_error: Callable[[BaseException], None] = lambda error: None,
) -> Iterator[T]:
    """Yield the results of pieces of work in order; a few are done at a time.

    After an error, or an interrupt, those that are begun are waited for. `on_error` is called
    before: it may end what they wait for.

    torch, where a piece needs it, uses the thread that it is asked in.
    """
    _keep_what_is_freed()
    num_threads = min(_MAX_THREADS, _num_cores())
    with (
        torch_is_given_back(),
        ThreadPoolExecutor(num_threads, initializer=torch_in_worker) as pool,
    ):
        waiting: deque[Future[T]] = deque()
        try:
            for piece in work:
                waiting.append(pool.submit(piece))
                if len(waiting) > 2 * num_threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BaseException as error:
            on_error(error)
            raise
        finally:
            for future in waiting:
                future.cancel()


def _num_cores() -> int:
    # Not every system tells which cores a process may use.
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _keep_what_is_freed() -> None:
    import numpy as np

    # glibc keeps what is freed, up to twice the largest block ever freed if that is below 32 MiB;
    # otherwise every piece of work would get new pages from the kernel. This one is never touched.
    np.empty((1 << 25) - (1 << 16), dtype=np.uint8)
