"""What a run will need of memory and time, before it begins: counted where it can be.

Weights, gradients and the optimizer's state are counted. Activations are those that autograd would
keep of one micro-batch: the model runs on tensors without numbers, and what is saved is summed. The
rate is measured by steps of the model itself where that takes a moment, on as many tokens as a few
seconds allow, on the machine as it is then; else it is the peak of the device, of a CPU that of
free cores, times a share that is said.
"""

import os
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from math import prod
from typing import Any

from hfgrow.console import Progress, duration
from hfgrow.growth.loading import available_nbytes, built_model, config_of
from hfgrow.plan.families import FAMILIES
from hfgrow.train.peaks import USUAL_MFU
from hfgrow.train.recipe.recipe import Recipe

_FLOAT32 = 4
# What Python, torch and transformers take before there is a model: measured on Linux, CPU.
_PROGRAM_NBYTES = 450_000_000
# Where nothing is measured: the share of the peak that runs reach. On CPUs that is one of measured
# products, and runs of 39M to 77M parameters here reached 0.7 to 1.
_USUAL_MFU = {"cuda": USUAL_MFU}
_USUAL_MFU_ELSEWHERE = 0.7
# What may be made and run for an estimate: a micro-batch that takes no longer on free cores.
_MOST_SECONDS, _MOST_MODEL_NBYTES = 3.0, 400_000_000
# The wall time of all steps, at most: where others use the cores too, fewer tokens are timed.
_TIMING_S = 4.0
_NUM_STEPS = 3
# Those of the first step, which warms up and says how many more can be timed.
_FIRST_TOKENS = 64
# Fewer than these, unless they are a whole micro-batch, tell what a step costs besides its tokens.
_LEAST_TOKENS = 512
# That share is of products of this size.
_GEMM_SIZE = 512


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes that a process of a run takes at its largest stage.

    Attributes:
        weights: The parameters, float32; of those that are new in part a mask too, a byte each, and
            a copy where their old entries stay or their new ones warm up.
        gradients: Of what trains.
        optimizer: Its state.
        activations: What a micro-batch keeps for the way back; None where that was not counted.
        logits: Of a chunk of tokens, with their gradient.
        program: Python and the libraries; on a GPU this lies elsewhere.
        available: What is free here; None if that is not known.
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int | None
    logits: int
    program: int
    available: int | None

    @property
    def total(self) -> int:
        """All of it."""
        parts = (self.weights, self.gradients, self.optimizer, self.logits, self.program)
        return sum(parts) + (self.activations or 0)

    def to_json(self) -> dict[str, Any]:
        """Return all fields and their sum."""
        return asdict(self) | {"total": self.total}


@dataclass(frozen=True, slots=True)
class Rate:
    """How fast a run goes.

    Attributes:
        flops_per_s: Of one device.
        source: Where that comes from, in words.
        is_measured: Whether it was measured on the model itself.
    """

    flops_per_s: float
    source: str
    is_measured: bool


def device_of(*, on_cpu: bool) -> Any:
    """Return the torch device that a run would take."""
    import torch

    return torch.device("cuda" if not on_cpu and torch.cuda.is_available() else "cpu")


def memory_of(
    recipe: Recipe,
    config: Mapping[str, Any],
    *,
    num_parameters: int,
    num_masked: int,
    num_held: int,
    num_trained: int,
    state_nbytes: int,
    device: Any,
) -> Memory:
    """Return what a stage takes in each process.

    Args:
        recipe: The recipe.
        config: The config of the model of the stage.
        num_parameters: Its parameters.
        num_masked: Those of tensors that are new in part, of which a mask is kept.
        num_held: Those of which a copy is kept.
        num_trained: Those that train.
        state_nbytes: Bytes of the optimizer's state.
        device: The torch device.
    """
    from hfgrow.train.loss import chunk_nbytes

    parts = recipe.world.processes if recipe.world.strategy == "fsdp2" else 1
    # DDP keeps the gradients once more, in the buckets that it sends.
    copies = 2 if recipe.world.strategy == "ddp" else 1
    on_gpu = device.type == "cuda"
    return Memory(
        weights=(_FLOAT32 * (num_parameters + num_held) + num_masked) // parts,
        gradients=copies * _FLOAT32 * num_trained // parts,
        optimizer=state_nbytes // parts,
        activations=_activations(recipe, config, num_parameters),
        logits=3 * _logits(recipe, config, chunk_nbytes(device.type)),
        program=0 if on_gpu else _PROGRAM_NBYTES,
        available=_free(device),
    )


def all_trained_nbytes(num_parameters: int) -> int:
    """Return the bytes of a model that trains whole: weights, gradients, both moments of AdamW."""
    return 4 * _FLOAT32 * num_parameters


