"""Xet uploads without a storage service: the client of hf_xet writes to a local folder.

The write token names `local:///folder`, which hf_xet 1.8 accepts as the address of its storage.
A commit then names a file by its SHA-256 only; the shards in the folder say which xet hash belongs
to it, and a child process restores the plain content, so that downloads are ordinary ones.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from .access import downloadable, logged_in, readable, segment, writable
from .blobs import sha256_of
from .errors import HubError
from .site import Site, site_of

_RECORD_BYTES = 48
_END = b"\xff" * 32
_VERIFICATION, _METADATA = 1 << 31, 1 << 30
_TOKEN_LIFE_S = 3600
_RESTORE_LIMIT_S = 600
_NUM_ATTEMPTS, _WAIT_S = 3, 0.5


@dataclass(frozen=True)
class XetFile:
    """A file in the xet storage."""

    sha256: str
    xet_hash: str
    size: int


async def write_token(request: Request) -> Response:
    """Give out the address of the storage to a caller who may commit."""
    if "create_pr" in request.query_params:
        readable(request)
        logged_in(request)
    else:
        writable(request, segment(request, "revision"))
    return _token(request)


async def read_token(request: Request) -> Response:
    """Give out the address of the storage to a caller who may download."""
    downloadable(request)
    return _token(request)


async def restore(site: Site, oids: set[str]) -> None:
    """Put those of the contents that are in the xet storage among the plain ones."""
    folder = site.knobs.xet
    assert folder is not None
    await run_in_threadpool(_restore, site, folder, oids)


def files_of(shard: Path) -> Iterator[XetFile]:
    """Read which files a shard describes: 48-byte records after a header of 48 bytes."""
    data = shard.read_bytes()
    records = (data[at : at + _RECORD_BYTES] for at in range(_RECORD_BYTES, len(data), 48))
    for head in records:
        if head[:32] == _END:
            return
        flags, num_segments = _u32(head, 32), _u32(head, 36)
        size = sum(_u32(next(records), 36) for _ in range(num_segments))
        if flags & _VERIFICATION:
            for _ in range(num_segments):
                next(records)
        if flags & _METADATA:
            yield XetFile(_hex(next(records)), _hex(head), size)


def _token(request: Request) -> Response:
    folder = site_of(request).knobs.xet
    if folder is None:
        raise HubError(404, "this hub has no xet storage")
    expiry = int(time.time()) + _TOKEN_LIFE_S
    address = site_of(request).knobs.cas or f"local://{folder.resolve()}"
    return JSONResponse(
        {"accessToken": "local", "exp": expiry, "casUrl": address},
        headers={
            "X-Xet-Cas-Url": address,
            "X-Xet-Access-Token": "local",
            "X-Xet-Token-Expiration": str(expiry),
        },
    )


def _restore(site: Site, folder: Path, oids: set[str]) -> None:
    shards = sorted(folder.glob("xet/xorbs/shards/*.mdb"))
    known = {file.sha256: file for shard in shards for file in files_of(shard)}
    wanted = [known[oid] for oid in oids if oid in known]
    if not wanted:
        return
    work = site.store.blobs.scratch()
    for attempt in range(1, _NUM_ATTEMPTS + 1):
        try:
            _download(folder, work, wanted)
            for file in wanted:
                found = sha256_of(work / file.sha256)
                site.store.blobs.adopt(work / file.sha256, file.sha256, found)
            return
        except subprocess.CalledProcessError:
            # The uploader may have written to the database while it was copied.
            if attempt == _NUM_ATTEMPTS:
                raise
            time.sleep(_WAIT_S)
        finally:
            shutil.rmtree(work)


def _download(folder: Path, work: Path, wanted: list[XetFile]) -> None:
    # The uploader holds the lock of the database in the folder, so a copy is read.
    copy = work / "storage"
    ignored = shutil.ignore_patterns("shard-cache", "shard-session")
    shutil.copytree(folder, copy, copy_function=_link, ignore=ignored)
    plan = [[file.xet_hash, file.size, str(work / file.sha256)] for file in wanted]
    subprocess.run(
        [sys.executable, str(Path(__file__).with_name("xet_child.py")), str(copy)],
        input=json.dumps(plan).encode(),
        env={**os.environ, "HF_HOME": str(work / "home")},
        check=True,
        timeout=_RESTORE_LIMIT_S,
    )


def _link(source: str, target: str) -> None:
    # The large files never change, so a link is enough.
    if Path(source).name.startswith("default."):
        try:
            os.link(source, target)
            return
        except OSError:
            pass
    shutil.copyfile(source, target)


def _u32(record: bytes, at: int) -> int:
    return int.from_bytes(record[at : at + 4], "little")


def _hex(record: bytes) -> str:
    # A hash is four little-endian words.
    return "".join(record[at : at + 8][::-1].hex() for at in range(0, 32, 8))


_REPO = "/api/{kind}/{namespace}/{name}"
ROUTES = [
    Route(_REPO + "/xet-write-token/{revision}", write_token),
    Route(_REPO + "/xet-read-token/{revision}", read_token),
]
