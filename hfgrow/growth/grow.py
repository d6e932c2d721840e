"""The main job: resolve, preflight, headers, plan, bytes, write, check, record, rename, push.

`grow` is the whole story, and below it stands one function a step, in the order of the story. A
dry run ends with the plan. Whatever can be refused is refused before what costs more.
"""

import gc
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from hfgrow.checkpoint.compute.look import Look, Seen
from hfgrow.checkpoint.files import LOCAL_BASE, MANIFEST, TOKENIZERS, Files, LocalFolder
from hfgrow.checkpoint.layout import lay_out
from hfgrow.checkpoint.read import read
from hfgrow.checkpoint.staging import check_target, staged
from hfgrow.checkpoint.write import check_free_space, config_with, write, write_texts
from hfgrow.console import Progress, counting, usual_progress
from hfgrow.errors import (
    GrowthError,
    OutputError,
    Text,
    UsageError,
    argument,
    command,
    missing,
    printable,
    require,
)
from hfgrow.growth.behaviour import TRANSFORMERS
from hfgrow.growth.loading import COMPUTING, require_for
from hfgrow.growth.models import base_name, files_of, folder_of, local_folder, locate
from hfgrow.growth.publish import describes, hashed, is_local, push_files, visible_as
from hfgrow.growth.request import Growth, GrowthRequest
from hfgrow.growth.steps import check_steps, planned, suffix_of_steps
from hfgrow.growth.verify import check_headers, compare_in_transformers, settle_generation
from hfgrow.hub.cache import cached_snapshot
from hfgrow.hub.client import HubClient
from hfgrow.hub.listing import ModelRef
from hfgrow.hub.preflight import PushTarget, planned_target, preflight
from hfgrow.lineage import card
from hfgrow.lineage.card_metadata import inherited
from hfgrow.lineage.manifest import (
    Link,
    Manifest,
    WeightFile,
    config_record,
    layout_files,
    model_record,
    num_computed,
    versions_of_plan,
)
from hfgrow.lineage.reading import read_manifest, told_by_config
from hfgrow.plan.elsewhere import off_beat, zero_rows
from hfgrow.plan.plan import GrowthPlan


def grow(request: GrowthRequest, progress: Progress | None = None) -> Growth:
    """Run the main job.

    Args:
        request: What to grow, how, and where to.
        progress: Told how it goes on; None shows bars in a notebook, and tells nobody elsewhere.

    Raises:
        GrowthError: Anything that the user can act on. Nothing is left behind, unless the output
            is complete and only its push failed: then it stays, and can be pushed again.
    """
    check_steps(request.steps)
    progress = progress or usual_progress()
    client = HubClient(token=request.token)
    ref, name, out = _resolve(request, client, progress)
    target = _preflight(request, ref, name, client, progress)
    _check_output(request, ref, out, progress)
    with _without_collecting():
        base = _headers(request, ref, client, progress)
        growth = _plan(request, ref, base, name, out, target, progress)
    if request.dry_run:
        return growth
    manifest = _begin_lineage(request, ref, growth, progress)
    with (
        _looking(request, growth, manifest) as look,
        staged(out, overwrite=request.overwrite) as staging,
    ):
        growth, manifest = _write(request, growth, manifest, look, staging, progress)
        manifest, can_measure = _know_base(request, manifest, look, progress)
        growth, manifest = _check(request, growth, manifest, staging, can_measure, progress)
        growth = _record(request, growth, manifest, staging, progress)
    return _push(request, growth, client, progress)


def _resolve(
    request: GrowthRequest, client: HubClient, progress: Progress
) -> tuple[ModelRef, str, Path]:
    """Return the pinned base, the name of the grown model and its folder."""
    if request.wants_proof:
        require(
            f"the check with transformers ({argument('no_verify')} leaves it out)", *TRANSFORMERS
        )
    ref = locate(request.model, request.revision, client, progress)
    if request.out is not None:
        out = Path(request.out).expanduser()
        return ref, printable(out.absolute().name, 200), out
    name = _usual_name(request, ref)
    return ref, name, Path(name)


