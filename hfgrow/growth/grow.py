"""The main job: resolve, preflight, pull, read, grow, write, verify, describe, push.

What a growing command was asked for, and what it did.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from hfgrow.checkpoint.files import LOCAL_BASE, MANIFEST, TOKENIZERS, LocalFolder
from hfgrow.checkpoint.layout import DEFAULT_MAX_SHARD_NBYTES, Layout, lay_out
from hfgrow.checkpoint.read import read
from hfgrow.checkpoint.staging import check_target
from hfgrow.checkpoint.write import check_free_space, config_with, write
from hfgrow.console import Progress, Silent, counting
from hfgrow.errors import OutputError, argument, printable
from hfgrow.growth.behaviour import (
    TRANSFORMERS,
    check_transformers_view,
    measure,
    settle_generation,
)
from hfgrow.growth.loading import COMPUTING, missing, require, require_for
from hfgrow.growth.models import base_name, files_of, local_folder, locate
from hfgrow.growth.publish import describes, hashed, push_files, visible_as
from hfgrow.growth.steps import Steps, planned, suffix_of_steps
from hfgrow.growth.verify import check_headers, is_finite
from hfgrow.hub.client import HubClient
from hfgrow.hub.listing import ModelRef
from hfgrow.hub.preflight import PushTarget, preflight
from hfgrow.hub.push import Pushed
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
from hfgrow.lineage.reading import read_manifest
from hfgrow.plan.plan import GrowthPlan
from hfgrow.plan.promise import check_promise


@dataclass(frozen=True, kw_only=True)
class GrowthRequest:
    """Everything that a growing command was asked for.

    Attributes:
        model: Folder, alias, org/name, hf:// or Hub URL.
        steps: The operators to apply, in order: a name in the table, and its arguments by name.
        out: The output folder; None means `./<base>-<operator>-...`.
        overwrite: Whether an existing output may be replaced.
        revision: Branch, tag or commit of the base.
        dtype: Convert every tensor, as config.json names dtypes.
        max_shard_nbytes: The most tensor bytes in one file.
        verify: Ask transformers too, and measure logits; None means only with a push.
        push: Whether to push the result.
        repo: The repository to push to; None means `<you>/<name of the output>`.
        private: The visibility of a new repository; None means that of the base.
        create_pr: Push as a pull request.
        exist_ok: Push into a repository that hfgrow did not make.
        token: The Hub token; None takes the environment's or the logged-in one.
        allow_nonfinite: Whether a base with NaN or infinity in its weights is grown all the same.
        dry_run: Stop when the plan is made.
        maps: The folder with the maps of learned steps; a dry run needs none.
    """

    model: str
    steps: Steps
    out: Path | None = None
    overwrite: bool = False
    revision: str | None = None
    dtype: str | None = None
    max_shard_nbytes: int = DEFAULT_MAX_SHARD_NBYTES
    verify: bool | None = None
    push: bool = False
    repo: str | None = None
    private: bool | None = None
    create_pr: bool = False
    exist_ok: bool = False
    token: str | None = None
    allow_nonfinite: bool = False
    dry_run: bool = False
    maps: Path | None = None

    @property
    def wants_proof(self) -> bool:
        """Whether transformers is asked too; before a push it is, unless somebody said no."""
        return not self.dry_run and (self.push if self.verify is None else self.verify)


@dataclass(frozen=True, kw_only=True)
class Growth:
    """What a growing command did, or would do.

    Attributes:
        base: The plan of the base.
        plan: The plan of the grown model.
        layout: Its files.
        name: Its short name.
        manifest: Its lineage; None in a dry run.
        out: Where it lies, or would.
        target: Where it is pushed, if asked for.
        pushed: What the push did.
        num_transformers_tensors: How many tensors transformers expected and found, if asked.
        cloned_nbytes: Bytes that share the base's blocks.
    """

    base: GrowthPlan
    plan: GrowthPlan
    layout: Layout
    name: str
    out: Path
    manifest: Manifest | None = None
    target: PushTarget | None = None
    pushed: Pushed | None = None
    num_transformers_tensors: int | None = None
    cloned_nbytes: int = 0


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
        require(
            f"the check with transformers ({argument('no_verify')} leaves it out)", *TRANSFORMERS
        )
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
            f"add {argument('overwrite')}",
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


def _write(
    growth: Growth, request: GrowthRequest, ref: ModelRef, folder: Path, progress: Progress
) -> Growth:
    deep = request.wants_proof
    # Before anything is written, and of the base, which is the smaller of the two.
    can_measure = deep and is_finite(growth.base, progress, request.allow_nonfinite)
    manifest = _manifest(growth, request, ref, folder, progress, hash_base=deep or request.push)
    plan = replace(
        growth.plan, config=config_with(growth.plan.config, config_record(manifest.link))
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
    link = Link(
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
        card=inherited(folder),
        num_computed=num_computed(growth.plan),
    )
    return earlier.followed_by(link) if earlier else Manifest((link,))
