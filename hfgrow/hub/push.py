"""Push a model in one commit guarded by its parent, once the Hub has judged its card."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from hfgrow.checkpoint.files import CARD, INDEX, is_file_of_a_model
from hfgrow.console import Progress, Silent
from hfgrow.errors import (
    GrowthError,
    HubConflictError,
    HubRefusedError,
    HubUnreachableError,
    ModelError,
    VerificationError,
    argument,
    printable,
    redacted,
)
from hfgrow.hub.client import HubClient
from hfgrow.hub.listing import Listing, list_commit
from hfgrow.hub.preflight import PushTarget, visibility
from hfgrow.hub.pull import is_same
from hfgrow.hub.transfer import Reading, telling

if TYPE_CHECKING:
    from httpx2 import Response
    from huggingface_hub import CommitInfo


_NUM_PULL_REQUESTS = 5


@dataclass(frozen=True)
class Pushed:
    """What a push has led to.

    Args:
        url: The page of the repository.
        commit: The commit that holds the files.
        already: Whether they were there before, so that nothing was sent.
        pull_request: The page of the pull request, if one was asked for.
        notes: What the user should be told, one line each.
        private: Whether the repository is private; None where nobody has said.
        files: The files of the model and their bytes.
        if_new: As `PushTarget` has it.
    """

    url: str
    commit: str
    already: bool = False
    pull_request: str | None = None
    notes: tuple[str, ...] = ()
    private: bool | None = None
    files: Mapping[str, int] = field(default_factory=dict)
    if_new: bool = False

    @property
    def visibility(self) -> str:
        """Who sees it, in a word."""
        return visibility(self.private, if_new=self.if_new)


def push(
    folder: Path,
    files: Sequence[str],
    target: PushTarget,
    client: HubClient,
    progress: Progress | None = None,
    *,
    message: str,
    hashes: Mapping[str, str] = MappingProxyType({}),
) -> Pushed:
    """Bring files to the Hub in one commit, or say that they are there.

    Nothing on the Hub is ever deleted. A push that was cut off can be repeated: what has arrived
    is not sent again, and no second commit is made.

    Args:
        folder: Where the files lie.
        files: Their names; nothing else in the folder is looked at.
        target: What `preflight` has found.
        client: The connection.
        progress: Told how many bytes are sent; None tells nobody.
        message: The title of the commit.
        hashes: File name -> sha256, of those that were hashed a moment ago: they are not hashed
            again, here or by the client library.

    Raises:
        ModelError: A file is a link or lies elsewhere, or the card is not valid.
        HubRefusedError: The Hub says no.
        HubUnreachableError: No answer; the repository is as it was.
        HubConflictError: The repository changed since `preflight`.
        VerificationError: What the Hub has afterwards is not what was sent.
    """
    paths = {
        name: _Outgoing(path, hashes.get(name))
        for name, path in _checked_paths(folder, files).items()
    }
    notes = check_card(paths[CARD].path, client) if CARD in paths else ()
    head = _head(target, client)
    url = f"{client.endpoint}/{target.repo_id}"
    _refuse_other_weights(head, paths, target.repo_id)
    if _holds(head, paths):
        return Pushed(url, head.sha, already=True, notes=notes)
    if target.create_pr and (found := _pull_request(target, client, message, paths)):
        return Pushed(url, found[1].sha, True, found[0], notes)
    if target.head not in (None, head.sha) and not target.create_pr:
        raise HubConflictError(
            f"pushing to {target.repo_id}: its main branch changed meanwhile",
            hint=f"push again, or add {argument('create_pr')}",
        )
    progress = progress or Silent()
    try:
        sent = Reading([outgoing.path for outgoing in paths.values()])
        with telling(progress, f"Uploading to {target.repo_id}", sent):
            info = _commit(paths, target.repo_id, head.sha, target.create_pr, client, message)
    except GrowthError as error:
        # The commit may have been made and only its answer lost: then this push has succeeded.
        done, state = None, "is empty"
        if isinstance(error, HubUnreachableError | HubConflictError):
            try:
                done = _arrived(target, client, message, paths)
            except GrowthError:
                state = "whether the files arrived is not known"
        if done is None:
            if not target.exists:
                progress.say(f"Note: {url} was made and {state}: push again")
            raise error
        return Pushed(url, done[1].sha, pull_request=done[0], notes=notes)
    try:
        found_now = list_commit(
            client, target.repo_id, info.oid, what=f"verifying {target.repo_id}"
        )
    except GrowthError as error:
        raise type(error)(
            f"{error}; the commit {info.oid} is there, only the look at it failed",
            hint="push again: it compares what is there and commits nothing twice",
            details=error.details,
        ) from error
    if not _holds(found_now, paths):
        raise VerificationError(
            f"{target.repo_id} at {info.oid} does not hold the files that were sent",
            hint="a .gitignore or a hook there may have changed them; look at the commit",
        )
    return Pushed(url, info.oid, pull_request=info.pr_url, notes=notes)


@dataclass(frozen=True, slots=True)
class _Outgoing:
    """A file to send, and its sha256, if somebody has just taken it."""

    path: Path
    sha256: str | None


def _refuse_other_weights(head: Listing, paths: Mapping[str, _Outgoing], repo_id: str) -> None:
    """Refuse a push beside weight files of another model, or of another cut into shards."""
    others = [
        name
        for name in head.files
        if (name.endswith(".safetensors") or name == INDEX) and name not in paths
    ]
    if others:
        raise HubConflictError(
            f"{repo_id} holds weights that this model does not have ({printable(others[0])}): "
            "both together would be two models in one",
            hint=f"another {argument('repo', 'NAME')}, the same {argument('max_shard_size')} as "
            f"before, or delete them there",
        )


def _checked_paths(folder: Path, files: Sequence[str]) -> dict[str, Path]:
    paths: dict[str, Path] = {}
    for name in files:
        path = folder / name
        shown = printable(name)
        if not is_file_of_a_model(name):
            raise ModelError(f"{shown!r} is not the name of a file in the folder to push")
        if path.is_symlink() or (path.parent != folder and path.parent.is_symlink()):
            raise ModelError(f"{shown} is a link; only files of the folder itself are pushed")
        if not path.is_file():
            raise ModelError(f"{shown} is not a file in {printable(folder, 200)}")
        paths[name] = path
    if not paths:
        raise ModelError(f"there is nothing to push in {printable(folder, 200)}")
    return paths


def _head(target: PushTarget, client: HubClient) -> Listing:
    """Return the commit to build on, making the repository if need be."""
    repo_id = target.repo_id
    if target.exists:
        return list_commit(client, repo_id)
    what = f"creating {repo_id}"
    raced: HubConflictError | None = None
    try:
        client.ask(what, lambda: client.api.create_repo(repo_id, private=target.private), repo_id)
    except HubConflictError as error:
        raced = error
    try:
        head = list_commit(client, repo_id)
    except HubRefusedError as error:
        # What was called a conflict was another one than that it exists.
        raise raced or error from None
    if head.private != target.private:
        raise HubRefusedError(
            f"{what}: it is {'private' if head.private else 'public'}, which was not asked for",
            hint="nothing was uploaded; look at its settings",
        )
    if raced is not None and (head.files or head.num_files > 1):
        raise HubConflictError(
            f"{repo_id} did not exist a moment ago, and holds files of somebody now",
            hint=f"another {argument('repo', 'NAME')}, or {argument('exist_ok')} to add to it",
        ) from raced
    return head


def _commit(
    paths: Mapping[str, _Outgoing],
    repo_id: str,
    parent: str,
    create_pr: bool,
    client: HubClient,
    message: str,
) -> "CommitInfo":
    from huggingface_hub import CommitOperationAdd

    with client.translating(f"pushing to {repo_id}", repo_id), warnings.catch_warnings():
        # The client repeats the warnings of the card, which check_card has returned as notes.
        warnings.simplefilter("ignore", UserWarning)
        operations = []
        for name, outgoing in paths.items():
            operations.append(CommitOperationAdd(name, outgoing.path))
            if outgoing.sha256 is not None:
                operations[-1].upload_info.sha256 = bytes.fromhex(outgoing.sha256)
        return client.api.create_commit(
            repo_id,
            operations,
            commit_message=message,
            parent_commit=parent,
            create_pr=create_pr,
        )


def _holds(found: Listing, paths: Mapping[str, _Outgoing]) -> bool:
    return all(name in found.files for name in paths) and all(
        is_same(outgoing.path, found.files[name], outgoing.sha256)
        for name, outgoing in paths.items()
    )


def _arrived(
    target: PushTarget, client: HubClient, message: str, paths: Mapping[str, _Outgoing]
) -> tuple[str | None, Listing] | None:
    """Return the commit that holds the files after a failure, None if there is none.

    Raises:
        GrowthError: The Hub does not say.
    """
    if target.create_pr:
        return _pull_request(target, client, message, paths)
    head = list_commit(client, target.repo_id)
    return (None, head) if _holds(head, paths) else None


def _pull_request(
    target: PushTarget, client: HubClient, message: str, paths: Mapping[str, _Outgoing]
) -> tuple[str, Listing] | None:
    """Return the open pull request of this title that holds exactly these files."""

    def search() -> list[int]:
        found = client.api.get_repo_discussions(
            target.repo_id, discussion_type="pull_request", discussion_status="open"
        )
        return [request.num for request in found if request.title == message]

    what = f"looking for pull requests of {target.repo_id}"
    for num in client.ask(what, search, target.repo_id)[:_NUM_PULL_REQUESTS]:
        found = list_commit(client, target.repo_id, f"refs/pr/{num}")
        if _holds(found, paths):
            return f"{client.endpoint}/{target.repo_id}/discussions/{num}", found
    return None


_MAX_NBYTES = 5 * 1000 * 1000
# With these the Hub judges the card; any other failure is about the connection or the token.
_VERDICTS = frozenset({400, 413, 422})


def check_card(path: Path, client: HubClient) -> tuple[str, ...]:
    """Return the warnings of the Hub about a card.

    Raises:
        ModelError: The Hub rejects it: the message says why.
        HubUnreachableError: No answer.
    """
    raw = path.read_bytes()
    if len(raw) > _MAX_NBYTES:
        raise ModelError(f"{path.name} has {len(raw)} bytes; at most {_MAX_NBYTES} make a card")
    try:
        content = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ModelError(f"{path.name} is not UTF-8 (byte {error.start})") from error
    response = client.ask(f"validating {path.name}", lambda: _submit(content, client))
    problems = _texts(response, "errors")
    if response.status_code in _VERDICTS or problems:
        why = "; ".join(problems) or response.headers.get("x-error-message") or "no reason given"
        raise ModelError(
            f"the Hub rejects {path.name} ({response.status_code}): {_clean(why)}",
            hint="correct the metadata at its top; nothing was uploaded",
        )
    return tuple(f"{path.name}: {_clean(text)}" for text in _texts(response, "warnings"))


def _submit(content: str, client: HubClient) -> "Response":
    from huggingface_hub import get_session, hf_raise_for_status

    response = get_session().post(
        f"{client.endpoint}/api/validate-yaml",
        json={"content": content, "repoType": "model"},
        headers=client.headers(),
    )
    if response.status_code not in _VERDICTS:
        hf_raise_for_status(response)
    return response


def _texts(response: "Response", kind: str) -> list[str]:
    try:
        answer: Any = response.json()
    except ValueError:
        return []
    items = answer.get(kind) if isinstance(answer, dict) else None
    return [str(item.get("message")) for item in items or [] if isinstance(item, dict)]


def _clean(text: str) -> str:
    return printable(redacted(" ".join(text.split())), 300)