def _logits(recipe: Recipe, config: Mapping[str, Any], chunk_nbytes: int) -> int:
    """Return the bytes of the logits that are there at a time, which is all in derived families."""
    tokens = recipe.micro_batch_size * recipe.data.sequence_length
    whole = _FLOAT32 * tokens * int(_text(config).vocab_size)
    return min(chunk_nbytes, whole) if config["model_type"] in FAMILIES else whole


def _free(device: Any) -> int | None:
    import torch

    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free)
    return available_nbytes()


def _activations(recipe: Recipe, config: Mapping[str, Any], num_parameters: int) -> int | None:
    """Return the bytes that the forward pass of a micro-batch keeps; None if nobody can say."""
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode

    from hfgrow.train.attention import use_causal_attention
    from hfgrow.train.derived_flops import has_experts

    text = _text(config)
    is_bf16 = recipe.precision == "bf16"
    # Without numbers torch multiplies experts in bfloat16 alone; what they keep is twice that.
    is_half = not is_bf16 and has_experts(text.to_dict())
    dtype = torch.bfloat16 if is_bf16 or is_half else torch.float32
    kept: dict[int, tuple[Any, int]] = {}

    def pack(tensor: Any) -> Any:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage, 2 if is_half and tensor.dtype == dtype else 1
        return tensor

    shape = (recipe.micro_batch_size, recipe.data.sequence_length)
    try:
        with FakeTensorMode(), torch.device("cpu"):
            model = built_model(config_of(config), dtype=dtype)
            use_causal_attention(model)
            own = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
            tokens = torch.zeros(shape, dtype=torch.long)
            with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
                # The head and its loss are counted by themselves, where they come in chunks.
                is_ours = model.config.model_type in FAMILIES
                (model.model if is_ours else model)(input_ids=tokens, use_cache=False)
    except Exception:
        # A model that cannot do without numbers: the other parts are still worth telling.
        return None
    saved = sum(int(storage.nbytes()) * times for storage, times in kept.values())
    layers = int(text.num_hidden_layers)
    whole = prod(shape) * int(text.hidden_size) * _FLOAT32
    if recipe.activation_checkpointing:
        saved = layers * whole + saved // layers
    # The weights once more as bfloat16, which autocast keeps until the way back.
    casts = 2 * num_parameters if is_bf16 else 0
    # The hidden states' gradient, and one of the head's matrix beside it.
    return saved + casts + 2 * whole


def _text(config: Mapping[str, Any]) -> Any:
    """Return the config of the layers as transformers fills it in."""
    return config_of(config).get_text_config(decoder=True)


def rate_of(
    recipe: Recipe,
    config: Mapping[str, Any],
    progress: Progress,
    *,
    flops_per_token: float,
    device: Any,
) -> Rate | None:
    """Return how fast a model trains here; None where neither device nor model says it.

    Args:
        recipe: The recipe.
        config: The config of the model.
        progress: Told where steps of it are timed.
        flops_per_token: Its exact FLOPs of a token.
        device: The torch device.
    """
    import torch

    from hfgrow.train.flops import arithmetic

    usual = usual_flops(device)
    if usual is None:
        return None
    # Processes on CPUs part the cores among them, unless each was given a number of threads.
    is_shared = device.type == "cpu" and not os.environ.get("OMP_NUM_THREADS")
    parts = recipe.world.processes if is_shared else 1
    usual /= parts
    tokens = recipe.micro_batch_size * recipe.data.sequence_length
    num_parameters = arithmetic(config, recipe.data.sequence_length).num_parameters
    is_small = all_trained_nbytes(num_parameters) <= _MOST_MODEL_NBYTES
    less = ""
    if device.type == "cpu" and is_small and tokens * flops_per_token / usual <= _MOST_SECONDS:
        progress.say(f"Timing steps of the model, for at most about {duration(_TIMING_S)}")
        if (timed := _timed(recipe, config, device)) is not None:
            threads = torch.get_num_threads()
            return Rate(
                timed.num_flops / timed.wall_s / parts,
                f"measured on {timed.num_tokens:,} tokens in {timed.wall_s:.1f} s, "
                f"{threads} thread{'' if threads == 1 else 's'} of this machine as it is now",
                is_measured=True,
            )
        less = "; a model this small reaches less"
    what = "measured products on free cores" if device.type == "cpu" else "the data sheet's peak"
    return Rate(usual, f"assumed, {_share(device):.0%} of {what}{less}", is_measured=False)


def usual_flops(device: Any) -> float | None:
    """Return the FLOP/s that models usually reach on a device; None where its peak is unknown.

    On a CPU products are measured for it, which takes about a third of a second, once in a process.
    """
    import torch

    from hfgrow.train.flops import peak_flops

    is_cpu = device.type == "cpu"
    peak = _peak_of_free_cores(torch.get_num_threads()) if is_cpu else peak_flops(device)
    return None if peak is None else _share(device) * peak


