"""A small grown model, the preflight and the push that tests send to a hub."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from hfgrow.hub.client import HubClient
from hfgrow.hub.listing import ModelRef
from hfgrow.hub.preflight import PushTarget, preflight
from hfgrow.hub.push import Pushed, push
from tests.hub_server import Hub

BASE = ModelRef("bob/base", repo_id="bob/base")
CARD = b"---\nlicense: apache-2.0\ntags: [hfgrow]\n---\n# Grown\n"
FILES = {
    "README.md": CARD,
    "config.json": b'{"model_type": "llama"}',
    "hfgrow.json": b"{}",
    "model.safetensors": bytes(range(256)) * 64,
}
MESSAGE = "Grow bob/base by stack"
TARGET = "alice/base-stack-g4"


@pytest.fixture(name="grown")
def grown_folder(tmp_path: Path) -> Path:
    """A folder with what is pushed, which the test may change."""
    return fill(tmp_path / "grown")


def fill(path: Path, files: Mapping[str, bytes] = FILES) -> Path:
    path.mkdir(exist_ok=True)
    for name, data in files.items():
        (path / name).write_bytes(data)
    return path


def check(
    client: HubClient,
    repo: str | None = None,
    *,
    base: ModelRef = BASE,
    private: bool | None = None,
    exist_ok: bool = False,
    create_pr: bool = False,
) -> PushTarget:
    return preflight(
        base,
        repo,
        "base-stack-g4",
        client,
        private=private,
        exist_ok=exist_ok,
        create_pr=create_pr,
    )


def send(grown: Path, target: PushTarget, client: HubClient) -> Pushed:
    return push(grown, sorted(FILES), target, client, message=MESSAGE)


def content(hub: Hub, repo_id: str, revision: str = "main") -> dict[str, bytes]:
    found = hub.files(repo_id, revision)
    return {n: d.read_bytes() if isinstance(d, Path) else d for n, d in found.items()}


def writes(hub: Hub) -> list[str]:
    return [r.line for r in hub.log if not r.line.startswith(("GET", "HEAD"))]
