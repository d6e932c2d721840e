"""From what the user typed, or a lineage names, to a model's files: resolved, pinned, pulled."""

import os
from collections.abc import Sequence
from pathlib import Path

from hfgrow.checkpoint.files import LOCAL_BASE, TRAINED, Files, LocalFolder, open_regular
from hfgrow.console import Progress, Silent
from hfgrow.errors import ModelError, argument, printable
from hfgrow.hub.cache import cached_snapshot, snapshot_folder
from hfgrow.hub.client import HubClient
from hfgrow.hub.listing import ModelRef
from hfgrow.hub.pull import RemoteFiles, pull
from hfgrow.hub.repo_names import check_repo_id
from hfgrow.hub.resolve import pin, resolve
from hfgrow.hub.search import DEMO
from hfgrow.lineage.manifest import Manifest, Model


def locate(model: str, revision: str | None, client: HubClient, progress: Progress) -> ModelRef:
    """Resolve what the user typed, pin a Hub model to a commit, and say what it became.

    Raises:
        UsageError: The name is none, or could be two things.
        GrowthError: The Hub refuses or does not answer.
    """
    ref = resolve(model, client, revision)
    if ref.alias or ref.repo_id:
        at = f" @ {ref.revision[:12]}" if ref.revision else ""
        why = " (built-in alias)" if ref.alias else ""
        meant = ref.repo_id or "the model inside hfgrow"
        begin = "" if meant == model else f"{printable(model)} -> "
        progress.say(f"{begin}{meant}{at}{why}")
    for note in ref.notes:
        progress.say(f"Note: {note}")
    return ref


def recorded(repo_id: str, revision: str | None, client: HubClient) -> ModelRef:
    """Pin a repository that a lineage names: never a folder, an alias or an address.

    Raises:
        UsageError: The name is none of a repository.
        GrowthError: The Hub refuses or does not answer.
    """
    check_repo_id(repo_id)
    return pin(ModelRef(repo_id, repo_id=repo_id, revision=revision), client)


def files_of(ref: ModelRef, client: HubClient) -> Files:
    """Return the files of a model where they lie, so that headers can be read alone.

    Offline that is the cache, as far as it holds them.
    """
    if ref.path is not None:
        return LocalFolder(ref.path, ref.alias)
    if not client.anonymous and (snapshot := cached_snapshot(ref)) is not None:
        return LocalFolder(snapshot)
    return RemoteFiles(ref, client)


def folder_of(ref: ModelRef) -> Path:
    """Return the model's folder on this machine, or the one it will have once it is pulled."""
    return snapshot_folder(ref) if ref.path is None else ref.path


def local_folder(ref: ModelRef, client: HubClient, progress: Progress) -> Path:
    """Return the model's folder on this machine, downloading it if it lies on the Hub."""
    if ref.path is not None:
        return ref.path
    return pull(ref, client, progress)


def pulled(
    model: str,
    out: Path | None,
    client: HubClient,
    progress: Progress,
    *,
    revision: str | None,
    overwrite: bool,
) -> tuple[ModelRef, Path]:
    """Return a model and its folder on this machine, which is a copy in `out` where that is given.

    Raises:
        GrowthError: There is no such model, it cannot be had, or `out` cannot be written.
    """
    # Most that look a model up write nothing.
    from hfgrow.checkpoint.staging import check_target
    from hfgrow.checkpoint.write import copy_model

    ref = locate(model, revision, client, progress)
    if out is None:
        return ref, local_folder(ref, client, progress)
    out = out.expanduser()
    # Before anything is downloaded.
    check_target(out, ref.path, overwrite=overwrite)
    copy_model(local_folder(ref, client, progress), out, progress, overwrite=overwrite)
    return ref, out


def base_name(ref: ModelRef) -> str:
    """Return the short name of a model: the last part of its repository or folder, or its alias."""
    if ref.repo_id:
        return ref.repo_id.rpartition("/")[2]
    if ref.alias:
        return ref.alias
    assert ref.path is not None
    folder = ref.path.absolute()
    # The model of a run is named after the run.
    return printable(folder.parent.name if folder.name == TRAINED else folder.name, 200)


_MAX_PATH_NBYTES = 1 << 16


