"""How far a transfer is: bytes read of what is sent, bytes on the disk of what arrives."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub.utils import sha

from hfgrow.console import Silent
from hfgrow.hub import pull as hub_pull
from hfgrow.hub.client import HubClient
from hfgrow.hub.pull import pull
from hfgrow.hub.push import push
from hfgrow.hub.resolve import resolve
from hfgrow.hub.transfer import Arriving, Reading
from tests.hub_server import ALICE, Hub
from tests.hub_server.fixtures import IGNORE_CLIENT_WARNING
from tests.hub_server.pulls import BASE
from tests.hub_server.pushes import FILES, MESSAGE, TARGET, check, content

pytestmark = pytest.mark.filterwarnings(IGNORE_CLIENT_WARNING)


def test_what_is_read_again_is_not_counted_twice(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_bytes(bytes(1000))
    other.write_bytes(bytes(500))
    reading = Reading([one, other])
    assert reading.total_nbytes == 1500
    assert reading.more() == 0
    with one.open("rb", buffering=0) as file, other.open("rb", buffering=0) as second:
        file.read(700)
        second.read(500)
        assert reading.more() == 1200
        file.seek(0)
        file.read(100)
        assert reading.more() == 0
        file.read()
        assert reading.more() == 300
    assert reading.more() == 0


def test_a_file_that_is_gone_before_it_is_sent_counts_nothing(tmp_path: Path) -> None:
    path = tmp_path / "one"
    path.write_bytes(bytes(10))
    reading = Reading([path])
    path.unlink()
    assert reading.more() == 0


def test_a_folder_that_grows_counts_up_to_what_is_to_come(tmp_path: Path) -> None:
    folder = tmp_path / "blobs"
    arriving = Arriving(folder, 100_000)
    assert arriving.more() == 0
    folder.mkdir()
    (folder / "one").write_bytes(bytes(40_960))
    assert arriving.more() == 40_960
    (folder / "hole").touch()
    os.truncate(folder / "hole", 1 << 30)
    assert arriving.more() == 0
    (folder / "other").write_bytes(bytes(81_920))
    assert arriving.more() == 100_000 - 40_960
    (folder / "one").unlink()
    assert arriving.more() == 0


class _Bars(Silent):
    """Keeps what bars were started for."""

    def __init__(self) -> None:
        self.started: list[tuple[str, int]] = []

    def bytes(self, what: str, total: int) -> Silent:
        self.started.append((what, total))
        return self


def test_an_upload_tells_how_much_there_is_to_send(hub: Hub, grown: Path) -> None:
    client, bars = HubClient(ALICE, hub.url), _Bars()
    push(grown, sorted(FILES), check(client), client, bars, message=MESSAGE)
    total = sum((grown / name).stat().st_size for name in FILES)
    assert bars.started == [(f"Uploading to {TARGET}", total)]


def test_a_download_tells_how_much_there_is_to_get_and_to_compare(hub: Hub) -> None:
    hub.seed("bob/base", BASE)
    client, bars = HubClient(ALICE, hub.url), _Bars()
    pull(resolve("bob/base", client), client, bars)
    names = ["Downloading", "Comparing checksums of"]
    assert [what.rpartition(" ")[0] for what, _ in bars.started] == names
    assert len({total for _, total in bars.started}) == 1


def test_a_file_whose_hash_is_known_is_not_hashed_again(
    hub: Hub, grown: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither here nor by the client, to which it can be told."""
    client = HubClient(ALICE, hub.url)
    name = "model.safetensors"
    known = hashlib.sha256((grown / name).read_bytes()).hexdigest()
    hashed: list[str] = []
    _note_hashing(monkeypatch, hashed)
    push(grown, sorted(FILES), check(client), client, message=MESSAGE, hashes={name: known})
    assert content(hub, TARGET).items() >= FILES.items()
    assert name not in hashed


def test_a_file_whose_hash_is_not_known_is_hashed(
    hub: Hub, grown: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = HubClient(ALICE, hub.url)
    hashed: list[str] = []
    _note_hashing(monkeypatch, hashed)
    push(grown, sorted(FILES), check(client), client, message=MESSAGE)
    assert hashed.count("model.safetensors") == 2


def _note_hashing(monkeypatch: pytest.MonkeyPatch, hashed: list[str]) -> None:
    """Note the names of the files that the client and hfgrow read whole to hash them."""
    theirs, ours = sha.sha_fileobj, hub_pull._digest

    def note_theirs(file: Any, *arguments: Any) -> bytes:
        hashed.append(Path(file.name).name)
        return theirs(file, *arguments)

    def note_ours(path: Path, *arguments: Any) -> str:
        hashed.append(path.name)
        return ours(path, *arguments)

    monkeypatch.setattr("huggingface_hub.lfs.sha_fileobj", note_theirs)
    monkeypatch.setattr(hub_pull, "_digest", note_ours)
