"""What the routes share: the repositories, the knobs, and the two origins of one server."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import cast

from starlette.requests import Request
from starlette.responses import JSONResponse

from .store import Store


@dataclass
class Knobs:
    """Settings that a test may change while the server runs.

    Args:
        page_size: entries a page of a listing; None is what the Hub uses.
        part_bytes: if set, LFS uploads are multipart with parts of this many bytes.
        xet: the folder of the local xet storage; None is a hub without xet.
        cas: the address of a storage elsewhere, which clients are sent to instead.
    """

    page_size: int | None = None
    part_bytes: int | None = None
    xet: Path | None = None
    cas: str | None = None


@dataclass
class Site:
    """The state behind the routes."""

    store: Store
    knobs: Knobs


def site_of(request: Request) -> Site:
    """Return the state of the server that handles a request."""
    return cast(Site, request.app.state.site)


def origin(request: Request) -> str:
    """Return the origin that the client used, without a trailing slash."""
    return f"http://{request.headers['host']}"


def other_origin(request: Request) -> str:
    """Return the same server under another origin, where the client must not send its token."""
    host, _, port = request.headers["host"].partition(":")
    return f"http://{'127.0.0.1' if host == 'localhost' else 'localhost'}:{port}"


def page(request: Request, items: list[dict[str, object]], size: int) -> JSONResponse:
    """Answer with one page of a listing and, in the Link header, the address of the next."""
    size = min(size, site_of(request).knobs.page_size or size)
    start = int(request.query_params.get("cursor", "0"))
    headers = {}
    if start + size < len(items):
        url = request.url.include_query_params(cursor=start + size)
        headers["Link"] = f'<{origin(request)}{url.path}?{url.query}>; rel="next"'
    return JSONResponse(items[start : start + size], headers=headers)