def base_folder(
    folder: Path | None,
    manifest: Manifest,
    given: str | None,
    client: HubClient,
    progress: Progress,
    *,
    root: bool = False,
) -> Path:
    """Return the folder of a grown model's base, or of the root of its chain.

    Args:
        folder: The grown model, if it lies on this machine.
        given: What the user says the base is; None looks for it.
        client: For a base that lies on the Hub.
        root: Whether the root is wanted instead of the direct base.

    Raises:
        ModelError: It is not to be found, or another model lies where it lay.
        GrowthError: The Hub refuses or does not answer.
    """
    word, wanted = ("root", manifest.root) if root else ("base", manifest.link.base)
    if given is not None:
        return local_folder(locate(given, None, client, progress), client, progress)
    if wanted.repo_id is not None:
        return local_folder(recorded(wanted.repo_id, wanted.revision, client), client, progress)
    places = _noted(folder, len(manifest.chain))
    hops = len(manifest.chain) if root else 1
    noted = places[hops - 1] if len(places) >= hops else None
    if noted is not None and _is(noted, wanted):
        return noted
    found = _by_name(wanted, places, client, progress)
    if found is not None:
        return found
    where = f", where it lay ({printable(noted, 200)}) lies another model" if noted else ""
    raise ModelError(
        f"the {word} {printable(wanted.name)} is not to be found on this machine{where}",
        hint=f"name it: {argument(word, 'MODEL')}",
    )


def nearest_ancestor(
    folder: Path, manifest: Manifest, client: HubClient, progress: Progress
) -> tuple[Model, Path]:
    """Return the base of a model, or where that is gone the nearest ancestor that is there.

    Args:
        folder: The model, on this machine.
        client: For an ancestor that lies on the Hub.

    Raises:
        ModelError: None is to be found.
        GrowthError: The Hub refuses or does not answer.
    """
    try:
        return manifest.link.base, base_folder(folder, manifest, None, client, progress)
    except ModelError:
        places = _noted(folder, len(manifest.chain))
        for link in reversed(manifest.chain[:-1]):
            wanted = link.base
            if wanted.repo_id is not None:
                ref = recorded(wanted.repo_id, wanted.revision, client)
                return wanted, local_folder(ref, client, progress)
            found = _by_name(wanted, places, client, progress)
            if found is not None:
                return wanted, found
        raise


def base_at_hand(folder: Path, base: Model) -> Path | None:
    """Return the folder of a base that lies where it lay, or the demo; the Hub is not asked."""
    places = _noted(folder, 1)
    if places and _is(places[0], base):
        return places[0]
    return _by_name(base, (), HubClient(), Silent()) if base.name == DEMO else None


def _by_name(
    wanted: Model, places: Sequence[Path], client: HubClient, progress: Progress
) -> Path | None:
    """Return a model by its name: one of the folders noted, or the demo model."""
    for place in places:
        if place.name == wanted.name and _is(place, wanted):
            return place
    if wanted.name != DEMO:
        return None
    demo = local_folder(locate(DEMO, None, client, progress), client, progress)
    return demo if _is(demo, wanted) else None


def _is(folder: Path, model: Model) -> bool:
    return all(
        (folder / name).is_file() and (folder / name).stat().st_size == file.nbytes
        for name, file in model.files.items()
    )


def _noted(folder: Path | None, most: int) -> list[Path]:
    """Follow the notes of where each base lay, the nearest first, as far as the folders are there.

    Where a base is gone its note is too, unless whoever removed it noted the base before that.
    """
    places: list[Path] = []
    while folder is not None and len(places) < most:
        folder = _noted_base(folder)
        if folder is not None:
            places.append(folder)
    return places


def _noted_base(folder: Path) -> Path | None:
    """Return the folder that a grown model's base lay in, if it still does."""
    try:
        fd = open_regular(folder / LOCAL_BASE)
    except ModelError:
        return None
    with os.fdopen(fd, "rb") as file:
        path = Path(os.fsdecode(file.read(_MAX_PATH_NBYTES).rstrip(b"\n")))
    try:
        return path if path.is_absolute() and path.is_dir() else None
    except (OSError, ValueError):
        return None
