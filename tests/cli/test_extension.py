"""`hf grow ...` runs hfgrow, through what hf itself takes for an extension, without a network."""

import json
import subprocess
import sysconfig
from pathlib import Path

import pytest

from tests.program import Finished, call_hfgrow, environment

HF = Path(sysconfig.get_path("scripts")) / "hf"
EXTENSION = Path(".local/share/hf/extensions/hf-grow")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_DISABLE_UPDATE_CHECK", "1")
    return tmp_path


def hf(*words: str, home: Path) -> subprocess.CompletedProcess[str]:
    more = {"HOME": str(home), "HF_HUB_DISABLE_UPDATE_CHECK": "1"}
    command = [str(HF), *words]
    return subprocess.run(
        command, cwd=home, env=environment() | more, capture_output=True, text=True, timeout=120
    )


def extended(home: Path, *words: str) -> Finished:
    return call_hfgrow("extend-hf", *words, cwd=home)


def test_hf_grows_a_model(home: Path) -> None:
    done = extended(home)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{home / EXTENSION}\n"
    grown = hf("grow", "stack", "demo", "--g", "2", home=home)
    assert (grown.returncode, grown.stdout) == (0, "demo-stack-g2\n"), grown.stderr
    assert (home / "demo-stack-g2" / "model.safetensors").is_file()
    assert hf("grow", "stak", home=home).returncode == 2


def test_hf_removes_it_and_leaves_the_program(home: Path) -> None:
    extended(home)
    assert hf("extensions", "remove", "grow", home=home).returncode == 0
    assert not (home / EXTENSION).exists()
    assert (HF.parent / "hf-grow").is_file()


def test_it_can_be_entered_again(home: Path) -> None:
    assert extended(home).returncode == 0
    assert extended(home).returncode == 0


def test_an_extension_of_somebody_else_stays(home: Path) -> None:
    extended(home)
    manifest = home / EXTENSION / "manifest.json"
    theirs = json.loads(manifest.read_text()) | {"repo_id": "alice/hf-grow"}
    manifest.write_text(json.dumps(theirs))
    done = extended(home)
    assert done.returncode == 7
    assert done.stderr == (
        "Error: hf has an extension grow already, alice/hf-grow\nHint: add --overwrite\n"
    )
    assert json.loads(manifest.read_text()) == theirs
    assert extended(home, "--overwrite").returncode == 0
