"""The model of a trained stage as a plain model folder, with its lineage, card and curve.

It is what `from_pretrained` loads; the lineage says what the stage cost, and what it did to the
held-out loss: before growth, after it, after training.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from hfgrow.checkpoint.files import (
    CONFIG,
    LOCAL_BASE,
    LOSS_PICTURE,
    MANIFEST,
    RECIPE,
    LocalFolder,
)
from hfgrow.checkpoint.read import read
from hfgrow.checkpoint.staging import staged
from hfgrow.checkpoint.write import config_with, copy_side_files
from hfgrow.data.sources import DEMO
from hfgrow.errors import GrowthError, TrainingError, argument, printable
from hfgrow.growth.publish import describes, hashed
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
from hfgrow.lineage.reading import read_manifest
from hfgrow.lineage.records import Evaluated
from hfgrow.plan.plan import GrowthPlan
from hfgrow.train.checkpoints import model_tensors
from hfgrow.train.flops import Arithmetic
from hfgrow.train.initial_weights import write_weights
from hfgrow.train.loop import Run
from hfgrow.train.metrics import read_metrics
from hfgrow.train.optimizers import averaged
from hfgrow.train.parameter_names import in_files
from hfgrow.train.recipe.parts import FreshModel, TrainSource
from hfgrow.train.recipe.stages import Train
from hfgrow.train.stage import Stage


@dataclass(frozen=True, kw_only=True)
class Target:
    """Where a trained model goes, and what it is.

    Attributes:
        folder: The folder to make.
        name: What the model is called in its lineage.
        dtype: What the weights are written in, as config.json names dtypes.
        base: The model that the stage began with.
        base_record: Its `name`, and `repo_id` and `revision` if it comes from the Hub.
        run_folder: The folder of the run.
        recipe: What the model is made again by, as a file beside it; None for one between stages.
    """

    folder: Path
    name: str
    dtype: str
    base: Path
    base_record: Mapping[str, Any]
    run_folder: Path
    recipe: str | None = None


def export(run: Run, stage: Stage, target: Target, costs: Arithmetic, flops: float) -> None:
    """Write the model of a stage, as it is to be used: with Schedule-Free the mean of its iterates.

    Args:
        run: The run, at the end of the stage.
        target: Where to, and what it is.
        costs: What a token of the model costs.
        flops: What a token of the stage cost, where not everything trained.

    Raises:
        OutputError: It cannot be written.
        TrainingError: A weight is not finite, or does not fit the dtype.
    """
    with averaged(stage.optimizer):
        # On a CPU these are the parameters themselves, which hold the mean no longer than this.
        tensors = model_tensors(stage.model, keep=run.devices.is_main)
        run.devices.on_main(
            lambda: _write(
                run, stage, in_files(stage.model, tensors, stage.plan), target, costs, flops
            )
        )


def _write(
    run: Run,
    stage: Stage,
    tensors: dict[str, torch.Tensor],
    target: Target,
    costs: Arithmetic,
    flops: float,
) -> None:
    plan = stage.plan
    dtype: torch.dtype = getattr(torch, target.dtype)
    with staged(target.folder) as staging:
        names = write_weights(staging, tensors, partial(_converted, dtype), dtype=dtype)
        copy_side_files(target.base, staging)
        link, texts, pictures = lineage_files(
            run,
            stage.train,
            plan,
            staging,
            names,
            base=target.base_record,
            costs=costs,
            flops=flops,
            folder=target.run_folder,
            name=target.name,
            made_by=target.recipe,
        )
        config = config_with(dict(plan.config) | {"dtype": target.dtype}, link)
        config.pop("torch_dtype", None)
        texts |= {CONFIG: json.dumps(config, indent=2, ensure_ascii=False) + "\n"}
        texts |= {LOCAL_BASE: f"{target.base.absolute()}\n"}
        for name, text in texts.items():
            (staging / name).write_text(text, encoding="utf-8", errors="surrogateescape")
        for name, content in pictures.items():
            (staging / name).write_bytes(content)
        # What was written must be a model that hfgrow itself would read.
        read(LocalFolder(staging))


def _converted(dtype: torch.dtype, name: str, tensor: torch.Tensor) -> torch.Tensor:
    result = tensor.to(dtype)
    # A sum is quick, and shows what is not finite; that of finite numbers may overflow by itself.
    if not (result.sum().isfinite() or result.isfinite().all()):
        raise TrainingError(
            f"{printable(name)} holds numbers that are not finite in "
            f"{str(dtype).removeprefix('torch.')}",
            hint=f"go on from an earlier checkpoint, or add {argument('dtype', 'float32')}",
        )
    return result


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
    made_by: str | None = None,
) -> tuple[dict[str, object], dict[str, str], dict[str, bytes]]:
    """Return the record for config.json, the texts, and the pictures of a trained model.

    Args:
        run: The run, at the end of the stage.
        plan: The model that the stage began with.
        staging: Where the weights of the result lie.
        names: Their files.
        base: Where that model comes from: `name`, and `repo_id` and `revision` if from the Hub.
        costs: What a token of the model costs.
        flops: What a token of the stage cost.
        name: What the result is called.
        made_by: The recipe that lies beside the result, if one does.
    """
    base_folder = Path(plan.folder)
    progress = run.metrics.progress
    base_files, files = hashed(base_folder, plan.files, progress), hashed(staging, names, progress)
    at, recipe = run.position, run.recipe
    has_grown = at.stage > 0 and recipe.stages[at.stage - 1].grow is not None
    evaluations = evaluated_texts(at.evaluations, at.stage, has_grown=has_grown)
    link = TrainingLink(
        base=model_record(plan, files=base_files, **base),
        result=model_record(plan, name, files=files),
        versions=versions_of(*PACKAGES),
        stage=at.stage,
        data=_sources(run),
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
        evaluations=evaluations,
        card=inherited(base_folder),
        settings=dict(_settings(run, train, at.num_skipped_in_stage)),
    )
    for evaluated in evaluations:
        run.metrics.say(evaluation_line(evaluated))
    manifest = _manifest(run, base_folder, base_files, link)
    picture = _curve(run, folder)
    texts = {MANIFEST: manifest.to_json()}
    texts |= card_files(manifest, picture=picture is not None, recipe=made_by)
    texts |= {} if made_by is None else {RECIPE: made_by}
    return config_record(link), texts, {} if picture is None else {LOSS_PICTURE: picture}


def _settings(run: Run, train: Train, num_skipped: int) -> Iterator[tuple[str, bool | float | str]]:
    """Yield what a link has no field for."""
    recipe = run.recipe
    fields = {"name", "tokens", "learning_rate", "schedule", "trainable"}
    for part in (recipe.optimizer, train):
        for key, value in part.model_dump(mode="json", exclude=fields).items():
            if isinstance(value, dict):
                yield from ((f"{key}_{inner}", number) for inner, number in value.items())
            elif isinstance(value, list | tuple):
                yield key, ",".join(map(str, value))
            elif value is not None:
                yield key, value
    if train.until is not None:
        yield "until_tokens", train.tokens
    yield "micro_batch_size", recipe.micro_batch_size
    yield "document_mask", recipe.data.document_mask
    if any(view.bos is not None for view in run.corpus.train):
        yield "bos", "sequence"
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
    before = Manifest((), _declared(run))
    if earlier is not None and describes(earlier, files):
        before = replace(earlier, root_compute=earlier.root_compute or before.root_compute)
    return before.followed_by(link)


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
        flops=6.0 * base.num_passed_parameters * tokens,
        source="declared",
        num_active_parameters=base.num_active_parameters,
    )


def _compute(run: Run, costs: Arithmetic, flops: float) -> Compute:
    at = run.position
    tokens, active = at.stage_step * run.recipe.batch_tokens, costs.num_active_parameters
    return Compute(
        num_parameters=costs.num_parameters,
        num_non_embedding_parameters=costs.num_non_embedding_parameters,
        tokens=tokens,
        flops=float(costs.headline_flops * tokens),
        exact_flops=flops * tokens,
        seconds=round(at.stage_seconds, 3),
        devices=run.devices.num_processes,
        device=run.devices.label,
        num_active_parameters=active if active < costs.num_parameters else None,
    )


def _sources(run: Run) -> tuple[TrainingSource, ...]:
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


def evaluated_texts(
    evaluations: Sequence[dict[str, Any]], stage: int, *, has_grown: bool
) -> tuple[Evaluated, ...]:
    """Return what a stage did to every held-out text.

    Args:
        evaluations: All of the run, in order, as `Position` keeps them.
        stage: The stage, from 0.
        has_grown: Whether the stage follows growth.
    """
    earlier = [line for line in evaluations if line["stage"] < stage or line["when"] == "base"]
    own = [line for line in evaluations if line["stage"] == stage and line["when"] != "base"]
    if not own:
        return ()
    found = []
    for label, first in own[0]["validation"].items():
        last = own[-1]["validation"][label]
        known = [
            line["validation"][label]["loss"] for line in earlier if label in line["validation"]
        ]
        before_growth = known[-1] if known and has_grown else None
        found.append(
            Evaluated(
                label=label,
                num_tokens=last["num_tokens"],
                before_growth=before_growth,
                before=first["loss"],
                after=last["loss"],
                bits_per_byte_before=first["bits_per_byte"],
                bits_per_byte_after=last["bits_per_byte"],
                recovered_tokens=None
                if before_growth is None
                else _recovered(own, label, before_growth),
            )
        )
    return tuple(found)


def evaluation_line(evaluated: Evaluated) -> str:
    """Return what a stage did to a held-out text, as a line."""
    line = f"  {evaluated.label}: "
    if evaluated.before_growth is not None:
        line += f"{evaluated.before_growth:.4f} before growth, {evaluated.before:.4f} just after, "
    else:
        line += f"{evaluated.before:.4f} before, "
    line += f"{evaluated.after:.4f} after training"
    if evaluated.before_growth is None:
        raised = evaluated.after - evaluated.before
        return f"{line}; training raised it by {raised:.4f}" if raised > 0 else line
    match evaluated.recovered_tokens:
        case None:
            line += "; not yet back where it was before growth"
        case 0:
            line += "; growth did not raise it"
        case tokens:
            line += f"; back where it was before growth after at most {tokens:,} tokens"
    above = evaluated.after - evaluated.before_growth
    if evaluated.recovered_tokens is not None and above > 0:
        line += f", but in the end {above:.4f} above that"
    return line


# Losses of one function, measured before and after growth, differ by the order of sums.
_ROUNDING = 1e-6


def _recovered(own: Sequence[dict[str, Any]], label: str, before: float) -> int | None:
    first: int = own[0]["tokens"]
    for line in own:
        if line["validation"][label]["loss"] <= before * (1 + _ROUNDING):
            return int(line["tokens"]) - first
    return None
