"""A pull over a connection that cuts, damages, waits or ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from hfgrow.errors import HubRefusedError, HubUnreachableError, VerificationError
from hfgrow.hub.cache import forget
from tests.hub import Hub
from tests.hub.pulls import BASE, STORED, WEIGHTS, fetch, names_in


@pytest.mark.case("F-11")
def test_a_damaged_download_of_the_right_size_is_found_and_fetched_anew(
    hub: Hub, tmp_path: Path
) -> None:
    hub.seed("bob/base", BASE)
    fault = hub.fault(f"GET {STORED}", corrupt_at=5000)
    with pytest.raises(VerificationError, match=r"model\.safetensors") as caught:
        fetch(hub)
    assert fault.num_hits == 1
    assert caught.value.exit_code == 9
    assert not list(tmp_path.rglob("model.safetensors"))
    folder = fetch(hub)
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS


@pytest.mark.case("F-11")
@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_damage_in_the_cache_is_found_too(hub: Hub, name: str) -> None:
    hub.seed("bob/base", BASE)
    path = fetch(hub) / name
    data = bytearray(path.read_bytes())
    data[1] ^= 1
    path.write_bytes(data)
    with pytest.raises(VerificationError, match=name):
        fetch(hub)
    assert (fetch(hub) / name).read_bytes() == BASE[name]


@pytest.mark.case("F-10")
@pytest.mark.parametrize("times", [1, 3])
def test_a_cut_download_goes_on(hub: Hub, times: int) -> None:
    hub.seed("bob/base", BASE)
    fault = hub.fault(f"GET {STORED}", cut_after_bytes=300_000, times=times)
    assert (fetch(hub) / "model.safetensors").read_bytes() == WEIGHTS
    assert fault.num_hits == times


@pytest.mark.case("F-9")
def test_a_busy_server_is_asked_again(hub: Hub) -> None:
    hub.seed("bob/base", BASE)
    listing = hub.fault("/tree/", status=503, times=1)
    head = hub.fault("HEAD .*/resolve/", status=503, times=2)
    body = hub.fault("GET .*/resolve/", status=503, times=1)
    assert names_in(fetch(hub)) == set(BASE)
    assert (listing.num_hits, head.num_hits, body.num_hits) == (1, 2, 1)


@pytest.mark.case("F-7", "F-8")
@pytest.mark.parametrize("status", [429, 500, 503])
@pytest.mark.parametrize("where", ["/tree/", "HEAD .*/resolve/", "/storage/"])
def test_a_server_that_stays_busy_is_unreachable(hub: Hub, where: str, status: int) -> None:
    hub.seed("bob/base", BASE)
    hub.fault(where, status=status, times=999)
    with pytest.raises(HubUnreachableError, match=str(status)):
        fetch(hub)


def test_an_access_that_ends_midway_is_refused(hub: Hub) -> None:
    hub.seed("bob/base", BASE)
    hub.fault("/resolve/", status=403, times=999)
    with pytest.raises(HubRefusedError, match="403"):
        fetch(hub)


def test_a_storage_without_range_requests_still_delivers(hub: Hub) -> None:
    hub.seed("bob/base", BASE)
    assert (fetch(hub) / "tokenizer.model").read_bytes() == b"\0sp"


def test_only_the_cache_is_ever_removed_from(hub: Hub, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"precious")
    snapshot = tmp_path / "hub" / "models--a--b" / "snapshots" / "0"
    snapshot.mkdir(parents=True)
    (snapshot / "x").symlink_to(outside)
    forget(snapshot / "x")
    assert not (snapshot / "x").is_symlink()
    assert outside.read_bytes() == b"precious"
    forget(outside)
    assert outside.exists()
