"""Find the base of a grown model: where the user says, on the Hub, or where it lay."""

import os
from collections.abc import Sequence
from pathlib import Path

from hfgrow.checkpoint.files import LOCAL_BASE, open_regular
from hfgrow.console import Progress
from hfgrow.errors import ModelError, printable
from hfgrow.hub.client import HubClient
from hfgrow.hub.resolve import DEMO
from hfgrow.lineage import Manifest, Model
from hfgrow.source import local_folder, locate, recorded

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
        manifest: Its lineage.
        given: What the user says the base is; None looks for it.
        client: For a base that lies on the Hub.
        progress: Told how it goes on.
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
        hint=f"name it: --{word} MODEL",
    )


def nearest_ancestor(
    folder: Path, manifest: Manifest, client: HubClient, progress: Progress
) -> tuple[Model, Path]:
    """Return the base of a model, or where that is gone the nearest ancestor that is there.

    Args:
        folder: The model, on this machine.
        manifest: Its lineage.
        client: For an ancestor that lies on the Hub.
        progress: Told how it goes on.

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
