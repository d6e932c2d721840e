"""Growths compared by a short training of each: the same text, order, batches and settings.

The loss just after growth is a poor predictor of how a grown model ends; a few hundred steps later
the order is mostly there. So candidates are ranked by the loss after such a probe. What was
measured is written down, so that a comparison that was stopped goes on.

Source: Karp et al. 2024, "Landscape-Aware Growing: The Power of a Little LAG",
https://arxiv.org/abs/2406.02469, Sec. 3
"""

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hfgrow.checkpoint.files import LOCAL_BASE, LocalFolder
from hfgrow.checkpoint.read import read
from hfgrow.checkpoint.staging import replace_text, translated
from hfgrow.console import Progress
from hfgrow.data.corpus import corpus_of, open_sources
from hfgrow.data.order import BlockOrder, check_sequence_length
from hfgrow.data.sources import DEMO, VALIDATION, TextSource
from hfgrow.data.text_tokenizer import open_tokenizer
from hfgrow.data.views import TokenView
from hfgrow.errors import ModelError, TrainingError, UsageError, argument, printable
from hfgrow.growth.loading import filled_config
from hfgrow.growth.steps import Step, planned, suffix_of
from hfgrow.hub.client import HubClient
from hfgrow.lineage.describe import describe_step
from hfgrow.lineage.manifest import Evaluated, TrainingLink
from hfgrow.lineage.reading import manifest_of
from hfgrow.study.folder import held_for
from hfgrow.train.estimate import cost_in_words
from hfgrow.train.evaluate import device_of
from hfgrow.train.flops import arithmetic
from hfgrow.train.identity import base_identity
from hfgrow.train.recipe.recipe import Recipe, recipe_of
from hfgrow.train.run import Job, run_recipe
from hfgrow.train.run_folder import RunFolder

_MOST_SEQUENCE_LENGTH, _SEQUENCES = 1024, 8
_TOKENS = "tokens"
RECORD = "comparison.json"
WINNER = "winner"
_RUNS = "runs"
_MOST_NAME = 90


