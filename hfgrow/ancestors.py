"""Find the base of a grown model: where the user says, on the Hub, or where it lay."""

import os
from pathlib import Path

from hfgrow.checkpoint.files import open_regular
from hfgrow.errors import ModelError, printable
from hfgrow.hub.client import HubClient
from hfgrow.hub.resolve import DEMO
from hfgrow.lineage import Manifest, Model
from hfgrow.names import LOCAL_BASE
from hfgrow.progress import Progress
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
    noted = _noted(folder, hops=len(manifest.chain) if root else 1)
    if noted is not None and _is(noted, wanted):
        return noted
    if wanted.name == DEMO:
        demo = local_folder(locate(DEMO, None, client, progress), client, progress)
        if _is(demo, wanted):
            return demo
    where = f", where it lay ({printable(noted, 200)}) lies another model" if noted else ""
    raise ModelError(
        f"the {word} {printable(wanted.name)} is not to be found on this machine{where}",
        hint=f"name it: --{word} MODEL",
    )


def _is(folder: Path, model: Model) -> bool:
    return all(
        (folder / name).is_file() and (folder / name).stat().st_size == file.nbytes
        for name, file in model.files.items()
    )


def _noted(folder: Path | None, hops: int) -> Path | None:
    """Follow the notes of where each base lay, as many links back as the chain is long."""
    for _ in range(hops):
        folder = None if folder is None else _noted_base(folder)
    return folder


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
