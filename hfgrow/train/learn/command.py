"""The command `hfgrow learn`: prepare the text, learn the maps, write them, and grow by them."""

import re
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from hfgrow.checkpoint.compute.look import Look
from hfgrow.checkpoint.files import LocalFolder
from hfgrow.checkpoint.learned_maps import write_maps
from hfgrow.checkpoint.locks import scratch_folder
from hfgrow.checkpoint.read import read
from hfgrow.checkpoint.staging import check_target, translated
from hfgrow.checkpoint.write import check_free_space
from hfgrow.console import Progress, ProgressBar, Silent
from hfgrow.data.batches import BatchPlan
from hfgrow.data.corpus import Corpus, corpus_of, open_sources
from hfgrow.data.order import BlockOrder, check_sequence_length
from hfgrow.data.sources import TextSource
from hfgrow.data.text_tokenizer import open_tokenizer
from hfgrow.errors import OutputError, UsageError, argument, printable
from hfgrow.growth.grow import grow
from hfgrow.growth.models import local_folder, locate
from hfgrow.growth.request import Growth, GrowthRequest
from hfgrow.hub.client import HubClient
from hfgrow.plan.operators.learn import (
    DEFAULT_STEPS,
    LEARN,
    LearnArguments,
    learned_growth,
    learned_plan,
)
from hfgrow.plan.plan import GrowthPlan
from hfgrow.train.estimate import cost_in_words
from hfgrow.train.flops import arithmetic
from hfgrow.train.learn.fit import FitSettings, fit, initial_maps
from hfgrow.train.learn.model import LearnedModel
from hfgrow.train.text import begun

# The part of a text that is held out: it decides which maps are kept, so it must not be tiny.
_HELD_OUT = 0.05


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
    arguments.check()
    growth = replace(request.growth, steps=[(LEARN, arguments.recorded)])
    shown = grow(replace(growth, dry_run=True), once)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if arguments.maps is None and arguments.steps != 0:
        once.say(_cost(shown.plan, completed(arguments, shown.plan), device))
    if growth.dry_run:
        return shown
    if arguments.maps is not None:
        return grow(growth, once)
    if not request.text:
        raise UsageError("there is no text to learn from", hint=argument("data", "demo"))
    client = HubClient(token=growth.token)
    ref = locate(growth.model, growth.revision, client, once)
    check_target(shown.out, ref.path, overwrite=growth.overwrite)
    folder = local_folder(ref, client, once)
    base = read(LocalFolder(folder))
    if not growth.allow_nonfinite:
        # Also in rows that no text touches: found only when the maps are applied, it was in vain.
        with Look(base, (), finite=True).beside() as look:
            if (error := look.result(once).not_finite) is not None:
                raise error
    given, arguments = arguments, completed(arguments, base)
    if given.sequence_length is None and (arguments.sequence_length or 0) < usual_length(base):
        once.say(
            f"Note: a step of {argument('batch_tokens', given.batch_tokens)} is one sequence, "
            f"so sequences "
            f"have {arguments.sequence_length} tokens; they would have {usual_length(base)}"
        )
    # Beside the output, so that a disk which cannot be written to is noticed before the learning.
    check_free_space(shown.plan, shown.layout, shown.out)
    parent = shown.out.absolute().parent
    with scratch_folder(parent) as scratch:
        corpus = _corpus(request, base, arguments, client, scratch, once)
        text = text_of(request.text)
        with translated(printable(shown.out, 200)):
            arguments = learn_maps(base, arguments, corpus, text, scratch, device, once)
        steps = [(LEARN, arguments.recorded)]
        try:
            return grow(replace(growth, steps=steps, maps=scratch), once)
        except OutputError as error:
            raise _keeping(scratch, str(arguments.maps), parent, error) from error


def _cost(plan: GrowthPlan, arguments: LearnArguments, device: torch.device) -> str:
    """Return what learning takes, in words; the products of the maps come on top of it."""
    settings = _settings(arguments)
    tokens = settings.steps * settings.batch.num_samples * settings.sequence_length
    flops = cost_in_words(_flops(plan, settings), device)
    return f"Learning on {tokens:,} tokens, {flops}, and more for the maps"


def _flops(plan: GrowthPlan, settings: FitSettings) -> float:
    """Return what the tokens cost, as those of a training of the grown model."""
    tokens = settings.steps * settings.batch.num_samples * settings.sequence_length
    return tokens * arithmetic(plan.config, settings.sequence_length).exact_flops


def _keeping(scratch: Path, maps: str, parent: Path, error: OutputError) -> OutputError:
    """Keep maps that were learned and could not be grown by; return the error that says so."""
    kept = parent / maps
    try:
        (scratch / maps).rename(kept)
    except OSError:
        return error
    shown = shlex.quote(printable(kept, 400))
    return OutputError(
        str(error),
        hint=f"the maps were kept; grow by them with the same targets, "
        f"{argument('maps', shown)} instead of "
        f"{argument('data')}, and another {argument('out', 'DIR')}",
    )


def _corpus(
    request: LearnRequest,
    base: GrowthPlan,
    arguments: LearnArguments,
    client: HubClient,
    scratch: Path,
    progress: Progress,
) -> Corpus:
    """Return the text, tokenised where it is not yet."""
    tokenizer = open_tokenizer(Path(base.folder))
    train, validation = (
        begun(
            open_sources(
                sources,
                tokenizer,
                scratch / "tokens",
                vocab_size=int(base.config["vocab_size"]),
                client=client,
                progress=progress,
            ),
            base.family,
            tokenizer,
        )
        for sources in (request.text, request.validation)
    )
    assert arguments.sequence_length is not None
    corpus = corpus_of(
        train,
        validation,
        sequence_length=arguments.sequence_length,
        seed=arguments.seed or 0,
        fraction=_HELD_OUT,
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
        text: What to call it.
        folder: Where the file of the maps is put.
        device: Where to compute.

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
        exact_flops=_flops(plan, settings),
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