@dataclass(frozen=True, slots=True)
class Probe:
    """What a short training after growth said.

    Attributes:
        operator: The growth as one types it.
        num_parameters: Of the grown model.
        num_hidden_layers: Of the grown model.
        before: Loss on held-out text before growth, in nats a token.
        just_after: Just after growth.
        after: After the probe.
        bits_per_byte: The last of these, in bits a byte.
        flops: What the probe cost: 6 for each parameter and token.
    """

    operator: str
    num_parameters: int
    num_hidden_layers: int
    before: float
    just_after: float
    after: float
    bits_per_byte: float
    flops: float


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How a text will be read.

    Attributes:
        tokens: How many tokens are trained on.
        sequence_length: Tokens of a sequence.
        seed: Of the order.
    """

    tokens: int
    sequence_length: int
    seed: int


@dataclass(frozen=True, kw_only=True)
class Texts:
    """The texts of a comparison, tokenised.

    Attributes:
        data: The sources, as the `data` of a recipe has them.
        fingerprints: What identifies the tokens.
        labels: The names of the texts: `train`, and `validation` if it was named.
        notes: What a reader of the losses must know.
    """

    data: Mapping[str, Sequence[Mapping[str, str]]]
    fingerprints: tuple[str, ...]
    labels: Mapping[str, Sequence[str]]
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What is compared, and how.

    Attributes:
        model: The base as the user names it.
        name: What it is called.
        folder: Where it lies.
        out: The folder of the comparison.
        settings: The keys of a recipe that all probes share, without base, output, data and stages.
        train: The stage of training.
        texts: The texts, tokenised.
        sequence_length: Tokens of a sequence.
        on_cpu: Whether accelerators are left alone.
        quiet: Whether the trainings say nothing.
    """

    model: str
    name: str
    folder: Path
    out: Path
    settings: Mapping[str, Any]
    train: Mapping[str, Any]
    texts: Texts
    sequence_length: int
    on_cpu: bool = False
    quiet: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return what all probes have in common, as people read it."""
        return {
            "model": self.model,
            "text": self.texts.labels,
            **self.train,
            **self.settings,
            "sequence_length": self.sequence_length,
        }

    def recipe(self, step: Step) -> Recipe:
        """Return the recipe of a candidate."""
        operator, arguments = step
        content = {
            "base": self.model,
            "output": str(self.out / _RUNS / _place(step) / self._result(step)),
            **self.settings,
            "data": {**self.texts.data, "sequence_length": self.sequence_length},
            "stages": [{"grow": {"operator": operator, **arguments}}, {"train": dict(self.train)}],
        }
        return recipe_of(content, f"the probe of {describe_step(*step)}")

    def _result(self, step: Step) -> str:
        """Return the name of a trained candidate, which stands above its card."""
        return f"{self.name}-{suffix_of(*step)}"[:_MOST_NAME] + "-probe"


@contextmanager
def begun(out: Path) -> Iterator[None]:
    """Make the folder of a comparison or take up the one that is there, and hold it in the block.

    Raises:
        OutputError: Something else lies there, or another process writes it.
    """
    with held_for(out, "comparison", is_one=(out / RECORD).is_file):
        if not (out / RECORD).is_file():
            record_probes(out, {}, None)
        yield


def probes(
    comparison: Comparison, steps: Sequence[Step], progress: Progress, *, keep: bool
) -> Iterator[Probe]:
    """Grow and train every candidate that is not recorded yet; yield what each came to.

    A run that was stopped goes on where it stood. The trained models are removed once they are
    measured; with `keep` that of the best so far stays, and in the end becomes `winner`.

    Raises:
        UsageError: A candidate cannot be trained, before any is.
        GrowthError: A run ends in an error.
        StoppedError: A signal stopped one, and its checkpoint is saved.
    """
    out = comparison.out
    recorded, winner = recorded_probes(out)
    identity = base_identity(comparison.folder, progress)
    identity["text"] = list(comparison.texts.fingerprints)
    found: dict[str, tuple[Probe, Step]] = {}
    keys = {_key(comparison.recipe(step), identity): step for step in steps}
    if left := [step for key, step in keys.items() if key not in recorded]:
        progress.say(_cost(comparison, left))
    for step in steps:
        name, recipe = describe_step(*step), comparison.recipe(step)
        key = _key(recipe, identity)
        if key in recorded:
            progress.say(f"{name}: measured already")
            probe = recorded[key].probe
        else:
            probe = _run(comparison, step, progress)
            recorded[key] = RecordedProbe(probe, comparison.to_json())
            record_probes(out, recorded, winner)
        found[key] = probe, step
        best = _best(found)
        for other, (_, its_step) in found.items():
            if not keep or other != best:
                shutil.rmtree(out / _RUNS / _place(its_step), ignore_errors=True)
        yield probe
    best = _best(found)
    if keep and not (winner == best and (out / WINNER).is_dir()):
        step = found[best][1]
        final = RunFolder(Path(comparison.recipe(step).output)).final
        if not final.is_dir():
            _run(comparison, step, progress)
        with translated(printable(out / WINNER, 200)):
            # The grown model that it was trained from goes with the run; what that grew from stays.
            replace_text(final / LOCAL_BASE, f"{comparison.folder.absolute()}\n")
            shutil.rmtree(out / WINNER, ignore_errors=True)
            final.rename(out / WINNER)
        record_probes(out, recorded, best)
    elif (out / WINNER).is_dir() and winner != best:
        progress.say(f"Note: {printable(out / WINNER, 200)} is of another comparison")
    shutil.rmtree(out / _RUNS, ignore_errors=True)


def _cost(comparison: Comparison, steps: Sequence[Step]) -> str:
    """Return what the trainings of candidates take, in words; measuring comes on top of it."""
    base, tokens = read(LocalFolder(comparison.folder)), comparison.recipe(steps[0]).tokens
    flops = tokens * sum(
        arithmetic(
            filled_config(planned(base, [step]).config), comparison.sequence_length
        ).exact_flops
        for step in steps
    )
    device = device_of("cpu" if comparison.on_cpu else None)
    trainings = f"{len(steps)} training{'' if len(steps) == 1 else 's'}"
    return f"{trainings} of {tokens:,} tokens, {cost_in_words(flops, device)}"


def _run(comparison: Comparison, step: Step, progress: Progress) -> Probe:
    name, recipe = describe_step(*step), comparison.recipe(step)
    progress.say(f"{name}: growing, then training on {recipe.tokens:,} tokens")
    job = Job(
        recipe=recipe,
        resume=RunFolder(Path(recipe.output)).holds_a_run,
        on_cpu=comparison.on_cpu,
        quiet=comparison.quiet,
    )
    result = run_recipe(job)
    manifest = manifest_of(LocalFolder(Path(result["folder"])))
    link = manifest.link
    if not isinstance(link, TrainingLink) or not link.evaluations:
        raise ModelError(f"the run of {name} recorded no loss on held-out text")
    texts = link.evaluations
    count = sum(text.num_tokens for text in texts)

    def mean(values: Sequence[float]) -> float:
        pairs = zip(values, texts, strict=True)
        return sum(value * text.num_tokens for value, text in pairs) / count

    probe = Probe(
        operator=name,
        num_parameters=link.result.num_parameters,
        num_hidden_layers=link.result.num_hidden_layers,
        before=mean([_before(text) for text in texts]),
        just_after=mean([text.before for text in texts]),
        after=mean([text.after for text in texts]),
        bits_per_byte=mean([text.bits_per_byte_after for text in texts]),
        flops=link.compute.flops,
    )
    progress.say(
        f"{name}: {probe.before:.4f} before growth, {probe.just_after:.4f} just after, "
        f"{probe.after:.4f} after the probe"
    )
    return probe


def _best(found: Mapping[str, tuple[Probe, Step]]) -> str:
    return min(found, key=lambda key: found[key][0].after)


def _before(text: Evaluated) -> float:
    return text.before if text.before_growth is None else text.before_growth


def _place(step: Step) -> str:
    """Return the name of a candidate's folder: another one for other arguments."""
    return hashlib.sha256(json.dumps(step, sort_keys=True).encode()).hexdigest()[:8]


