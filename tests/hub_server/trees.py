"""Listing the files of a revision: tree and paths-info."""

from __future__ import annotations

import hashlib
import itertools
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from .access import commit_at, readable, segment
from .errors import HubError
from .site import page
from .store import Commit, Entry, Repo

_PAGE_SIZE, _EXPANDED_PAGE_SIZE = 1000, 50
_SAFE = {"status": "safe", "avScan": None, "pickleImportScan": None}


async def tree(request: Request) -> Response:
    """List a folder, or everything below it."""
    repo = readable(request)
    commit = commit_at(repo, segment(request, "revision"))
    folder = segment(request, "path").strip("/") if "path" in request.path_params else ""
    recursive, expand = (
        request.query_params.get(name, "").lower() in ("true", "1")
        for name in ("recursive", "expand")
    )
    prefix = f"{folder}/" if folder else ""
    if folder and not any(path.startswith(prefix) for path in commit.files):
        text = f"{folder} does not exist on {segment(request, 'revision')}"
        raise HubError(404, text, "EntryNotFound", headers={"X-Repo-Commit": commit.oid})
    listed = sorted(path for path in _paths(commit) if path.startswith(prefix))
    if not recursive:
        listed = [path for path in listed if "/" not in path[len(prefix) :]]
    items = [_item(repo, commit, path, expand=expand) for path in listed]
    return page(request, items, _EXPANDED_PAGE_SIZE if expand else _PAGE_SIZE)


async def paths_info(request: Request) -> Response:
    """Describe the paths of a form; those that do not exist are left out."""
    repo = readable(request)
    commit = commit_at(repo, segment(request, "revision"))
    if request.headers.get("content-type", "").startswith("application/json"):
        body = await request.json()
        wanted, expand = list(body["paths"]), bool(body.get("expand"))
    else:
        form = parse_qs((await request.body()).decode())
        wanted = form.get("paths", [])
        expand = form.get("expand", [""])[0].lower() == "true"
    known = _paths(commit)
    names = [name.rstrip("/") for name in wanted]
    return JSONResponse(
        [_item(repo, commit, name, expand=expand) for name in names if name in known]
    )


def _paths(commit: Commit) -> set[str]:
    found = set(commit.files)
    for path in commit.files:
        parts = path.split("/")
        found.update("/".join(parts[:depth]) for depth in range(1, len(parts)))
    return found


def _item(repo: Repo, commit: Commit, path: str, *, expand: bool) -> dict[str, object]:
    entry = commit.files.get(path)
    item: dict[str, object]
    if entry is None:
        oid = hashlib.sha1(f"{commit.oid} {path}".encode()).hexdigest()
        item = {"type": "directory", "oid": oid, "size": 0, "path": path}
    else:
        item = {"type": "file", "oid": entry.git_oid, "size": entry.size, "path": path}
        if entry.lfs:
            item["lfs"] = {
                "oid": entry.sha256,
                "size": entry.size,
                "pointerSize": entry.pointer_size,
            }
    if expand:
        last = _last_change(repo, commit, path)
        item["lastCommit"] = {"id": last.oid, "title": last.title, "date": last.date}
        if entry is not None:
            item["securityFileStatus"] = _SAFE
    return item


def _last_change(repo: Repo, commit: Commit, path: str) -> Commit:
    def below(at: Commit) -> dict[str, Entry]:
        inside = f"{path}/"
        return {p: e for p, e in at.files.items() if p == path or p.startswith(inside)}

    past = repo.history(commit)
    for newer, older in itertools.pairwise(past):
        if below(newer) != below(older):
            return newer
    return past[-1]


_REPO = "/api/{kind}/{namespace}/{name}"
ROUTES = [
    Route(_REPO + "/tree/{revision}", tree),
    Route(_REPO + "/tree/{revision}/{path:path}", tree),
    Route(_REPO + "/paths-info/{revision}", paths_info, methods=["POST"]),
]
