"""The faults of the test hub: what the client repeats, and what it does not notice."""

from __future__ import annotations

from pathlib import Path

import pytest
from huggingface_hub.errors import HfHubHTTPError

from tests.hub import Hub
from tests.hub.fixtures import IGNORE_CLIENT_WARNING
from tests.hub.plain_client import WEIGHTS, pull, push, sha256

pytestmark = pytest.mark.filterwarnings(IGNORE_CLIENT_WARNING)


def test_two_faults_of_503_are_retried(hub: Hub) -> None:
    """The client repeats the LFS batch, and not what it does not hold to be repeatable."""
    fault = hub.fault("objects/batch", status=503, headers={"Retry-After": "0"}, times=2)
    push(hub, {"model.safetensors": WEIGHTS})
    assert fault.num_hits == 2
    statuses = [record.status for record in hub.log if "objects/batch" in record.line]
    assert statuses == [503, 503, 200]
    hub.fault("POST .*/commit/main", status=503)
    with pytest.raises(HfHubHTTPError, match="503"):
        push(hub, {"a.txt": b"1"})


def test_a_cut_download_is_repeated(hub: Hub, tmp_path: Path) -> None:
    """The connection ends in the middle of the body; the file is whole in the end."""
    hub.seed("alice/model", {"model.safetensors": WEIGHTS})
    hub.fault("GET /storage/", cut_after_bytes=100_000)
    assert sha256(pull(hub, tmp_path) / "model.safetensors") == sha256(WEIGHTS)
    assert len(hub.lines("GET /storage/")) == 2


def test_a_cut_upload_is_repeated(hub: Hub) -> None:
    """The connection ends while the client sends."""
    hub.fault("PUT /lfs/objects/", cut_upload_after_bytes=100_000)
    push(hub, {"model.safetensors": WEIGHTS})
    assert len(hub.lines("PUT /lfs/objects/")) == 2


def test_a_corrupt_download_has_the_right_length_only(hub: Hub, tmp_path: Path) -> None:
    """The client checks the length and not the hash."""
    hub.seed("alice/model", {"model.safetensors": WEIGHTS})
    hub.fault("GET /storage/", corrupt_at=1234)
    data = (pull(hub, tmp_path) / "model.safetensors").read_bytes()
    assert len(data) == len(WEIGHTS)
    assert [at for at in range(len(data)) if data[at] != WEIGHTS[at]] == [1234]


def test_a_lost_commit_response_leaves_the_commit(hub: Hub) -> None:
    """The client fails, the commit exists, and pushing again changes nothing."""
    hub.fault("POST .*/commit/main", drop=True)
    with pytest.raises(Exception, match=r"(?i)disconnected|reset") as caught:
        push(hub, {"a.txt": b"1"})
    assert not isinstance(caught.value, HfHubHTTPError)
    assert hub.files("alice/model")["a.txt"] == b"1"
    assert push(hub, {"a.txt": b"1"}) == hub.head("alice/model")
    assert len(hub.commits("alice/model")) == 2
