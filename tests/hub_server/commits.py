"""Making commits: preupload says how each file travels, commit takes the NDJSON of the client."""

from __future__ import annotations

import base64
import json
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.hub_server import xet

from .access import User, commit_at, logged_in, readable, segment, writable
from .discussions import open_pull_request
from .errors import HubError
from .site import Site, origin, site_of
from .store import Commit, Entry, Repo, goes_to_lfs


async def preupload(request: Request) -> Response:
    """Say for each file whether it is an LFS object, and which hash the revision has now."""
    repo, _ = _target(request)
    commit = commit_at(repo, segment(request, "revision"))
    answers: list[dict[str, object]] = []
    for file in (await request.json())["files"]:
        path, size = str(file["path"]), int(file["size"])
        lfs = goes_to_lfs(path, size, base64.b64decode(file.get("sample", "")))
        mode = "lfs" if lfs else "regular"
        item: dict[str, object] = {"path": path, "uploadMode": mode, "shouldIgnore": False}
        entry = commit.files.get(path)
        if entry is not None:
            item["oid"] = entry.upload_oid
        answers.append(item)
    return JSONResponse({"files": answers})


async def commit(request: Request) -> Response:
    """Make a commit, on a branch or as a new pull request."""
    repo, user = _target(request)
    site, lines = site_of(request), (await request.body()).splitlines()
    steps = [json.loads(line) for line in lines if line.strip()]
    header = next(step["value"] for step in steps if step["key"] == "header")
    additions = await _additions(site, steps)
    # No await below this line: the check of the parent and the commit are one step.
    title, parent = str(header.get("summary", "")), header.get("parentCommit")
    answer: dict[str, object] = {"success": True, "hookOutput": ""}
    if "create_pr" in request.query_params:
        base = commit_at(repo, parent or segment(request, "revision"))
        discussion = open_pull_request(repo, user, title, header.get("description", ""), base)
        ref, head = f"refs/pr/{discussion.num}", base
        answer["pullRequestUrl"] = f"{origin(request)}/{repo.url_path}/discussions/{discussion.num}"
    else:
        ref, head = _branch(repo, segment(request, "revision"))
        if parent is not None and not head.oid.startswith(parent):
            raise HubError(412, "A commit has happened since. Please refresh and try again.")
    files = _apply(head, steps, additions)
    made = repo.add(ref, files, title, user.name, str(header.get("description", "")))
    answer["commitOid"] = made.oid
    answer["commitUrl"] = f"{origin(request)}/{repo.url_path}/commit/{made.oid}"
    return JSONResponse(answer)


def _target(request: Request) -> tuple[Repo, User]:
    if "create_pr" not in request.query_params:
        return writable(request, segment(request, "revision"))
    repo, user = readable(request), logged_in(request)
    if user.role != "write":
        raise HubError(403, "Your token is read-only: this needs a token with write access")
    return repo, user


def _branch(repo: Repo, revision: str) -> tuple[str, Commit]:
    ref = repo.ref_of(revision)
    if ref is None or ref.startswith("refs/tags/"):
        raise HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
    return ref, repo.commits[repo.refs[ref]]


async def _additions(site: Site, steps: list[dict[str, Any]]) -> dict[str, Entry]:
    found: dict[str, Entry] = {}
    absent = {step["value"]["oid"] for step in steps if step["key"] == "lfsFile"}
    absent = {oid for oid in absent if not site.store.blobs.has(oid)}
    if absent and site.knobs.xet is not None:
        await xet.restore(site, absent)
    for step in steps:
        value = step["value"]
        if step["key"] == "file":
            data = base64.b64decode(value["content"])
            found[value["path"]] = site.store.entry(data, lfs=False)
        elif step["key"] == "lfsFile":
            oid = str(value["oid"])
            if not site.store.blobs.has(oid):
                raise HubError(400, f"LFS object {oid} of {value['path']} does not exist")
            size = site.store.blobs.path(oid).stat().st_size
            found[value["path"]] = site.store.stored_entry(oid, size, lfs=True)
    return found


def _apply(head: Commit, steps: list[dict[str, Any]], added: dict[str, Entry]) -> dict[str, Entry]:
    files = dict(head.files)
    for step in steps:
        path = str(step["value"].get("path", ""))
        match step["key"]:
            case "deletedFile":
                if files.pop(path, None) is None:
                    text = f"A file with this name doesn't exist: {path}"
                    raise HubError(404, text, "EntryNotFound")
            case "deletedFolder":
                prefix = path.rstrip("/") + "/"
                files = {name: e for name, e in files.items() if not name.startswith(prefix)}
            case "file" | "lfsFile":
                files[path] = added[path]
            case "header":
                pass
            case unknown:
                raise HubError(400, f"unknown operation in a commit: {unknown}")
    return files


_REPO = "/api/{kind}/{namespace}/{name}"
ROUTES = [
    Route(_REPO + "/preupload/{revision}", preupload, methods=["POST"]),
    Route(_REPO + "/commit/{revision}", commit, methods=["POST"]),
]