def _key(recipe: Recipe, identity: Mapping[str, Any]) -> str:
    text = json.dumps([recipe.fingerprint, dict(identity)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class RecordedProbe:
    """A probe, and how it was made: model, texts, tokens, learning rate, seed."""

    probe: Probe
    settings: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Return it as the file has it."""
        return {**asdict(self.probe), "settings": dict(self.settings)}


def recorded_probes(out: Path) -> tuple[dict[str, RecordedProbe], str | None]:
    """Return the probes that were made, by what they depend on, and which of them is kept."""
    fields = set(Probe.__dataclass_fields__)
    try:
        content = json.loads((out / RECORD).read_text(encoding="utf-8"))
        known = {
            key: RecordedProbe(Probe(**{name: found[name] for name in fields}), found["settings"])
            for key, found in content["probes"].items()
            if found.keys() == {*fields, "settings"}
        }
        return known, content["winner"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}, None


def record_probes(out: Path, probes: Mapping[str, RecordedProbe], winner: str | None) -> None:
    """Write down the probes that were made.

    Raises:
        OutputError: The folder cannot be written to.
    """
    found = {key: recorded.to_json() for key, recorded in probes.items()}
    content = {"winner": winner, "probes": found}
    with translated(printable(out, 200)):
        replace_text(out / RECORD, json.dumps(content, indent=2) + "\n")


def shared_settings(
    folder: Path, *, sequence_length: int | None, batch_tokens: int | None, on_cpu: bool
) -> tuple[dict[str, Any], int]:
    """Return the keys of a recipe that depend on the base and the machine, and its sequence length.

    Args:
        folder: The base.
        sequence_length: Tokens seen together; None takes up to 1024 of them.
        batch_tokens: Tokens of a step; None takes 8 sequences.
        on_cpu: Whether accelerators are left alone.

    Raises:
        UsageError: The batch is no multiple of the sequence length, or the base lacks positions.
    """
    import torch

    positions = read(LocalFolder(folder)).settings.get("max_position_embeddings")
    length = sequence_length or min(_MOST_SEQUENCE_LENGTH, positions or _MOST_SEQUENCE_LENGTH)
    if positions:
        check_sequence_length(length, positions)
    tokens = batch_tokens or _SEQUENCES * length
    if tokens % length:
        raise UsageError(
            f"{argument('batch_tokens', tokens)} is no multiple of the sequence length {length}"
        )
    sequences = tokens // length
    on_gpu = torch.cuda.is_available() and not on_cpu
    settings = {
        "batch_tokens": tokens,
        "micro_batch_size": next(n for n in range(_SEQUENCES, 0, -1) if sequences % n == 0),
        "precision": "bf16" if on_gpu else "fp32",
    }
    return settings, length


def held_out_text(train: Sequence[TextSource]) -> list[TextSource]:
    """Return what is held out where nobody says: of the demo text its own part, else nothing."""
    if [source.dataset for source in train] == [DEMO]:
        return [TextSource(dataset=DEMO, split=VALIDATION)]
    return []


def tokenised(
    folder: Path,
    out: Path,
    train: Sequence[TextSource],
    validation: Sequence[TextSource],
    client: HubClient,
    progress: Progress,
    *,
    plan: Reading,
) -> Texts:
    """Tokenise every text once, and make sure that it can be trained on as it will be read.

    Args:
        folder: The base, whose tokenizer is used.
        out: The folder of the comparison.
        validation: The text that is held out; without, a part of the other is.
        progress: Told how it goes on, and what a reader of the losses must know.
        plan: How the text will be read.

    Raises:
        GrowthError: A text or the tokenizer cannot be read, or a text is too short.
    """
    vocab_size = int(read(LocalFolder(folder)).settings["vocab_size"])
    try:
        tokenizer = open_tokenizer(folder)
    except ModelError as error:
        raise ModelError(str(error), hint="put its tokenizer.json beside the weights") from error

    def opened(what: str, sources: Sequence[TextSource]) -> tuple[TokenView, ...]:
        return open_sources(
            sources,
            tokenizer,
            out / _TOKENS / what,
            vocab_size=vocab_size,
            client=client,
            progress=progress,
        )

    views = {"train": opened("train", train)}
    if validation:
        views["validation"] = opened("validation", validation)
    length = plan.sequence_length
    try:
        corpus = corpus_of(
            views["train"],
            views.get("validation", ()),
            sequence_length=length,
            seed=plan.seed,
        )
        weights = [1.0] * len(train)
        order = BlockOrder(corpus.train, weights, sequence_length=length, seed=plan.seed)
    except TrainingError as error:
        hint = f"give more text, or a {argument('sequence_length')} below {length}"
        if not validation:
            hint += f", or held-out text as {argument('validation')}"
        raise TrainingError(str(error), hint=hint) from error
    epochs = zip(corpus.train, order.epochs(plan.tokens // length), strict=True)
    notes = [
        *corpus.notes,
        *(f"{view.label} is trained on {n:.3g} times over" for view, n in epochs if n > 1),
    ]
    for note in notes:
        progress.say(f"Note: {note}")
    return Texts(
        data={
            what: [{"path": str(v.files.folder)} for v in found] for what, found in views.items()
        },
        fingerprints=tuple(view.fingerprint for found in views.values() for view in found),
        labels={what: [view.label for view in found] for what, found in views.items()},
        notes=tuple(notes),
    )
