"""What the Hub says about a repository: model info, and the search over all models."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.hub_server import cards

from .access import caller, commit_at, readable, repo_type_of, segment
from .errors import HubError
from .site import page, site_of
from .store import Commit, Repo, Store

_PAGE_SIZE = 1000
_HEADER_LIMIT_BYTES = 100_000_000
_ALWAYS = ("_id", "id", "modelId")
_FULL_ONLY = ("siblings", "cardData", "config", "safetensors")
_QUERY = (
    "search author filter gated pipeline_tag sort direction limit cursor full cardData config "
    "expand expand[]"
)


async def info(request: Request) -> Response:
    """Describe a repository at a revision; `blobs` adds sizes and hashes of its files."""
    repo = readable(request)
    revision = segment(request, "revision") if "revision" in request.path_params else "main"
    store, query = site_of(request).store, request.query_params
    facts = describe(store, repo, commit_at(repo, revision), blobs="blobs" in query)
    wanted = query.getlist("expand") + query.getlist("expand[]")
    if wanted:
        facts = {name: facts[name] for name in facts if name in wanted or name in _ALWAYS}
    return JSONResponse(facts)


async def search(request: Request) -> Response:
    """List the repositories that the caller may see, filtered and sorted."""
    user, query, store = caller(request), request.query_params, site_of(request).store
    repo_type = repo_type_of(request)
    for name in query:
        if name not in _QUERY.split():
            raise HubError(400, f"this hub does not search by {name}")
    wanted = query.getlist("expand") + query.getlist("expand[]")
    found: list[dict[str, Any]] = []
    for repo in store.repos.values():
        if repo.repo_type != repo_type:
            continue
        if repo.private and not (user and user.belongs_to(repo.namespace)):
            continue
        facts = describe(store, repo, commit_at(repo, "main"))
        if _matches(facts, request):
            found.append(facts)
    if sort := query.get("sort"):
        found.sort(key=lambda facts: facts.get(sort) or 0, reverse=True)
    items: list[dict[str, object]] = []
    for facts in found:
        asked = {name for name in _FULL_ONLY if name in query}
        if "full" in query:
            asked |= {"siblings", "cardData"}
        hidden = set(_FULL_ONLY) - asked
        keep = {*_ALWAYS, *wanted} if wanted else set(facts) - hidden
        items.append({name: facts[name] for name in facts if name in keep})
    return page(request, items, min(int(query.get("limit", _PAGE_SIZE)), _PAGE_SIZE))


def describe(store: Store, repo: Repo, commit: Commit, *, blobs: bool = False) -> dict[str, Any]:
    """Return all that the Hub tells about a repository at a commit."""
    card = _card(store, commit)
    config = _json(store, commit, "config.json")
    parameters = _parameters(store, commit)
    tags = cards.tags(card)
    tags += ["safetensors"] if parameters else []
    tags += [str(config["model_type"])] if "model_type" in config else []
    facts: dict[str, Any] = {
        "_id": commit.oid[:24],
        "id": repo.repo_id,
        "modelId": repo.repo_id,
        "author": repo.namespace,
        "sha": commit.oid,
        "private": repo.private,
        "gated": repo.gated,
        "disabled": False,
        "createdAt": repo.created_at,
        "lastModified": commit.date,
        "downloads": 0,
        "likes": 0,
        "tags": list(dict.fromkeys(tags)),
        "pipeline_tag": card.get("pipeline_tag"),
        "library_name": card.get("library_name"),
        "cardData": card or None,
        "config": {n: config[n] for n in ("architectures", "model_type") if n in config},
        "siblings": [_sibling(commit, path, blobs=blobs) for path in sorted(commit.files)],
    }
    if parameters:
        facts["safetensors"] = {"parameters": parameters, "total": sum(parameters.values())}
    return facts


def _matches(facts: dict[str, Any], request: Request) -> bool:
    query = request.query_params
    if query.get("search", "").lower() not in facts["id"].lower():
        return False
    if "author" in query and query["author"] != facts["author"]:
        return False
    if "gated" in query and (query["gated"].lower() == "true") != bool(facts["gated"]):
        return False
    if "pipeline_tag" in query and query["pipeline_tag"] != facts["pipeline_tag"]:
        return False
    asked = [tag for value in query.getlist("filter") for tag in value.split(",")]
    return all(tag in facts["tags"] for tag in asked)


def _sibling(commit: Commit, path: str, *, blobs: bool) -> dict[str, Any]:
    if not blobs:
        return {"rfilename": path}
    entry = commit.files[path]
    sibling = {"rfilename": path, "size": entry.size, "blobId": entry.git_oid}
    if entry.lfs:
        lfs = {"sha256": entry.sha256, "size": entry.size, "pointerSize": entry.pointer_size}
        return {**sibling, "lfs": lfs}
    return sibling


def _card(store: Store, commit: Commit) -> dict[str, Any]:
    if "README.md" not in commit.files:
        return {}
    text = store.blobs.path(commit.files["README.md"].sha256).read_text(errors="replace")
    try:
        return cards.metadata(text)
    except ValueError:
        return {}


def _json(store: Store, commit: Commit, path: str) -> dict[str, Any]:
    if path not in commit.files:
        return {}
    try:
        data = json.loads(store.blobs.path(commit.files[path].sha256).read_bytes())
    except ValueError:
        return {}
    return data if isinstance(data, dict) else {}


def _parameters(store: Store, commit: Commit) -> dict[str, int]:
    counts: dict[str, int] = {}
    for path, entry in commit.files.items():
        if not path.endswith(".safetensors"):
            continue
        for tensor in _tensors(store.blobs.path(entry.sha256)):
            dtype = str(tensor["dtype"])
            counts[dtype] = counts.get(dtype, 0) + math.prod(tensor["shape"])
    return counts


def _tensors(path: Path) -> list[dict[str, Any]]:
    with path.open("rb") as file:
        nbytes = int.from_bytes(file.read(8), "little")
        if nbytes > _HEADER_LIMIT_BYTES:
            return []
        try:
            header = json.loads(file.read(nbytes))
        except ValueError:
            return []
    if not isinstance(header, dict):
        return []
    return [tensor for name, tensor in header.items() if name != "__metadata__"]


ROUTES = [
    Route("/api/{kind}", search),
    Route("/api/{kind}/{namespace}/{name}", info),
    Route("/api/{kind}/{namespace}/{name}/revision/{revision}", info),
]
