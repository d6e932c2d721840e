"""One stage of training, step after step: the loop.

A step is a pure function of the state before it and of its number: the samples are those of the
number, and what is random (dropout) is seeded by it. So a run that goes on from a checkpoint ends
in the same bits as one that was never stopped.
"""

import math
import signal
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import torch

from hfgrow.console import duration
from hfgrow.data.batches import BatchPlan, MicroBatch, micro_batches, num_evaluation_blocks
from hfgrow.data.corpus import Corpus
from hfgrow.data.hashing import key
from hfgrow.data.order import BlockOrder
from hfgrow.errors import ModelError, TrainingError, printable
from hfgrow.lineage.manifest import Model
from hfgrow.train.attention import preferred_kernels
from hfgrow.train.cadence import Cadence, is_passed
from hfgrow.train.devices import Devices, clip_gradients
from hfgrow.train.evaluate import HeldOutLoss, evaluate
from hfgrow.train.flops import peak_flops, utilization
from hfgrow.train.metrics import Metrics, Position
from hfgrow.train.optimizers import averaged, set_learning_rates
from hfgrow.train.plateau import has_ended, is_at_plateau, plateau_line
from hfgrow.train.recipe.recipe import Recipe
from hfgrow.train.stage import Stage

# Steps in a row whose loss or gradient may not be finite.
_MAX_SKIPPED = 3
# The way forward is a third of a step.
_FORWARD_SHARE = 1 / 3


@dataclass(frozen=True, eq=False)
class Run:
    """What all stages of a run share.

    Attributes:
        recipe: The recipe.
        devices: The processes.
        corpus: The text.
        order: The order of the samples.
        plan: How the samples of a step are parted.
        metrics: The record.
        position: Where the run stands; changes.
        save_checkpoint: The callback that saves a checkpoint of a stage.
        cadence: When one is due inside a stage.
        base_sizes: The sizes of the model that the run begins with.
    """

    recipe: Recipe
    devices: Devices
    corpus: Corpus
    order: BlockOrder
    plan: BatchPlan
    metrics: Metrics
    position: Position
    save_checkpoint: Callable[[Stage], None]
    cadence: Cadence
    base_sizes: Model


def train_stage(run: Run, stage: Stage, speed: "Speed") -> int:
    """Train a stage from where the run stands to its end: a plateau, or the last of its tokens.

    Returns:
        0, or the signal that stopped it; then a checkpoint was saved.

    Raises:
        TrainingError: Loss or gradient were not finite too often.
    """
    recipe, at, devices = run.recipe, run.position, run.devices
    num_steps, tokens = stage.train.num_steps(recipe.batch_tokens), recipe.batch_tokens
    batches = micro_batches(
        run.order,
        run.plan,
        rank=devices.rank,
        first_sample=at.samples,
        document_mask=recipe.data.document_mask,
        pin_memory=devices.device.type == "cuda",
    )
    with devices.stop.held(), closing(batches), preferred_kernels(devices.device):
        if at.stage_step == 0:
            _measure_start(run, stage)
        run.cadence.begin(at.stage_step)
        begin = at.stage_step, at.stage_seconds
        is_end = devices.main_sees(has_ended(recipe, stage.train, at))
        while not is_end:
            started = time.perf_counter()
            step = take_step(run, stage, next(batches))
            seconds = time.perf_counter() - started
            at.advance(1, samples=run.plan.num_samples, tokens=tokens, seconds=seconds)
            at.count_skipped(not step.is_finite)
            _log(run, stage, step, speed.of(tokens, seconds), begin)
            _check_skipped(at, step)

            is_end = at.stage_step == num_steps
            if is_end or is_passed(at.tokens, recipe.evaluation.every_tokens, tokens):
                losses = measure(run, stage)
                is_plateau = not is_end and _is_plateau(run, stage, losses)
                is_end = is_end or is_plateau
                record_evaluation(run, losses, "end" if is_end else "inside")
                if is_plateau:
                    _say_plateau(run, stage)

            # After a skipped step an older state is the better one to go back to; but what follows
            # the stage begins with its end.
            if step.signal or is_end or (step.is_save_due and not at.num_skipped):
                with run.cadence.saving(at.stage_step):
                    run.save_checkpoint(stage)
            if step.signal:
                return step.signal
    return 0


@dataclass(frozen=True, slots=True)
class Step:
    """What came of an optimizer step.

    Attributes:
        loss: Nats a token, over the tokens of all processes.
        gradient_norm: Before it was clipped.
        signal: That which somebody stopped the run with, or 0.
        is_save_due: Whether a checkpoint is due behind it.
    """

    loss: float
    gradient_norm: float
    signal: int
    is_save_due: bool

    @property
    def is_finite(self) -> bool:
        """Whether its numbers are; if not, the parameters are as they were."""
        return math.isfinite(self.loss) and math.isfinite(self.gradient_norm)


