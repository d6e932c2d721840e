"""Creating, deleting and configuring repositories."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from .access import User, downloadable, logged_in, writable
from .errors import HubError
from .site import origin, site_of


async def create(request: Request) -> Response:
    """Create a repository; a conflict carries its address, which the client reads."""
    user, body = logged_in(request), await request.json()
    repo_type, repo_id = _named(user, body)
    if not user.may_write_in(repo_id.split("/")[0]):
        namespace = repo_id.split("/")[0]
        text = f"You don't have the rights to create a {repo_type} under the namespace"
        raise HubError(403, f'{text} "{namespace}"')
    store = site_of(request).store
    repo = store.repos.get((repo_type, repo_id))
    if repo is not None:
        url = f"{origin(request)}/{repo.url_path}"
        text = f"You already created this {repo_type} repo"
        raise HubError(409, text, extra={"url": url})
    private = body.get("visibility") == "private" or body.get("private") is True
    repo = store.create(repo_type, repo_id, author=user.name, private=private)
    url = f"{origin(request)}/{repo.url_path}"
    return JSONResponse({"url": url, "name": repo_id, "id": repo_id, "private": private})


async def delete(request: Request) -> Response:
    """Delete a repository."""
    user, body = logged_in(request), await request.json()
    named = _named(user, body)
    repos = site_of(request).store.repos
    if named not in repos:
        raise HubError(404, "Repository not found", "RepoNotFound")
    if not user.may_write_in(named[1].split("/")[0]):
        raise HubError(403, f"You don't have the rights to delete {named[1]}")
    del repos[named]
    return JSONResponse({"success": True})


async def settings(request: Request) -> Response:
    """Change the visibility or the gate of a repository."""
    repo, _ = writable(request)
    body = await request.json()
    if "visibility" in body:
        repo.private = body["visibility"] == "private"
    if "private" in body:
        repo.private = bool(body["private"])
    if "gated" in body:
        repo.gated = body["gated"]
    return JSONResponse({"private": repo.private, "gated": repo.gated})


async def auth_check(request: Request) -> Response:
    """Say whether the caller may fetch the files."""
    downloadable(request)
    return JSONResponse({})


async def auth_check_write(request: Request) -> Response:
    """Say whether the caller may change the files."""
    writable(request)
    return JSONResponse({})


def _named(user: User, body: dict[str, Any]) -> tuple[str, str]:
    name = str(body["name"])
    namespace = body.get("organization") or user.name
    repo_id = name if "/" in name else f"{namespace}/{name}"
    return body.get("type") or "model", repo_id


_REPO = "/api/{kind}/{namespace}/{name}"
ROUTES = [
    Route("/api/repos/create", create, methods=["POST"]),
    Route("/api/repos/delete", delete, methods=["DELETE"]),
    Route(_REPO + "/settings", settings, methods=["PUT"]),
    Route(_REPO + "/auth-check", auth_check),
    Route(_REPO + "/auth-check/write", auth_check_write),
]
