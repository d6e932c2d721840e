"""The command `hfgrow learn`: prepare the text, learn the maps, and grow by them."""

import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from hfgrow.checkpoint.files import LocalFolder
from hfgrow.checkpoint.read import read
from hfgrow.checkpoint.target import check_target
from hfgrow.errors import UsageError
from hfgrow.hub.client import HubClient
from hfgrow.job import grow
from hfgrow.learned import learned_plan
from hfgrow.learned_arguments import LEARN, LearnArguments
from hfgrow.learned_growth import learned_growth
from hfgrow.operators.checks import check_seed
from hfgrow.plan import GrowthPlan
from hfgrow.progress import Progress, ProgressBar, Silent
from hfgrow.request import Growth, GrowthRequest
from hfgrow.source import local_folder, locate
from hfgrow.train.data.batches import BatchPlan
from hfgrow.train.data.corpus import Corpus, corpus_of, open_sources
from hfgrow.train.data.order import BlockOrder, check_sequence_length
from hfgrow.train.data.sources import TextSource
from hfgrow.train.data.tokenizer import open_tokenizer
from hfgrow.train.learn.export import write_maps
from hfgrow.train.learn.fit import FitSettings, Fitted, fit
from hfgrow.train.learn.functional import LearnedModel
from hfgrow.train.learn.mapping import initial_maps

_SEQUENCE_LENGTH, _BATCH_TOKENS = 1024, 1 << 14
_STEPS = 100
# The part of a text that is held out: it decides which maps are kept, so it must not be tiny.
_HELD_OUT = 0.05
# Maps of width are many numbers near zero, all of which a step moves: at 1e-3 they only got worse.
_DEPTH_LEARNING_RATE, _WIDTH_LEARNING_RATE = 1e-3, 1e-4
# Sequences of a micro-batch have no more tokens than this.
_MICRO_BATCH_TOKENS = 1 << 14


@dataclass(frozen=True, kw_only=True)
class LearnRequest:
    """What `hfgrow learn` was asked for.

    Attributes:
        growth: The growth; its steps are filled in.
        arguments: The arguments of the step.
        text: What to learn from.
        validation: What decides which maps are kept; empty holds some of the text out.
    """

    growth: GrowthRequest
    arguments: LearnArguments
    text: Sequence[TextSource]
    validation: Sequence[TextSource] = ()


def learn(request: LearnRequest, progress: Progress | None = None) -> Growth:
    """Learn maps from text and write the model that they make.

    Everything that can be refused is refused before the text is read.

    Raises:
        GrowthError: Anything that the user can act on; nothing is left behind.
    """
    once = _Once(progress or Silent())
    arguments = request.arguments
    check_settings(arguments)
    growth = replace(request.growth, steps=[(LEARN, arguments.recorded)])
    shown = grow(replace(growth, dry_run=True), once)
    if growth.dry_run:
        return shown
    if arguments.maps is not None:
        return grow(growth, once)
    if not request.text:
        raise UsageError("there is no text to learn from", hint="--data demo")
    client = HubClient(token=growth.token)
    ref = locate(growth.model, growth.revision, client, once)
    check_target(shown.out, ref.path, overwrite=growth.overwrite)
    folder = local_folder(ref, client, once)
    base = read(LocalFolder(folder))
    arguments = completed(arguments, base)
    with tempfile.TemporaryDirectory(prefix="hfgrow-learn-") as scratch:
        fitted, order = _learned(request, base, arguments, client, Path(scratch), once)
        arguments = replace(
            arguments,
            maps=write_maps(fitted.maps, Path(scratch)),
            text="+".join(re.sub(r"[^\w.-]", "-", s.label, flags=re.ASCII) for s in request.text),
            text_sha256=order.fingerprint,
            initial_loss=fitted.initial_loss,
            loss=fitted.loss,
            kept_step=fitted.kept_step,
        )
        steps = [(LEARN, arguments.recorded)]
        return grow(replace(growth, steps=steps, maps=Path(scratch)), once)


def check_settings(arguments: LearnArguments) -> None:
    """Refuse numbers that nothing can be learned with.

    Raises:
        UsageError: One of them cannot be.
    """
    check_seed(arguments.seed or 0)
    if arguments.steps is not None and not 0 <= arguments.steps <= 1_000_000:
        raise UsageError(f"--steps must be from 0 to 1000000, not {arguments.steps}")
    if arguments.lr is not None and not 0 < arguments.lr <= 1:
        raise UsageError(f"--lr must be above 0 and at most 1, not {arguments.lr}")
    for option, value in (
        ("batch-tokens", arguments.batch_tokens),
        ("sequence-length", arguments.sequence_length),
    ):
        if value is not None and value < 1:
            raise UsageError(f"--{option} must be at least 1, not {value}")


def completed(arguments: LearnArguments, base: GrowthPlan) -> LearnArguments:
    """Return the arguments with all that learning is told, sequences such as fit the base.

    Raises:
        UsageError: The sequences are longer than the base's positions, or no part of the batch.
    """
    most = int(base.config.get("max_position_embeddings") or _SEQUENCE_LENGTH)
    length = arguments.sequence_length
    if length is None:
        length = min(_SEQUENCE_LENGTH, most, arguments.batch_tokens or _SEQUENCE_LENGTH)
    check_sequence_length(length, most)
    batch_tokens = arguments.batch_tokens or max(1, _BATCH_TOKENS // length) * length
    usual = _WIDTH_LEARNING_RATE if arguments.grows_width else _DEPTH_LEARNING_RATE
    return replace(
        arguments,
        steps=_STEPS if arguments.steps is None else arguments.steps,
        sequence_length=length,
        batch_tokens=batch_tokens,
        lr=arguments.lr or usual,
        seed=arguments.seed or 0,
    )


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


def _learned(
    request: LearnRequest,
    base: GrowthPlan,
    arguments: LearnArguments,
    client: HubClient,
    scratch: Path,
    progress: Progress,
) -> tuple[Fitted, BlockOrder]:
    """Return what was learned, and the order of the text it was learned from."""
    settings = _settings(arguments)
    seed, length = arguments.seed or 0, settings.sequence_length
    corpus = _corpus(request, base, length, seed, client, scratch, progress)
    weights = [1.0] * len(corpus.train)
    order = BlockOrder(corpus.train, weights, sequence_length=length, seed=seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    plan = learned_plan(base, arguments, None, is_draft=True)
    model = LearnedModel(base, plan, sequence_length=length, device=device)
    initial = initial_maps(base, learned_growth(base, arguments), arguments)
    fitted = fit(model, initial, order, corpus.validation, settings, device, progress)
    return fitted, order


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


def _corpus(
    request: LearnRequest,
    base: GrowthPlan,
    sequence_length: int,
    seed: int,
    client: HubClient,
    scratch: Path,
    progress: Progress,
) -> Corpus:
    """Return the text, tokenised where it is not yet."""
    tokenizer = open_tokenizer(Path(base.folder))
    train, validation = (
        open_sources(
            sources,
            tokenizer,
            scratch / "tokens",
            vocab_size=int(base.config["vocab_size"]),
            client=client,
            progress=progress,
        )
        for sources in (request.text, request.validation)
    )
    corpus = corpus_of(
        train, validation, sequence_length=sequence_length, seed=seed, fraction=_HELD_OUT
    )
    for note in corpus.notes:
        progress.say(f"Note: {note}")
    return corpus


class _Once:
    """Tells every line once: the growth is planned before there are maps, and again with them."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._said: set[str] = set()

    def say(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            self._progress.say(text)

    def bytes(self, what: str, total: int) -> ProgressBar:
        return self._progress.bytes(what, total)
