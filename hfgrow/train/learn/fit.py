"""Learn the maps of a growth on text, and keep those that held-out text likes best.

AdamW without weight decay, gradients clipped to a norm of 1, a rise of the learning rate over the
first tenth of the steps. The init is an iterate too: where learning makes it no better, it stays.

What the maps begin as: `fp` and `stack` fill every axis that grows with copies whose shares add up
to what their source was, as `hyperclone-noisy` does: `write`, `up`, `query`, `key` and `value`
carry the copies forward, `read`, `down` and `output` undo them. To the latter is added noise `N`
with `N^T F = 0`, `F` the map that carries forward: copies without it would get equal gradients and
stay copies for ever. In depth `fp` begins as zero-depth, `stack` as the stack; both width parts
keep the function.

`ligo` begins as `[I; Z]` with `Z ~ N(0, 1/D)`, one draw for what writes and reads the stream and
the neurons, and layers in a cycle.

Source: Wang et al. 2023, "Learning to Grow Pretrained Models for Efficient Transformer Training"
(LiGO), https://arxiv.org/abs/2303.00980, Sec. 3 (few steps of the maps alone); `ligo` begins as in
the code of Du et al. 2024, https://arxiv.org/abs/2405.15319
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import count
from math import isfinite, sqrt
from typing import Any

import torch
from torch import Tensor

from hfgrow.checkpoint.compute.recipe_rows import normal
from hfgrow.console import Pace, Progress
from hfgrow.data.batches import (
    BatchPlan,
    MicroBatch,
    evaluation_batches,
    micro_batches,
    num_evaluation_blocks,
)
from hfgrow.data.order import BlockOrder
from hfgrow.data.views import TokenView
from hfgrow.errors import TrainingError
from hfgrow.plan.axes import AxisMap
from hfgrow.plan.families import FAMILIES
from hfgrow.plan.families.table import layer_prefix
from hfgrow.plan.operators.learn import (
    FINAL,
    GAIN,
    READERS,
    LearnArguments,
    LearnedGrowth,
    depth_map,
    map_shapes,
)
from hfgrow.plan.plan import GrowthPlan, LayerSource
from hfgrow.train.learn.model import LearnedModel, Maps
from hfgrow.train.schedules import Schedule

# Held-out tokens of each text, and how often they are looked at.
MAX_EVALUATION_TOKENS = 1 << 15
_NUM_EVALUATIONS = 10
_WARMUP_SHARE = 0.1
_MAX_NORM = 1.0
_BETAS = (0.9, 0.95)


@dataclass(frozen=True, kw_only=True)
class FitSettings:
    """How to learn.

    Attributes:
        steps: Steps of the optimizer; 0 keeps the init.
        batch: How a step is parted.
        sequence_length: Tokens of a sequence.
        lr: The peak learning rate.
    """

    steps: int
    batch: BatchPlan
    sequence_length: int
    lr: float


@dataclass(frozen=True)
class Fitted:
    """What was learned.

    Attributes:
        maps: The maps with the lowest held-out loss, float32 on the CPU.
        initial_loss: The held-out loss of the init, nats per token.
        loss: That of `maps`.
        kept_step: After how many steps these stood; 0 is the init.
    """

    maps: dict[str, Tensor]
    initial_loss: float
    loss: float
    kept_step: int


def fit(
    model: LearnedModel,
    initial: Maps,
    order: BlockOrder,
    validation: Sequence[TokenView],
    settings: FitSettings,
    device: torch.device,
    progress: Progress,
) -> Fitted:
    """Learn maps.

    Args:
        model: The grown model as a function of them.
        initial: What they begin as; it stays as it is.
        validation: The text that decides which iterate is kept.
        device: Where to compute.
        progress: Told the held-out losses.

    Raises:
        TrainingError: The init has no finite loss.
    """
    maps = {
        name: tensor.detach().to(device, copy=True).requires_grad_()
        for name, tensor in initial.items()
    }
    schedule = Schedule(
        kind="constant", tokens=settings.steps, warmup_tokens=round(_WARMUP_SHARE * settings.steps)
    )
    optimizer = torch.optim.AdamW(maps.values(), lr=settings.lr, betas=_BETAS, weight_decay=0.0)
    held_out = partial(_held_out, model, maps, validation, settings, device, progress)
    loss = initial_loss = held_out()
    if not isfinite(initial_loss):
        raise TrainingError("the init has no finite held-out loss, so nothing can be learned")
    of = _measured(validation, settings)
    progress.say(f"Step 0 of {settings.steps}: held-out loss {initial_loss:.4f} of {of}")
    best, kept_step = _copied(maps), 0
    every = max(1, settings.steps // _NUM_EVALUATIONS)
    # Every layer is passed on the way forward, and again on the way back.
    runs = 2 * model.num_layers * settings.batch.accumulation
    pace = Pace(settings.steps * runs, lambda done: f"{done / runs:.3g}")
    passed = partial(_tell, pace, count(1), "Learning, steps", progress)
    with closing(_batches(order, settings.batch)) as steps:
        for step in range(1, settings.steps + 1):
            for group in optimizer.param_groups:
                group["lr"] = settings.lr * schedule.of_step(step - 1, 1)
            if not _stepped(model, maps, next(steps), optimizer, device, passed):
                progress.say(f"Note: the loss of step {step} is not finite; learning ends")
                break
            if step % every == 0 or step == settings.steps:
                found = held_out()
                progress.say(f"Step {step} of {settings.steps}: held-out loss {found:.4f}")
                if found < loss:
                    best, loss, kept_step = _copied(maps), found, step
    if kept_step == 0 and settings.steps:
        progress.say("Note: no step made the held-out loss lower, so the init is kept")
    return Fitted(best, initial_loss, loss, kept_step)


def _tell(pace: Pace, numbers: Iterator[int], what: str, progress: Progress) -> None:
    """Tell how far something is, if it is time: one more of its parts is done."""
    if state := pace.due(next(numbers)):
        progress.say(f"{what}: {state}")


def _batches(order: BlockOrder, batch: BatchPlan) -> Any:
    # A generator, which its type does not say.
    return micro_batches(order, batch)


def _stepped(
    model: LearnedModel,
    maps: Maps,
    batches: Sequence[MicroBatch],
    optimizer: torch.optim.Optimizer,
    device: torch.device,
    passed: Callable[[], None],
) -> bool:
    """Take a step; say whether its loss and gradients were finite. If not, nothing moves."""
    optimizer.zero_grad(set_to_none=True)
    num_targets = sum(batch.num_targets for batch in batches)
    for batch in batches:
        with _precision(device):
            total, _ = model.loss(batch, maps, passed)
        (total / num_targets).backward()  # type: ignore[no-untyped-call]  # torch has no types
    norm = torch.nn.utils.clip_grad_norm_(list(maps.values()), _MAX_NORM)
    if not isfinite(float(norm)):
        return False
    optimizer.step()
    return True


def _held_out(
    model: LearnedModel,
    maps: Maps,
    views: Sequence[TokenView],
    settings: FitSettings,
    device: torch.device,
    progress: Progress,
) -> float:
    """Return the loss of held-out text, nats per token."""
    total, num_tokens = 0.0, 0
    size, length = settings.batch.micro_batch_size, settings.sequence_length
    blocks = (num_evaluation_blocks(view, length, MAX_EVALUATION_TOKENS) for view in views)
    runs = model.num_layers * sum(-(-number // size) for number in blocks)
    targets = sum(_num_targets(view, settings) for view in views)
    pace = Pace(runs, lambda done: f"{targets * done // runs:,}")
    passed = partial(_tell, pace, count(1), "Measuring held-out text, tokens", progress)
    with torch.no_grad(), _precision(device):
        for batch in _evaluation(views, settings):
            loss, num_targets = model.loss(batch, maps, passed)
            total, num_tokens = total + float(loss), num_tokens + num_targets
    return total / num_tokens


def _evaluation(views: Sequence[TokenView], settings: FitSettings) -> Iterator[MicroBatch]:
    for view in views:
        yield from evaluation_batches(
            view,
            sequence_length=settings.sequence_length,
            micro_batch_size=settings.batch.micro_batch_size,
            max_tokens=MAX_EVALUATION_TOKENS,
        )


def _measured(views: Sequence[TokenView], settings: FitSettings) -> str:
    """Return what held-out losses are of; a run measures as much as its recipe says, and apart."""
    parts = []
    for view in views:
        targets = _num_targets(view, settings)
        first = "the first " if targets < view.num_tokens - 1 else ""
        parts.append(f"{first}{targets:,} tokens of {view.label}")
    return " and ".join(parts)


def _num_targets(view: TokenView, settings: FitSettings) -> int:
    """Return how many tokens of a text are measured."""
    length = settings.sequence_length
    num_blocks = num_evaluation_blocks(view, length, MAX_EVALUATION_TOKENS)
    return min(num_blocks * length, view.num_tokens - 1)


def _copied(maps: Maps) -> dict[str, Tensor]:
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in maps.items()}


def _precision(device: torch.device) -> AbstractContextManager[object]:
    """Multiply in bfloat16 on CUDA; the maps stay in float32."""
    return torch.autocast("cuda", torch.bfloat16) if device.type == "cuda" else nullcontext()


# The noise in units of the shares that it is added to; hyperclone-noisy's default.
_NOISE = 0.3


def initial_maps(
    base: GrowthPlan, growth: LearnedGrowth, arguments: LearnArguments
) -> dict[str, Tensor]:
    """Return every map of a growth as it begins, float32 [grown units, units of the base].

    Args:
        growth: Where the growth leads.
        arguments: The init and the seed.
    """
    family = FAMILIES[base.family]
    ends = {
        depth_map(layer_prefix(0) + name)
        for name, role in family.roles(base.config).items()
        if role.ends_branch
    }
    is_tied = family.head.tensor not in base.tensors
    seed = arguments.seed or 0
    maps = {}
    for name, (size, base_size) in map_shapes(base, growth).items():
        axis = name.partition(".")[0]
        if axis == "depth":
            made = _one_hot(growth.sources, base_size, is_end=name in ends)
        elif arguments.init == "ligo":
            made = _identity_and_noise(size, base_size, f"{seed}/{_drawn_once(name)}")
        elif name in (GAIN, FINAL):
            made = _matrix(growth.axes[axis], [1.0] * size).float()
            if name == FINAL and is_tied:
                # Tied embeddings read as they write: what they add is divided out behind the norm.
                made *= base_size / size
        else:
            key = f"{seed}/{name}" if name in READERS else None
            made = _copies(growth.axes[axis], key)
        maps[name] = made
    return maps


def _drawn_once(name: str) -> str:
    """Return what names a draw: one for all that writes and reads the stream, or neurons."""
    axis = name.partition(".")[0]
    return axis if axis in ("hidden", "ffn") else name


def _one_hot(sources: Sequence[LayerSource], num_layers: int, *, is_end: bool) -> Tensor:
    made = torch.zeros(len(sources), num_layers)
    for i, source in enumerate(sources):
        if not (is_end and source.mode == "zero"):
            made[i, source.layer] = 1.0
    return made


def _identity_and_noise(size: int, base_size: int, key: str) -> Tensor:
    fresh = torch.from_numpy(normal(key, 0, size - base_size, base_size)) / sqrt(size)
    return torch.cat((torch.eye(base_size), fresh))


def _copies(axis: AxisMap, reader_key: str | None) -> Tensor:
    """Return an axis map as a matrix: forward, or, with noise that copies cancel, backward."""
    forward = _matrix(axis, [span.forward for span in axis.spans for _ in range(span.length)])
    if reader_key is None:
        return forward.float()
    shares = [span.backward for span in axis.spans for _ in range(span.length)]
    rms = sqrt(sum(share**2 for share in shares) / len(shares))
    noise = torch.from_numpy(normal(reader_key, 0, axis.size, axis.base)).double()
    noise *= _NOISE * rms / sqrt(axis.base)
    energy = forward.square().sum(0)[:, None]
    noise -= forward @ (forward.T @ noise / energy)
    backward: Tensor = _matrix(axis, shares) + noise
    return backward.float()


def _matrix(axis: AxisMap, factors: Sequence[float]) -> Tensor:
    made = torch.zeros(axis.size, axis.base, dtype=torch.float64)
    made[torch.arange(axis.size), torch.tensor(axis.sources)] = torch.tensor(
        factors, dtype=torch.float64
    )
    return made
