"""The main job: resolve, preflight, pull, read, grow, write, verify, describe, push."""

from dataclasses import replace
from pathlib import Path

from hfgrow import card, lineage, record
from hfgrow.behaviour import TRANSFORMERS, measure
from hfgrow.checkpoint.files import LOCAL_BASE, MANIFEST, TOKENIZERS, LocalFolder
from hfgrow.checkpoint.layout import lay_out
from hfgrow.checkpoint.read import read
from hfgrow.checkpoint.staging import check_target
from hfgrow.checkpoint.write import check_free_space, config_with, write
from hfgrow.console import Progress, Silent, counting
from hfgrow.errors import OutputError, UsageError, printable
from hfgrow.extras import COMPUTING, missing, require, require_for
from hfgrow.fields import is_argument
from hfgrow.generation import settle_generation
from hfgrow.hub.client import HubClient
from hfgrow.hub.preflight import preflight
from hfgrow.hub.resolve import ModelRef
from hfgrow.inherited import inherited
from hfgrow.learned import apply_step
from hfgrow.lineage import Manifest, WeightFile
from hfgrow.manifest import read_manifest
from hfgrow.naming import suffix_of_steps
from hfgrow.operators import MAX_STEPS
from hfgrow.plan.plan import GrowthPlan, with_dtype
from hfgrow.plan.promise import check_promise
from hfgrow.proof import is_finite
from hfgrow.provenance import check_headers
from hfgrow.release import describes, hashed, push_files, visible_as
from hfgrow.request import Growth, GrowthRequest, Steps, check_steps
from hfgrow.source import base_name, files_of, local_folder, locate
from hfgrow.transformers_view import check_transformers_view


def grow(request: GrowthRequest, progress: Progress | None = None) -> Growth:
    """Run the main job.

    Args:
        request: What to grow, how, and where to.
        progress: Told how it goes on; None tells nobody.

    Raises:
        GrowthError: Anything that the user can act on. Nothing is left behind, unless the output
            is complete and only its push failed: then it stays, and can be pushed again.
    """
    progress = progress or Silent()
    if request.wants_proof:
        require("the check with transformers (--no-verify leaves it out)", *TRANSFORMERS)
    client = HubClient(token=request.token)
    ref = locate(request.model, request.revision, client, progress)
    name = f"{base_name(ref)}-{suffix_of_steps(request.steps)}"
    out = Path(name) if request.out is None else Path(request.out).expanduser()
    if request.out is not None:
        name = printable(out.absolute().name, 200)
    target = None
    if request.push:
        if ref.path is not None:
            ancestors = read_manifest(ref.path)
            flags = visible_as(ref.label, ancestors, client)
            ref = replace(ref, private=flags.private, gated=flags.gated)
        target = preflight(
            ref,
            request.repo,
            name,
            client,
            private=request.private,
            exist_ok=request.exist_ok,
            create_pr=request.create_pr,
        )
        name = target.repo_id.rpartition("/")[2]
    if request.dry_run:
        try:
            check_target(out, ref.path, overwrite=request.overwrite)
        except OutputError as error:
            progress.say(f"Note: the growth itself would stop here: {error}")
        base = read(files_of(ref, client))
        plan = planned(base, request.steps, request.dtype, request.maps, is_draft=True)
        layout = lay_out(plan, request.max_shard_nbytes)
        try:
            check_free_space(plan, layout, (), out)
        except OutputError as error:
            progress.say(f"Note: the growth itself would stop here: {error}")
        return Growth(base=base, plan=plan, layout=layout, name=name, out=out, target=target)
    if request.push and not request.overwrite and (out / MANIFEST).is_file():
        raise OutputError(
            f"the output folder {printable(out, 200)} exists",
            hint=f"to push what lies there: hfgrow push {printable(out, 200)}; to grow it again "
            "add --overwrite",
        )
    check_target(out, ref.path, overwrite=request.overwrite)
    if missing(*COMPUTING):
        base = read(files_of(ref, client))
        require_for(planned(base, request.steps, request.dtype, request.maps, is_draft=True))
    folder = local_folder(ref, client, progress)
    check_target(out, folder, overwrite=request.overwrite)
    base = read(LocalFolder(folder))
    for note in base.notes:
        progress.say(f"Note: {note}")
    if not any((folder / name).is_file() for name in TOKENIZERS):
        progress.say("Note: the base has no tokenizer, so the grown model has none")
    plan = planned(base, request.steps, request.dtype, request.maps)
    layout = lay_out(plan, request.max_shard_nbytes)
    growth = Growth(base=base, plan=plan, layout=layout, name=name, out=out, target=target)
    growth = _write(growth, request, ref, folder, progress)
    if target is not None and growth.manifest is not None:
        pushed = push_files(growth.out, growth.manifest, target, client, progress)
        growth = replace(growth, pushed=pushed)
    return growth