def take_step(run: Run, stage: Stage, batches: tuple[MicroBatch, ...]) -> Step:
    """Take an optimizer step, unless its numbers are not finite."""
    at, devices, tokens = run.position, run.devices, run.recipe.batch_tokens
    torch.manual_seed(key("step", run.recipe.seed, at.step, devices.rank) >> 1)
    stage_tokens = at.stage_step * tokens
    factor = new_factor = stage.schedule.of_step(stage_tokens, tokens)
    if stage.new_schedule is not None:
        new_factor = stage.new_schedule.of_step(stage_tokens, tokens)
    set_learning_rates(stage.optimizer, factor, new_factor)
    stage.open_mask(stage_tokens + tokens)

    num_targets = sum(batch.num_targets for batch in batches)
    if run.recipe.data.document_mask:
        counted = devices.sum(torch.tensor(num_targets, device=devices.device))
        num_targets = int(counted)
    else:
        num_targets *= devices.num_processes
    total = torch.zeros((), dtype=torch.float64, device=devices.device)
    tell = run.metrics.within(f"step {at.stage_step + 1}/{stage.train.num_steps(tokens)}", tokens)
    for i, batch in enumerate(batches):
        moved = batch.to(devices.device)
        with devices.accumulating(stage.module, is_last=i == len(batches) - 1):
            with devices.autocast():
                loss, _ = stage.module(moved.input_ids, moved.targets, stage.masks.of(moved))
            tell((i + _FORWARD_SHARE) / len(batches))
            # Gradients are means over processes; the loss is one over the tokens of all.
            (loss * (devices.num_processes / max(1, num_targets))).backward()
        total += loss.detach()
        tell((i + 1) / len(batches))
    stage.partly_new.mask_gradients()
    norm = clip_gradients(stage.trained_parameters, stage.train.gradient_clipping)
    asked = torch.full_like(total, float(devices.stop.number))
    due = torch.full_like(total, float(devices.is_main and _is_save_due(run, stage)))
    loss_sum, stop, is_due = devices.sum(torch.stack((total, asked, due))).tolist()
    # Its own number, or that of SIGTERM where others were asked to stop.
    stopped = (devices.stop.number or signal.SIGTERM) if stop else 0
    step = Step(loss_sum / max(1, num_targets), norm, stopped, bool(is_due))
    if step.is_finite:
        with stage.partly_new.stepping(new_factor / factor if factor else 1.0):
            stage.optimizer.step()
    stage.optimizer.zero_grad(set_to_none=True)
    return step


def _is_save_due(run: Run, stage: Stage) -> bool:
    """Say whether a checkpoint is due behind the step that is being taken."""
    at, tokens = run.position, run.recipe.batch_tokens
    num_steps = stage.train.num_steps(tokens)
    return run.cadence.is_due(at.tokens + tokens, at.stage_step + 1, num_steps)


def _check_skipped(at: Position, step: Step) -> None:
    if at.num_skipped > _MAX_SKIPPED:
        raise TrainingError(
            f"the loss is {step.loss:g} and the norm of the gradient {step.gradient_norm:g} at "
            f"step {at.step}, the {at.num_skipped}th step in a row without finite numbers",
            hint="lower learning_rate and begin in another output, from the base or from the last "
            "model in stages/",
        )


