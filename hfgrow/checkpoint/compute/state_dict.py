"""Recipes computed from tensors in memory, to the bytes that the writer computes from files."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from hfgrow.checkpoint.compute.chunks import Chunk, chunks, computed, in_threads
from hfgrow.checkpoint.compute.dtypes import stored_dtype
from hfgrow.checkpoint.compute.recipe_rows import Evaluator, ReadRows
from hfgrow.errors import ModelError, printable
from hfgrow.plan.plan import TensorPlan, stored_in
from hfgrow.plan.tensors import CONFIG_DTYPES, CONFIG_NAMES, Stored, predictor_of


def evaluated(plans: Mapping[str, TensorPlan], tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Return every planned tensor, new and on the CPU.

    Args:
        plans: Name -> plan.
        tensors: What the leaves of the recipes name; never changed.

    Raises:
        ModelError: A finite number does not fit in the dtype of its tensor.
    """
    import torch

    found: dict[str, Any] = {
        name: torch.empty(plan.shape, dtype=torch_dtype(plan.dtype)) for name, plan in plans.items()
    }
    evaluator = Evaluator(rows_of_tensors(tensors))

    def compute(chunk: Chunk) -> None:
        into = memoryview(found[chunk.name].flatten().view(torch.uint8).numpy())
        first, *others = chunk.offsets
        content = computed(chunk, evaluator, into=into[first : first + chunk.nbytes])
        for at in others:
            into[at : at + chunk.nbytes] = content

    work = []
    for name, plan in sorted(plans.items(), key=lambda item: predictor_of(item[1].recipe)):
        if plan.is_copy:
            found[name].copy_(tensors[stored_in(plan).name].detach())
        else:
            work += [partial(compute, chunk) for chunk in chunks(name, plan)]
    for _ in in_threads(work):
        pass
    return found


def rows_of_tensors(tensors: Mapping[str, Any]) -> ReadRows:
    """Return the function that reads rows of tensors by the names of stored ones."""

    def read(stored: Stored, start: int, stop: int) -> Any:
        import torch

        # What is given may be written into.
        rows = tensors[stored.name].detach()[start:stop].to("cpu", copy=True).contiguous()
        nbytes = rows.flatten().view(torch.uint8).numpy()
        return nbytes.view(stored_dtype(stored.dtype)).reshape(rows.shape)

    return read


def torch_dtype(dtype: str) -> Any:
    """Return the torch dtype of a dtype in safetensors' words."""
    import torch

    return getattr(torch, CONFIG_NAMES[dtype])


def as_tensor(numbers: Any, dtype: str) -> Any:
    """Return stored numbers, as `stored_dtype` says, as a tensor of torch in their dtype."""
    import torch

    nbytes = torch.from_numpy(numbers.reshape(-1).view("u1"))
    return nbytes.view(torch_dtype(dtype)).reshape(numbers.shape)


def dtype_of(name: str, tensor: Any) -> str:
    """Return the dtype of a tensor in safetensors' words.

    Raises:
        ModelError: It is none of those that can be grown.
    """
    dtype = str(tensor.dtype).removeprefix("torch.")
    if dtype not in CONFIG_DTYPES:
        raise ModelError(
            f"{printable(name)} is in {printable(dtype)}, which cannot be grown; only "
            f"{', '.join(CONFIG_DTYPES)} can"
        )
    return CONFIG_DTYPES[dtype]
