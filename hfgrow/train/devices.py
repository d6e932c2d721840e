"""The processes and devices of a run: as the recipe asked for them, or refused.

accelerate starts one process where it cannot start two, and two that know nothing of each other
where it does not know a strategy. So what it made is compared with the recipe before anything else.

Sharding is torch's own (`fully_shard`), on CPUs as on GPUs: accelerate leaves it out on CPUs.
"""

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from importlib import import_module
from importlib.util import find_spec
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn import Module

import hfgrow.errors
from hfgrow.errors import GrowthError, TrainingError, UsageError
from hfgrow.train.recipe import Recipe

T = TypeVar("T")

# How long a process waits for the others before it gives up.
TIMEOUT_VARIABLE = "HFGROW_TIMEOUT_S"
_TIMEOUT_S = 600.0


@dataclass(frozen=True, eq=False)
class Devices:
    """The processes of a run, seen from one of them.

    Attributes:
        accelerator: What accelerate made.
        strategy: `none`, `ddp` or `fsdp2`.
        is_bf16: Whether bfloat16 is computed in.
    """

    accelerator: Any
    strategy: str
    is_bf16: bool

    @property
    def device(self) -> torch.device:
        """The device of this process."""
        device: torch.device = self.accelerator.device
        return device

    @property
    def rank(self) -> int:
        """The number of this process, from 0."""
        return int(self.accelerator.process_index)

    @property
    def num_processes(self) -> int:
        """How many processes there are."""
        return int(self.accelerator.num_processes)

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.rank == 0

    @property
    def label(self) -> str:
        """What one of the devices is called."""
        return torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "CPU"

    def distribute(self, module: Any) -> Any:
        """Return a loss module, moved to the device and wrapped or sharded as the recipe says."""
        module = module.to(self.device)
        match self.strategy:
            case "ddp":
                with warnings.catch_warnings():
                    # torch 2.13 renames an argument; older ones know only this name.
                    warnings.simplefilter("ignore", FutureWarning)
                    return self.accelerator.prepare(module)
            case "fsdp2":
                return self._sharded(module)
            case _:
                return module

    def _sharded(self, module: Any) -> Any:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

        policy = MixedPrecisionPolicy()
        if self.is_bf16:
            policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
        mesh = init_device_mesh(self.device.type, (self.num_processes,))
        for layer in module.model.model.layers:
            fully_shard(layer, mesh=mesh, mp_policy=policy)
        return fully_shard(module, mesh=mesh, mp_policy=policy)

    def autocast(self) -> AbstractContextManager[object]:
        """Return the context of a forward pass; shards are cast by their own policy."""
        if not self.is_bf16 or self.strategy == "fsdp2":
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)

    @contextmanager
    def accumulating(self, module: Any, *, is_last: bool) -> Iterator[None]:
        """Share gradients between processes at the last micro-batch of a step only."""
        if self.strategy == "fsdp2":
            module.set_requires_gradient_sync(is_last)
            yield
        elif self.strategy == "ddp" and not is_last:
            with module.no_sync():
                yield
        else:
            yield

    def settle(self, module: Any) -> None:
        """Part again what a forward pass without a backward one left gathered."""
        if self.strategy == "fsdp2":
            module.reshard()

    def sum(self, tensor: Tensor) -> Tensor:
        """Return the sum of a tensor over all processes."""
        if self.num_processes > 1:
            tensor = tensor.clone()
            torch.distributed.all_reduce(tensor)
        return tensor

    def wait(self) -> None:
        """Wait until every process is here."""
        if self.num_processes > 1:
            # A barrier of gloo waits longer than it was told to; a sum does not.
            self.sum(torch.zeros(1, device=self.device))

    def told(self, value: bool) -> bool:
        """Return what the main process knows, such as whether a folder is there."""
        if self.num_processes == 1:
            return value
        known = float(value) if self.is_main else 0.0
        return bool(self.sum(torch.tensor([known], device=self.device)))

    def on_main(self, work: Callable[[], T]) -> T | None:
        """Do something in the main process while the others wait; an error is everybody's.

        Returns:
            The result in the main process, None in the others.
        """
        result: T | None = None
        told: list[Any] = [None]
        failure: GrowthError | None = None
        if self.is_main:
            try:
                result = work()
            except GrowthError as error:
                failure = error
                told = [(type(error).__name__, str(error), error.hint)]
        if self.num_processes > 1:
            torch.distributed.broadcast_object_list(told, src=0, device=self.device)
        if failure is not None:
            raise failure
        if told[0] is not None:
            name, message, hint = told[0]
            raise getattr(hfgrow.errors, name)(message, hint=hint)
        return result

    def close(self) -> None:
        """Leave the other processes."""
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def open_devices(recipe: Recipe, *, on_cpu: bool = False) -> Devices:
    """Let accelerate start, and compare what it made with the recipe.

    Args:
        recipe: What was asked for.
        on_cpu: Whether to leave accelerators alone.

    Raises:
        UsageError: accelerate made another number of processes, or shares work in another way.
    """
    accelerate: Any = import_module("accelerate")
    kinds: Any = import_module("accelerate.utils").DistributedType

    world = recipe.world
    if asked := os.environ.get("ACCELERATE_USE_FSDP") or os.environ.get("ACCELERATE_USE_DEEPSPEED"):
        raise UsageError(
            f"accelerate was told to shard by itself ({asked}), which hfgrow does not use",
            hint="leave --use_fsdp and --use_deepspeed out; say world: {strategy: fsdp2}",
        )
    for tracker in recipe.trackers:
        if find_spec(tracker) is None:
            # accelerate would leave it out and say nothing.
            raise UsageError(
                f"the tracker {tracker} is not installed",
                hint=f"pip install {tracker}, or --set trackers=[]",
            )
    timeout_s = float(os.environ.get(TIMEOUT_VARIABLE, _TIMEOUT_S))
    accelerator = accelerate.Accelerator(
        cpu=on_cpu or not torch.cuda.is_available(),
        mixed_precision="no",
        dynamo_backend="no",
        log_with=list(recipe.trackers) or None,
        project_dir=recipe.output,
        kwargs_handlers=[
            accelerate.InitProcessGroupKwargs(timeout=timedelta(seconds=timeout_s)),
            accelerate.DistributedDataParallelKwargs(
                broadcast_buffers=False, gradient_as_bucket_view=True
            ),
        ],
    )
    started = int(os.environ.get("WORLD_SIZE", "1"))
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
    return Devices(accelerator, world.strategy, recipe.precision == "bf16")


def inner_model(module: Module) -> Any:
    """Return the transformers model inside a loss module, whatever wraps it."""
    wrapped: Any = module
    return getattr(wrapped, "module", wrapped).model


def clip_gradients(parameters: list[Any], most: float | None) -> float:
    """Scale gradients down to a norm, and return the norm that they had."""
    norm: Any = torch.nn.utils.clip_grad_norm_(parameters, float("inf") if most is None else most)
    if hasattr(norm, "full_tensor"):
        norm = norm.full_tensor()
    return float(norm)


def lost(error: Exception) -> TrainingError:
    """Return what a process says when another one is gone."""
    return TrainingError(
        f"another process is gone or hangs: {hfgrow.errors.printable(error, 200)}",
        hint="go on from the last checkpoint with --resume",
    )
