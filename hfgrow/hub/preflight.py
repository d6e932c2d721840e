"""Ask everything that could refuse a push before anything is downloaded or grown."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hfgrow.checkpoint.files import MANIFEST
from hfgrow.errors import (
    HubConflictError,
    HubRefusedError,
    HubUnreachableError,
    UsageError,
    argument,
    one_of,
    printable,
)
from hfgrow.hub.client import HubClient
from hfgrow.hub.listing import Listing, ModelRef, list_commit
from hfgrow.hub.repo_names import check_repo_id

_ANOTHER = one_of(
    argument("repo", "NAME"), argument("create_pr"), argument("exist_ok", "to add to it")
)
_LOGIN = "hf auth login"
# Stands for the account in the name of a repository where nobody is logged in, and why it does.
_NOBODY, _NOT_LOGGED_IN = "YOU", f"nobody is logged in ({_LOGIN})"


@dataclass(frozen=True)
class PushTarget:
    """Where a push will go.

    Args:
        repo_id: The repository.
        private: Whether it is, or will be made, private; None where nobody has said.
        exists: Whether it is there already.
        head: The commit of its main branch, which must not have moved when the push arrives.
        create_pr: Whether the push opens a pull request instead of changing the main branch.
        if_new: Whether `private` is that of a new repository, and whether it is there is not known.
        notes: What of it was not asked, one line each.
    """

    repo_id: str
    private: bool | None
    exists: bool
    head: str | None
    create_pr: bool
    if_new: bool = False
    notes: tuple[str, ...] = ()

    @property
    def visibility(self) -> str:
        """Who sees it, in a word."""
        return visibility(self.private, if_new=self.if_new)


def visibility(private: bool | None, *, if_new: bool = False) -> str:
    """Return who sees a repository, in a word or, of a new one, in a few."""
    word = {True: "private", False: "public", None: "visibility unknown"}[private]
    return f"{word}, if it is new" if if_new else word


def preflight(
    base: ModelRef,
    repo: str | None,
    default_name: str,
    client: HubClient,
    *,
    private: bool | None,
    exist_ok: bool,
    create_pr: bool,
) -> PushTarget:
    """Check that a push can succeed, without writing anything on the Hub.

    Args:
        base: The model that is grown; the target must not be it.
        repo: `org/name`, a bare name in the caller's own namespace, or None for `default_name`.
        default_name: The name in the caller's namespace if `repo` is None.
        private: Whether the target shall be private; None is as private as the base.
        exist_ok: Whether a repository that hfgrow did not make may be pushed to.
        create_pr: Whether the push shall open a pull request.

    Raises:
        HubRefusedError: No token, or one that may not write there.
        UsageError: The name cannot be, is that of the base, or contradicts the visibility.
        HubConflictError: The target exists and holds something else.
        HubUnreachableError: No answer.
    """
    caller = _caller(client)
    name = str(caller["name"])
    repo_id = _target_id(repo, default_name, name)
    if base.repo_id is not None and repo_id.casefold() == base.repo_id.casefold():
        raise UsageError(
            f"{repo_id} is the base itself, which a push would overwrite",
            hint=argument("repo", f"{name}/{default_name}"),
        )
    existing = _existing(client, repo_id)
    if not (create_pr and existing):
        _check_namespace(caller, repo_id)
    if existing is None:
        hidden = (base.private or base.gated) if private is None else private
        return PushTarget(repo_id, hidden, False, None, create_pr)
    what = f"pushing to {repo_id}"
    if not create_pr:
        client.ask(what, lambda: client.api.auth_check(repo_id, write=True), repo_id)
        _check_ours(existing, exist_ok)
    _check_visibility(existing, base, private)
    return PushTarget(repo_id, existing.private, True, existing.sha, create_pr)


def planned_target(
    asked: Callable[[], PushTarget],
    repo: str | None,
    default_name: str,
    client: HubClient,
    *,
    private: bool | None,
    is_local: bool,
) -> PushTarget:
    """Return where a push would go: as `preflight` says, or as far as it is known without the Hub.

    Args:
        asked: Calls `preflight`.
        repo: As in `preflight`.
        default_name: As in `preflight`.
        client: As in `preflight`.
        private: As in `preflight`.
        is_local: Whether nothing that the model was made from is on the Hub, and may be private.

    Raises:
        GrowthError: As `preflight`, but for a lack of a login or of an answer.
    """
    why = _NOT_LOGGED_IN
    if client.has_token:
        try:
            return asked()
        except HubUnreachableError as error:
            why = str(error)
    repo_id = _target_id(repo, default_name, _NOBODY)
    notes = [f"the Hub was not asked whether you may push there, nor what is there: {why}"]
    if repo_id.startswith(f"{_NOBODY}/"):
        notes.append(f"{_NOBODY} stands for the account that pushes")
    usual = False if is_local else None
    return PushTarget(
        repo_id,
        usual if private is None else private,
        exists=False,
        head=None,
        create_pr=False,
        if_new=private is None and is_local,
        notes=tuple(notes),
    )


def _caller(client: HubClient) -> dict[str, Any]:
    if not client.has_token:
        raise HubRefusedError("a push needs a login, and there is no token", hint=_LOGIN)
    caller = client.ask("asking the Hub who is logged in", client.api.whoami)
    if not isinstance(caller, dict) or not isinstance(caller.get("name"), str):
        raise HubUnreachableError(
            "asking the Hub who is logged in: its answer names nobody", hint="run it again"
        )
    try:
        token = (caller.get("auth") or {}).get("accessToken") or {}
        only_reads = token.get("role") == "read" or not may_write_somewhere(token)
        caller["orgs"] = [{**org} for org in caller.get("orgs") or []]
    except (AttributeError, TypeError) as error:
        raise HubUnreachableError(
            "asking the Hub who is logged in: its answer makes no sense", hint="run it again"
        ) from error
    if only_reads:
        raise HubRefusedError(
            "the token may only read, and a push needs one that may write",
            hint=f"make one at {client.endpoint}/settings/tokens, then {_LOGIN}",
        )
    return caller


def may_write_somewhere(token: dict[str, Any]) -> bool:
    """Say whether a fine-grained token has any right to write; other tokens do."""
    rights = token.get("fineGrained")
    if token.get("role") != "fineGrained" or not isinstance(rights, dict):
        return True
    scopes = [scope.get("permissions") or [] for scope in rights.get("scoped") or []]
    return any("repo.write" in scope for scope in [*scopes, rights.get("global") or []])


def _target_id(repo: str | None, default_name: str, name: str) -> str:
    """Return the repository that is meant, of the caller of a name where none is given.

    Raises:
        UsageError: The name cannot be.
    """
    repo_id = repo if repo and "/" in repo else f"{name}/{repo or default_name}"
    if repo_id.startswith("-") or "/-" in repo_id:
        raise UsageError(
            f"{printable(repo_id)!r} is no name of a repository", hint=argument("repo", "NAME")
        )
    check_repo_id(repo_id)
    return repo_id


def _existing(client: HubClient, repo_id: str) -> Listing | None:
    what = f"looking up {repo_id}"
    if not client.ask(what, lambda: client.api.repo_exists(repo_id), repo_id):
        return None
    return list_commit(client, repo_id)


def _check_namespace(caller: dict[str, Any], repo_id: str) -> None:
    namespace = repo_id.partition("/")[0].casefold()
    if namespace == str(caller["name"]).casefold():
        return
    for org in caller["orgs"]:
        if str(org.get("name")).casefold() == namespace:
            if org.get("roleInOrg") != "read":
                return
            raise HubRefusedError(f"you may only read in {org['name']}, so not push to {repo_id}")
    raise HubRefusedError(
        f"{repo_id} is neither yours ({caller['name']}) nor of one of your organisations",
        hint=f"{argument('repo', 'NAME')} pushes to your own namespace",
    )


def _check_ours(existing: Listing, exist_ok: bool) -> None:
    # A push that was cut off leaves a repository with nothing but what the Hub puts there.
    is_empty = not existing.files and existing.num_files <= 1
    if exist_ok or is_empty or MANIFEST in existing.files:
        return
    raise HubConflictError(
        f"{existing.repo_id} exists and was not made by hfgrow: it has no {MANIFEST}",
        hint=f"another {_ANOTHER}; nothing is deleted",
    )


def _check_visibility(existing: Listing, base: ModelRef, private: bool | None) -> None:
    now = "private" if existing.private else "public"
    if private is None and not existing.private and (base.private or base.gated):
        kind = "private" if base.private else "gated"
        raise UsageError(
            f"{existing.repo_id} is public, and {base.label} is {kind}",
            hint=f"another {argument('repo', 'NAME')}, or {argument('public')} if everybody may "
            f"see it",
        )
    if private is not None and private != existing.private:
        raise UsageError(
            f"{existing.repo_id} exists and is {now}; a push does not change that",
            hint=f"change it in its settings, or leave out "
            f"{argument('private' if private else 'public')}",
        )
