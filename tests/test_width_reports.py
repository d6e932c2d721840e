"""What a growth in width says of itself: widths, no layers, the same function."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.checkpoints import MakeCheckpoint
from tests.program import call_hfgrow

CHANGED = "hidden_size 32 -> 48, intermediate_size 48 -> 72"
WORDS = ("hyperclone-noisy", "base", "--hidden-size", "48", "--ffn", "72")


@pytest.fixture(scope="module")
def place(make_checkpoint: MakeCheckpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("width")
    shutil.copytree(make_checkpoint("qwen3", tied=True), folder / "base")
    return folder


@pytest.fixture(scope="module")
def grown(place: Path) -> tuple[Path, str]:
    """The grown folder, and what its growth said."""
    finished = call_hfgrow(*WORDS, "--untie", "--verify", cwd=place)
    assert finished.returncode == 0, finished.stderr
    return place / finished.stdout.strip(), finished.stderr


def test_a_dry_run_tells_widths_and_no_layers(place: Path) -> None:
    text = call_hfgrow(*WORDS, "--dry-run", cwd=place).stdout
    assert f"width           {CHANGED}" in text
    assert "layers" not in text
    finished = call_hfgrow(*WORDS, "--dry-run", "--json", cwd=place)
    document: dict[str, Any] = json.loads(finished.stdout)
    assert document["widths"] == {
        "hidden_size": {"base": 32, "grown": 48},
        "intermediate_size": {"base": 48, "grown": 72},
    }
    assert document["preserves_function"] is True


def test_the_end_of_a_growth_tells_widths_and_no_layers(grown: tuple[Path, str]) -> None:
    folder, said = grown
    assert folder.name == "base-untie-hyperclone-noisy-hs48-f72"
    lines = [line for line in said.splitlines() if not line.startswith(("Note", "Measuring"))]
    assert lines[0].startswith("Grew ")
    assert " parameters into " in lines[0]
    assert f"  width     {CHANGED}" in lines
    assert "layers" not in said
    assert len(lines) <= 10


def test_the_chain_tells_widths(grown: tuple[Path, str]) -> None:
    lines = call_hfgrow("lineage", grown[0]).stdout.splitlines()
    assert f"      | {CHANGED}" in lines
    assert any("hfgrow apply steps.yaml base  # steps.yaml: " in line for line in lines)


@pytest.mark.parametrize("command", ["verify", "reproduce"])
def test_a_growth_in_width_is_proved(place: Path, grown: tuple[Path, str], command: str) -> None:
    finished = call_hfgrow(command, grown[0], cwd=place)
    assert finished.returncode == 0, finished.stderr


def test_no_picture_of_layers_is_made(grown: tuple[Path, str]) -> None:
    assert not (grown[0] / "layers.svg").exists()
    assert "layers.svg" not in (grown[0] / "README.md").read_text()


def test_a_growth_in_depth_of_a_wider_model_is_told_and_proved(
    place: Path, grown: tuple[Path, str]
) -> None:
    out = place / "deeper"
    finished = call_hfgrow("stack", grown[0], "--g", "2", "--branch-scale", "1", "--out", out)
    assert finished.returncode == 0, finished.stderr
    for command in ("verify", "reproduce"):
        again = call_hfgrow(command, out, cwd=place)
        assert again.returncode == 0, again.stderr
    assert "grown from 4 to 8 layers by" in (out / "README.md").read_text()
    shutil.rmtree(out)
