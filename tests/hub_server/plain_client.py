"""The unmodified client of huggingface_hub in this process, for alice/model on a hub."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from huggingface_hub import CommitOperationAdd, HfApi, snapshot_download

from tests.hub_server import ALICE, Hub

WEIGHTS = os.urandom(300_000)
CARD = b"---\nlicense: mit\n---\n# A model\n"


def api(hub: Hub, token: str = ALICE) -> HfApi:
    """Return a client of this process."""
    return HfApi(endpoint=hub.url, token=token)


def push(hub: Hub, files: dict[str, bytes]) -> str:
    """Commit files to alice/model, which is created if absent."""
    client = api(hub)
    client.create_repo("alice/model", exist_ok=True)
    operations = [CommitOperationAdd(name, data) for name, data in files.items()]
    return client.create_commit("alice/model", operations, commit_message="push").oid


def pull(hub: Hub, folder: Path, token: str = ALICE) -> Path:
    """Download alice/model into a cache below a folder."""
    path = snapshot_download(
        "alice/model", endpoint=hub.url, token=token, cache_dir=folder / "cache"
    )
    return Path(path)


def sha256(data: bytes | Path) -> str:
    """Hash bytes or a file."""
    return hashlib.sha256(data if isinstance(data, bytes) else data.read_bytes()).hexdigest()
