"""Push a grown or trained model: the files that hfgrow wrote, as it wrote them, and no others."""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from hfgrow.checkpoint.files import (
    CARD,
    CONFIG,
    INDEX,
    LOSS_PICTURE,
    MANIFEST,
    RECIPE,
    LocalFolder,
    hash_telling,
    side_files_of,
)
from hfgrow.checkpoint.read import read
from hfgrow.checkpoint.staging import replace_text, translated
from hfgrow.checkpoint.strict import read_bounded
from hfgrow.console import Progress
from hfgrow.errors import (
    GrowthError,
    HubRefusedError,
    ModelError,
    UsageError,
    VerificationError,
    argument,
    command,
    printable,
)
from hfgrow.growth.models import base_at_hand, base_folder, recorded
from hfgrow.growth.verify import check_generation, compare_bytes, of_another_size, plan_again
from hfgrow.hub.client import HubClient
from hfgrow.hub.listing import ModelRef
from hfgrow.hub.preflight import PushTarget, planned_target, preflight
from hfgrow.hub.push import Pushed, push
from hfgrow.lineage.card import MAX_RECIPE_NBYTES, card_files, drawings, licence_note
from hfgrow.lineage.manifest import Link, Manifest, WeightFile, widths_of
from hfgrow.lineage.reading import manifest_of
from hfgrow.lineage.records import Benchmark
from hfgrow.plan.plan import GrowthPlan


def publish(
    folder: Path,
    repo: str | None,
    client: HubClient,
    progress: Progress,
    *,
    private: bool | None = None,
    exist_ok: bool = False,
    create_pr: bool = False,
    dry_run: bool = False,
) -> Pushed:
    """Push a model that lies in a folder, grown by hfgrow, or trained.

    Args:
        folder: A model grown or trained by hfgrow, not changed since.
        repo: The target; None means a repository of the caller's named as the model, which one that
            another program has trained since must not take.
        private: The visibility of a new repository; None means as private as its ancestors.
        exist_ok: Whether a repository that hfgrow did not make may be pushed to.
        create_pr: Whether to open a pull request instead.
        dry_run: Whether nothing is sent, and nothing written here; there is no commit then. Without
            a login or an answer the plan is made of what lies here.

    Raises:
        UsageError: Another program trained the model since, and no target is named.
        ModelError: The folder was not made by hfgrow, or its weights were changed since.
        VerificationError: They are no growth of the base that is at hand, and have no sha256 that
            would tell.
        GrowthError: The Hub refuses, does not answer, or changed meanwhile.
    """
    manifest = manifest_of(LocalFolder(folder))
    if repo is None and manifest.trained_since:
        # By default it would go over what it was grown as, which may lie on the Hub under its name.
        shown = printable(folder, 200)
        raise UsageError(
            f"{shown} was trained by another program since, and has only the name of what was "
            f"grown, {printable(manifest.link.result.name)}",
            hint=f"name the repository: {command(f'push {shlex.quote(shown)} NAME')}",
        )

    def asked() -> PushTarget:
        base = manifest.link.base
        return preflight(
            replace(visible_as(base.name, manifest, client), repo_id=base.repo_id),
            repo,
            manifest.link.result.name,
            client,
            private=private,
            exist_ok=exist_ok,
            create_pr=create_pr,
        )

    if dry_run:
        target = planned_target(
            asked,
            repo,
            manifest.link.result.name,
            client,
            private=private,
            is_local=is_local(manifest),
        )
        read(LocalFolder(folder))
        check_generation(folder, progress)
        check_sizes(folder, manifest)
        return Pushed(
            f"{client.endpoint}/{target.repo_id}",
            "",
            private=target.private,
            if_new=target.if_new,
            notes=(*target.notes, *_to_be_compared(folder, manifest, progress), _NOT_COMPARED),
            files=_sizes(folder, manifest),
        )
    target = asked()
    # Config, index and headers must still agree; the weights themselves are looked at next.
    read(LocalFolder(folder))
    check_generation(folder, progress)
    proved, why = _proved(folder, manifest, progress)
    is_told = _write_down(folder, manifest, proved, target.repo_id)
    pushed = push_files(folder, proved, target, client, progress)
    notes = (_nothing_compared(why, is_told=is_told),) if why else ()
    return replace(pushed, notes=(*pushed.notes, *notes))


