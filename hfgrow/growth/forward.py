"""Run a model over tokens while its weights stay on the disk, those of one module in memory.

The model and what is missing of it are transformers' word, accelerate's hooks bring each module its
weights and drop them behind it, and the safetensors library reads them; no file is mapped. The
numbers are those of a loaded model to the last bit (of a mixture's with its experts one after the
other), in the memory of a module, which may be all the experts of a layer. Derived families are
loaded whole, and mapped where memory does not hold them three times.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from importlib import import_module
from inspect import signature
from itertools import accumulate
from math import prod
from pathlib import Path
from typing import Any

from hfgrow.checkpoint.files import GENERATION, opened
from hfgrow.errors import GrowthError, foreign, printable
from hfgrow.growth.loading import (
    available_nbytes,
    loaded_model,
    silence_transformers,
    skeleton,
    transformers_config,
)
from hfgrow.plan.families import FAMILIES
from hfgrow.plan.plan import GrowthPlan, stored_in
from hfgrow.plan.promise import coarser
from hfgrow.plan.tensors import CONFIG_NAMES, Stored

# How far the kernel reads ahead of what computes: some layers of a model of billions.
_AHEAD_NBYTES = 1 << 28


@dataclass(frozen=True, slots=True)
class ModelRole:
    """What a model is in a comparison, and whose fault it is where it fails."""

    name: str
    error: type[GrowthError]


def logits_of(
    plan: GrowthPlan,
    tokens: Any,
    role: ModelRole,
    *,
    at_least: str | None = None,
    dtype: str | None = None,
    advance: Callable[[int], None] = lambda nbytes: None,
) -> tuple[Any, str]:
    """Run a model on the CPU, in the dtype that it is stored in where nobody names another.

    Args:
        plan: The model as the strict reader saw it in its folder.
        tokens: Token ids [1, num_tokens].
        at_least: A dtype to compute in where that is finer. It says that this is a base, too,
            whose settings of generation are not asked.
        dtype: A dtype to compute in, finer or not.
        advance: Called with the bytes of a module's weights when it has computed.

    Returns:
        Logits [num_tokens, vocab_size] in that dtype, and its name.

    Raises:
        GrowthError: The role's: transformers cannot load or run it, it lacks tensors or has others,
            its files change meanwhile, or its logits are not finite.
    """
    import torch

    model = _loaded(plan, role, at_least or dtype, dtype)
    _count_modules(model, plan.nbytes, advance)
    with (
        foreign(lambda said: role.error(f"transformers cannot run {role.name}: {said}")),
        ExitStack() as files,
        torch.inference_mode(),
    ):
        if plan.derived is None:
            _read_from(_Weights(plan, model, files), model)
        logits = model(tokens, use_cache=False).logits[0]
    if not logits.isfinite().all():
        raise role.error(
            f"{role.name}: its logits are not finite",
            hint="the weights hold NaN or infinity, or overflow in this dtype; or a number of "
            "config.json cannot be",
        )
    return logits, str(model.dtype).removeprefix("torch.")


def _loaded(plan: GrowthPlan, role: ModelRole, at_least: str | None, wanted: str | None) -> Any:
    """Have transformers load a model, by the names and shapes of its tensors alone if it can."""
    import torch

    silence_transformers()
    from transformers import GenerationConfig

    any_generation: Any = GenerationConfig
    with foreign(lambda said: role.error(f"transformers cannot load {role.name}: {said}")):
        folder, first = Path(plan.folder), next(iter(plan.tensors.values()))
        config = transformers_config(folder)
        stored = str(config.dtype or CONFIG_NAMES[first.dtype]).removeprefix("torch.")
        is_finer = at_least is not None and coarser(stored, at_least) != at_least
        dtype = getattr(torch, wanted or (at_least if is_finer and at_least else stored))
        if plan.derived is not None:
            own = {} if at_least is None else {"generation_config": any_generation()}
            own |= _unmapped(plan)
            model, info = loaded_model(folder, config, dtype=dtype, output_loading_info=True, **own)
        else:
            model, info = _without_weights(plan, config, dtype)
            if FAMILIES[plan.family].has_experts:
                # One after the other: all at once want rows of 16 bytes, and no float64.
                model.set_experts_implementation("eager")
        # How a base generates is not asked; what is grown from it must load as it is.
        if at_least is None and (folder / GENERATION).is_file():
            any_generation.from_pretrained(folder, local_files_only=True)
    for fault in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if at_least is not None and plan.derived and fault == "unexpected_keys":
            # The strict reader refused or left out what the model does not have, and said so.
            continue
        if info.get(fault):
            names = ", ".join(printable(name) for name in sorted(map(_name_of, info[fault]))[:3])
            raise role.error(f"loading {role.name}: {fault.replace('_', ' ')} {names}")
    return model


def _unmapped(plan: GrowthPlan) -> dict[str, bool]:
    """Have a model read, not mapped, where memory allows and transformers can.

    A mapped file that somebody truncates ends the process with SIGBUS, and nothing is told.
    """
    from transformers import PreTrainedModel

    known = "disable_mmap" in signature(PreTrainedModel.from_pretrained).parameters
    free = available_nbytes()
    # Bytes as read and tensors made of them, and as much again to compute in: chosen, not measured.
    fits = free is None or 3 * plan.nbytes <= free
    return {"disable_mmap": True} if known and fits else {}


def _without_weights(plan: GrowthPlan, config: Any, dtype: Any) -> tuple[Any, dict[str, Any]]:
    import torch

    built = skeleton(config)
    shapes = {name: tuple(tensor.shape) for name, tensor in plan.tensors.items()}
    if FAMILIES[plan.family].has_experts:
        # Experts as a file has them would be put together, in the memory of all of them.
        built.tie_weights()
        info = _other_than(as_stored(built, dict(built.named_parameters())), shapes)
        shapes = {name: tuple(each.shape) for name, each in built.named_parameters()}
    else:
        info = {}
    # One number stands for all of a tensor. Of the files, transformers would map all that it
    # touches, and whoever truncates a mapped file ends the process.
    number = torch.zeros((), dtype=dtype)
    model, found = type(built).from_pretrained(
        None,
        config=config,
        state_dict={name: number.expand(shape) for name, shape in shapes.items()},
        dtype=dtype,
        ignore_mismatched_sizes=True,
        output_loading_info=True,
    )
    return model, info or found


def _other_than(
    expected: Mapping[str, Any], stored: Mapping[str, tuple[int, ...]]
) -> dict[str, list[str]]:
    """Return what transformers says of tensors that a model lacks, or does not expect so."""
    both = expected.keys() & stored.keys()
    return {
        "missing_keys": [*(expected.keys() - both)],
        "unexpected_keys": [*(stored.keys() - both)],
        "mismatched_keys": [name for name in both if tuple(expected[name].shape) != stored[name]],
    }


def as_stored(model: Any, tensors: dict[str, Any]) -> dict[str, Any]:
    """Return tensors of a model by the names of files, where experts lie one by one.

    Args:
        model: A model; those of families without a table are taken as they are.
        tensors: Its tensors by name, or what stands for them in all but the last axis.
    """
    family = FAMILIES.get(model.config.model_type)
    if family is None or not family.has_experts:
        return tensors
    from transformers.core_model_loading import revert_weight_conversion

    stored: dict[str, Any] = revert_weight_conversion(model, tensors)
    return stored


def _name_of(key: Any) -> str:
    # What is mismatched comes with both shapes.
    return str(key[0] if isinstance(key, tuple) else key)


def _read_from(weights: Mapping[str, Any], model: Any) -> None:
    """Have each module of a model get its weights when it computes, and drop them behind it."""
    import torch

    hooks: Any = import_module("accelerate.hooks")
    hooks.attach_align_device_hook(
        model, execution_device=torch.device("cpu"), offload=True, weights_map=weights
    )


class _Weights(Mapping[str, Any]):
    """The weights of a checkpoint by the names of the model's parameters, read when asked for."""

    def __init__(self, plan: GrowthPlan, model: Any, files: ExitStack) -> None:
        self._folder = Path(plan.folder)
        self._tensors = plan.tensors
        self._dtype = model.dtype
        # What takes its parameters apart; a model that was given them whole would not.
        self._built = skeleton(model.config)
        self._files = files
        self._opened: dict[str, Any] = {}
        # Tied parameters are one tensor under several names; one of them is stored.
        parameters = list(model.named_parameters(remove_duplicate=False))
        stored = {id(each): name for name, each in parameters if name in plan.tensors}
        self._names = {name: stored.get(id(each), name) for name, each in parameters}
        self._shapes = {name: tuple(each.shape) for name, each in parameters}
        order = dict.fromkeys(name for name in self._names.values() if name in plan.tensors)
        self._ahead = _ReadAhead(
            [stored_in(plan.tensors[name]) for name in order],
            files.enter_context(opened(self._folder)),
        )

    def __getitem__(self, name: str) -> Any:
        name = self._names[name]
        return self._read(name) if name in self._tensors else self._put_together(name)

    def _read(self, name: str) -> Any:
        from safetensors import safe_open

        stored = stored_in(self._tensors[name])
        self._ahead.passed(stored)
        if stored.file not in self._opened:
            file = safe_open(self._folder / stored.file, framework="pt", backend="pread")
            self._opened[stored.file] = self._files.enter_context(file)
        return self._opened[stored.file].get_tensor(stored.name)

    def _put_together(self, name: str) -> Any:
        """Return a parameter whose rows are those of several tensors of the file."""
        import torch

        *outer, num_columns = self._shapes[name]
        # Numbered rows, taken apart as transformers takes parameters apart, say where each goes.
        numbered = torch.arange(prod(outer)).view(*outer, 1)
        parts = as_stored(self._built, {name: numbered})
        # One expert may be stored in another dtype than the next.
        whole = torch.empty(prod(outer), num_columns, dtype=self._dtype)
        # torch would wake all cores for each of them.
        into = whole.view(torch.uint8).numpy()
        for stored, rows in parts.items():
            found = self._read(stored).to(self._dtype).view(-1, num_columns)
            into[rows.flatten().numpy()] = found.view(torch.uint8).numpy()
        return whole.view(*outer, num_columns)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


