"""Who is calling, which repository they name, and whether they may read or write it."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import unquote

from starlette.requests import Request

from .errors import HubError
from .site import Site, site_of
from .store import Commit, Repo


@dataclass(frozen=True)
class User:
    """The owner of a token. `role` is that of the token: write or read."""

    name: str
    role: str = "write"
    orgs: tuple[str, ...] = ()

    def may_write_in(self, namespace: str) -> bool:
        """Tell whether this token may create and change repositories of a namespace."""
        return self.role == "write" and self.belongs_to(namespace)

    def belongs_to(self, namespace: str) -> bool:
        """Tell whether the namespace is the user or one of their organisations."""
        return namespace == self.name or namespace in self.orgs


def _test_token(name: str) -> str:
    """Return a token of the usual shape, hf_ and 34 characters, that is plainly not a real one."""
    return "hf_" + f"FakeTestToken{name}".ljust(34, "0")


ALICE = _test_token("AliceWrite")
ALICE_READ = _test_token("AliceRead")
BOB = _test_token("Bob")
CAROL = _test_token("Carol")
USERS = {
    ALICE: User("alice"),
    ALICE_READ: User("alice", role="read"),
    BOB: User("bob"),
    CAROL: User("carol", orgs=("acme",)),
}


def caller(request: Request) -> User | None:
    """Return the user of the bearer token, None without a token.

    Raises:
        HubError: 401 for a token that the hub does not know.
    """
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        return None
    if token not in USERS:
        raise HubError(401, "Invalid credentials in Authorization header")
    return USERS[token]


def logged_in(request: Request) -> User:
    """Return the caller, who must have sent a token."""
    user = caller(request)
    if user is None:
        raise HubError(401, "Invalid username or password.")
    return user


def segment(request: Request, name: str) -> str:
    """Return a segment of the path, unquoted; routes match on the path as it was sent."""
    return unquote(str(request.path_params[name]))


def repo_type_of(request: Request) -> str:
    """Return model, dataset or space from the first segments of the path."""
    segments = request.url.path.split("/")
    kind = segments[2] if segments[1] == "api" else segments[1]
    if segments[1] == "api" and kind not in ("models", "datasets", "spaces"):
        raise HubError(404, f"this hub has no {kind}")
    return kind.removesuffix("s") if kind in ("datasets", "spaces") else "model"


def readable(request: Request) -> Repo:
    """Return the repository that the path names.

    Raises:
        HubError: as for an absent repository, if it is private and the caller is a stranger.
    """
    user = caller(request)
    site: Site = site_of(request)
    repo_id = f"{segment(request, 'namespace')}/{segment(request, 'name')}"
    repo = site.store.repos.get((repo_type_of(request), repo_id))
    hidden = repo is not None and repo.private and not (user and user.belongs_to(repo.namespace))
    if repo is None or hidden:
        if user is None:
            raise HubError(401, "Invalid username or password.", "RepoNotFound")
        raise HubError(404, "Repository not found", "RepoNotFound")
    return repo


def downloadable(request: Request) -> Repo:
    """Return a readable repository whose files the caller may fetch: a gate may be in the way."""
    repo, user = readable(request), caller(request)
    if not repo.gated or (user and (user.belongs_to(repo.namespace) or user.name in repo.granted)):
        return repo
    if user is None:
        text = f"Access to model {repo.repo_id} is restricted. Please log in."
        raise HubError(401, text, "GatedRepo")
    text = f"Access to model {repo.repo_id} is restricted and you are not in the authorized list."
    raise HubError(403, text, "GatedRepo")


def writable(request: Request, ref: str | None = None) -> tuple[Repo, User]:
    """Return a repository that the caller may change, or on which they own the pull request `ref`.

    Raises:
        HubError: 401 without a token, 403 for a stranger or a read-only token.
    """
    repo, user = readable(request), logged_in(request)
    if user.may_write_in(repo.namespace):
        return repo, user
    if ref is not None and ref.startswith("refs/pr/") and user.role == "write":
        owners = {f"refs/pr/{num}": d.author for num, d in repo.discussions.items()}
        if owners.get(ref) == user.name:
            return repo, user
    if user.role != "write":
        raise HubError(403, "Your token is read-only: this needs a token with write access")
    raise HubError(403, f"You don't have the rights to change {repo.repo_id}")


def commit_at(repo: Repo, revision: str) -> Commit:
    """Return the commit of a revision, or raise the 404 that the client knows."""
    commit = repo.at(revision)
    if commit is None:
        raise HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
    return commit