def cost_in_words(flops: float, device: Any) -> str:
    """Return FLOPs in words, on a CPU with about how long they take it."""
    words = f"{flops:.3g} FLOPs"
    # The peaks of data sheets are not those of float32.
    if device.type != "cpu" or (rate := usual_flops(device)) is None:
        return words
    return f"{words}: about {duration(max(1.0, flops / rate))} on free cores"


@cache
def _peak_of_free_cores(num_threads: int) -> float:
    from hfgrow.train.flops import measured_on_cpu

    return measured_on_cpu(_GEMM_SIZE, _seconds)


def _share(device: Any) -> float:
    return _USUAL_MFU.get(device.type, _USUAL_MFU_ELSEWHERE)


def others_at_work() -> str:
    """Return that others use this machine too, in words; empty where nobody does."""
    load, cores = os.getloadavg()[0], len(os.sched_getaffinity(0))
    return "" if load < cores + 1 else f"others use this machine (load {load:.1f} on {cores} cores)"


def threads_advice() -> str:
    """Return what may be faster beside others, in words; empty where the threads were chosen."""
    if os.environ.get("OMP_NUM_THREADS"):
        return ""
    return "threads wait for each other there, and OMP_NUM_THREADS=1 may be faster"


def _seconds() -> float:
    """Return the time of this process on its cores: what it waits for them does not count."""
    import torch

    return time.process_time() / torch.get_num_threads()


@dataclass(frozen=True, slots=True)
class _Timed:
    """What the timed steps of a model came to, by the clock on the wall."""

    num_flops: float
    num_tokens: int
    wall_s: float


def _timed(recipe: Recipe, config: Mapping[str, Any], device: Any) -> _Timed | None:
    """Return what steps of a fresh model take; None where too few tokens fit into the time.

    A short step warms up and never counts. Each one that follows is made only where the speed so
    far says that it fits, and is left within where it does not: beside others the speed changes.
    """
    import torch

    from hfgrow.train.attention import preferred_kernels, use_causal_attention
    from hfgrow.train.flops import arithmetic
    from hfgrow.train.loss import NextTokenLoss

    ends_s = time.monotonic() + _TIMING_S
    with torch.device(device):
        model = built_model(config_of(config), dtype=torch.float32)
        use_causal_attention(model)
        module = NextTokenLoss(model)
        optimizer = torch.optim.AdamW(module.parameters(), fused=True)
    vocab_size = _text(config).vocab_size

    def check(*_: object) -> None:
        if time.monotonic() >= ends_s:
            raise TimeoutError

    def passed(_module: object, _inputs: object, output: object) -> None:
        check()
        if isinstance(output, torch.Tensor) and output.requires_grad:
            output.register_hook(check)  # type: ignore[no-untyped-call]  # it has no annotations

    for part in model.modules():
        part.register_forward_hook(passed)

    def step(num_sequences: int, length: int) -> float:
        tokens = torch.randint(0, vocab_size, (num_sequences, length), device=device)
        started_s = time.monotonic()
        with torch.autocast(device.type, torch.bfloat16, enabled=recipe.precision == "bf16"):
            loss, count = module(tokens, tokens)
        (loss / count).backward()
        check()
        optimizer.step()
        optimizer.zero_grad()
        return time.monotonic() - started_s

    length = recipe.data.sequence_length
    first, whole = (1, min(length, _FIRST_TOKENS)), (recipe.micro_batch_size, length)
    flops_of = {n: n * arithmetic(config, n).exact_flops for n in (first[1], length)}
    steps: list[_Timed] = []
    with preferred_kernels(device), suppress(TimeoutError):
        speed = flops_of[first[1]] / step(*first)
        while sum(one.num_tokens == prod(whole) for one in steps) < _NUM_STEPS:
            can = speed * (ends_s - time.monotonic())
            fit = int(can / flops_of[length])
            # The first step of all is slow, and another one may say that more fits.
            if not fit and (steps or can < flops_of[first[1]]):
                break
            shape = (min(fit, recipe.micro_batch_size), length) if fit else first
            flops, wall_s = shape[0] * flops_of[shape[1]], step(*shape)
            speed = flops / wall_s
            steps += [_Timed(flops, prod(shape), wall_s)] if fit else []
    # A smaller step is slower, token by token.
    most = max((one.num_tokens for one in steps), default=0)
    counted = [one for one in steps if one.num_tokens == most]
    num_tokens = most * len(counted)
    if num_tokens < min(prod(whole), _LEAST_TOKENS):
        return None
    return _Timed(
        sum(one.num_flops for one in counted),
        num_tokens,
        sum(one.wall_s for one in counted),
    )
