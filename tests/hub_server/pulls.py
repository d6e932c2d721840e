"""A base to be pulled from a hub, and the pull."""

from __future__ import annotations

import hashlib
from pathlib import Path

from hfgrow.hub.client import HubClient
from hfgrow.hub.pull import pull
from hfgrow.hub.resolve import resolve
from tests.hub_server import ALICE, Hub

WEIGHTS = bytes(range(256)) * 4096
STORED = f"/storage/{hashlib.sha256(WEIGHTS).hexdigest()}"
BASE = {
    "config.json": b"{}",
    "README.md": b"# Base\n",
    "tokenizer.json": b"{}",
    "tokenizer.model": b"\0sp",
    "LICENSE": b"free",
    "model.safetensors": WEIGHTS,
}


def fetch(hub: Hub, name: str = "bob/base") -> Path:
    client = HubClient(ALICE, hub.url)
    return pull(resolve(name, client), client)


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}
