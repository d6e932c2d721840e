"""The git-lfs batch API and the storage behind it: one PUT, or one PUT for each part.

The storage answers on the other origin of the server and refuses a request that carries a token,
as a bucket with signed addresses does.
"""

from __future__ import annotations

import hashlib
import math
import shutil
from pathlib import Path

from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from .access import logged_in, readable, segment, writable
from .blobs import Blobs
from .errors import HubError
from .site import origin, other_origin, site_of


async def batch(request: Request) -> Response:
    """Say for each object where to send it; without actions it is there already."""
    site, body = site_of(request), await request.json()
    if body["operation"] == "upload":
        ref = (body.get("ref") or {}).get("name")
        # A commit with create_pr names no ref: its pull request does not exist yet.
        writable(request, ref) if ref else (readable(request), logged_in(request))
    else:
        readable(request)
    part_bytes = site.knobs.part_bytes
    objects: list[dict[str, object]] = []
    for wanted in body["objects"]:
        oid, size = str(wanted["oid"]), int(wanted["size"])
        item: dict[str, object] = {"oid": oid, "size": size, "authenticated": True}
        if not site.store.blobs.has(oid):
            item["actions"] = {
                "upload": _upload_action(request, oid, size, part_bytes),
                "verify": {"href": f"{origin(request)}/lfs/verify"},
            }
        objects.append(item)
    transfer = "multipart" if part_bytes is not None else "basic"
    return JSONResponse(
        {"transfer": transfer, "objects": objects},
        media_type="application/vnd.git-lfs+json",
    )


async def put_object(request: Request) -> Response:
    """Receive a whole object."""
    refuse_token(request)
    blobs, oid = site_of(request).store.blobs, segment(request, "oid")
    scratch = blobs.scratch()
    found = await _receive(request, scratch, hollow=blobs.hollow)
    if not blobs.adopt(scratch, oid, found):
        raise HubError(400, f"the content of LFS object {oid} has another SHA-256")
    return Response(headers={"ETag": f'"{oid}"'})


async def put_part(request: Request) -> Response:
    """Receive one part of an object."""
    refuse_token(request)
    blobs, number = site_of(request).store.blobs, int(segment(request, "number"))
    part = blobs.part(segment(request, "oid"), number)
    part.parent.mkdir(exist_ok=True)
    digest = await _receive(request, part)
    return Response(headers={"ETag": f'"{digest}"'})


async def complete(request: Request) -> Response:
    """Join the parts of an object, whose ETags the client sends back."""
    blobs, oid = site_of(request).store.blobs, segment(request, "oid")
    parts = (await request.json())["parts"]
    etags = {int(part["partNumber"]): str(part["etag"]).strip('"') for part in parts}
    await run_in_threadpool(_join, blobs, oid, etags)
    return JSONResponse({})


async def verify(request: Request) -> Response:
    """Confirm that an object arrived with its size."""
    body, blobs = await request.json(), site_of(request).store.blobs
    path = blobs.path(str(body["oid"]))
    if not path.exists():
        raise HubError(404, f"LFS object {body['oid']} does not exist")
    if path.stat().st_size != body["size"]:
        raise HubError(400, f"LFS object {body['oid']} has another size than {body['size']}")
    return JSONResponse({})


def refuse_token(request: Request) -> None:
    """Answer 400 if a token reached the storage, which is another origin."""
    if "authorization" in request.headers:
        raise HubError(400, "the Authorization header leaked to the storage")


def _upload_action(
    request: Request, oid: str, size: int, part_bytes: int | None
) -> dict[str, object]:
    storage = f"{other_origin(request)}/lfs/objects/{oid}"
    if part_bytes is None:
        return {"href": storage}
    header = {"chunk_size": str(part_bytes)}
    for number in range(1, math.ceil(size / part_bytes) + 1):
        header[str(number)] = f"{storage}/parts/{number}"
    return {"href": f"{origin(request)}/lfs/objects/{oid}/complete", "header": header}


def _join(blobs: Blobs, oid: str, etags: dict[int, str]) -> None:
    scratch, digest = blobs.scratch(), hashlib.sha256()
    with scratch.open("wb") as whole:
        for number, etag in sorted(etags.items()):
            data = blobs.part(oid, number).read_bytes()
            if etag != hashlib.sha256(data).hexdigest():
                raise HubError(400, f"part {number} of {oid} has another ETag")
            digest.update(data)
            whole.write(data)
    if not blobs.adopt(scratch, oid, digest.hexdigest()):
        raise HubError(400, f"the content of LFS object {oid} has another SHA-256")
    shutil.rmtree(blobs.part(oid, 1).parent)


async def _receive(request: Request, target: Path, *, hollow: bool = False) -> str:
    digest, nbytes = hashlib.sha256(), 0
    try:
        with target.open("wb") as file:
            async for chunk in request.stream():
                digest.update(chunk)
                nbytes += len(chunk)
                if not hollow:
                    file.write(chunk)
            file.truncate(nbytes)
    except ClientDisconnect:
        target.unlink()
        raise
    return digest.hexdigest()


ROUTES = [
    Route("/{namespace}/{name}.git/info/lfs/objects/batch", batch, methods=["POST"]),
    Route("/{kind}/{namespace}/{name}.git/info/lfs/objects/batch", batch, methods=["POST"]),
    Route("/lfs/verify", verify, methods=["POST"]),
    Route("/lfs/objects/{oid}", put_object, methods=["PUT"]),
    Route("/lfs/objects/{oid}/parts/{number}", put_part, methods=["PUT"]),
    Route("/lfs/objects/{oid}/complete", complete, methods=["POST"]),
]
