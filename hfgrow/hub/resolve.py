"""From what the user typed to one commit of one model: a folder, or a repository and its sha.

The order, first match wins: an explicit path, `hf://` or a Hub URL, a folder of that name that
holds a config.json, `org/name`, an alias. A bare name that is none of these is never looked up
and taken: search results change by the day and can be gamed, so they are only suggested.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from hfgrow.errors import UsageError, printable
from hfgrow.hub.aliases import Alias, load_aliases
from hfgrow.hub.client import HubClient
from hfgrow.hub.failures import redact
from hfgrow.hub.listing import RemoteFile, list_commit

DEMO = "demo"
_REVISION = re.compile(r"[\w.\-]+(/[\w.\-]+)*", re.ASCII)
_LONGEST_REVISION = 200
_NOT_MODELS = frozenset({"datasets", "spaces", "buckets", "kernels", "models"})


class UnknownNameError(UsageError):
    """A bare name that is neither a folder nor an alias: the Hub may know what was meant."""


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


def parse(name: str, revision: str | None = None) -> ModelRef:
    """Decide what a name means, without any network.

    Args:
        name: A path, `hf://org/name@rev`, a Hub URL, `org/name` or an alias.
        revision: A branch, tag, commit or `refs/pr/N`, for models on the Hub only.

    Raises:
        UnknownNameError: A bare name that nothing here knows.
        UsageError: The name or the revision cannot be.
    """
    if revision is not None:
        check_revision(revision)
    if not name or "\0" in name or name.startswith("-"):
        raise UsageError(f"{_shown(name)} is no model", hint="give a folder, an alias or org/name")
    if name.startswith(("/", "./", "../", "~")) or name in (".", ".."):
        return _folder(Path(name), revision)
    if name.startswith(("hf://", "https://", "http://")):
        return _uri(name, revision)
    is_folder = os.path.isfile(os.path.join(name, "config.json"))
    alias = load_aliases().get(name.casefold())
    is_demo = name.casefold() == DEMO
    if is_folder and (alias or is_demo):
        target = alias.repo_id if alias else "the demo model of this package"
        raise UsageError(
            f"{_shown(name)} is a folder here, and also an alias of {target}",
            hint=f"type ./{name} for the folder" + (f", or {alias.repo_id}" if alias else ""),
        )
    if is_folder:
        ref = _folder(Path(name), revision)
        return replace(ref, notes=(f"using the folder ./{printable(name, 200)}",))
    if is_demo:
        return _demo(revision)
    if alias:
        return _aliased(alias, revision)
    if "/" in name:
        return _repository(name, revision)
    raise UnknownNameError(
        f"{_shown(name)} is neither a folder with a config.json nor an alias",
        hint="give org/name as on the Hub, or a folder as ./name",
    )


def pin(ref: ModelRef, client: HubClient) -> ModelRef:
    """Fix the commit of a model on the Hub; a folder is returned as it is.

    Returns:
        The model with its full commit hash, flags and files. Only that hash is used from here
        on, so that all files are of one commit whatever happens to the branch.

    Raises:
        HubRefusedError: There is no such model or revision, or access is refused.
        HubUnreachableError: No answer, or offline and not in the cache.
    """
    if ref.repo_id is None:
        return ref
    from huggingface_hub import is_offline_mode

    if is_offline_mode():
        from hfgrow.hub.cache import pin_cached

        return pin_cached(ref)
    found = list_commit(client, ref.repo_id, ref.revision)
    notes = ref.notes
    if found.repo_id != ref.repo_id:
        check_repo_id(found.repo_id)
        notes += (f"{ref.repo_id} is called {found.repo_id} on the Hub now",)
    return replace(
        ref,
        label=found.repo_id,
        repo_id=found.repo_id,
        revision=found.sha,
        private=found.private,
        gated=found.gated,
        files=found.files,
        notes=notes,
    )


def resolve(name: str, client: HubClient, revision: str | None = None) -> ModelRef:
    """Parse a name and pin it; for an unknown bare name, say what it could mean.

    Raises:
        UsageError: As in `parse`; for an unknown name with `details["candidates"]`.
        HubRefusedError: As in `pin`.
        HubUnreachableError: As in `pin`.
    """
    try:
        return pin(parse(name, revision), client)
    except UnknownNameError as error:
        from hfgrow.hub.search import with_candidates

        raise with_candidates(error, name, client) from None


def check_revision(revision: str) -> None:
    """Refuse what cannot be a revision, before it becomes part of a path or an address.

    Raises:
        UsageError: It holds other characters than a branch can, a `..`, or is too long.
    """
    segments = revision.split("/")
    if (
        len(revision) > _LONGEST_REVISION
        or revision.startswith("-")
        or not _REVISION.fullmatch(revision)
        or "." in segments
        or any(".." in segment for segment in segments)
    ):
        raise UsageError(
            f"{_shown(revision)} is no revision",
            hint="give a branch, a tag, a commit hash or refs/pr/N",
        )


def check_repo_id(repo_id: str) -> None:
    """Refuse what cannot be the id of a model.

    Raises:
        UsageError: It is not org/name by the rules of the Hub.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    namespace, slash, _ = repo_id.partition("/")
    if slash and namespace in _NOT_MODELS:
        raise UsageError(f"{_shown(repo_id)} is no model: {namespace}/ is a type of repository")
    rule = "org/name, each at most 96 letters, digits, - _ . (no --, no .., not ending in .git)"
    if not repo_id.isascii() or repo_id.count("/") != 1 or repo_id.endswith("\n"):
        raise UsageError(f"{_shown(repo_id)} is neither a folder nor a model id", hint=rule)
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise UsageError(f"{_shown(repo_id)} is no model id", hint=rule) from error