def _usual_name(request: GrowthRequest, ref: ModelRef) -> str:
    return f"{base_name(ref)}-{suffix_of_steps(request.steps)}"


def _preflight(
    request: GrowthRequest, ref: ModelRef, name: str, client: HubClient, progress: Progress
) -> PushTarget | None:
    """Ask the Hub whether the push can succeed, if there is to be one."""
    if not request.push:
        return None
    manifest = read_manifest(ref.path) if ref.path is not None else None

    def asked() -> PushTarget:
        seen = ref
        if ref.path is not None:
            found = visible_as(ref.label, manifest, client)
            seen = replace(ref, private=found.private, gated=found.gated)
        return preflight(
            seen,
            request.repo,
            name,
            client,
            private=request.private,
            exist_ok=request.exist_ok,
            create_pr=request.create_pr,
        )

    if not request.dry_run:
        return asked()
    target = planned_target(
        asked,
        request.repo,
        name,
        client,
        private=request.private,
        is_local=ref.path is not None and is_local(manifest),
    )
    for note in target.notes:
        progress.say(f"Note: {note}")
    return target


def _check_output(request: GrowthRequest, ref: ModelRef, out: Path, progress: Progress) -> None:
    """Refuse an output folder that must not be written."""
    with _only_noted(request, progress):
        if request.push and not request.overwrite and (out / MANIFEST).is_file():
            raise OutputError(
                f"the output folder {printable(out, 200)} exists",
                hint=f"to push what lies there: hfgrow push {shlex.quote(printable(out, 200))}; to "
                f"grow it again add {argument('overwrite')}",
            )
        check_target(out, folder_of(ref), overwrite=request.overwrite)


@contextmanager
def _only_noted(request: GrowthRequest, progress: Progress) -> Iterator[None]:
    """Let a dry run go on where the growth itself would stop for want of a place, and say so."""
    try:
        yield
    except OutputError as error:
        if not request.dry_run:
            raise
        progress.say(Text(f"Note: the growth itself would stop here: {error}"))


