"""Without the Hub: paths need no client, and offline the cache is enough."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.hub import Hub
from tests.hub.fixtures import hub_environment
from tests.hub.models import FILES

pytestmark = pytest.mark.usefixtures("home")


def run_python(code: str, environment: dict[str, str] | None = None) -> str:
    command = [sys.executable, "-W", "error", "-c", code]
    root = Path(__file__).parent.parent
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


@pytest.mark.case("F-14")
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
    assert len(hub.log) == num_requests
    assert os.environ.get("HF_HUB_OFFLINE") is None
