"""A push by xet, in processes of their own: hf_xet keeps its storage to itself.

What a push of an untrained stack sends: Xet stores identical layers once.

hf_xet chunks, deduplicates and hashes here as it does for the Hub, into a folder instead of the
Hub's storage.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hfgrow.checkpoint.files import LocalFolder
from hfgrow.checkpoint.layout import lay_out
from hfgrow.checkpoint.read import read
from hfgrow.checkpoint.staging import staged
from hfgrow.checkpoint.write import write
from hfgrow.hub.client import HubClient
from hfgrow.lineage.manifest import non_embedding_parameters
from hfgrow.plan.operators import OPERATORS
from tests.checkpoints import MakeCheckpoint
from tests.hub_server import ALICE, Hub
from tests.hub_server.fixtures import hub_environment

PUSH = """
import sys
from pathlib import Path
from hfgrow.errors import GrowthError
from hfgrow.hub.client import HubClient
from hfgrow.hub.preflight import preflight
from hfgrow.hub.pull import pull
from hfgrow.hub.push import push
from hfgrow.hub.listing import ModelRef; from hfgrow.hub.resolve import resolve
client, folder = HubClient(), Path(sys.argv[1])
base = ModelRef("bob/base", repo_id="bob/base")
try:
    target = preflight(base, "x", "", client, private=None, exist_ok=False, create_pr=False)
    done = push(folder, sorted(p.name for p in folder.iterdir()), target, client, message="m")
    pulled = pull(resolve("alice/x", client), client)
    name = "model.safetensors"
    print(done.already, (pulled / name).read_bytes() == (folder / name).read_bytes())
except GrowthError as error:
    print(error.exit_code, error, "|", error.hint)
"""


def check_push_by_xet(hub: Hub, folder: Path, home: Path, **changes: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", PUSH, str(folder)],
        env=hub_environment(hub, home, xet=True) | changes,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert ALICE not in done.stdout + done.stderr
    return done.stdout.strip()


@pytest.mark.case("F-24")
@pytest.mark.xet
@pytest.mark.xdist_group("xet")
def test_a_push_by_xet_arrives_and_is_not_repeated(
    xet_hub: Hub, tmp_path: Path, grown: Path
) -> None:
    pytest.importorskip("hf_xet")
    assert check_push_by_xet(xet_hub, grown, tmp_path / "hf") == "False True"
    assert check_push_by_xet(xet_hub, grown, tmp_path / "hf") == "True True"
    assert len(xet_hub.commits("alice/x")) == 2
    assert not xet_hub.lines("objects/batch")


@pytest.mark.case("F-24")
@pytest.mark.xet
@pytest.mark.xdist_group("xet")
def test_a_hub_without_xet_names_the_way_around_it(hub: Hub, tmp_path: Path, grown: Path) -> None:
    pytest.importorskip("hf_xet")
    told = check_push_by_xet(hub, grown, tmp_path / "hf")
    assert told.startswith("5 pushing to alice/x: the Xet storage failed")
    assert "HF_HUB_DISABLE_XET=1" in told


@pytest.mark.xet
@pytest.mark.xdist_group("xet")
@pytest.mark.case("F-17", "F-24")
def test_a_lost_answer_to_a_commit_by_xet_makes_no_second_one(
    xet_hub: Hub, tmp_path: Path, grown: Path
) -> None:
    pytest.importorskip("hf_xet")
    fault = xet_hub.fault(r"POST .*/commit/", drop=True)
    assert check_push_by_xet(xet_hub, grown, tmp_path / "hf") == "False True"
    assert fault.num_hits == 1
    assert len(xet_hub.commits("alice/x")) == 2
    assert len(xet_hub.lines("/commit/")) == 1


@pytest.fixture
def silent_storage() -> Iterator[str]:
    """The address of a storage that takes every connection and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


@pytest.mark.case("F-24")
@pytest.mark.xet
@pytest.mark.xdist_group("xet")
@pytest.mark.parametrize(
    "is_there",
    [pytest.param(True, id="silent"), pytest.param(False, marks=pytest.mark.slow, id="gone")],
)
def test_a_xet_storage_that_does_not_answer_is_given_up(
    xet_hub: Hub, silent_storage: str, tmp_path: Path, grown: Path, is_there: bool
) -> None:
    pytest.importorskip("hf_xet")
    # Port 9 throws everything away, where anything listens at all.
    xet_hub.knobs.cas = silent_storage if is_there else "http://127.0.0.1:9"
    impatient = {"HF_XET_CLIENT_RETRY_MAX_ATTEMPTS": "1", "HF_XET_CLIENT_READ_TIMEOUT": "1s"}
    told = check_push_by_xet(xet_hub, grown, tmp_path / "hf", **impatient)
    assert told.startswith("5 pushing to alice/x: the Xet storage failed")
    assert "HF_HUB_DISABLE_XET=1" in told
    assert len(xet_hub.commits("alice/x")) == 1


def test_the_patience_with_a_xet_storage_is_bounded_unless_its_owner_says_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name = "HF_XET_CLIENT_RETRY_MAX_ATTEMPTS"
    monkeypatch.delenv(name, raising=False)
    _ = HubClient().api
    assert os.environ[name] == "3"
    monkeypatch.setenv(name, "9")
    _ = HubClient().api
    assert os.environ[name] == "9"


hf_xet = pytest.importorskip("hf_xet")


@pytest.mark.xet
@pytest.mark.xdist_group("xet")
@pytest.mark.parametrize("operator", ["stack", "interpolate"])
def test_a_stack_sends_the_share_of_bytes_that_the_base_has(
    operator: str, make_checkpoint: MakeCheckpoint, tmp_path: Path
) -> None:
    folder = make_checkpoint(
        "llama",
        dtype="bfloat16",
        traits=False,
        vocab_size=4096,
        hidden_size=384,
        intermediate_size=1024,
        num_hidden_layers=6,
        num_attention_heads=6,
        num_key_value_heads=2,
    )
    base = read(LocalFolder(folder))
    assert 20e6 < base.nbytes < 30e6
    grown = OPERATORS[operator](base, g=4)
    with staged(tmp_path / "grown") as staging:
        write(grown, lay_out(grown), staging)
    layers = non_embedding_parameters(base)
    embeddings = base.num_parameters - layers
    expected = (embeddings + layers) / (embeddings + 4 * layers)

    storage = tmp_path / "xet"
    storage.mkdir()
    commit = hf_xet.XetSession().new_upload_commit(endpoint=f"local://{storage}")
    commit.start_upload_file(str(tmp_path / "grown" / "model.safetensors"))
    metrics = commit.wait_to_finish().dedup_metrics

    assert metrics.total_bytes >= grown.nbytes
    assert metrics.new_bytes / metrics.total_bytes == pytest.approx(expected, abs=0.01)