_NOT_COMPARED = (
    f"the weights were not hashed: the push compares them with {MANIFEST}, and all files with what "
    "the repository has, and may refuse, or find that all is there"
)


def _to_be_compared(folder: Path, manifest: Manifest, progress: Progress) -> tuple[str, ...]:
    """Say of weights without a sha256 of their growth what the push will compare them with."""
    if not manifest.is_unproved:
        return ()
    plan = _plan_at_hand(folder, manifest, progress)
    if isinstance(plan, str):
        return (_nothing_compared(plan, is_told=True),)
    base = printable(plan.folder, 200)
    return (f"no sha256 was recorded at growth: the push compares the weights with {base}",)


def _proved(folder: Path, manifest: Manifest, progress: Progress) -> tuple[Manifest, str]:
    """Compare the weights with their record, and where that has no sha256 with the base at hand.

    Returns:
        The lineage with every sha256, and why the weights could not be compared; empty if none
        is due, or they were.
    """
    # Hashed first, they cannot change unseen between that and the comparison.
    filled = unchanged(folder, manifest, progress)
    if not manifest.is_unproved:
        return filled, ""
    plan = _plan_at_hand(folder, manifest, progress)
    if isinstance(plan, str):
        return filled, plan
    compare_bytes(folder, plan, progress)
    return filled.with_compared(compared=True), ""


def _plan_at_hand(folder: Path, manifest: Manifest, progress: Progress) -> GrowthPlan | str:
    """Return the plan of a growth, made again of its base, or why that cannot be done here."""
    link = manifest.growth
    base = base_at_hand(folder, link.base)
    if base is None:
        return f"the base {printable(link.base.name)} is not at hand"
    try:
        return plan_again(folder, base, link, progress)
    except (ModelError, UsageError) as error:
        return str(error)


def _nothing_compared(why: str, *, is_told: bool) -> str:
    told = f"{MANIFEST} and card say so"
    if not is_told:
        told = f"{MANIFEST} says so, and the card, which was edited, stays as it is"
    return f"nothing has compared the weights with the base since they were grown: {why}; {told}"


def check_sizes(folder: Path, manifest: Manifest) -> None:
    """Refuse weights whose sizes alone say that they are not those of their lineage.

    Raises:
        ModelError: A file has another size than is recorded, or is missing.
    """
    if found := of_another_size(folder, manifest):
        raise _changed(folder, found[0], manifest)


def is_local(manifest: Manifest | None) -> bool:
    """Say whether nothing that a model was made from is on the Hub."""
    return not any(link.base.repo_id for link in (manifest.chain if manifest else ()))


def write_benchmarks(folder: Path, found: Sequence[Benchmark], progress: Progress) -> bool:
    """Record results of benchmarks in hfgrow.json and the card of a model.

    Returns:
        Whether the card has them too: one that somebody edited stays as it is.

    Raises:
        ModelError: The folder was not made by hfgrow, or its weights were changed since.
        OutputError: The folder cannot be written to.
    """
    manifest = manifest_of(LocalFolder(folder))
    proved = unchanged(folder, manifest, progress).with_benchmarks(found)
    return _write_down(folder, manifest, proved, None)