def _log(
    run: Run, stage: Stage, step: Step, rate: dict[str, Any], begin: tuple[int, float]
) -> None:
    """Record a step, and say it now and then; `begin` is where this session took the stage up."""
    at, rates = run.position, stage.learning_rates
    line = {
        "step": at.step,
        "stage": at.stage,
        "tokens": at.tokens,
        "loss": step.loss,
        "learning_rate": rates[-1],
        "gradient_norm": step.gradient_norm,
        **rate,
    }
    if len(rates) > 1:
        line["learning_rates"] = rates
    if run.devices.device.type == "cuda":
        line["peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
    if stage.growth_mask is not None:
        line["mask"] = stage.growth_mask.value
    num_steps = stage.train.num_steps(run.recipe.batch_tokens)
    # The peak of a CPU is measured, and others may have used it meanwhile.
    mfu = f", MFU {rate['mfu']:.0%}" if rate["mfu"] and rate["mfu"] <= 1 else ""
    said = (
        f"  step {at.stage_step}/{num_steps}  loss {step.loss:.4f}  "
        f"lr {' to '.join(f'{one:.2e}' for one in (rates[:1] + rates[1:][-1:]))}  "
        f"{rate['tokens_per_s']:,.0f} tokens/s{mfu}"
    )
    if left_s := at.seconds_left(num_steps, begin):
        said += f", {'at most ' if stage.train.until else ''}{duration(left_s)} left"
    if at.num_skipped:
        said += "  skipped: a number is not finite"
    is_always_said = bool(at.num_skipped) or at.stage_step in (1, num_steps)
    run.metrics.write(line, said=said, always=is_always_said)


def _measure_start(run: Run, stage: Stage) -> None:
    losses = measure(run, stage)
    record_evaluation(run, losses, "start")
    for text in losses:
        if math.isfinite(text.loss):
            continue
        raise ModelError(
            f"the held-out loss of {printable(text.label)} is {text.loss:g} before the first step "
            f"of stage {run.position.stage}: the model's weights are broken",
            hint="look at the model that the stage begins with: hfgrow check MODEL",
        )


def measure(run: Run, stage: Stage) -> tuple[HeldOutLoss, ...]:
    """Measure the held-out text."""
    recipe = run.recipe
    with averaged(stage.optimizer):
        return evaluate(
            stage.module,
            run.corpus.validation,
            run.devices,
            stage.masks,
            sequence_length=recipe.data.sequence_length,
            micro_batch_size=recipe.micro_batch_size,
            max_tokens=recipe.evaluation.tokens,
            document_mask=recipe.data.document_mask,
            advance=measuring(run),
        )


def measuring(run: Run) -> Callable[[int], None]:
    """Return a function that tells how far held-out text is, by the tokens of a batch."""
    length, most = run.recipe.data.sequence_length, run.recipe.evaluation.tokens
    blocks = (num_evaluation_blocks(view, length, most) for view in run.corpus.validation)
    num_tokens, done = length * sum(blocks), 0
    tell = run.metrics.within("measuring held-out text", num_tokens)

    def advance(num_measured: int) -> None:
        nonlocal done
        # The other processes measure as many at the same time.
        done += num_measured * run.devices.num_processes
        tell(done / num_tokens)

    return advance


def _is_plateau(run: Run, stage: Stage, losses: tuple[HeldOutLoss, ...]) -> bool:
    """Say whether a stage ends with what was measured just now, and is not recorded yet."""
    at = run.position
    evaluations = [*at.evaluations, _evaluation(at, losses)]
    return run.devices.main_sees(is_at_plateau(run.recipe, stage.train, at, evaluations))


def _say_plateau(run: Run, stage: Stage) -> None:
    at, train = run.position, stage.train
    tokens = at.stage_step * run.recipe.batch_tokens
    run.metrics.say(
        f"  {plateau_line(run.recipe, train, at, at.evaluations)}: the stage ends after "
        f"{tokens:,} of at most {train.tokens:,} tokens"
    )


def record_evaluation(run: Run, losses: tuple[HeldOutLoss, ...], when: str) -> None:
    """Record what the held-out text cost where the run stands.

    Args:
        when: `start`, `inside` or `end` of a stage, or `base` before a first growth.
    """
    at = run.position
    line = {**_evaluation(at, losses), "when": when}
    at.evaluations.append(line)
    said = ", ".join(
        f"{t.label} {t.loss:.4f} ({t.bits_per_byte:.4f} bits per byte)" for t in losses
    )
    run.metrics.write({"step": at.step, **line}, said=f"  held out: {said}", always=True)


def _evaluation(at: Position, losses: tuple[HeldOutLoss, ...]) -> dict[str, Any]:
    validation = {
        text.label: {
            "loss": text.loss,
            "bits_per_byte": text.bits_per_byte,
            "num_tokens": text.num_tokens,
        }
        for text in losses
    }
    return {"tokens": at.tokens, "stage": at.stage, "validation": validation}


@dataclass(frozen=True, slots=True)
class Speed:
    """What a token costs, and what the devices could do.

    Attributes:
        flops: FLOPs of a token, forward and backward.
        peak: FLOP/s of all devices together; None if it is unknown.
    """

    flops: float
    peak: float | None

    def of(self, tokens: int, seconds: float) -> dict[str, Any]:
        """Return `tokens_per_s` and `mfu` of a step, or of several."""
        rate = tokens / seconds
        used = self.peak and utilization(rate, self.flops, self.peak)
        return {"tokens_per_s": rate, "mfu": used}


def speed_of(flops: float, devices: Devices) -> Speed:
    """Return the speed meter of a stage; on CPUs the peak is measured, which takes a moment."""
    # Processes that share the cores of a machine measure at the same time, each its part.
    peak = peak_flops(devices.device)
    return Speed(flops, peak and peak * devices.num_processes)
