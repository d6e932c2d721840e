"""The processes and devices of a run: as the recipe asks, or refused, and what they do together.

accelerate starts one process where it cannot start two, and two that know nothing of each other
where it does not know a strategy. So what it made is compared with the recipe before anything else.
Sharding is torch's own (`fully_shard`), on CPUs as on GPUs: accelerate leaves it out on CPUs.
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import timedelta
from importlib import import_module
from importlib.util import find_spec
from inspect import signature
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn import Module
from torch.nn.parallel import DistributedDataParallel

from hfgrow.checkpoint.derived.skeleton import layers_of
from hfgrow.errors import (
    GrowthError,
    TrainingError,
    UsageError,
    argument,
    command,
    error_named,
    printable,
    said,
)
from hfgrow.train.processes import StoppedError, StopRequest
from hfgrow.train.recipe.recipe import Recipe
from hfgrow.train.run_folder import RunFolder

T = TypeVar("T")

# Buffers are the same in all processes; torch 2.13 has another name for not sending them.
_is_new = "forward_sync_buffers" in signature(DistributedDataParallel).parameters
_UNSENT: dict[str, Any] = {"forward_sync_buffers" if _is_new else "broadcast_buffers": False}


@dataclass(frozen=True, eq=False)
class Devices:
    """The processes of a run, seen from one of them.

    Attributes:
        accelerator: What accelerate made.
        strategy: `none`, `ddp` or `fsdp2`.
        is_bf16: Whether bfloat16 is computed in.
        patient: The processes as they wait for the main one to do something; None of one.
        stop: Whether this process was asked to stop.
    """

    accelerator: Any
    strategy: str
    is_bf16: bool
    patient: Any = None
    stop: StopRequest = field(default_factory=StopRequest)

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
        match self.strategy:
            case "ddp":
                # Not by accelerate, which keeps the model of every stage to its end.
                return DistributedDataParallel(
                    module.to(self.device),
                    device_ids=[self.device] if self.device.type == "cuda" else None,
                    gradient_as_bucket_view=True,
                    **_UNSENT,
                )
            case "fsdp2":
                # Sharding moves it, layer by layer.
                return self._sharded(module)
            case _:
                return module.to(self.device)

    def _sharded(self, module: Any) -> Any:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

        policy = MixedPrecisionPolicy()
        if self.is_bf16:
            policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
        mesh = init_device_mesh(self.device.type, (self.num_processes,))
        for layer in layers_of(module.model):
            fully_shard(layer, mesh=mesh, mp_policy=policy)
        return fully_shard(module, mesh=mesh, mp_policy=policy)

    def words(self) -> str:
        """Return what the run computes with, in words; of a CPU its threads too."""
        each = f"{self.num_processes} x " if self.num_processes > 1 else ""
        if self.device.type != "cpu":
            return f"{each}{self.label}"
        threads = torch.get_num_threads()
        plural = "" if threads == 1 else "s"
        return f"{each}{self.label}, {threads} thread{plural} (OMP_NUM_THREADS sets others)"

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

    def main_sees(self, value: bool) -> bool:
        """Return what the main process knows, such as whether a folder is there."""
        if self.num_processes == 1:
            return value
        known = float(value) if self.is_main else 0.0
        return bool(self.sum(torch.tensor([known], device=self.device)))

    def on_main(self, work: Callable[[], T]) -> T | None:
        """Do something in the main process while the others wait; an error is everybody's.

        They wait as long as it takes: hours of reading or writing are no hanging process. A signal
        ends the work, but not inside `stop.held`.

        Returns:
            The result in the main process, None in the others.
        """
        result: T | None = None
        failure: GrowthError | StoppedError | None = None
        if self.is_main:
            try:
                with self.stop.heeded():
                    result = work()
            except (GrowthError, StoppedError) as error:
                failure = error
        message = self._of_main(failure and _as_message(failure))
        if failure is None and message is not None:
            failure = _of_message(message)
        if failure is None:
            return result
        if isinstance(failure, GrowthError):
            failure.details["is_shared"] = True
        raise failure

    def shared(self, work: Callable[[], T]) -> T:
        """Do something in the main process, and return in all of them what it came to."""
        result: T = self._of_main(self.on_main(work))
        return result

    def check_same(self, what: str, value: object) -> None:
        """Compare what every process has read by itself.

        Args:
            what: What it is, in a word.
            value: Equal where what was read is equal.

        Raises:
            TrainingError: It differs, as where machines do not see the same files.
        """
        values = self._gathered(value)
        if any(other != values[0] for other in values):
            raise TrainingError(
                f"the processes of the run do not see the same {what}",
                hint="put it where every machine sees it, or make the copies equal",
                details={"is_shared": True},
            )

    def heed(self) -> None:
        """Stop if any process was asked to.

        Raises:
            StoppedError: One was; raised in all of them.
        """
        if number := max(self._gathered(self.stop.number)):
            raise StoppedError(self.stop.number or number)

    def _gathered(self, value: T) -> list[T]:
        """Return the value of every process, for however long the slowest one takes."""
        if self.num_processes == 1:
            return [value]
        box: list[Any] = [None] * self.num_processes
        torch.distributed.all_gather_object(box, value, group=self.patient)
        return box

    def _of_main(self, value: Any) -> Any:
        if self.num_processes == 1:
            return value
        box = [value]
        torch.distributed.broadcast_object_list(box, src=0, group=self.patient)
        return box[0]

    def close(self) -> None:
        """Leave the other processes."""
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def _as_message(failure: GrowthError | StoppedError) -> dict[str, Any]:
    """Return an error as the other processes get it."""
    if isinstance(failure, StoppedError):
        return {"stopped": failure.number, "message": str(failure)}
    name, details = type(failure).__name__, dict(failure.details)
    return {"name": name, "message": str(failure), "hint": failure.hint, "details": details}


def _of_message(message: dict[str, Any]) -> GrowthError | StoppedError:
    if "stopped" in message:
        return StoppedError(message["stopped"], message["message"])
    return error_named(**message)


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


# How long a process waits for the others before it gives up.
TIMEOUT_VARIABLE = "HFGROW_TIMEOUT_S"
_TIMEOUT_S = 600.0
# How long it waits for the main one to tokenise, hash or write.
_PATIENCE = timedelta(days=7)


def open_devices(recipe: Recipe, *, on_cpu: bool = False) -> Devices:
    """Let accelerate start, and compare what it made with the recipe.

    Args:
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
            hint=f"leave --mixed_precision out; {argument('precision', mixed)}"
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
            f"the {started} processes did not find each other: {said(error)}",
            hint="see that every machine reaches the main one at its address and port",
        ) from error
    shared = accelerator.distributed_type in (kinds.MULTI_CPU, kinds.MULTI_GPU)
    if accelerator.num_processes != started or shared != (started > 1):
        raise UsageError(
            f"{started} processes were started, accelerate made {accelerator.num_processes} of "
            f"the kind {accelerator.distributed_type.name} of them",
            hint=command("train RECIPE.yaml", num_processes="N") + " starts them",
        )
    if accelerator.num_processes != world.processes:
        raise UsageError(
            f"{accelerator.num_processes} processes were started, the recipe wants "
            f"{world.processes}",
            hint=command("train RECIPE.yaml", num_processes=world.processes),
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


@contextmanager
def world_of(recipe: Recipe, *, on_cpu: bool = False) -> Iterator[Devices]:
    """Be one of the processes of a run for as long as the block lasts.

    Raises:
        UsageError: As `open_devices`.
        TrainingError: As `open_devices`; or another process is gone or hangs.
    """
    devices = open_devices(recipe, on_cpu=on_cpu)
    try:
        yield devices
    except RuntimeError as error:
        if devices.num_processes > 1 and _is_lost(error):
            raise TrainingError(
                f"another process is gone or hangs: {said(error)}",
                hint=f"go on from the last checkpoint with {argument('resume')}",
                details={"is_lost": True},
            ) from error
        raise
    finally:
        # One of several that fails stays until it has said so: once it leaves, they all end.
        if devices.num_processes == 1 or sys.exc_info()[0] is None:
            devices.close()


def _is_lost(error: RuntimeError) -> bool:
    text = str(error).lower()
    return any(word in text for word in ("connection", "timed out", "timeout", "gloo", "nccl"))


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


def check_trackers(recipe: Recipe) -> None:
    """Refuse a recipe with a tracker that is not installed.

    Raises:
        UsageError: There is one.
    """
    for tracker in recipe.trackers:
        if find_spec(tracker) is None:
            raise UsageError(
                f"the tracker {tracker} is not installed",
                hint=f"pip install {tracker}, or {argument('trackers', '[]')}",
            )