def planned(
    base: GrowthPlan,
    steps: Steps,
    dtype: str | None = None,
    maps: Path | None = None,
    *,
    is_draft: bool = False,
) -> GrowthPlan:
    """Return the plan of the grown model.

    Args:
        base: The plan of the base.
        steps: The operators to apply, in order.
        dtype: Convert every tensor, as config.json names dtypes.
        maps: The folder with the maps of learned steps.
        is_draft: Whether the plan is only shown, and may lack those.

    Raises:
        UsageError: There is no step, or one of them cannot be.
    """
    if not steps:
        raise UsageError("there is no growth step")
    if len(steps) > MAX_STEPS:
        raise UsageError(
            f"{len(steps)} steps are more than the {MAX_STEPS} of one growth",
            hint="grow the result again",
        )
    check_steps(steps)
    plan = with_dtype(base, dtype)
    for i, (operator, arguments) in enumerate(steps, 1):
        for key, value in arguments.items():
            if not is_argument(value):
                raise UsageError(
                    f"{operator}: {key} cannot be {printable(repr(value))}",
                    hint=f"hfgrow operators {operator} says what it takes",
                )
        try:
            plan = apply_step(plan, operator, arguments, maps, is_draft=is_draft)
        except UsageError as error:
            if len(steps) == 1:
                raise
            raise UsageError(f"step {i}, {operator}: {error}", hint=error.hint) from error
    return plan


def _write(
    growth: Growth, request: GrowthRequest, ref: ModelRef, folder: Path, progress: Progress
) -> Growth:
    deep = request.wants_proof
    # Before anything is written, and of the base, which is the smaller of the two.
    can_measure = deep and is_finite(growth.base, progress, request.allow_nonfinite)
    manifest = _manifest(growth, request, ref, folder, progress, hash_base=deep or request.push)
    plan = replace(
        growth.plan, config=config_with(growth.plan.config, lineage.config_record(manifest.link))
    )
    done: dict[str, int] = {}

    def finish(staging: Path) -> dict[str, str]:
        nonlocal manifest
        check_headers(staging, plan)
        settle_generation(staging, progress, ask_transformers=deep)
        if deep:
            done["tensors"] = check_transformers_view(staging, folder)
        if deep or request.push:
            files = hashed(staging, manifest.link.result.files, progress)
            manifest = manifest.with_result_files(files)
        if deep:
            measured = measure(folder, staging, progress) if can_measure else None
            if measured is not None and plan.preserves_function:
                check_promise(measured)
            manifest = manifest.with_measured(measured)
        repo_id = growth.target.repo_id if growth.target else None
        local = {LOCAL_BASE: f"{folder.absolute()}\n"}
        return {MANIFEST: manifest.to_json(), **local, **card.card_files(manifest, repo_id)}

    with counting(progress, f"Writing {growth.name}", growth.layout.nbytes) as advance:
        written = write(
            plan,
            growth.layout,
            growth.out,
            finish=finish,
            overwrite=request.overwrite,
            allow_nonfinite=request.allow_nonfinite,
            advance=advance,
        )
    return replace(
        growth,
        plan=plan,
        manifest=manifest,
        num_transformers_tensors=done.get("tensors"),
        cloned_nbytes=written.cloned_nbytes,
    )


def _manifest(
    growth: Growth,
    request: GrowthRequest,
    ref: ModelRef,
    folder: Path,
    progress: Progress,
    *,
    hash_base: bool,
) -> Manifest:
    earlier = read_manifest(folder)
    base_files = {
        name: WeightFile(file.nbytes, ref.files[name].sha256 if name in ref.files else None)
        for name, file in growth.base.files.items()
    }
    if (hash_base or earlier) and not all(file.sha256 for file in base_files.values()):
        base_files = hashed(folder, base_files, progress)
    if earlier and not describes(earlier, base_files):
        progress.say(
            f"Note: {MANIFEST} of the base describes other weights (trained since?); the lineage "
            "starts anew here"
        )
        earlier = None
    link = lineage.Link(
        base=record.describe(
            growth.base,
            base_name(ref),
            files=base_files,
            repo_id=ref.repo_id,
            revision=ref.revision,
        ),
        steps=growth.plan.steps,
        dtype=request.dtype,
        max_shard_nbytes=request.max_shard_nbytes,
        result=record.describe(growth.plan, growth.name, files=record.layout_files(growth.layout)),
        versions=record.versions(growth.plan),
        card=inherited(folder),
        num_computed=record.num_computed(growth.plan),
    )
    return earlier.followed_by(link) if earlier else Manifest((link,))
