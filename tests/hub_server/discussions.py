"""Discussions and pull requests, as far as the client opens, reads, comments and merges them."""

from __future__ import annotations

import uuid

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from .access import User, commit_at, logged_in, readable, segment, writable
from .errors import HubError
from .store import Commit, Discussion, Repo, now


def open_pull_request(
    repo: Repo, user: User, title: str, description: str, base: Commit
) -> Discussion:
    """Open a pull request whose ref starts at a commit."""
    discussion = _open(repo, user, title, description, base, is_pull_request=True)
    repo.refs[f"refs/pr/{discussion.num}"] = base.oid
    return discussion


async def index(request: Request) -> Response:
    """List the discussions, newest first."""
    repo = readable(request)
    found = [_facts(repo, discussion) for discussion in repo.discussions.values()]
    body = {"discussions": found[::-1], "count": len(found), "start": 0}
    return JSONResponse(body)


async def create(request: Request) -> Response:
    """Open a discussion, or an empty pull request."""
    repo, user, body = readable(request), logged_in(request), await request.json()
    base, description = commit_at(repo, "main"), str(body.get("description", ""))
    if body.get("pullRequest"):
        discussion = open_pull_request(repo, user, str(body["title"]), description, base)
    else:
        discussion = _open(repo, user, str(body["title"]), description, base, is_pull_request=False)
    return JSONResponse({"num": discussion.num, "pullRequest": discussion.is_pull_request})


async def detail(request: Request) -> Response:
    """Describe a discussion with its events."""
    repo, discussion = _named(request)
    body = _facts(repo, discussion)
    body["events"] = discussion.events
    body["filesWithConflicts"] = []
    body["changes"] = {"base": "refs/heads/main", "mergeCommitId": discussion.merge_oid}
    return JSONResponse(body)


async def comment(request: Request) -> Response:
    """Add a comment."""
    _, discussion = _named(request)
    user, body = logged_in(request), await request.json()
    event = _event(discussion, user.name, "comment", _comment_data(str(body["comment"])))
    return JSONResponse({"newMessage": event})


async def status(request: Request) -> Response:
    """Open or close a discussion."""
    _, discussion = _named(request)
    _, user = writable(request, f"refs/pr/{discussion.num}")
    discussion.status = str((await request.json())["status"])
    event = _event(discussion, user.name, "status-change", {"status": discussion.status})
    return JSONResponse({"newStatus": event})


async def merge(request: Request) -> Response:
    """Apply the changes of a pull request to main."""
    _, discussion = _named(request)
    repo, user = writable(request)
    if not discussion.is_pull_request or discussion.status not in ("open", "draft"):
        raise HubError(400, "this is not an open pull request")
    base, files = repo.commits[discussion.base_oid].files, dict(commit_at(repo, "main").files)
    proposed = commit_at(repo, f"refs/pr/{discussion.num}").files
    for path in base.keys() | proposed.keys():
        if path not in proposed:
            files.pop(path, None)
        elif proposed[path] != base.get(path):
            files[path] = proposed[path]
    made = repo.add("refs/heads/main", files, discussion.title, user.name)
    discussion.status, discussion.merge_oid = "merged", made.oid
    _event(discussion, user.name, "status-change", {"status": "merged"})
    return JSONResponse({"status": "merged"})


def _open(
    repo: Repo, user: User, title: str, description: str, base: Commit, *, is_pull_request: bool
) -> Discussion:
    num = len(repo.discussions) + 1
    discussion = Discussion(num, title, user.name, is_pull_request, base.oid, now())
    repo.discussions[num] = discussion
    _event(discussion, user.name, "comment", _comment_data(description))
    return discussion


def _named(request: Request) -> tuple[Repo, Discussion]:
    repo, num = readable(request), segment(request, "num")
    discussion = repo.discussions.get(int(num)) if num.isdecimal() else None
    if discussion is None:
        raise HubError(404, f"no discussion {num}")
    return repo, discussion


def _facts(repo: Repo, discussion: Discussion) -> dict[str, object]:
    return {
        "num": discussion.num,
        "title": discussion.title,
        "status": discussion.status,
        "author": {"name": discussion.author},
        "createdAt": discussion.created_at,
        "isPullRequest": discussion.is_pull_request,
        "repo": {"name": repo.repo_id, "type": repo.repo_type},
    }


def _comment_data(text: str) -> dict[str, object]:
    return {"edited": False, "hidden": False, "latest": {"raw": text, "html": text}}


def _event(
    discussion: Discussion, author: str, kind: str, data: dict[str, object]
) -> dict[str, object]:
    event: dict[str, object] = {
        "id": uuid.uuid4().hex,
        "type": kind,
        "createdAt": now(),
        "author": {"name": author},
        "data": data,
    }
    discussion.events.append(event)
    return event


_BASE = "/api/{kind}/{namespace}/{name}/discussions"
ROUTES = [
    Route(_BASE, index, methods=["GET"]),
    Route(_BASE, create, methods=["POST"]),
    Route(_BASE + "/{num}", detail, methods=["GET"]),
    Route(_BASE + "/{num}/comment", comment, methods=["POST"]),
    Route(_BASE + "/{num}/status", status, methods=["POST"]),
    Route(_BASE + "/{num}/merge", merge, methods=["POST"]),
]
