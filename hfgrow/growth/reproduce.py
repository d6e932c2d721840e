"""Rebuild a grown model from the root of its chain, and compare it byte for byte by sha256."""

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

from hfgrow.checkpoint.files import MANIFEST, Files, LocalFolder, hash_telling
from hfgrow.checkpoint.layout import lay_out
from hfgrow.checkpoint.learned_maps import is_maps_name
from hfgrow.checkpoint.locks import scratch_folder
from hfgrow.checkpoint.read import read
from hfgrow.checkpoint.staging import check_target, staged, translated
from hfgrow.checkpoint.write import check_free_space, config_with, write, write_texts
from hfgrow.console import Progress, counting, usual_progress
from hfgrow.errors import ModelError, UsageError, VerificationError, command, missing, printable
from hfgrow.growth.loading import COMPUTING, require_for
from hfgrow.growth.models import base_folder, files_of, locate
from hfgrow.growth.steps import apply_step, arguments_of
from hfgrow.hub.client import HubClient
from hfgrow.hub.listing import ModelRef
from hfgrow.lineage.card import card_files
from hfgrow.lineage.manifest import Link, Manifest, config_record
from hfgrow.lineage.reading import manifest_of
from hfgrow.plan.plan import GrowthPlan, with_dtype

_CHUNK_NBYTES = 8 << 20


def reproduce(
    model: str,
    client: HubClient | None = None,
    progress: Progress | None = None,
    *,
    revision: str | None = None,
    root: str | None = None,
    out: Path | None = None,
) -> dict[str, str]:
    """Grow a model again, from the root of its chain, and compare the sha256 of every weight file.

    Compared are the rebuilt files, the files of the model as they are now, and what its lineage
    records.

    Args:
        model: A grown model: a folder or a repository.
        client: For what lies on the Hub; None takes the default one.
        progress: Told how it goes on; None tells nobody.
        revision: Branch, tag or commit of the model.
        root: The root, if it is not where the lineage says.
        out: Where to keep the rebuilt model; None keeps nothing.

    Returns:
        Weight file -> the sha256 that came out equal.

    Raises:
        VerificationError: A file is not what the lineage records, or came out different.
        ModelError: There is no lineage, there is a training in it, or the root is not to be found.
        OutputError: The rebuilt model cannot be written.
    """
    client, progress = client or HubClient(), progress or usual_progress()
    ref = locate(model, revision, client, progress)
    files = files_of(ref, client)
    manifest = manifest_of(files)
    growths = _growths(manifest, ref)
    if out is not None:
        check_target(out, ref.path, overwrite=False, replaceable=False)
    wanted = _current_sha256(manifest, ref, files, progress)
    current = base_folder(ref.path, manifest, root, client, progress, root=True)
    _require_for_all(current, growths)
    parent = Path(".") if out is None else out.absolute().parent
    with translated(printable(parent, 200)), scratch_folder(parent) as scratch:
        maps = _maps(growths, ref, files, scratch)
        for i, link in enumerate(growths[:-1]):
            current = _rebuild(current, link, scratch / str(i), progress, None, maps)

        def compare(staging: Path, found: Mapping[str, str]) -> dict[str, str]:
            _compare(staging, found, wanted, progress)
            return {MANIFEST: manifest.to_json(), **card_files(manifest, ref.repo_id)}

        _rebuild(current, growths[-1], out or scratch / "last", progress, compare, maps)
    return wanted


def _growths(manifest: Manifest, ref: ModelRef) -> list[Link]:
    """Return the links of a chain that consists of growths."""
    growths = [link for link in manifest.chain if isinstance(link, Link)]
    if manifest.elsewhere:
        raise ModelError(
            f"{printable(ref.label)} was trained by another program: each growth is reproducible, "
            "trained weights are not",
            hint=f"what its weights must be is the sha256 in {MANIFEST}",
        )
    if manifest.trainings:
        raise ModelError(
            f"{printable(ref.label)} has a training in its chain: each growth is reproducible, "
            "trained weights are not",
            hint=_instead(manifest, ref),
        )
    return growths


def _instead(manifest: Manifest, ref: ModelRef) -> str:
    """Say what can be proved of a chain with a training in it."""
    if isinstance(manifest.link, Link):
        where = shlex.quote(printable(ref.path, 200)) if ref.path else "FOLDER, once it is pulled"
        return f"its last growth can be proved against the base it grew from: hfgrow verify {where}"
    if not isinstance(manifest.chain[0], Link):
        return f"what its weights must be is the sha256 in {MANIFEST}"
    base = manifest.trainings[0].base
    where = "FOLDER" if base.repo_id is None else base.repo_id
    again = command(f"reproduce {where}", revision=base.revision)
    return (
        f"reproduce the growth that was trained first, {printable(base.name)}, where that lies: "
        f"{again}"
    )