def record_training(folder: Path, note: str, progress: Progress) -> bool:
    """Record that another program has trained a model since its lineage was written.

    Args:
        folder: The model, with the hfgrow.json of what it was trained from.
        note: What was done: data, tokens, program.

    Returns:
        Whether the card has it too: one that somebody edited stays as it is.

    Raises:
        UsageError: The note is none, or the weights are those of the lineage.
        ModelError: There is no lineage, or it is that of a model of other sizes.
        OutputError: The folder cannot be written to.
    """
    words = " ".join(note.split())
    if not words or words != printable(words, 200):
        raise UsageError(
            f"{argument('trained_elsewhere')} takes a line of up to 200 printable characters"
        )
    manifest = manifest_of(LocalFolder(folder))
    plan = read(LocalFolder(folder))
    grown = manifest.link.result
    sizes = {key: size for key, size in widths_of(plan).items() if grown.widths[key] is not None}
    if plan.num_hidden_layers != grown.num_hidden_layers or any(
        grown.widths[key] != size for key, size in sizes.items()
    ):
        raise ModelError(
            f"{printable(folder, 200)} has other sizes than the model whose {MANIFEST} lies in it",
            hint=f"copy {MANIFEST} of the model that it was trained from",
        )
    found = hashed(folder, plan.files, progress)
    if describes(manifest, found) and (
        not manifest.is_unproved or _is_what_was_grown(folder, manifest, progress)
    ):
        raise UsageError(
            f"the weights are those that {MANIFEST} records: nothing was trained since",
            hint=f"give the folder that the other program wrote, with {MANIFEST} copied into it",
        )
    return _write_down(folder, manifest, manifest.trained_elsewhere(words, found), None)


def _is_what_was_grown(folder: Path, manifest: Manifest, progress: Progress) -> bool:
    """Say whether weights without a sha256 of their growth are those of it; no if unknown."""
    try:
        base = base_folder(folder, manifest, None, HubClient(), progress)
        compare_bytes(folder, plan_again(folder, base, manifest.growth, progress), progress)
    except VerificationError:
        return False
    except GrowthError as error:
        progress.say(f"Note: the weights are not compared with those that were grown: {error}")
        return False
    return True


def _write_down(folder: Path, before: Manifest, after: Manifest, repo_id: str | None) -> bool:
    """Write a model's lineage anew, and its card, unless somebody edited that: then it is theirs.

    Returns:
        Whether the card was written.
    """
    has_card = (folder / CARD).is_file()
    ours = not has_card or (folder / CARD).read_text(encoding="utf-8", errors="replace") in (
        card_of(folder, before, name)[CARD] for name in dict.fromkeys((None, repo_id))
    )
    texts = {MANIFEST: after.to_json()}
    if ours:
        texts |= card_of(folder, after, repo_id)
    with translated(printable(folder, 200)):
        for name, text in texts.items():
            replace_text(folder / name, text)
    return ours


def push_files(
    folder: Path, manifest: Manifest, target: PushTarget, client: HubClient, progress: Progress
) -> Pushed:
    """Push the files of a grown model, whose weights are known to be those of its lineage."""
    note = licence_note(manifest.link.card, is_from_scratch=manifest.is_from_scratch)
    if note:
        progress.say(f"Note: {note}")
    hashes = {name: file.sha256 for name, file in manifest.files.items() if file.sha256}
    pushed = push(
        folder,
        own_files(folder, manifest),
        target,
        client,
        progress,
        message=f"Add {manifest.link.result.name}",
        hashes=hashes,
    )
    return replace(pushed, private=target.private, files=_sizes(folder, manifest))


def _sizes(folder: Path, manifest: Manifest) -> dict[str, int]:
    return {name: (folder / name).stat().st_size for name in own_files(folder, manifest)}


def visible_as(name: str, manifest: Manifest | None, client: HubClient) -> ModelRef:
    """Return a base that lies on this machine, with the visibility that its ancestors ask for.

    A model grown from a private or gated one is private by default, however many growths lie
    between; an ancestor that this token does not see counts as private.
    """
    private = gated = False
    for link in manifest.chain if manifest else ():
        if link.base.repo_id is None:
            continue
        try:
            ref = recorded(link.base.repo_id, link.base.revision, client)
        except HubRefusedError:
            private = True
        else:
            private, gated = private or ref.private, gated or ref.gated
    return ModelRef(name, private=private, gated=gated)


