"""From what the user typed to a model's files: resolved, pinned, fetched when needed."""

from pathlib import Path

from hfgrow.checkpoint.files import TRAINED, Files, LocalFolder
from hfgrow.console import Progress
from hfgrow.errors import printable
from hfgrow.hub.cache import cached_snapshot
from hfgrow.hub.client import HubClient
from hfgrow.hub.names import check_repo_id
from hfgrow.hub.pull import pull
from hfgrow.hub.remote import RemoteFiles
from hfgrow.hub.resolve import ModelRef, pin, resolve


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
        progress.say(f"{printable(model)} -> {ref.repo_id or 'the model inside hfgrow'}{at}{why}")
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
        return LocalFolder(ref.path)
    if (snapshot := cached_snapshot(ref)) is not None:
        return LocalFolder(snapshot)
    return RemoteFiles(ref, client)


def local_folder(ref: ModelRef, client: HubClient, progress: Progress) -> Path:
    """Return the model's folder on this machine, downloading it if it lies on the Hub."""
    if ref.path is not None:
        return ref.path
    return pull(ref, client, progress=progress.say)


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