def _current_sha256(
    manifest: Manifest, ref: ModelRef, files: Files, progress: Progress
) -> dict[str, str]:
    current = {}
    for name, recorded_file in manifest.link.result.files.items():
        # A file of another size is not read for its hash.
        is_whole = files.nbytes(name) == recorded_file.nbytes
        digest = _sha256(name, ref, files, progress) if is_whole else None
        if digest is None or recorded_file.sha256 not in (None, digest):
            raise VerificationError(
                f"{printable(name)} of {files.label} is not the file that {MANIFEST} records",
                hint="its weights were changed after growth, such as by training",
            )
        current[name] = digest
    return current


def _sha256(name: str, ref: ModelRef, files: Files, progress: Progress) -> str:
    remote = ref.files.get(name)
    if remote is not None and remote.sha256 is not None:
        return remote.sha256
    if ref.path is not None:
        return hash_telling(ref.path / name, progress)
    with counting(progress, f"Hashing {printable(name)}", files.nbytes(name)) as advance:
        digest = sha256()
        for piece in _pieces(files, name):
            digest.update(piece)
            advance(len(piece))
        return digest.hexdigest()


def _pieces(files: Files, name: str) -> Iterator[bytes]:
    """Read a file, some of it at a time."""
    for start in range(0, files.nbytes(name), _CHUNK_NBYTES):
        yield files.read(name, start, _CHUNK_NBYTES)


def _require_for_all(root: Path, growths: Sequence[Link]) -> None:
    """Ask for what computes tensors before the first growth is written."""
    if missing(*COMPUTING):
        plan = read(LocalFolder(root))
        for link in growths:
            plan = replay(plan, link, is_draft=True)
            require_for(plan)


def _compare(
    staging: Path, found: Mapping[str, str], wanted: Mapping[str, str], progress: Progress
) -> None:
    for name, digest in wanted.items():
        rebuilt = found.get(name)
        if rebuilt is None:
            # What was not written in order, or a file that did not come out.
            is_there = (staging / name).is_file()
            rebuilt = hash_telling(staging / name, progress) if is_there else "none"
        if rebuilt != digest:
            raise VerificationError(
                f"{printable(name)} came out with sha256 {rebuilt}, the model has {digest}",
                hint="the root is another model, or the weights were changed after growth",
            )


def _maps(growths: Sequence[Link], ref: ModelRef, files: Files, scratch: Path) -> Path:
    """Return the folder with the maps of the learned growths: the model's, or copies."""
    if ref.path is not None:
        return ref.path
    wanted = {step.arguments.get("maps") for link in growths for step in link.steps}
    for name in wanted & set(files.names()):
        if is_maps_name(str(name)):
            with (scratch / str(name)).open("wb") as copy:
                copy.writelines(_pieces(files, str(name)))
    return scratch


def replay(
    base: GrowthPlan, link: Link, maps: Path | None = None, *, is_draft: bool = False
) -> GrowthPlan:
    """Apply the recorded steps of a link to its base.

    Args:
        link: The growth.
        maps: The folder with the maps of learned steps.
        is_draft: Whether the plan may lack those, as it is not carried out.

    Raises:
        ModelError: A recorded step cannot be run, or gives another layer map than recorded.
        VerificationError: The record makes another promise than the operator.
    """
    plan = with_dtype(base, link.dtype)
    for step in link.steps:
        try:
            plan = apply_step(plan, step.operator, arguments_of(step), maps, is_draft=is_draft)
        except UsageError as error:
            hint = "upgrade hfgrow"
            if plan.derived is not None:
                recorded = link.versions.get("transformers", "another version")
                hint = f"it was grown as transformers {recorded} builds it"
            raise ModelError(f"{MANIFEST}: {error}", hint=hint) from error
        if plan.steps[-1].layer_map != step.layer_map:
            raise ModelError(
                f"{step.operator} gives another layer map than {MANIFEST} records",
                hint="the base is another model, or the record was edited",
            )
        if plan.steps[-1].preserves_function != step.preserves_function:
            does = "preserves" if plan.steps[-1].preserves_function else "does not preserve"
            raise VerificationError(
                f"{step.operator} {does} the function with these arguments; {MANIFEST} records "
                "the opposite",
                hint="the record was edited, or another version of hfgrow wrote it",
            )
    return plan


def _rebuild(
    base: Path,
    link: Link,
    target: Path,
    progress: Progress,
    finish: Callable[[Path, Mapping[str, str]], dict[str, str]] | None,
    maps: Path,
) -> Path:
    """Carry a recorded growth out; `finish` is given where, and the hashes that are known of it."""
    plan = replay(read(LocalFolder(base), progress), link, maps)
    plan = replace(plan, config=config_with(plan.config, config_record(link)))
    layout = lay_out(plan, link.max_shard_nbytes)
    check_free_space(plan, layout, target)
    what = f"Rebuilding {printable(link.result.name)}"
    with staged(target) as staging:
        with counting(progress, what, layout.nbytes) as advance:
            written = write(plan, layout, staging, hashes=finish is not None, advance=advance)
        if finish is not None:
            write_texts(staging, finish(staging, written.sha256))
    return target
