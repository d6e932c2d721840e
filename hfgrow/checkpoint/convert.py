"""Other dtypes: planned for every tensor, then written streamed, a chunk in memory at a time."""

import os
from collections.abc import Iterator
from dataclasses import replace

from hfgrow.checkpoint.config import CONFIG_DTYPES
from hfgrow.errors import ModelError, UsageError, printable
from hfgrow.plan import DTYPE_NBYTES, GrowthPlan, TensorPlan

_CHUNK_ELEMENTS = 1 << 22
_TORCH_NAMES = {dtype: name for name, dtype in CONFIG_DTYPES.items()}


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


def converted_from(tensor: TensorPlan, source: int) -> Iterator[memoryview]:
    """Yield the bytes of a planned tensor whose dtype is not its recipe's, a chunk at a time.

    Args:
        tensor: The plan of the tensor.
        source: The open file of its recipe.

    Raises:
        ModelError: As in `converted`.
    """
    recipe = tensor.recipe
    return converted(
        source,
        recipe.offset,
        tensor.num_elements,
        from_dtype=recipe.dtype,
        to_dtype=tensor.dtype,
        name=recipe.name,
    )


def converted(
    source: int,
    offset: int,
    num_elements: int,
    *,
    from_dtype: str,
    to_dtype: str,
    name: str,
) -> Iterator[memoryview]:
    """Yield a tensor's bytes in another dtype, a chunk at a time, rounded to nearest even.

    Args:
        source: The file descriptor to read.
        offset: Where the tensor's bytes start in it.
        num_elements: How many numbers.
        from_dtype: The dtype in the source, in safetensors' words.
        to_dtype: The dtype wanted.
        name: The tensor's name, for messages.

    Raises:
        ModelError: A finite number does not fit in the new dtype, or the source ended early.
    """
    import torch

    read_dtype = getattr(torch, _TORCH_NAMES[from_dtype])
    write_dtype = getattr(torch, _TORCH_NAMES[to_dtype])
    for start in range(0, num_elements, _CHUNK_ELEMENTS):
        count = min(_CHUNK_ELEMENTS, num_elements - start)
        buffer = bytearray(count * DTYPE_NBYTES[from_dtype])
        if not _fill(buffer, source, offset + start * DTYPE_NBYTES[from_dtype]):
            raise ModelError(f"the input changed while it was read: {name} ended early")
        numbers = torch.frombuffer(buffer, dtype=read_dtype)
        rounded = numbers.to(write_dtype)
        overflown = int((rounded.isinf() & numbers.isfinite()).sum())
        if overflown:
            raise ModelError(
                f"{name}: {overflown} values are too large for {_TORCH_NAMES[to_dtype]}",
                hint="choose --dtype bfloat16",
            )
        yield memoryview(rounded.view(torch.uint8).numpy().data)


def _fill(buffer: bytearray, source: int, offset: int) -> bool:
    view, done = memoryview(buffer), 0
    while done < len(buffer):
        step = os.preadv(source, [view[done:]], offset + done)
        if step == 0:
            return False
        done += step
    return True
