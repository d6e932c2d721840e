"""What a stage of training leaves behind in words: its link in the lineage, the card, the curve."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hfgrow.checkpoint.files import LOSS_PICTURE, MANIFEST, hash_file
from hfgrow.errors import GrowthError
from hfgrow.growth.publish import is_same
from hfgrow.lineage.card import card_files
from hfgrow.lineage.card_metadata import inherited
from hfgrow.lineage.manifest import (
    PACKAGES,
    Compute,
    Manifest,
    TrainingLink,
    TrainingSource,
    WeightFile,
    config_record,
    model_record,
    versions_of,
)
from hfgrow.lineage.pictures import loss_curve
from hfgrow.lineage.read import read_manifest
from hfgrow.plan.plan import GrowthPlan
from hfgrow.train.data.sources import DEMO
from hfgrow.train.flops import Arithmetic
from hfgrow.train.loop import Run
from hfgrow.train.metrics import read_metrics
from hfgrow.train.recipe import Recipe
from hfgrow.train.recipe_parts import FreshModel, TrainSource
from hfgrow.train.recipe_stages import Train
from hfgrow.train.story import stories, told


def lineage_files(
    run: Run,
    train: Train,
    plan: GrowthPlan,
    staging: Path,
    names: list[str],
    *,
    base: Mapping[str, Any],
    costs: Arithmetic,
    flops: float,
    folder: Path,
    name: str,
) -> tuple[dict[str, object], dict[str, str], dict[str, bytes]]:
    """Return the record for config.json, the texts, and the pictures of a trained model.

    Args:
        run: The run, at the end of the stage.
        train: The stage.
        plan: The model that the stage began with.
        staging: Where the weights of the result lie.
        names: Their files.
        base: Where that model comes from: `name`, and `repo_id` and `revision` if from the Hub.
        costs: What a token of the model costs.
        flops: What a token of the stage cost.
        folder: The folder of the run.
        name: What the result is called.
    """
    base_folder = Path(plan.folder)
    base_files = {
        file: WeightFile(source.nbytes, hash_file(base_folder / file))
        for file, source in plan.files.items()
    }
    files = {
        file: WeightFile((staging / file).stat().st_size, hash_file(staging / file))
        for file in names
    }
    at, recipe = run.position, run.recipe
    has_grown = at.stage > 0 and recipe.stages[at.stage - 1].grow is not None
    found = stories(at.evaluations, at.stage, has_grown=has_grown)
    link = TrainingLink(
        base=model_record(plan, files=base_files, **base),
        result=model_record(plan, name, files=files),
        versions=versions_of(*PACKAGES),
        stage=at.stage,
        data=_sources(run, train),
        optimizer=recipe.optimizer.name,
        learning_rate=train.learning_rate,
        schedule=train.schedule,
        batch_tokens=recipe.batch_tokens,
        sequence_length=recipe.data.sequence_length,
        precision=recipe.precision,
        seed=recipe.seed,
        trainable=train.trainable
        if isinstance(train.trainable, str)
        else ", ".join(train.trainable)[:200],
        compute=_compute(run, costs, flops),
        evaluations=found,
        card=inherited(base_folder),
        settings=dict(_settings(recipe, train, at.num_skipped_in_stage)),
    )
    for evaluated in found:
        run.metrics.say(told(evaluated))
    manifest = _manifest(run, base_folder, base_files, link)
    picture = _curve(run, folder)
    texts = {MANIFEST: manifest.to_json(), **card_files(manifest, picture=picture is not None)}
    return config_record(link), texts, {} if picture is None else {LOSS_PICTURE: picture}


def _settings(
    recipe: Recipe, train: Train, num_skipped: int
) -> Iterator[tuple[str, bool | float | str]]:
    """Yield what a link has no field for."""
    told = {"name", "tokens", "learning_rate", "schedule", "trainable"}
    for part in (recipe.optimizer, train):
        for key, value in part.model_dump(mode="json", exclude=told).items():
            if isinstance(value, list | tuple):
                yield key, ",".join(map(str, value))
            elif value is not None:
                yield key, value
    yield "micro_batch_size", recipe.micro_batch_size
    yield "document_mask", recipe.data.document_mask
    if num_skipped:
        yield "num_skipped_steps", num_skipped


def _manifest(
    run: Run, folder: Path, files: Mapping[str, WeightFile], link: TrainingLink
) -> Manifest:
    """Append a link to the chain of the base, if that chain is the base's."""
    try:
        earlier = read_manifest(folder)
    except GrowthError:
        earlier = None
    chain: tuple[Any, ...] = ()
    declared = _declared(run)
    if earlier is not None:
        known = earlier.link.result.files
        if known.keys() == files.keys() and all(is_same(known[n], files[n]) for n in files):
            chain, declared = earlier.chain, earlier.root_compute or declared
    return Manifest((*chain, link), declared)


def _declared(run: Run) -> Compute | None:
    """Return what the base cost, as the recipe says it."""
    base = run.base_sizes
    # Random weights have cost nothing.
    tokens = 0 if isinstance(run.recipe.base, FreshModel) else run.recipe.base_tokens
    if tokens is None:
        return None
    return Compute(
        num_parameters=base.num_parameters,
        num_non_embedding_parameters=base.num_non_embedding_parameters,
        tokens=tokens,
        flops=6.0 * base.num_parameters * tokens,
        source="declared",
    )


def _compute(run: Run, costs: Arithmetic, flops: float) -> Compute:
    at = run.position
    tokens = at.stage_step * run.recipe.batch_tokens
    return Compute(
        num_parameters=costs.num_parameters,
        num_non_embedding_parameters=costs.num_non_embedding_parameters,
        tokens=tokens,
        flops=float(costs.headline_flops * tokens),
        exact_flops=flops * tokens,
        seconds=round(at.stage_seconds, 3),
        devices=run.devices.num_processes,
        device=run.devices.label,
    )


def _sources(run: Run, train: Train) -> tuple[TrainingSource, ...]:
    at, order = run.position, run.order
    before = order.mixture.counts(at.samples - at.stage_step * run.plan.num_samples)
    after = order.mixture.counts(at.samples)
    length = run.recipe.data.sequence_length
    return tuple(
        TrainingSource(
            label=view.label,
            kind="local" if _is_local(source) else "dataset",
            split=source.split,
            tokens=(end - begin) * length,
            weight=source.weight,
            fingerprint=view.fingerprint,
            dataset=None if _is_local(source) else source.dataset,
        )
        for source, view, begin, end in zip(
            run.recipe.data.train, run.corpus.train, before, after, strict=True
        )
    )


def _is_local(source: TrainSource) -> bool:
    return source.dataset in (None, DEMO)


def _curve(run: Run, folder: Path) -> bytes | None:
    """Draw the losses of the run against its tokens."""
    lines = read_metrics(folder)
    points = [(line["tokens"], line["loss"]) for line in lines if line.get("loss") is not None]
    growths = [(line["tokens"], line["growth"]) for line in lines if "growth" in line]
    validation: dict[str, list[tuple[int, float]]] = {}
    for line in lines:
        for label, held_out in line.get("validation", {}).items():
            validation.setdefault(label, []).append((line["tokens"], held_out["loss"]))
    return loss_curve(points, growths, validation, run.metrics.progress) if points else None
