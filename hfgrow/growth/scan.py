"""Which block to repeat: every short block of layers run twice in memory, scored by its loss.

A block [i, j) of a model of n layers is repeated as `partial` grows it: layers 0 .. j-1, then
i .. n-1. What goes into layer j is known from the plain pass, so only the layers i .. n-1 are run:
sum of min(B, k) k over k = 1 .. n runs of a layer for all blocks of up to B layers. Layers, masks
and positions are transformers' own: each layer is called as the model called it in the plain pass.

Source: the scan over blocks is that of RYS, https://github.com/dnhkng/RYS. Damped, every pass
through the block adds half: a block that is a step of Euler's method becomes two of half the
length, as in Chen et al. 2026, "Training-Free Looped Transformers",
https://arxiv.org/abs/2605.23872
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from math import inf, isfinite
from pathlib import Path
from typing import Any

from hfgrow.checkpoint.derived.skeleton import skeleton_of
from hfgrow.checkpoint.files import TOKENIZERS, LocalFolder
from hfgrow.checkpoint.read import read
from hfgrow.console import Pace, Progress, duration, load, shown, size
from hfgrow.errors import ModelError, UsageError, argument, command, foreign, printable
from hfgrow.growth.behaviour import opened_tokenizer, probe_text, tokenized
from hfgrow.growth.layer_stack import TIMES, LayerStack
from hfgrow.growth.loading import loaded_model, silence_transformers, transformers_config
from hfgrow.lineage.canvas import canvas, picture_bytes, plain_label
from hfgrow.plan.families import FAMILIES
from hfgrow.plan.families.table import layer_of
from hfgrow.plan.plan import GrowthPlan

DEFAULT_MAX_BLOCK = 8
DEFAULT_TOKENS = 512
# Tokens seen together.
_SEQUENCE_LENGTH = 512
# More than tokens of any text have on average.
_CHARACTERS = 64
_FLOAT32 = 4


@dataclass(frozen=True, slots=True)
class ScannedBlock:
    """Layers [start, stop) of the base, counted from 0, and the loss with them run twice.

    Attributes:
        start: The first layer.
        stop: The layer after the last.
        loss: Nats a token; infinite where it is not finite.
        pattern: The growth in the notation of `partial`, which counts from 1.
    """

    start: int
    stop: int
    loss: float
    pattern: str

    @property
    def num_layers(self) -> int:
        """The layers that are repeated."""
        return self.stop - self.start


@dataclass(frozen=True)
class Scan:
    """What every block did to the loss.

    Attributes:
        text: What was read.
        num_tokens: Tokens of it, of which the first of each sequence is not predicted.
        num_hidden_layers: The depth of the base.
        damped: Whether every pass through the block added half.
        base_loss: Nats a token of the base.
        blocks: The blocks, the best first.
    """

    text: str
    num_tokens: int
    num_hidden_layers: int
    damped: bool
    base_loss: float
    blocks: tuple[ScannedBlock, ...]

    @property
    def best_by_size(self) -> list[ScannedBlock]:
        """The best block of every number of layers, the shortest first."""
        best: dict[int, ScannedBlock] = {}
        for block in self.blocks:
            best.setdefault(block.num_layers, block)
        return [best[size] for size in sorted(best)]

    def to_json(self) -> dict[str, Any]:
        """Return all of it as JSON has it; a loss that is not finite is null."""
        blocks = [self._row(block) for block in self.blocks]
        return {
            "text": self.text,
            "num_tokens": self.num_tokens,
            "num_hidden_layers": self.num_hidden_layers,
            "times": TIMES,
            "damped": self.damped,
            "base_loss": self.base_loss,
            "best": blocks[0],
            "blocks": blocks,
        }

    def _row(self, block: ScannedBlock) -> dict[str, Any]:
        known = isfinite(block.loss)
        return {
            "first_layer": block.start,
            "last_layer": block.stop - 1,
            "num_layers": block.num_layers,
            "loss": block.loss if known else None,
            "change": block.loss - self.base_loss if known else None,
            "pattern": block.pattern,
        }


def pattern_of(start: int, stop: int, num_layers: int) -> str:
    """Return a repeated block [start, stop), from 0, in the notation of `partial`, from 1."""
    parts = ((0, start, ""), (start, stop, f"*{TIMES}"), (stop, num_layers, ""))
    return "-".join(f"{_run(first, end)}{times}" for first, end, times in parts if first < end)


def _run(start: int, stop: int) -> str:
    return f"[{stop}]" if stop - start == 1 else f"[{start + 1}:{stop}]"


def scan(
    folder: Path,
    progress: Progress,
    *,
    max_block: int = DEFAULT_MAX_BLOCK,
    damped: bool = False,
    text: str | None = None,
    tokens: int = DEFAULT_TOKENS,
) -> Scan:
    """Run every block of a model twice and measure the loss; nothing is written.

    The model is in memory once, in float32, on the CPU. The losses are those that transformers
    computes of the models that `partial` grows, to the last bit; damped, with what every branch in
    both passes adds multiplied by 1/2. That is what `branch-scale` grows, to the last bit but for
    Gemma 2 and 3: halves of gains that are stored less 1 are rounded below float32.

    Args:
        progress: Told what it costs, and how far it is.
        max_block: The most layers of a block.
        damped: Whether every pass through the block adds half.
        text: The text, of which the first `tokens` count; None takes the probe text of `verify`.
        tokens: The most tokens, in sequences of up to 512, which begin as those that the family was
            trained on: of Gemma with the beginning-of-text token.

    Raises:
        UsageError: A number is out of range, or damping is not known of the family.
        ModelError: The model or its tokenizer cannot be loaded, the base has no finite loss, or its
            layers hand each other more than the residual stream.
    """
    if max_block < 1:
        raise UsageError(f"{argument('max_block')} must be at least 1, not {max_block}")
    if tokens < 2:
        raise UsageError(f"{argument('tokens')} must be at least 2, not {tokens}: one is predicted")
    plan = read(LocalFolder(folder), progress)
    if not plan.num_hidden_layers:
        raise UsageError(f"{printable(folder.name)} has no layers, so there is no block to repeat")
    ends = _branch_ends(plan) if damped else ()
    if not any((folder / file).is_file() for file in TOKENIZERS):
        raise ModelError(
            f"{printable(folder.name)} has no tokenizer, and blocks are measured on text",
            hint=f"put one into the folder: {' or '.join(TOKENIZERS)}",
        )
    load(progress)
    words, name = probe_text(folder, text)
    settings, tokenizer = plan.settings, opened_tokenizer(folder)
    # All of a long text would be tokenised for its beginning.
    words = words[: _CHARACTERS * tokens]
    found = tokenized(tokenizer, words, int(settings["vocab_size"]), progress)[:, :tokens]
    length = min(
        _SEQUENCE_LENGTH,
        int(settings.get("max_position_embeddings") or _SEQUENCE_LENGTH),
        found.shape[1],
    )
    sequences = found[0, : found.shape[1] // length * length].reshape(-1, 1, length)
    if (bos := _bos_of(plan, tokenizer)) is not None:
        # As in training, instead of the token there, which nobody predicts.
        sequences[..., 0] = bos
    cost = _Cost.of(plan, max_block, damped, len(sequences), length)
    progress.say(
        f"Scanning {cost.num_blocks} blocks of up to {min(max_block, plan.num_hidden_layers)} of "
        f"{plan.num_hidden_layers} layers on {sequences.numel()} tokens of {name}"
    )
    progress.say(
        f"{cost.num_layer_runs:,} runs of a layer, {shown(cost.flops)} FLOPs, "
        f"{size(_FLOAT32 * plan.num_parameters)} of weights in memory"
    )
    stack = LayerStack(_loaded(plan), _stack_of(plan), ends)
    base_loss, losses = _measured(stack, sequences, max_block, cost, progress)
    blocks = [
        ScannedBlock(*block, loss, pattern_of(*block, plan.num_hidden_layers))
        for block, loss in losses.items()
    ]
    return Scan(
        text=name,
        num_tokens=sequences.numel(),
        num_hidden_layers=plan.num_hidden_layers,
        damped=damped,
        base_loss=base_loss,
        blocks=tuple(sorted(blocks, key=lambda one: (one.loss, one.num_layers, one.start))),
    )


def _bos_of(plan: GrowthPlan, tokenizer: Any) -> int | None:
    """Return the token that every sequence of the family begins with, if there is one."""
    family = FAMILIES.get(plan.family)
    begins = family is not None and family.begins_with_bos
    return tokenizer.bos_token_id if begins else None


def _blocks(num_layers: int, max_block: int) -> Iterator[tuple[int, int]]:
    for start in range(num_layers):
        for stop in range(start + 1, min(start + max_block, num_layers) + 1):
            yield start, stop


@dataclass(frozen=True, slots=True)
class _Cost:
    """What a scan costs, in runs of a layer and in FLOPs, 2 a parameter and token."""

    num_blocks: int
    num_layer_runs: int
    flops_of_layer: float
    flops_of_ends: float
    num_sequences: int

    @classmethod
    def of(
        cls, plan: GrowthPlan, max_block: int, damped: bool, num_sequences: int, length: int
    ) -> "_Cost":
        num_layers = plan.num_hidden_layers
        blocks = list(_blocks(num_layers, max_block))
        # The plain pass, every block with what follows it, and damped its first pass.
        runs = num_layers + sum(num_layers - start for start, _ in blocks)
        inside = sum(t.num_elements for name, t in plan.tensors.items() if _is_of_layer(plan, name))
        vocab = int(plan.settings["vocab_size"])
        # The embeddings, or a head of their shape.
        ends = max(
            (t.num_elements for name, t in plan.tensors.items() if _is_end(plan, name, vocab)),
            default=0,
        )
        return cls(
            num_blocks=len(blocks),
            num_layer_runs=num_sequences * (runs + (len(blocks) if damped else 0)),
            flops_of_layer=2.0 * length * inside / num_layers,
            flops_of_ends=2.0 * length * ends,
            num_sequences=num_sequences,
        )

    @property
    def flops(self) -> float:
        ends = self.num_sequences * (self.num_blocks + 1) * self.flops_of_ends
        return self.num_layer_runs * self.flops_of_layer + ends


def _is_end(plan: GrowthPlan, name: str, vocab: int) -> bool:
    return not _is_of_layer(plan, name) and plan.tensors[name].shape[:1] == (vocab,)


def _is_of_layer(plan: GrowthPlan, name: str) -> bool:
    return (plan.derived.layer_of(name) if plan.derived else layer_of(name)) is not None


def _branch_ends(plan: GrowthPlan) -> tuple[str, ...]:
    """Return the modules of a layer whose outputs are what its branches add.

    Raises:
        UsageError: They are not known, or transformers holds them as one with others.
    """
    if plan.derived is not None or FAMILIES[plan.family].has_experts:
        raise UsageError(
            f"{argument('damped')} needs to know which modules of a layer of a "
            f"{printable(plan.family)} end a branch, and hfgrow does not",
            hint=f"leave out {argument('damped')}",
        )
    roles = FAMILIES[plan.family].roles(plan.config)
    ends = (name.rpartition(".")[0] for name, role in roles.items() if role.ends_branch)
    return tuple(dict.fromkeys(ends))


def _stack_of(plan: GrowthPlan) -> str:
    return skeleton_of(plan.config).stack if plan.derived else "model.layers"


def _loaded(plan: GrowthPlan) -> Any:
    import torch

    silence_transformers()
    shown_name = printable(Path(plan.folder).name)
    with foreign(lambda said: ModelError(f"transformers cannot load {shown_name}: {said}")):
        config = transformers_config(Path(plan.folder))
        model, info = loaded_model(
            Path(plan.folder), config, dtype=torch.float32, output_loading_info=True
        )
    if missing := sorted(map(str, info["missing_keys"])):
        raise ModelError(f"loading {shown_name}: missing keys {printable(', '.join(missing[:3]))}")
    return model.eval()


def _measured(
    stack: LayerStack, sequences: Any, max_block: int, cost: _Cost, progress: Progress
) -> tuple[float, dict[tuple[int, int], float]]:
    """Return the loss of the base, and that of every block [start, stop): means over sequences."""
    import torch

    num_layers = len(stack.layers)
    base, losses = 0.0, dict.fromkeys(_blocks(num_layers, max_block), 0.0)
    pace, done = Pace(round(cost.flops), shown), 0.0
    with (
        foreign(lambda said: ModelError(f"transformers cannot run the model: {said}")),
        torch.inference_mode(),
    ):
        for number, tokens in enumerate(sequences):
            base += stack.record(tokens) / len(sequences)
            if not isfinite(base):
                raise ModelError(
                    "the base has no finite loss",
                    hint=command("check MODEL", weights="")
                    + " says where its weights are NaN or infinite",
                )
            plain = num_layers * cost.flops_of_layer + cost.flops_of_ends
            if not number:
                # Once more: the first pass reads the weights from the disk.
                begun_s = time.monotonic()
                stack.record(tokens)
                left_s = (time.monotonic() - begun_s) * (cost.flops / plain - 1)
                if left_s >= 1:
                    progress.say(f"The blocks take about {duration(left_s)}")
            done += plain
            inside = None
            for start, stop in losses:
                if stack.damps and stop == start + 1:
                    inside = stack.states[start]
                if stack.damps:
                    inside = stack.run(stop - 1, inside, damped=True)
                    done += cost.flops_of_layer
                stream = inside if stack.damps else stack.states[stop]
                for layer in range(start, stop):
                    stream = stack.run(layer, stream, damped=stack.damps)
                for layer in range(stop, num_layers):
                    stream = stack.run(layer, stream)
                loss = stack.loss(tokens, stream)
                losses[start, stop] += loss / len(sequences) if isfinite(loss) else inf
                done += (num_layers - start) * cost.flops_of_layer + cost.flops_of_ends
                if state := pace.due(round(done)):
                    progress.say(f"Scanning, FLOPs: {state}")
    return base, losses


# Half of the blocks are told apart by colour at least; what does more harm is as dark as can be.
_INCHES_OF_CELL = 0.28


def draw_scan(found: Scan, name: str, kind: str = "png") -> bytes:
    """Draw the change of the loss by the first layer of the block and its number of layers.

    Args:
        kind: `png` or `svg`.
    """
    import numpy as np

    num_sizes = len(found.best_by_size)
    grid = np.full((num_sizes, found.num_hidden_layers), np.nan)
    for block in found.blocks:
        grid[block.num_layers - 1, block.start] = block.loss - found.base_loss
    known = grid[np.isfinite(grid)]
    # Blocks at the ends do harm beyond all others; half of the blocks lie within the colours.
    most = max(float(np.median(np.abs(known))) * 2, 1e-6) if known.size else 1.0
    grid[np.isinf(grid)] = most
    width = 2.5 + _INCHES_OF_CELL * found.num_hidden_layers
    figure, axes = canvas(max(5.0, width), 1.6 + _INCHES_OF_CELL * num_sizes, dpi=150)
    axes.grid(visible=False)
    image = axes.imshow(grid, cmap="RdBu_r", vmin=-most, vmax=most, origin="lower", aspect="equal")
    best = found.blocks[0]
    axes.plot(best.start, best.num_layers - 1, marker="*", color="black", markersize=7)
    step = max(1, found.num_hidden_layers // 15)
    firsts = range(0, found.num_hidden_layers, step)
    axes.set_xticks(firsts, [str(i) for i in firsts])
    axes.set_yticks(range(num_sizes), [str(i + 1) for i in range(num_sizes)])
    axes.set_xlabel("first layer of the block, from 0")
    axes.set_ylabel("layers")
    how = "run twice, each pass halved" if found.damped else "run twice"
    axes.set_title(f"{plain_label(name)}: a block {how}", fontsize=10)
    figure.colorbar(image, ax=axes, extend="both", label="change of loss, nats a token")
    return picture_bytes(figure, kind)
