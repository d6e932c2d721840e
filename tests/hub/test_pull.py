"""Pulling: which files, of one commit, and what is refused before a download.

A pull over a connection that cuts, damages, waits or ends.
"""

from __future__ import annotations

import hashlib
import json
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hfgrow.console import Silent
from hfgrow.errors import (
    HubRefusedError,
    HubUnreachableError,
    ModelError,
    OutputError,
    VerificationError,
)
from hfgrow.hub.cache import forget
from hfgrow.hub.client import HubClient
from hfgrow.hub.listing import ModelRef, RemoteFile
from hfgrow.hub.pull import _compare as checksums
from hfgrow.hub.pull import pull
from hfgrow.hub.resolve import resolve
from tests.hub_server import ALICE, Hub
from tests.hub_server.pulls import BASE, STORED, WEIGHTS, fetch, names_in

STRANGE = {
    "pytorch_model.bin": b"pickle",
    "modeling_evil.py": b"import os",
    "optimizer.pkl": b"pickle",
    ".env": b"SECRET=1",
    "onnx/model.onnx": b"onnx",
    "original/model.safetensors": b"other",
    "consolidated.safetensors": b"other",
    "LICENSE [x].txt": b"odd",
}


def sharded(num: int = 2) -> dict[str, bytes]:
    names = [f"model-{i:05}-of-{num:05}.safetensors" for i in range(1, num + 1)]
    index = {"metadata": {}, "weight_map": {f"t{i}": name for i, name in enumerate(names)}}
    shards = {name: bytes([i]) * 1000 for i, name in enumerate(names)}
    return {"config.json": b"{}", "model.safetensors.index.json": json.dumps(index).encode()} | (
        shards
    )


@pytest.mark.case("B14", "F-12")
def test_only_what_we_know_by_name_is_pulled(hub: Hub) -> None:
    hub.seed("bob/base", BASE | STRANGE)
    folder = fetch(hub)
    assert names_in(folder) == set(BASE)
    assert {name: (folder / name).read_bytes() for name in BASE} == BASE
    assert not hub.lines("pytorch_model")


def test_a_second_pull_downloads_nothing(hub: Hub) -> None:
    hub.seed("bob/base", BASE)
    folder = fetch(hub)
    hub.log.clear()
    assert fetch(hub) == folder
    assert len(hub.log) == 1