@contextmanager
def _without_collecting() -> Iterator[None]:
    """Let plans of tens of thousands of tensors grow, which the collector would walk every time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _headers(
    request: GrowthRequest, ref: ModelRef, client: HubClient, progress: Progress
) -> GrowthPlan:
    """Read config and headers strictly: on the Hub for a dry run, else here, once it is pulled."""
    files: Files
    if request.dry_run:
        files = files_of(ref, client)
    else:
        if ref.path is None and missing(*COMPUTING):
            # What cannot be computed here is not downloaded.
            draft = read(files_of(ref, client), progress)
            require_for(_planned(request, draft, is_draft=True))
        files = LocalFolder(local_folder(ref, client, progress))
    return read(files, progress)


def _plan(
    request: GrowthRequest,
    ref: ModelRef,
    base: GrowthPlan,
    name: str,
    out: Path,
    target: PushTarget | None,
    progress: Progress,
) -> Growth:
    """Apply the steps to the headers, and lay the result out in files."""
    if not request.dry_run:
        for note in base.notes:
            progress.say(f"Note: {note}")
        if not any((Path(base.folder) / file).is_file() for file in TOKENIZERS):
            where = "the base has" if cached_snapshot(ref) is None else "the cache holds"
            progress.say(f"Note: {where} no tokenizer, so the grown model has none")
    growth = draft(request, ref, base)
    if not request.dry_run and growth.plan.computes:
        require_for(growth.plan)
        # OpenBLAS ends the process where it finds no memory: now, while nothing is written.
        import_module("numpy")
    with _only_noted(request, progress):
        check_free_space(growth.plan, growth.layout, out)
    name = target.repo_id.rpartition("/")[2] if target else name
    return replace(growth, name=name, out=out, target=target)


def draft(request: GrowthRequest, ref: ModelRef, base: GrowthPlan) -> Growth:
    """Return what a growth is by its name, plan and layout; the disk is not looked at.

    Args:
        request: What to grow, and how.
        ref: The base, resolved.
        base: Its plan, of its headers.

    Raises:
        UsageError: The base cannot grow so.
        ModelError: The base is of a type that was not proven to grow so.
    """
    plan = _planned(request, base, is_draft=request.dry_run)
    layout, name = lay_out(plan, request.max_shard_nbytes), _usual_name(request, ref)
    return Growth(base=base, plan=plan, layout=layout, name=name, out=Path(name))


def link_of(
    request: GrowthRequest, ref: ModelRef, growth: Growth, card: Mapping[str, Any] | None = None
) -> Link:
    """Return the record of a growth; the hashes of what it has written are not known yet.

    Args:
        ref: The base, resolved.
        growth: Its plan and layout.
        card: What the model card inherits of the base's.
    """
    base_files = {
        name: WeightFile(file.nbytes, ref.files[name].sha256 if name in ref.files else None)
        for name, file in growth.base.files.items()
    }
    return Link(
        base=model_record(
            growth.base,
            base_name(ref),
            files=base_files,
            repo_id=ref.repo_id,
            revision=ref.revision,
        ),
        steps=growth.plan.steps,
        dtype=request.dtype,
        max_shard_nbytes=request.max_shard_nbytes,
        result=model_record(growth.plan, growth.name, files=layout_files(growth.layout)),
        versions=versions_of_plan(growth.plan),
        card=card or {},
        num_computed=num_computed(growth.plan),
        off_beat=off_beat(growth.base, growth.plan),
        zero_rows=zero_rows(growth.plan) or None,
    )


def _planned(request: GrowthRequest, base: GrowthPlan, *, is_draft: bool) -> GrowthPlan:
    if request.num_base_layers not in (None, base.num_hidden_layers):
        raise UsageError(
            f"the steps are for a model of {request.num_base_layers} layers, the base has "
            f"{base.num_hidden_layers}"
        )
    return planned(
        base,
        request.steps,
        request.dtype,
        request.maps,
        is_draft=is_draft,
        untested=request.untested,
    )


def _begin_lineage(
    request: GrowthRequest, ref: ModelRef, growth: Growth, progress: Progress
) -> Manifest:
    """Return the lineage of the base with this growth behind it; what came out is not known yet."""
    folder = Path(growth.base.folder)
    earlier = read_manifest(folder)
    if earlier is None and (how := told_by_config(growth.base.config)):
        progress.say(
            f"Note: config.json says that hfgrow grew or trained the base, {how}, and {MANIFEST} "
            "is not there: another program has saved it since; the lineage starts anew here"
        )
    link = link_of(request, ref, growth, inherited(folder, progress.say))
    return earlier.followed_by(link) if earlier else Manifest((link,))


@contextmanager
def _looking(request: GrowthRequest, growth: Growth, manifest: Manifest) -> Iterator[Look | None]:
    """Read the base beside the writing for what has to be known of it, if anything: hashes, NaN."""
    wants_hashes = request.wants_hashes or len(manifest.chain) > 1
    files = manifest.link.base.files
    unknown = [name for name, file in files.items() if wants_hashes and file.sha256 is None]
    if not unknown and not request.wants_proof:
        yield None
        return
    look = Look(
        growth.base,
        unknown,
        finite=request.wants_proof,
        in_vain=not request.allow_nonfinite,
    )
    with look.beside():
        yield look


def _write(
    request: GrowthRequest,
    growth: Growth,
    manifest: Manifest,
    look: Look | None,
    staging: Path,
    progress: Progress,
) -> tuple[Growth, Manifest]:
    """Carry the plan out; the config that is written holds a small record of the growth."""
    record = config_record(manifest.link)
    plan = replace(growth.plan, config=config_with(growth.plan.config, record))
    with counting(progress, f"Writing {growth.name}", growth.layout.nbytes) as advance:

        def go_on(nbytes: int) -> None:
            if look is not None:
                look.check()
            advance(nbytes)

        written = write(
            plan,
            growth.layout,
            staging,
            allow_nonfinite=request.allow_nonfinite,
            hashes=request.wants_hashes,
            advance=go_on,
        )
    growth = replace(growth, plan=plan, cloned_nbytes=written.cloned_nbytes)
    return growth, manifest.with_result_hashes(written.sha256)


def _know_base(
    request: GrowthRequest, manifest: Manifest, look: Look | None, progress: Progress
) -> tuple[Manifest, bool]:
    """Complete the lineage with what the bytes of the base have shown.

    Returns:
        The lineage, which starts anew where that of the base tells of other weights; and whether
        logits can be measured.
    """
    seen = Seen({}) if look is None else look.result(progress)
    if seen.not_finite is not None:
        if not request.allow_nonfinite:
            raise seen.not_finite
        progress.say(f"Note: {seen.not_finite}; logits are not measured")
    manifest = manifest.with_base_hashes(seen.sha256)
    earlier = manifest.chain[:-1]
    if earlier and not describes(replace(manifest, chain=earlier), manifest.link.base.files):
        progress.say(
            f"Note: {MANIFEST} of the base describes other weights (trained since?); the lineage "
            "starts anew here"
        )
        manifest = Manifest((manifest.link,))
    return manifest, request.wants_proof and seen.not_finite is None


def _check(
    request: GrowthRequest,
    growth: Growth,
    manifest: Manifest,
    staging: Path,
    can_measure: bool,
    progress: Progress,
) -> tuple[Growth, Manifest]:
    """Compare what was written with the plan, and if wanted ask transformers."""
    check_headers(staging, growth.plan)
    settle_generation(staging, progress, ask_transformers=request.wants_proof)
    if not request.wants_proof:
        return growth, manifest
    base = Path(growth.base.folder)
    num_tensors, measured = compare_in_transformers(
        base, staging, growth.plan, progress, can_measure=can_measure
    )
    return replace(growth, num_transformers_tensors=num_tensors), manifest.with_measured(measured)


def _record(
    request: GrowthRequest, growth: Growth, manifest: Manifest, staging: Path, progress: Progress
) -> Growth:
    """Write hfgrow.json, the card and its picture, and where the base lies here."""
    if request.wants_hashes:
        files = manifest.link.result.files
        unknown = {name: file for name, file in files.items() if file.sha256 is None}
        found = hashed(staging, unknown, progress)
        manifest = manifest.with_result_files({**files, **found})
    repo_id = growth.target.repo_id if growth.target else None
    base = f"{Path(growth.base.folder).absolute()}\n"
    texts = {MANIFEST: manifest.to_json(), LOCAL_BASE: base, **card.card_files(manifest, repo_id)}
    write_texts(staging, texts)
    return replace(growth, manifest=manifest)


def _push(request: GrowthRequest, growth: Growth, client: HubClient, progress: Progress) -> Growth:
    """Push the complete output, if there is a target; a failure says how to push what stays."""
    if growth.target is None or growth.manifest is None:
        return growth
    try:
        pushed = push_files(growth.out, growth.manifest, growth.target, client, progress)
    except GrowthError as error:
        words = ("push", shlex.quote(printable(growth.out, 200)), growth.target.repo_id)
        again = command(
            " ".join(words),
            private="" if request.private else None,
            public="" if request.private is False else None,
            create_pr="" if request.create_pr else None,
            exist_ok="" if request.exist_ok else None,
        )
        said = f"{error.hint}; " if error.hint else ""
        error.hint = Text(f"{said}the grown model is complete, and goes there by {again}")
        raise
    return replace(growth, pushed=pushed)
