"""A file of the Hub is read by ranges, at the commit that was pinned."""

from __future__ import annotations

import pytest

from hfgrow.errors import HubRefusedError, HubUnreachableError
from hfgrow.hub.client import HubClient
from hfgrow.hub.pull import RemoteFiles
from hfgrow.hub.resolve import resolve
from tests.hub import ALICE, Hub
from tests.hub.models import FILES, WEIGHTS

pytestmark = pytest.mark.usefixtures("home")


@pytest.mark.case("F-13")
def test_ranges_of_a_remote_file_are_its_bytes(hub: Hub) -> None:
    hub.seed("bob/base", FILES)
    client = HubClient(ALICE, hub.url)
    files = RemoteFiles(resolve("bob/base", client), client)
    hub.log.clear()
    assert files.names() == ["config.json", "model.safetensors"]
    assert files.nbytes("model.safetensors") == len(WEIGHTS)
    assert files.stamp("model.safetensors") == ()
    assert files.folder == ""
    assert files.label.startswith("bob/base@")
    assert hub.log == []
    assert files.read("model.safetensors", 0, 8) == WEIGHTS[:8]
    assert files.read("model.safetensors", 1000, 300) == WEIGHTS[1000:1300]
    assert files.read("model.safetensors", len(WEIGHTS) - 5, 99) == WEIGHTS[-5:]
    assert files.read("model.safetensors", len(WEIGHTS), 9) == b""
    assert files.read("config.json", 0, 10**9) == FILES["config.json"]
    storage = [record for record in hub.log if "/storage/" in record.line]
    assert len(storage) == 3
    assert not any(record.authorized for record in storage)


def test_a_remote_file_is_read_at_the_pinned_commit(hub: Hub) -> None:
    hub.seed("bob/base", FILES)
    client = HubClient(ALICE, hub.url)
    files = RemoteFiles(resolve("bob/base", client), client)
    hub.seed("bob/base", {"config.json": b"moved"})
    assert files.read("config.json", 0, 99) == FILES["config.json"]


@pytest.mark.case("F-11")
def test_a_short_or_broken_range_is_never_returned(hub: Hub) -> None:
    hub.seed("bob/base", FILES)
    client = HubClient(ALICE, hub.url)
    files = RemoteFiles(resolve("bob/base", client), client)
    hub.fault("/storage/", status=200, times=9)
    with pytest.raises(HubUnreachableError, match="range"):
        files.read("model.safetensors", 100, 300)
    with pytest.raises(HubUnreachableError, match="bytes of"):
        files.read("model.safetensors", 0, 300)
    hub.clear_faults()
    cut = hub.fault("/storage/", cut_after_bytes=100, times=2)
    assert files.read("model.safetensors", 0, 300) == WEIGHTS[:300]
    assert cut.num_hits == 2


@pytest.mark.case("F-3")
def test_a_gated_model_names_the_page_to_ask_at(hub: Hub) -> None:
    hub.seed("bob/gated", FILES, gated=True)
    client = HubClient(ALICE, hub.url)
    files = RemoteFiles(resolve("bob/gated", client), client)
    with pytest.raises(HubRefusedError, match="gated") as caught:
        files.read("config.json", 0, 2)
    assert f"{hub.url}/bob/gated" in caught.value.hint
    assert "login" not in caught.value.hint
    hub.repo("bob/gated").granted.add("alice")
    assert files.read("config.json", 0, 2) == b'{"'
