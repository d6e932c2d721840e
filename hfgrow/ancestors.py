"""Find the base of a grown model: where the user says, on the Hub, or where it lay."""

import os
from pathlib import Path

from hfgrow.checkpoint.files import open_regular
from hfgrow.errors import ModelError, printable
from hfgrow.hub.client import HubClient
from hfgrow.lineage import Model
from hfgrow.names import LOCAL_BASE
from hfgrow.progress import Progress
from hfgrow.source import local_folder, locate, recorded

_MAX_PATH_NBYTES = 1 << 16


def base_folder(
    folder: Path | None,
    base: Model,
    given: str | None,
    client: HubClient,
    progress: Progress,
    *,
    root: bool = False,
) -> Path:
    """Find the base: where the user says, on the Hub, or where it lay when the model was grown."""
    if given is None and base.repo_id is not None:
        return local_folder(recorded(base.repo_id, base.revision, client), client, progress)
    noted = None if given is not None or folder is None else _noted_base(folder)
    if noted is not None:
        noted = _first_of_chain(noted) if root else noted
        _check_recorded(noted, base)
        return noted
    if given is None and base.name == "demo":
        given = "demo"
    if given is None:
        word = "root" if root else "base"
        raise ModelError(
            f"the {word} {printable(base.name)} is not to be found on this machine",
            hint=f"name it: --{word} MODEL",
        )
    return local_folder(locate(given, None, client, progress), client, progress)


def _check_recorded(folder: Path, base: Model) -> None:
    for name, file in base.files.items():
        if not (folder / name).is_file() or (folder / name).stat().st_size != file.nbytes:
            raise ModelError(
                f"{printable(folder, 200)} is not the base any more: {name} has changed",
                hint="name the base: --base MODEL (--root MODEL to reproduce)",
            )


def _first_of_chain(folder: Path) -> Path:
    """Follow the notes of where each base lay, down to one that has no base itself."""
    seen = set()
    while (noted := _noted_base(folder)) is not None and folder not in seen:
        seen.add(folder)
        folder = noted
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
