"""What a repository holds at one commit: names, sizes and hashes, without a download."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hfgrow.checkpoint.files import COMMIT, is_file_of_a_model
from hfgrow.errors import HubUnreachableError, printable
from hfgrow.hub.client import HubClient

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class RemoteFile:
    """A file of a commit.

    Args:
        nbytes: Its size.
        sha256: The SHA-256 of its content, known for files in large storage.
        oid: The git object id; of an ordinary file it is the hash of the content.
    """

    nbytes: int
    sha256: str | None = None
    oid: str = ""


@dataclass(frozen=True)
class Listing:
    """A commit of a repository.

    `files` holds the top level and the chat templates, and of these only names without surprises;
    `num_files` counts all there is.
    """

    repo_id: str
    sha: str
    private: bool = False
    gated: bool = False
    files: Mapping[str, RemoteFile] = field(default_factory=dict)
    num_files: int = 0


def is_sha(text: str) -> bool:
    """Say whether a text is a full commit hash."""
    return COMMIT.fullmatch(text) is not None


def list_commit(
    client: HubClient, repo_id: str, revision: str | None = None, *, what: str = ""
) -> Listing:
    """Return what a repository holds at a revision, None being the main branch.

    Raises:
        HubRefusedError: There is no such repository or revision, or access is refused.
        HubUnreachableError: No sensible answer came.
    """
    at = f" at {printable(revision, 200)}" if revision else ""
    what = what or f"looking up {printable(repo_id, 200)}{at}"
    info = client.ask(
        what,
        lambda: client.api.model_info(repo_id, revision=revision, files_metadata=True),
        repo_id,
    )
    siblings = info.siblings or []
    files: dict[str, RemoteFile] = {}
    for sibling in siblings:
        name, nbytes, lfs = sibling.rfilename, sibling.size, sibling.lfs
        # Other names exist in repositories, and are not read.
        if not isinstance(name, str) or not is_file_of_a_model(name):
            continue
        if type(nbytes) is not int or nbytes < 0:
            raise HubUnreachableError(f"{what}: the Hub does not say how large {name} is")
        oid = str(sibling.blob_id or "")
        sha256 = str(lfs.sha256) if lfs is not None else None
        if sha256 is not None and not _SHA256.fullmatch(sha256):
            raise HubUnreachableError(f"{what}: the Hub gives no SHA-256 for {name}")
        files[name] = RemoteFile(nbytes, sha256, oid if is_sha(oid) else "")
    if not isinstance(info.sha, str) or not is_sha(info.sha):
        raise HubUnreachableError(f"{what}: the Hub does not say which commit this is")
    return Listing(
        info.id, info.sha, bool(info.private), bool(info.gated), files, num_files=len(siblings)
    )


@dataclass(frozen=True)
class ModelRef:
    """A model: a folder here (`path`) or a repository on the Hub (`repo_id`).

    Args:
        label: How messages name it.
        path: The folder.
        repo_id: The repository.
        revision: The commit; a full hash once `pin` has been there.
        alias: The alias that led here.
        private: Whether only its owner sees the repository.
        gated: Whether one must ask for access.
        files: The files of the commit, once pinned.
        notes: What the user should be told, one line each.
    """

    label: str
    path: Path | None = None
    repo_id: str | None = None
    revision: str | None = None
    alias: str | None = None
    private: bool = False
    gated: bool = False
    files: Mapping[str, RemoteFile] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
