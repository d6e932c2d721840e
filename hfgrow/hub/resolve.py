"""From what the user typed to one commit of one model: a folder, or a repository and its sha.

The order, first match wins: an explicit path, `hf://` or a Hub URL, a folder of that name that
holds a config.json, `org/name`, an alias. A bare name that is none of these is never looked up
and taken: search results change by the day and can be gamed, so they are only suggested.
"""

import os
from dataclasses import replace
from pathlib import Path

from hfgrow.checkpoint.files import MANIFEST, TRAINED, is_run, refuse_run
from hfgrow.errors import UsageError, argument, printable
from hfgrow.hub.client import HubClient
from hfgrow.hub.listing import ModelRef, list_commit
from hfgrow.hub.repo_names import check_repo_id, check_revision, edit_distance, shown
from hfgrow.hub.search import DEMO, Alias, UnknownNameError, load_aliases


def parse(name: str, revision: str | None = None, *, only_hub: bool = False) -> ModelRef:
    """Decide what a name means, without any network.

    Args:
        name: A path, `hf://org/name@rev`, a Hub URL, `org/name` or an alias.
        revision: A branch, tag, commit or `refs/pr/N`, for models on the Hub only.
        only_hub: Whether no name is a folder, and no disk is looked at; the demo model remains.

    Raises:
        UnknownNameError: A bare name that nothing here knows.
        UsageError: The name or the revision cannot be.
    """
    if revision is not None:
        check_revision(revision)
    if not name or "\0" in name or name.startswith("-"):
        raise UsageError(f"{shown(name)} is no model", hint="give a folder, an alias or org/name")
    if name.startswith(("/", "./", "../", "~")) or name in (".", ".."):
        if only_hub:
            raise UsageError(
                f"{shown(name)} is a folder, and only models of the Hub are read here",
                hint="give an alias or org/name",
            )
        return _folder(Path(name), revision)
    if name.startswith(("hf://", "https://", "http://")):
        return _uri(name, revision)
    is_folder = not only_hub and os.path.isfile(os.path.join(name, "config.json"))
    is_demo = name.casefold() == DEMO
    alias = None if is_demo else load_aliases().get(name.casefold())
    if not only_hub and os.path.isfile(name):
        raise UsageError(f"{shown(name)} is a file", hint="give the folder that holds it")
    if is_folder and (alias or is_demo):
        target = alias.repo_id if alias else "the demo model of this package"
        raise UsageError(
            f"{shown(name)} is a folder here, and also an alias of {target}",
            hint=f"type ./{name} for the folder" + (f", or {alias.repo_id}" if alias else ""),
        )
    if is_folder:
        ref = _folder(Path(name), revision)
        is_like_a_repository = name.count("/") == 1 and not (Path(name) / MANIFEST).is_file()
        note = f"using the folder ./{printable(name, 200)}"
        return replace(ref, notes=(note,)) if is_like_a_repository else ref
    if is_demo:
        return _demo(revision)
    if alias:
        return _aliased(alias, revision)
    if not only_hub and is_run(Path(name)):
        return _folder(Path(name), revision)
    if "/" in name:
        if not only_hub and Path(name).name == TRAINED:
            refuse_run(Path(name).parent)
        return _repository(name, revision)
    if only_hub:
        raise UnknownNameError(f"{shown(name)} is no alias", hint="give org/name as on the Hub")
    if os.path.isdir(name):
        raise UnknownNameError(
            f"{shown(name)} is a folder without a config.json and no alias",
            hint="give the folder of a model, or org/name as on the Hub",
            details={"is_folder": True},
        )
    raise UnknownNameError(
        f"{shown(name)} is neither a folder nor an alias",
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

    if is_offline_mode() and not client.anonymous:
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
        return pin(parse(name, revision, only_hub=client.anonymous), client)
    except UnknownNameError as error:
        from hfgrow.hub.search import with_candidates

        raise with_candidates(error, name, client) from None


def _folder(path: Path, revision: str | None) -> ModelRef:
    try:
        path = path.expanduser()
    except RuntimeError as error:
        raise UsageError(f"{shown(str(path))} has no home folder to start from") from error
    if revision is not None:
        raise UsageError(
            f"{argument('revision')} is for models on the Hub; {shown(str(path))} is a folder"
        )
    if not path.is_dir():
        found = "is not a folder" if path.exists() else "does not exist"
        raise UsageError(
            f"{shown(str(path))} {found}", hint=_beside(path) or "give the folder of a model"
        )
    refuse_run(path)
    return ModelRef(printable(path, 200), path=path)


def _beside(path: Path) -> str:
    """Return the hint to the folder that is spelled most like one that is not there."""
    import difflib

    try:
        names = [one.name for one in path.parent.iterdir() if one.is_dir()]
    except OSError:
        return ""
    near = difflib.get_close_matches(path.name, names, n=1)
    return f"did you mean {printable(path.parent / near[0], 200)}?" if near else ""


def _demo(revision: str | None) -> ModelRef:
    ref = _folder(Path(__file__).resolve().parent.parent / DEMO, revision)
    return replace(ref, label=DEMO, alias=DEMO)


def _aliased(alias: Alias, revision: str | None) -> ModelRef:
    return ModelRef(
        alias.repo_id,
        repo_id=alias.repo_id,
        revision=revision or alias.revision,
        alias=alias.name,
        notes=() if alias.origin is None else (f"{alias.name} is an alias of {alias.origin}",),
    )


def _uri(uri: str, revision: str | None) -> ModelRef:
    from huggingface_hub import constants, parse_hf_uri
    from huggingface_hub.errors import HfUriError

    try:
        parsed = parse_hf_uri(uri, endpoint=constants.ENDPOINT)
    except HfUriError as error:
        raise UsageError(
            f"{shown(uri)} is no address of a model",
            hint="hf://org/name or hf://org/name@revision",
        ) from error
    if parsed.type != "model":
        raise UsageError(f"{shown(uri)} is a {parsed.type}, not a model")
    if parsed.path_in_repo:
        raise UsageError(f"{shown(uri)} is a file of a model", hint=f"give hf://{parsed.id}")
    if parsed.revision is not None:
        check_revision(parsed.revision)
        if revision not in (None, parsed.revision):
            raise UsageError(
                f"{shown(uri)} names another revision than {argument('revision', revision)}"
            )
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