def test_a_download_that_takes_long_is_not_said_to_have_no_answer(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    hub.seed("bob/base", BASE)
    client = HubClient(ALICE, hub.url)
    ref = resolve("bob/base", client)
    hub.fault("/resolve/", delay_s=0.3)
    monkeypatch.setattr("hfgrow.hub.client._SILENCE_S", 0.05)
    pull(ref, client, Silent())
    assert not [text for text in caplog.messages if "no answer yet" in text]


def test_no_file_is_hashed_twice(hub: Hub) -> None:
    class Lines(Silent):
        def say(self, text: str) -> None:
            said.append(text)

    said: list[str] = []
    hub.seed("bob/base", sharded() | {"LICENSE": b"mine"})
    client = HubClient(ALICE, hub.url)
    pull(resolve("bob/base", client), client, Lines())
    compared = [line for line in said if line.startswith("comparing")]
    assert compared == ["comparing checksums of 3 files", "comparing checksums of 2 files"]


def test_shards_are_those_that_the_index_names(hub: Hub) -> None:
    files = sharded()
    hub.seed("bob/base", {**files, "model-00003-of-00003.safetensors": b"not named"})
    folder = fetch(hub)
    assert names_in(folder) == set(files)


def test_progress_says_how_much_will_come(hub: Hub) -> None:
    hub.seed("bob/base", BASE)
    client = HubClient(ALICE, hub.url)
    told: list[str] = []

    class Telling(Silent):
        def say(self, text: str) -> None:
            told.append(text)

    pull(resolve("bob/base", client), client, Telling())
    assert told == ["downloading 6 files of bob/base, 1.05 MB", "comparing checksums of 6 files"]


class Bar(Silent):
    """Does something whenever it is moved."""

    def __init__(self, act: Callable[[int], None]) -> None:
        self._act = act

    def bytes(self, what: str, total: int) -> Bar:
        return self

    def advance(self, nbytes: int) -> None:
        self._act(nbytes)


def compared(folder: Path, nbytes: int, act: Callable[[int], None]) -> None:
    """Compare four files of zeros with what a listing says of them."""
    names = [f"{i}.safetensors" for i in range(4)]
    for name in names:
        with (folder / name).open("wb") as file:
            file.truncate(nbytes)
    of_zeros = RemoteFile(nbytes, hashlib.sha256(bytes(min(nbytes, 8 << 20))).hexdigest())
    checksums(folder, dict.fromkeys(names, of_zeros), "bob/base", Bar(act))


def test_a_bar_is_moved_by_one_thread_at_a_time(tmp_path: Path) -> None:
    inside, most, counted = 0, 0, 0

    def act(nbytes: int) -> None:
        nonlocal inside, most, counted
        inside += 1
        most = max(most, inside)
        time.sleep(0.001)
        inside, counted = inside - 1, counted + nbytes

    compared(tmp_path, 8 << 20, act)
    assert (most, counted) == (1, 4 * (8 << 20))


def test_an_interrupt_does_not_wait_until_checksums_are_compared(tmp_path: Path) -> None:
    main, counted = threading.get_ident(), 0

    def act(nbytes: int) -> None:
        nonlocal counted
        if not counted:
            signal.pthread_kill(main, signal.SIGINT)
        counted += nbytes

    # What runs in the background of a shell begins with it ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            compared(tmp_path, 4 << 30, act)
    finally:
        signal.signal(signal.SIGINT, before)
    assert counted < 1 << 30


@pytest.mark.case("F-15")
def test_all_files_are_of_the_pinned_commit(hub: Hub) -> None:
    hub.seed("bob/base", BASE)
    client = HubClient(ALICE, hub.url)
    ref = resolve("bob/base", client)
    hub.seed("bob/base", {"config.json": b"moved", "model.safetensors": b"moved"})
    folder = pull(ref, client)
    assert folder.name == ref.revision
    assert (folder / "config.json").read_bytes() == b"{}"
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert {line for line in hub.lines("/main")} == set()


@pytest.mark.case("B13", "B15")
@pytest.mark.parametrize(
    ("files", "message", "hint"),
    [
        ({"config.json": b"{}", "pytorch_model.bin": b"1"}, r"\.bin \(PyTorch pickle", "refs/pr"),
        ({"config.json": b"{}", "m.gguf": b"1"}, r"\.gguf \(GGUF", "safetensors"),
        ({"config.json": b"{}", "tf_model.h5": b"1"}, r"\.h5 \(TensorFlow", "safetensors"),
        ({"config.json": b"{}", "w.npz": b"1"}, r"\.npz", "safetensors"),
        ({"config.json": b"{}", "consolidated.safetensors": b"1"}, "another name", ""),
        ({"adapter_config.json": b"{}", "adapter_model.safetensors": b"1"}, "LoRA", "merge"),
        ({"config.json": b"{}"}, "no weights", ""),
        ({"model.safetensors": b"1"}, r"no config\.json", ""),
    ],
)
def test_a_repository_without_safetensors_is_refused_with_the_way_out(
    hub: Hub, files: dict[str, bytes], message: str, hint: str
) -> None:
    hub.seed("bob/base", files)
    with pytest.raises(ModelError, match=message) as caught:
        fetch(hub)
    assert hint in caught.value.hint
    assert len(hub.log) == 1


@pytest.mark.case("B1", "B2")
@pytest.mark.parametrize(
    ("index", "message"),
    [
        (b"{}", "no weight_map"),
        (b"[", "not JSON"),
        (b'{"weight_map": {"a": "../../evil.safetensors"}}', "names the file"),
        (b'{"weight_map": {"a": "/etc/passwd"}}', "names the file"),
        (b'{"weight_map": {"a": "x.bin"}}', "names the file"),
        (b'{"weight_map": {"a": "absent.safetensors"}}', "lacks absent"),
        (b'{"weight_map": {"a": "a.safetensors"}, "weight_map": {}}', "stands twice"),
    ],
)
def test_a_bad_index_is_refused_before_the_weights(hub: Hub, index: bytes, message: str) -> None:
    files = {"config.json": b"{}", "a.safetensors": b"1", "model.safetensors.index.json": index}
    hub.seed("bob/base", files)
    with pytest.raises(ModelError, match=message):
        fetch(hub)
    assert not [line for line in hub.lines("safetensors") if "index" not in line]


@pytest.mark.case("B9")
def test_a_single_file_beside_an_index_is_ambiguous(hub: Hub) -> None:
    hub.seed("bob/base", sharded() | {"model.safetensors": WEIGHTS})
    with pytest.raises(ModelError, match="two different models"):
        fetch(hub)


@pytest.mark.case("F-12")
def test_an_impossible_listing_is_refused_without_a_download(hub: Hub) -> None:
    client = HubClient(ALICE, hub.url)

    def listed(**sizes: int) -> ModelRef:
        files = {name.replace("_", "."): RemoteFile(size) for name, size in sizes.items()}
        return ModelRef("bob/x", repo_id="bob/x", revision="0" * 40, files=files)

    with pytest.raises(OutputError, match="room for"):
        pull(listed(config_json=2, model_safetensors=10**15), client)
    with pytest.raises(ModelError, match="no real one"):
        pull(listed(config_json=2, model_safetensors=9, LICENSE_json=10**13), client)
    many = {f"LICENSE{i}": 1 for i in range(101)}
    with pytest.raises(ModelError, match="no real one"):
        pull(listed(config_json=2, model_safetensors=9, **many), client)
    assert hub.log == []


@pytest.mark.case("F-3")
def test_a_gated_model_is_refused_with_its_page(hub: Hub) -> None:
    hub.seed("bob/base", BASE, gated=True)
    with pytest.raises(HubRefusedError, match="gated") as caught:
        fetch(hub)
    assert f"{hub.url}/bob/base" in caught.value.hint


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
