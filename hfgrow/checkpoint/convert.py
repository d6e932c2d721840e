"""Other dtypes: planned for every tensor, then written streamed, a chunk in memory at a time."""

import os
from collections.abc import Callable
from dataclasses import replace

from hfgrow.checkpoint.config import CONFIG_DTYPES
from hfgrow.errors import ModelError
from hfgrow.plan import DTYPE_NBYTES, GrowthPlan

_CHUNK_ELEMENTS = 1 << 22
_TORCH_NAMES = {dtype: name for name, dtype in CONFIG_DTYPES.items()}


def with_dtype(plan: GrowthPlan, dtype: str | None) -> GrowthPlan:
    """Return the plan with every tensor in another dtype, and the config saying so.

    Args:
        plan: Any plan.
        dtype: A dtype as config.json names it, such as bfloat16; None keeps every tensor's own.
    """
    if dtype is None:
        return plan
    tensors = {
        name: replace(tensor, dtype=CONFIG_DTYPES[dtype]) for name, tensor in plan.tensors.items()
    }
    keys = [key for key in ("dtype", "torch_dtype") if key in plan.config] or ["dtype"]
    return replace(plan, tensors=tensors, config={**plan.config, **dict.fromkeys(keys, dtype)})


def convert(
    source: int,
    target: int,
    source_offset: int,
    target_offset: int,
    num_elements: int,
    *,
    from_dtype: str,
    to_dtype: str,
    name: str,
    advance: Callable[[int], None],
) -> None:
    """Convert `num_elements` numbers from one open file into another, rounding to nearest even.

    Args:
        source: The file descriptor to read.
        target: The file descriptor to write.
        source_offset: Where the tensor's bytes start in the source.
        target_offset: Where they start in the target.
        num_elements: How many numbers.
        from_dtype: The dtype in the source, in safetensors' words.
        to_dtype: The dtype in the target.
        name: The tensor's name, for messages.
        advance: Called with the bytes written.

    Raises:
        ModelError: A finite number does not fit in the new dtype, or the source ended early.
        OSError: The target cannot take the bytes.
    """
    import torch

    read_dtype = getattr(torch, _TORCH_NAMES[from_dtype])
    write_dtype = getattr(torch, _TORCH_NAMES[to_dtype])
    for start in range(0, num_elements, _CHUNK_ELEMENTS):
        count = min(_CHUNK_ELEMENTS, num_elements - start)
        wanted = count * DTYPE_NBYTES[from_dtype]
        buffer = bytearray(wanted)
        read = os.preadv(source, [buffer], source_offset + start * DTYPE_NBYTES[from_dtype])
        if read != wanted:
            raise ModelError(f"the input changed while it was read: {name} ended early")
        numbers = torch.frombuffer(buffer, dtype=read_dtype)
        converted = numbers.to(write_dtype)
        overflown = int((converted.isinf() & numbers.isfinite()).sum())
        if overflown:
            raise ModelError(
                f"{name}: {overflown} values are too large for {_TORCH_NAMES[to_dtype]}",
                hint="choose --dtype bfloat16",
            )
        raw = memoryview(converted.view(torch.uint8).numpy().data)
        at = target_offset + start * DTYPE_NBYTES[to_dtype]
        done = 0
        while done < len(raw):
            done += os.pwrite(target, raw[done:], at + done)
        advance(len(raw))
