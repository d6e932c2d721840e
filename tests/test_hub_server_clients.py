"""Programs that talk to the test hub: hf with and without xet, transformers, and its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import HfApi

from tests.hub import ALICE, BOB, Hub
from tests.hub.fixtures import hub_environment
from tests.hub.plain_client import CARD, WEIGHTS, api, pull, sha256

Run = Callable[..., str]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Return a function that runs a command of this environment against a hub."""

    def run_command(hub: Hub, *command: str, token: str = ALICE, xet: bool = False) -> str:
        environment = hub_environment(hub, tmp_path / "home", token, xet=xet)
        done = subprocess.run(
            [str(Path(sys.executable).with_name(command[0])), *command[1:]],
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run_command


def test_hf_uploads_and_downloads(hub: Hub, run: Run, tmp_path: Path) -> None:
    """The command-line client, with LFS."""
    (tmp_path / "model.safetensors").write_bytes(WEIGHTS)
    run(hub, "hf", "upload", "alice/model", str(tmp_path / "model.safetensors"))
    run(hub, "hf", "download", "alice/model", "--local-dir", str(tmp_path / "down"), token=BOB)
    assert sha256(tmp_path / "down" / "model.safetensors") == sha256(WEIGHTS)


@pytest.mark.xet
@pytest.mark.xdist_group("xet")
def test_xet_uploads_become_plain_files(xet_hub: Hub, run: Run, tmp_path: Path) -> None:
    """Two uploads by the default client: one file, then a folder with a second one."""
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(WEIGHTS)
    (folder / "README.md").write_bytes(CARD)
    run(xet_hub, "hf", "upload", "alice/model", str(folder), xet=True)
    (folder / "second.safetensors").write_bytes(WEIGHTS[::-1])
    run(xet_hub, "hf", "upload", "alice/model", str(folder), xet=True)
    folder = pull(xet_hub, tmp_path)
    assert sha256(folder / "model.safetensors") == sha256(WEIGHTS)
    assert sha256(folder / "second.safetensors") == sha256(WEIGHTS[::-1])
    assert (folder / "README.md").read_bytes() == CARD
    assert xet_hub.lines("PUT /lfs/") == []
    assert xet_hub.lines("/xet-write-token/")


FROM_PRETRAINED = """
import sys, torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM
sizes = dict(hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
             num_key_value_heads=2, vocab_size=32)
model = LlamaForCausalLM(LlamaConfig(**sizes))
model.push_to_hub("alice/tiny")
again = AutoModelForCausalLM.from_pretrained("alice/tiny")
ids = torch.arange(8)[None]
assert torch.equal(model(ids).logits, again(ids).logits)
"""


def test_transformers_pushes_and_loads_a_model(hub: Hub, run: Run) -> None:
    """A tiny random Llama makes the round trip with equal logits."""
    run(hub, "python", "-c", FROM_PRETRAINED)
    facts = api(hub).model_info("alice/tiny")
    assert facts.safetensors is not None
    assert facts.safetensors.total == 32 * 16 * 2 + 2 * (4 * 16 * 16 + 3 * 16 * 32 + 2 * 16) + 16
    assert facts.config == {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}


def test_python_m_serves_until_terminated(tmp_path: Path) -> None:
    """The first line on stdout is the address; SIGTERM ends it well."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.hub", "--port", "0", "--folder", str(tmp_path)],
        cwd=Path(__file__).parents[1],
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        assert server.stdout is not None
        client = HfApi(endpoint=server.stdout.readline().strip(), token=ALICE)
        try:
            assert client.whoami()["name"] == "alice"
        finally:
            server.terminate()
    assert server.returncode == 0