def unchanged(folder: Path, manifest: Manifest, progress: Progress) -> Manifest:
    """Hash the weights of a grown model, and return its manifest with every sha256 filled in.

    It then says so where such a sha256 is the first, and tells nothing of the growth itself.

    Raises:
        ModelError: A weight file is not the one that the lineage records: it was trained or
            replaced since, and the lineage would tell a story that is no longer true.
    """
    known = manifest.files
    found = hashed(folder, known, progress)
    for name, file in known.items():
        if not is_same(file, found[name]):
            raise _changed(folder, name, manifest)
    filled = manifest.with_result_files(found)
    return filled.with_compared(compared=False) if manifest.is_unproved else filled


def _changed(folder: Path, name: str, manifest: Manifest) -> ModelError:
    made = "growth" if isinstance(manifest.link, Link) else "that training"
    return ModelError(
        f"{printable(name)} is not the file that {MANIFEST} records: the weights were changed "
        f"after {made}",
        hint="if another program trained it since, record that: "
        + command(f"card {shlex.quote(printable(folder, 200))}", trained_elsewhere="NOTE"),
    )


def is_same(recorded_file: WeightFile, found: WeightFile) -> bool:
    """Say whether a file can be the recorded one: its size, and its sha256 where both are known."""
    hashes = {recorded_file.sha256, found.sha256} - {None}
    return recorded_file.nbytes == found.nbytes and len(hashes) <= 1


def describes(manifest: Manifest, files: Mapping[str, WeightFile]) -> bool:
    """Say whether weight files can be those whose growth or training a manifest records."""
    known = manifest.files
    return known.keys() == files.keys() and all(is_same(known[n], files[n]) for n in files)


def hashed(folder: Path, files: Iterable[str], progress: Progress) -> dict[str, WeightFile]:
    """Return the records of weight files as they lie in a folder now."""
    nbytes = LocalFolder(folder).nbytes
    return {name: WeightFile(nbytes(name), hash_telling(folder / name, progress)) for name in files}


def card_of(folder: Path, manifest: Manifest, repo_id: str | None) -> dict[str, str]:
    """Return the card of a model and its picture, by file name, as they belong into its folder.

    Args:
        folder: Where the model lies, with the picture of its loss and its recipe.
        repo_id: Where it will be pushed, if that is known.
    """
    recipe = None
    if has_recipe(folder, manifest):
        raw = read_bounded(folder / RECIPE, MAX_RECIPE_NBYTES, RECIPE)
        recipe = raw.decode("utf-8", errors="replace")
    return card_files(manifest, repo_id, has_loss_picture(folder, manifest), recipe)


def has_recipe(folder: Path, manifest: Manifest) -> bool:
    """Say whether the recipe lies in the folder of a model that was trained."""
    return bool(manifest.trainings) and (folder / RECIPE).is_file()


def own_files(folder: Path, manifest: Manifest) -> list[str]:
    """Return the names of a model's files, from its lineage and the allow-list."""
    weights = list(manifest.files)
    index = [INDEX] if len(weights) > 1 else []
    pictures = drawings(manifest)
    pictures += [LOSS_PICTURE] if has_loss_picture(folder, manifest) else []
    recipe = [RECIPE] if has_recipe(folder, manifest) else []
    texts = [CONFIG, MANIFEST, CARD, *recipe]
    return sorted([*weights, *index, *texts, *pictures, *side_files_of(folder)])


def has_loss_picture(folder: Path, manifest: Manifest) -> bool:
    """Say whether the picture of a training lies in the folder of a model that was trained."""
    return bool(manifest.trainings) and (folder / LOSS_PICTURE).is_file()
