"""A file of the Hub is read by ranges, at the commit that was pinned.

Without the Hub: paths need no client, and offline the cache is enough.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hfgrow.errors import HubRefusedError, HubUnreachableError
from hfgrow.hub.client import HubClient
from hfgrow.hub.pull import RemoteFiles
from hfgrow.hub.resolve import resolve
from tests.hub_server import ALICE, Hub
from tests.hub_server.fixtures import hub_environment
from tests.hub_server.models import FILES, WEIGHTS
from tests.program import run_hfgrow

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


def run_python(code: str, environment: dict[str, str] | None = None) -> str:
    command = [sys.executable, "-W", "error", "-c", code]
    root = Path(__file__).parents[2]
    done = subprocess.run(
        command, env=environment, cwd=root, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_path_and_the_demo_load_no_hub_client() -> None:
    code = (
        "import sys; from hfgrow.hub.client import HubClient; from hfgrow.hub.resolve import "
        "resolve; c = HubClient('hf_xxxxxxxxxxxx'); resolve('demo', c); resolve('/', c); "
        "print('huggingface_hub' in sys.modules)"
    )
    assert run_python(code) == "False"


@pytest.mark.case("F-14", "G11")
def test_offline_mode_pins_from_the_cache_or_says_what_is_missing(hub: Hub, tmp_path: Path) -> None:
    hub.seed("bob/base", FILES)
    environment = hub_environment(hub, tmp_path / "hf")
    code = """
import sys
from hfgrow.errors import GrowthError
from hfgrow.hub.client import HubClient
from hfgrow.hub.resolve import resolve
from hfgrow.hub.pull import pull
client = HubClient()
for name in sys.argv[1:] or ["bob/base"]:
    try:
        ref = resolve(name, client)
        print(pull(ref, client).name == ref.revision, len(ref.notes))
    except GrowthError as error:
        print(error.exit_code, error)
"""
    assert run_python(code, environment) == "True 0"
    num_requests = len(hub.log)
    environment["HF_HUB_OFFLINE"] = "1"
    assert run_python(code, environment) == "True 1"
    (blob,) = (tmp_path / "hf").rglob("snapshots/*/model.safetensors")
    blob.unlink()
    assert run_python(code, environment).startswith("5 model.safetensors of bob/base")
    other = code.replace('["bob/base"]', '["bob/else", "bas", "zzzz"]')
    lines = run_python(other, environment).splitlines()
    assert lines[0].startswith("5 bob/else at main is not in the cache")
    assert "2 'bas' is neither" in lines[1]
    assert lines[1].endswith("known here: bob/base")
    assert lines[2].startswith("5 'zzzz'")
    stranger = other.replace("HubClient()", "HubClient(anonymous=True)")
    told = run_python(stranger, environment)
    assert all(line.startswith("5 ") for line in told.splitlines())
    assert "bob/base" not in told
    assert len(hub.log) == num_requests
    assert os.environ.get("HF_HUB_OFFLINE") is None


@pytest.mark.case("F-14")
@pytest.mark.parametrize("way", ["files", "snapshot"])
def test_a_model_of_which_only_the_weights_were_used_grows_offline(
    hub: Hub, tmp_path: Path, base: Path, way: str
) -> None:
    """What `from_pretrained` leaves in the cache: config and weights."""
    files = {path.name: path.read_bytes() for path in base.iterdir()}
    hub.seed("bob/whole", files | {"tokenizer.json": b"{}", "LICENSE": b"MIT"})
    environment = hub_environment(hub, tmp_path / "hf")
    wanted = ["config.json", "model.safetensors"]
    run_python(
        f"from huggingface_hub import hf_hub_download, snapshot_download\nfor name in {wanted}:\n"
        "  hf_hub_download('bob/whole', name)"
        if way == "files"
        else "from huggingface_hub import snapshot_download\n"
        f"snapshot_download('bob/whole', allow_patterns={wanted})",
        environment,
    )
    environment["HF_HUB_OFFLINE"] = "1"
    done = run_hfgrow("stack", "bob/whole", "--g", "2", "--out", tmp_path / "out", env=environment)
    assert done.returncode == 0, done.stderr
    assert "the cache holds no tokenizer" in done.stderr
    if way == "snapshot":
        assert "Note: LICENSE, generation_config.json, tokenizer.json of bob/whole" in done.stderr
    assert not (tmp_path / "out" / "tokenizer.json").exists()


@pytest.mark.case("F-14")
@pytest.mark.parametrize(
    ("held", "absent"),
    [
        ("config.json", "model.safetensors or model.safetensors.index.json"),
        ("model.safetensors", "config.json"),
    ],
)
def test_what_the_cache_lacks_is_not_said_to_be_missing_at_the_hub(
    hub: Hub, tmp_path: Path, base: Path, held: str, absent: str
) -> None:
    hub.seed("bob/whole", {path.name: path.read_bytes() for path in base.iterdir()})
    environment = hub_environment(hub, tmp_path / "hf")
    run_python(
        f"import huggingface_hub; huggingface_hub.hf_hub_download('bob/whole', {held!r})",
        environment,
    )
    environment["HF_HUB_OFFLINE"] = "1"
    done = run_hfgrow("stack", "bob/whole", "--g", "2", "--out", tmp_path / "out", env=environment)
    assert done.returncode == 5
    assert f"{absent} of bob/whole is not in the cache" in done.stderr
