"""Learn the maps of a growth from text that is prepared, and write them."""

import re
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from hfgrow.checkpoint.learned_maps import write_maps
from hfgrow.console import Progress
from hfgrow.plan.operators.learn import DEFAULT_STEPS, LearnArguments, learned_growth, learned_plan
from hfgrow.plan.plan import GrowthPlan
from hfgrow.train.data.batches import BatchPlan
from hfgrow.train.data.corpus import Corpus
from hfgrow.train.data.order import BlockOrder, check_sequence_length
from hfgrow.train.data.sources import TextSource
from hfgrow.train.flops import arithmetic
from hfgrow.train.learn.fit import FitSettings, fit
from hfgrow.train.learn.functional import LearnedModel
from hfgrow.train.learn.mapping import initial_maps

_SEQUENCE_LENGTH, _BATCH_TOKENS = 1024, 1 << 14
# Maps of width are many numbers near zero, all of which a step moves: at 1e-3 they only got worse.
_DEPTH_LEARNING_RATE, _WIDTH_LEARNING_RATE = 1e-3, 1e-4
# Sequences of a micro-batch have no more tokens than this.
_MICRO_BATCH_TOKENS = 1 << 14


def completed(arguments: LearnArguments, base: GrowthPlan) -> LearnArguments:
    """Return the arguments with all that learning is told, sequences such as fit the base.

    Raises:
        UsageError: The sequences are longer than the base's positions, or no part of the batch.
    """
    most = int(base.config.get("max_position_embeddings") or _SEQUENCE_LENGTH)
    length = arguments.sequence_length
    if length is None:
        length = min(usual_length(base), arguments.batch_tokens or _SEQUENCE_LENGTH)
    check_sequence_length(length, most)
    batch_tokens = arguments.batch_tokens or max(1, _BATCH_TOKENS // length) * length
    usual = _WIDTH_LEARNING_RATE if arguments.grows_width else _DEPTH_LEARNING_RATE
    return replace(
        arguments,
        steps=DEFAULT_STEPS if arguments.steps is None else arguments.steps,
        sequence_length=length,
        batch_tokens=batch_tokens,
        lr=arguments.lr or usual,
        seed=arguments.seed or 0,
    )


def usual_length(base: GrowthPlan) -> int:
    """Return the tokens of a sequence where neither these nor fewer of a step are asked for."""
    return min(_SEQUENCE_LENGTH, base.config.get("max_position_embeddings") or _SEQUENCE_LENGTH)


def learn_maps(
    base: GrowthPlan,
    arguments: LearnArguments,
    corpus: Corpus,
    text: str,
    folder: Path,
    device: torch.device,
    progress: Progress,
) -> LearnArguments:
    """Learn maps and write them.

    Args:
        base: What grows, in a folder here.
        arguments: What was asked for, complete.
        corpus: The text.
        text: What to call it.
        folder: Where the file of the maps is put.
        device: Where to compute.
        progress: Told how it goes on.

    Returns:
        The arguments with the maps, the text and what came out.

    Raises:
        TrainingError: The init has no finite loss.
    """
    settings = _settings(arguments)
    order = BlockOrder(
        corpus.train,
        [1.0] * len(corpus.train),
        sequence_length=settings.sequence_length,
        seed=arguments.seed or 0,
    )
    plan = learned_plan(base, arguments, None)
    model = LearnedModel(base, plan, sequence_length=settings.sequence_length, device=device)
    initial = initial_maps(base, learned_growth(base, arguments), arguments)
    begun = time.monotonic()
    fitted = fit(model, initial, order, corpus.validation, settings, device, progress)
    return replace(
        arguments,
        maps=write_maps(fitted.maps, folder),
        text=text,
        text_sha256=order.fingerprint,
        initial_loss=fitted.initial_loss,
        loss=fitted.loss,
        kept_step=fitted.kept_step,
        exact_flops=arithmetic(plan.config, settings.sequence_length).exact_flops
        * settings.steps
        * settings.batch.num_samples
        * settings.sequence_length,
        seconds=round(time.monotonic() - begun, 3),
    )


def text_of(sources: Sequence[TextSource]) -> str:
    """Return what texts are called in the record of a growth."""
    return "+".join(re.sub(r"[^\w.-]", "-", one.label, flags=re.ASCII) for one in sources)


def batch_plan(batch_tokens: int, sequence_length: int) -> BatchPlan:
    """Return how a step is parted: micro-batches as large as memory should bear.

    Raises:
        UsageError: The step is no whole number of sequences.
    """
    num_sequences = batch_tokens // sequence_length
    most = max(1, min(num_sequences, _MICRO_BATCH_TOKENS // sequence_length))
    size = next(n for n in range(most, 0, -1) if num_sequences % n == 0)
    return BatchPlan.of_tokens(
        batch_tokens, sequence_length=sequence_length, micro_batch_size=size, world_size=1
    )


def _settings(arguments: LearnArguments) -> FitSettings:
    """Return how to learn, from complete arguments."""
    assert arguments.steps is not None
    assert arguments.lr is not None
    assert arguments.batch_tokens is not None
    assert arguments.sequence_length is not None
    return FitSettings(
        steps=arguments.steps,
        batch=batch_plan(arguments.batch_tokens, arguments.sequence_length),
        sequence_length=arguments.sequence_length,
        lr=arguments.lr,
    )
