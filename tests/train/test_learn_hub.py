"""A learned model on the Hub: pushed with its maps, made again from them on another machine."""

from pathlib import Path

import pytest

from tests.hub import Hub
from tests.hub.machine import Machine
from tests.train.corpora import write_stories

TARGET = "alice/learned"


@pytest.mark.slow
def test_a_learned_model_is_made_again_from_what_was_pushed(tmp_path: Path) -> None:
    text = write_stories(tmp_path / "stories.txt", 40)
    words = ("demo", "--layers", "8", "--data", str(text), "--steps", "1", "--lr", "0.001")
    size = ("--batch-tokens", "64", "--sequence-length", "32")
    with Hub() as hub:
        one = Machine(hub, tmp_path / "one")
        finished = one.hfgrow("learn", *words, *size, "--out", "g", "--push", "--repo", TARGET)
        assert finished.returncode == 0, finished.stderr
        (maps,) = (one.cwd / "g").glob("learned_maps-*.safetensors")
        other = Machine(hub, tmp_path / "other")
        finished = other.hfgrow("reproduce", TARGET)
        assert finished.returncode == 0, finished.stderr
        assert "equal" in finished.stdout
        assert other.left_behind() == []
        finished = other.hfgrow("pull", TARGET)
        assert finished.returncode == 0, finished.stderr
        assert (Path(finished.stdout.strip()) / maps.name).read_bytes() == maps.read_bytes()
