"""Downloads: resolve answers with the file, or redirects to the storage if it is an LFS object."""

from __future__ import annotations

import re

from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from .access import commit_at, downloadable, segment
from .errors import HubError
from .lfs import refuse_token
from .site import other_origin, site_of

_RANGE = re.compile(r"bytes=(\d+)-")


class _Download(FileResponse):
    chunk_size = 1 << 20


async def resolve(request: Request) -> Response:
    """Answer with a file of a revision."""
    repo = downloadable(request)
    revision, path = segment(request, "revision"), segment(request, "path")
    commit = commit_at(repo, revision)
    headers = {"X-Repo-Commit": commit.oid, "Accept-Ranges": "bytes"}
    entry = commit.files.get(path)
    if entry is None:
        raise HubError(404, "Entry not found", "EntryNotFound", headers=headers)
    if entry.lfs:
        headers |= {
            "X-Linked-Etag": f'"{entry.sha256}"',
            "X-Linked-Size": str(entry.size),
            "Location": f"{other_origin(request)}/storage/{entry.sha256}",
        }
        return Response(status_code=302, headers=headers)
    headers["ETag"] = f'"{entry.git_oid}"'
    return _file(request, entry.sha256, headers)


async def storage(request: Request) -> Response:
    """Answer with an LFS object, on the other origin."""
    refuse_token(request)
    sha256 = segment(request, "sha256")
    if not site_of(request).store.blobs.has(sha256):
        raise HubError(404, "no such object")
    return _file(request, sha256, {"ETag": f'"{sha256}"', "Accept-Ranges": "bytes"})


def _file(request: Request, sha256: str, headers: dict[str, str]) -> Response:
    path = site_of(request).store.blobs.path(sha256)
    size = path.stat().st_size
    start = _RANGE.match(request.headers.get("range", ""))
    if start is not None and int(start[1]) >= size:
        return Response(status_code=416, headers={"Content-Range": f"bytes */{size}"})
    return _Download(path, headers=headers, media_type="application/octet-stream")


ROUTES = [Route("/storage/{sha256}", storage)] + [
    Route(prefix + "/{namespace}/{name}/resolve/{revision}/{path:path}", resolve)
    for prefix in ("", "/datasets", "/spaces")
]
