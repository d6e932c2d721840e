"""Checkpoints of a run: whole or passed over (H1, H2), the newest kept."""

from pathlib import Path

import pytest
import torch

from hfgrow.console import Silent
from hfgrow.errors import TrainingError
from hfgrow.train.checkpoints import latest_checkpoint, save_checkpoint

TENSORS = {"model": {"weight": torch.arange(6.0).view(2, 3)}, "optimizer": {"m": torch.ones(2)}}


def saved(folder: Path, step: int, keep: int = 3) -> Path:
    return save_checkpoint(folder, step, TENSORS, {"step": step}, keep=keep)


def test_a_checkpoint_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    saved(tmp_path, 7)
    found = latest_checkpoint(tmp_path, Silent())
    assert found is not None
    assert found.state == {"step": 7}
    for name, tensors in TENSORS.items():
        again = found.tensors(name)
        assert all(torch.equal(again[key], tensors[key]) for key in tensors)


def test_the_newest_are_kept(tmp_path: Path) -> None:
    for step in (1, 2, 10):
        saved(tmp_path, step, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000002", "step-00000010"]


@pytest.mark.case("H1", "H2")
@pytest.mark.parametrize(
    "name", ["model.safetensors", "optimizer.safetensors", "state.json", "manifest.json"]
)
@pytest.mark.parametrize("damage", ["missing", "cut", "flipped"])
def test_a_damaged_checkpoint_is_passed_over(tmp_path: Path, name: str, damage: str) -> None:
    saved(tmp_path, 1)
    path = saved(tmp_path, 2) / name
    content = bytearray(path.read_bytes())
    if damage == "missing":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(content[:-3])
    else:
        content[len(content) // 2] ^= 0xFF
        path.write_bytes(content)
    found = latest_checkpoint(tmp_path, Silent())
    assert found is not None
    assert found.state == {"step": 1}


def test_without_checkpoints_there_is_none(tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path, Silent()) is None
    assert latest_checkpoint(tmp_path / "nowhere", Silent()) is None


def test_checkpoints_of_which_none_is_whole_are_refused(tmp_path: Path) -> None:
    for step in (1, 2):
        (saved(tmp_path, step) / "manifest.json").unlink()
    with pytest.raises(TrainingError, match=r"no checkpoint of .* whole: .*2 has no .*1 ha"):
        latest_checkpoint(tmp_path, Silent())


def test_a_checkpoint_that_the_file_system_does_not_give_is_not_passed_over(tmp_path: Path) -> None:
    saved(tmp_path, 1)
    manifest = saved(tmp_path, 2) / "manifest.json"
    manifest.unlink()
    manifest.symlink_to(manifest)
    with pytest.raises(TrainingError, match="step-00000002 cannot be read: Too many levels"):
        latest_checkpoint(tmp_path, Silent())


def test_checkpoints_that_were_passed_over_are_put_aside_for_the_new_one(tmp_path: Path) -> None:
    for step in (4, 6):
        (saved(tmp_path, step) / "manifest.json").unlink()
    saved(tmp_path, 4)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        ".damaged-step-00000004-1",
        ".damaged-step-00000006-1",
        "step-00000004",
    ]