def _folder(path: Path, revision: str | None) -> ModelRef:
    try:
        path = path.expanduser()
    except RuntimeError as error:
        raise UsageError(f"{_shown(str(path))} has no home folder to start from") from error
    if revision is not None:
        raise UsageError(f"--revision is for models on the Hub; {_shown(str(path))} is a folder")
    if not path.is_dir():
        found = "is not a folder" if path.exists() else "does not exist"
        raise UsageError(f"{_shown(str(path))} {found}")
    return ModelRef(printable(path, 200), path=path)


def _demo(revision: str | None) -> ModelRef:
    ref = _folder(Path(__file__).resolve().parent.parent / DEMO, revision)
    return replace(ref, label=DEMO, alias=DEMO)


def _aliased(alias: Alias, revision: str | None) -> ModelRef:
    return ModelRef(
        alias.repo_id,
        repo_id=alias.repo_id,
        revision=revision or alias.revision,
        alias=alias.name,
        notes=(f"{alias.name} is {alias.repo_id} ({alias.origin})",),
    )


def _uri(uri: str, revision: str | None) -> ModelRef:
    from huggingface_hub import constants, parse_hf_uri
    from huggingface_hub.errors import HfUriError

    try:
        parsed = parse_hf_uri(uri, endpoint=constants.ENDPOINT)
    except HfUriError as error:
        raise UsageError(
            f"{_shown(uri)} is no address of a model",
            hint="hf://org/name or hf://org/name@revision",
        ) from error
    if parsed.type != "model":
        raise UsageError(f"{_shown(uri)} is a {parsed.type}, not a model")
    if parsed.path_in_repo:
        raise UsageError(f"{_shown(uri)} is a file of a model", hint=f"give hf://{parsed.id}")
    if parsed.revision is not None:
        check_revision(parsed.revision)
        if revision not in (None, parsed.revision):
            raise UsageError(f"{_shown(uri)} names another revision than --revision {revision}")
    return _repository(parsed.id, parsed.revision or revision)


def _repository(repo_id: str, revision: str | None) -> ModelRef:
    check_repo_id(repo_id)
    notes = tuple(
        f"{repo_id} is not {alias.repo_id}, but is spelled much like it: is it the one you mean?"
        for alias in load_aliases().values()
        if repo_id.partition("/")[0] != alias.repo_id.partition("/")[0]
        and edit_distance(repo_id, alias.repo_id, limit=2) <= 2
    )
    return ModelRef(repo_id, repo_id=repo_id, revision=revision, notes=notes)


def edit_distance(one: str, other: str, *, limit: int) -> int:
    """Return how many letters must change to turn one text into the other, or limit + 1."""
    if abs(len(one) - len(other)) > limit:
        return limit + 1
    row = list(range(len(other) + 1))
    for i, letter in enumerate(one, 1):
        above, row[0] = row[0], i
        for j, wanted in enumerate(other, 1):
            above, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, above + (letter != wanted))
        if min(row) > limit:
            return limit + 1
    return min(row[-1], limit + 1)


def _shown(text: str) -> str:
    return repr(printable(redact(text)))
