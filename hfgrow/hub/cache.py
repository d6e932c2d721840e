"""The cache of the Hub client: what is in it when offline, and how to drop a bad file from it."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from hfgrow.checkpoint.files import TEMPLATES, is_file_of_a_model
from hfgrow.errors import HubUnreachableError, argument, printable
from hfgrow.hub.listing import RemoteFile, is_sha

if TYPE_CHECKING:
    from hfgrow.hub.listing import ModelRef

_LONGEST_LINK_CHAIN = 4


def pin_cached(ref: "ModelRef") -> "ModelRef":
    """Pin a model to a commit that the cache holds, complete or not.

    Raises:
        HubUnreachableError: The cache does not hold it, or not clearly one commit of it.
    """
    assert ref.repo_id is not None
    folder = repo_folder(ref.repo_id)
    snapshots = sorted(path.name for path in folder.glob("snapshots/*") if is_sha(path.name))
    sha = _cached_sha(folder, ref.revision or "main", snapshots)
    if sha is None and ref.revision is None and len(snapshots) == 1:
        sha = snapshots[0]
    if sha is None:
        known = f"; it holds {', '.join(snapshots)}" if snapshots else ""
        raise HubUnreachableError(
            f"{ref.repo_id} at {ref.revision or 'main'} is not in the cache{known}, and offline "
            "mode is on",
            hint=f"name one with {argument('revision')}" if snapshots else "unset HF_HUB_OFFLINE",
        )
    files = _cached_files(ref.repo_id, sha, folder / "snapshots" / sha)
    note = f"offline: {ref.repo_id} at {sha} as it is in the cache"
    return replace(ref, revision=sha, files=files, notes=(*ref.notes, note))


def repo_folder(repo_id: str) -> Path:
    """Return the folder of a model in the cache, which may not exist."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE) / f"models--{repo_id.replace('/', '--')}"


def snapshot_folder(ref: "ModelRef") -> Path:
    """Return the folder of a pinned model in the cache, which may not exist."""
    assert ref.repo_id is not None
    assert ref.revision is not None
    return repo_folder(ref.repo_id) / "snapshots" / ref.revision


def cached_snapshot(ref: "ModelRef") -> Path | None:
    """Return the folder of a pinned model in the cache, if only that can be read: when offline."""
    from huggingface_hub import is_offline_mode

    if not is_offline_mode() or ref.repo_id is None or ref.revision is None:
        return None
    folder = snapshot_folder(ref)
    return folder if folder.is_dir() else None


def missing_from(folder: Path, names: Sequence[str]) -> list[str]:
    """Return which of these files a snapshot does not hold."""
    return [name for name in names if not (folder / name).is_file()]


def refuse_lack(folder: Path, what: str) -> None:
    """Refuse a snapshot that lacks something which the Hub has perhaps, and cannot be asked for.

    Raises:
        HubUnreachableError: The folder is of the cache, and offline mode is on.
    """
    from huggingface_hub import constants, is_offline_mode

    repo = folder.absolute().parent.parent
    if is_offline_mode() and repo.parent == Path(constants.HF_HUB_CACHE).absolute():
        repo_id = repo.name.removeprefix("models--").replace("--", "/")
        raise HubUnreachableError(
            f"{printable(what)} of {printable(repo_id)} is not in the cache, and offline mode is "
            "on",
            hint="unset HF_HUB_OFFLINE",
        )


def forget(path: Path) -> None:
    """Remove a file of a snapshot together with the blob it links to, so that it is fetched anew.

    Only what lies in the cache is removed: a link that leads elsewhere ends the walk.
    """
    from huggingface_hub import constants

    cache = Path(os.path.realpath(constants.HF_HUB_CACHE))
    for _ in range(_LONGEST_LINK_CHAIN):
        place = Path(os.path.realpath(path.parent)) / path.name
        if not place.is_relative_to(cache):
            return
        target = place.parent / os.readlink(place) if place.is_symlink() else None
        place.unlink(missing_ok=True)
        if target is None:
            return
        path = target


def _cached_sha(folder: Path, revision: str, snapshots: Sequence[str]) -> str | None:
    if revision in snapshots:
        return revision
    try:
        sha = (folder / "refs" / revision).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return sha if sha in snapshots else None


def _cached_files(repo_id: str, sha: str, snapshot: Path) -> dict[str, RemoteFile]:
    from huggingface_hub import get_cached_repo_tree
    from huggingface_hub.errors import CachedRepoTreeNotFoundError

    files: dict[str, RemoteFile] = {}
    try:
        for entry in get_cached_repo_tree(repo_id, revision=sha):
            if is_file_of_a_model(entry.path):
                files[entry.path] = RemoteFile(entry.size)
    except CachedRepoTreeNotFoundError:
        pass
    for path in (*snapshot.iterdir(), *snapshot.glob(f"{TEMPLATES}/*")):
        name = path.relative_to(snapshot).as_posix()
        if path.is_file() and is_file_of_a_model(name):
            # The cache names a blob by its hash: the SHA-256, or the git id of a small file.
            blob = os.path.basename(os.readlink(path)) if path.is_symlink() else ""
            files[name] = RemoteFile(
                path.stat().st_size,
                blob if len(blob) == 64 else None,
                blob if is_sha(blob) else "",
            )
    return files
