"""The command `hfgrow learn`: prepare the text, learn the maps, and grow by them."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from hfgrow.checkpoint.files import LocalFolder
from hfgrow.checkpoint.locks import scratch_folder
from hfgrow.checkpoint.read import read
from hfgrow.checkpoint.staging import check_target, translated
from hfgrow.checkpoint.write import check_free_space
from hfgrow.console import Progress, ProgressBar, Silent
from hfgrow.errors import OutputError, UsageError, printable
from hfgrow.growth.grow import Growth, GrowthRequest, grow
from hfgrow.growth.models import local_folder, locate
from hfgrow.hub.client import HubClient
from hfgrow.plan.operators.learn import LEARN, LearnArguments
from hfgrow.plan.plan import GrowthPlan
from hfgrow.train.data.corpus import Corpus, corpus_of, open_sources
from hfgrow.train.data.sources import TextSource
from hfgrow.train.data.tokenizer import open_tokenizer
from hfgrow.train.learn.maps import completed, learn_maps, text_of, usual_length

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
    given, arguments = arguments, completed(arguments, base)
    if given.sequence_length is None and (arguments.sequence_length or 0) < usual_length(base):
        once.say(
            f"Note: a step of --batch-tokens {given.batch_tokens} is one sequence, so sequences "
            f"have {arguments.sequence_length} tokens; they would have {usual_length(base)}"
        )
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    # Beside the output, so that a disk which cannot be written to is noticed before the learning.
    check_free_space(shown.plan, shown.layout, (), shown.out)
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
        hint=f"the maps were kept; grow by them with the same targets, --maps {shown} instead of "
        "--data, and another --out DIR",
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
