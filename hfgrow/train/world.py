"""The world of a run: as many processes, and as joined, as the recipe asked for, or refused.

accelerate starts one process where it cannot start two, and two that know nothing of each other
where it does not know a strategy. So what it made is compared with the recipe before anything else.
"""

import os
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from hfgrow.errors import TrainingError, UsageError, printable
from hfgrow.train.devices import Devices
from hfgrow.train.recipe import Recipe
from hfgrow.train.run_folder import RunFolder
from hfgrow.train.trackers import check_trackers

# How long a process waits for the others before it gives up.
TIMEOUT_VARIABLE = "HFGROW_TIMEOUT_S"
_TIMEOUT_S = 600.0
# How long it waits for the main one to tokenise, hash or write.
_PATIENCE = timedelta(days=7)


def open_devices(recipe: Recipe, *, on_cpu: bool = False) -> Devices:
    """Let accelerate start, and compare what it made with the recipe.

    Args:
        recipe: What was asked for.
        on_cpu: Whether to leave accelerators alone.

    Raises:
        UsageError: accelerate made another number of processes, or shares work in another way.
        TrainingError: The processes did not find each other.
    """
    accelerate: Any = import_module("accelerate")
    kinds: Any = import_module("accelerate.utils").DistributedType

    world = recipe.world
    if asked := os.environ.get("ACCELERATE_USE_FSDP") or os.environ.get("ACCELERATE_USE_DEEPSPEED"):
        raise UsageError(
            f"accelerate was told to shard by itself ({asked}), which hfgrow does not use",
            hint="leave --use_fsdp and --use_deepspeed out; say world: {strategy: fsdp2}",
        )
    mixed = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if mixed not in ("no", recipe.precision):
        raise UsageError(
            f"accelerate was told to compute in {printable(mixed)}, the recipe says "
            f"precision: {recipe.precision}",
            hint=f"leave --mixed_precision out; --set precision={printable(mixed)}"
            if mixed == "bf16"
            else "leave --mixed_precision out; precision is bf16 or fp32",
        )
    check_trackers(recipe)
    waiting = accelerate.InitProcessGroupKwargs(timeout=_timeout())
    started = int(os.environ.get("WORLD_SIZE", "1"))
    try:
        accelerator = accelerate.Accelerator(
            cpu=on_cpu or not torch.cuda.is_available(),
            mixed_precision="no",
            dynamo_backend="no",
            log_with=list(recipe.trackers) or None,
            project_dir=RunFolder(Path(recipe.output).expanduser()).trackers,
            kwargs_handlers=[waiting],
        )
    except RuntimeError as error:
        if started == 1:
            raise
        raise TrainingError(
            f"the {started} processes did not find each other: {printable(error, 200)}",
            hint="see that every machine reaches the main one at its address and port",
        ) from error
    shared = accelerator.distributed_type in (kinds.MULTI_CPU, kinds.MULTI_GPU)
    if accelerator.num_processes != started or shared != (started > 1):
        raise UsageError(
            f"{started} processes were started, accelerate made {accelerator.num_processes} of "
            f"the kind {accelerator.distributed_type.name} of them",
            hint="start them with `hfgrow train RECIPE.yaml --num-processes N`",
        )
    if accelerator.num_processes != world.processes:
        raise UsageError(
            f"{accelerator.num_processes} processes were started, the recipe wants "
            f"{world.processes}",
            hint=f"hfgrow train RECIPE.yaml --num-processes {world.processes}",
        )
    if world.strategy == "fsdp2" and not torch.distributed.is_initialized():
        backend = "nccl" if accelerator.device.type == "cuda" else "gloo"
        distributed: Any = torch.distributed
        store = distributed.HashStore()
        torch.distributed.init_process_group(backend, store=store, rank=0, world_size=1)
    patient: Any = None
    if started > 1:
        patient = torch.distributed.new_group(backend="gloo", timeout=_PATIENCE)
    return Devices(accelerator, world.strategy, recipe.precision == "bf16", patient)


def _timeout() -> timedelta:
    text = os.environ.get(TIMEOUT_VARIABLE, str(_TIMEOUT_S))
    try:
        seconds = float(text)
        if seconds > 0:
            return timedelta(seconds=seconds)
    except (ValueError, OverflowError):
        pass
    raise UsageError(
        f"{TIMEOUT_VARIABLE} is {printable(text)}; expected seconds, a number above 0",
        hint=f"{TIMEOUT_VARIABLE}={_TIMEOUT_S:g}",
    )
