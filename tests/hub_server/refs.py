"""Branches, tags and the list of commits."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from .access import commit_at, readable, segment, writable
from .errors import HubError
from .site import page

_PAGE_SIZE = 50


async def refs(request: Request) -> Response:
    """List branches, tags and, if asked for, pull requests."""
    repo = readable(request)

    def under(prefix: str) -> list[dict[str, str]]:
        return [
            {"name": ref.removeprefix(prefix), "ref": ref, "targetCommit": oid}
            for ref, oid in repo.refs.items()
            if ref.startswith(prefix)
        ]

    body = {"branches": under("refs/heads/"), "converts": [], "tags": under("refs/tags/")}
    if "include_prs" in request.query_params:
        body["pullRequests"] = under("refs/pr/")
    return JSONResponse(body)


async def commits(request: Request) -> Response:
    """List the commits of a revision, newest first."""
    repo = readable(request)
    items: list[dict[str, object]] = [
        {
            "id": commit.oid,
            "title": commit.title,
            "message": commit.message,
            "date": commit.date,
            "authors": [{"user": commit.author}],
        }
        for commit in repo.history(commit_at(repo, segment(request, "revision")))
    ]
    return page(request, items, _PAGE_SIZE)


async def create_branch(request: Request) -> Response:
    """Create a branch at `startingPoint`, or at main."""
    repo, _ = writable(request)
    branch = segment(request, "branch")
    if branch.startswith("refs/"):
        raise HubError(400, f"Invalid reference for a branch: {branch}")
    body = await request.body() and await request.json()
    start = commit_at(repo, (body or {}).get("startingPoint") or "main")
    return _create(repo.refs, f"refs/heads/{branch}", start.oid)


async def create_tag(request: Request) -> Response:
    """Create a tag at a revision."""
    repo, _ = writable(request)
    tag = str((await request.json())["tag"])
    target = commit_at(repo, segment(request, "revision"))
    return _create(repo.refs, f"refs/tags/{tag}", target.oid)


async def delete_branch(request: Request) -> Response:
    """Delete a branch other than main."""
    repo, _ = writable(request)
    branch = segment(request, "branch")
    if branch == "main":
        raise HubError(403, "Cannot delete the main branch")
    return _delete(repo.refs, f"refs/heads/{branch}")


async def delete_tag(request: Request) -> Response:
    """Delete a tag."""
    repo, _ = writable(request)
    return _delete(repo.refs, f"refs/tags/{segment(request, 'revision')}")


def _create(known: dict[str, str], ref: str, oid: str) -> Response:
    if ref in known:
        raise HubError(409, f"Reference already exists: {ref}")
    known[ref] = oid
    return JSONResponse({})


def _delete(known: dict[str, str], ref: str) -> Response:
    if known.pop(ref, None) is None:
        raise HubError(404, f"Invalid rev id: {ref}", "RevisionNotFound")
    return JSONResponse({})


_REPO = "/api/{kind}/{namespace}/{name}"
ROUTES = [
    Route(_REPO + "/refs", refs),
    Route(_REPO + "/commits/{revision}", commits),
    Route(_REPO + "/branch/{branch}", create_branch, methods=["POST"]),
    Route(_REPO + "/branch/{branch}", delete_branch, methods=["DELETE"]),
    Route(_REPO + "/tag/{revision}", create_tag, methods=["POST"]),
    Route(_REPO + "/tag/{revision}", delete_tag, methods=["DELETE"]),
]