class _ReadAhead:
    """Has the kernel read what comes next while a module computes.

    An output that was written past the page cache is not in memory yet, and a module that waits for
    the disk leaves the cores idle.
    """

    def __init__(self, tensors: Sequence[Stored], descriptor_of: Callable[[str], int]) -> None:
        self._tensors = tensors
        self._starts = [0, *accumulate(tensor.nbytes for tensor in tensors)]
        self._places = dict(zip(tensors, self._starts, strict=False))
        self._descriptor_of = descriptor_of
        self._num_asked = 0

    def passed(self, tensor: Stored) -> None:
        """Ask for the tensors behind one that is read now; one that is in no order asks nothing."""
        end = self._places.get(tensor, -_AHEAD_NBYTES) + _AHEAD_NBYTES
        while self._num_asked < len(self._tensors) and self._starts[self._num_asked] < end:
            one = self._tensors[self._num_asked]
            self._num_asked += 1
            # Advice alone, which not every system or file system takes.
            with suppress(AttributeError, OSError):
                os.posix_fadvise(
                    self._descriptor_of(one.file), one.offset, one.nbytes, os.POSIX_FADV_WILLNEED
                )


def _count_modules(model: Any, nbytes: int, advance: Callable[[int], None]) -> None:
    """Have every module that multiplies advance by its share of the model's bytes."""
    import torch

    sizes = {
        module: sum(parameter.numel() for parameter in module.parameters(recurse=False))
        for module in model.modules()
        # Of embeddings a few rows are looked up, and tied ones count as a head.
        if not isinstance(module, torch.nn.Embedding)
    }
    total, done = sum(sizes.values()), 0

    def count(module: Any, *_: Any) -> None:
        nonlocal done
        before, done = done, done + sizes[module]
        advance(nbytes * done // total - nbytes * before // total)

    for module, size in sizes.items():
        if size:
            module.register_forward_hook(count)
