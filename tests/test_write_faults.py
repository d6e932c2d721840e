"""Full disks, read-only folders and limits: exit 7, nothing left, the old output intact."""

import errno
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from hfgrow.checkpoint.header import build_header
from hfgrow.checkpoint.staging import replace_text
from hfgrow.plan.families import FAMILIES
from tests.checkpoints import SIZES
from tests.program import Finished, run_hfgrow


def test_a_text_that_cannot_be_written_leaves_the_old_one_and_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "README.md").write_text("old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        replace_text(tmp_path / "README.md", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]
    assert (tmp_path / "README.md").read_text() == "old"


def test_a_text_is_written_beside_others_that_are_being_written(tmp_path: Path) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    alive = tmp_path / f".README.md.{os.getppid()}.hfgrow-new"
    for path in (alive, tmp_path / f".README.md.{gone.pid}.hfgrow-new"):
        path.write_text("half")
    replace_text(tmp_path / "README.md", "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == [alive.name, "README.md"]


def stack(base: Path, out: Path, *more: str, file_nbytes: int | None = None) -> Finished:
    return run_hfgrow("stack", base, "--g", "2", "--out", out, *more, file_nbytes=file_nbytes)


def assert_failed_cleanly(finished: Finished, folder: Path, *left: str) -> None:
    assert finished.returncode == 7, finished.stderr
    assert finished.stderr.count("Error: ") == 1
    assert "Traceback" not in finished.stderr
    assert sorted(path.name for path in folder.iterdir()) == sorted(left)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.case("E2")
@pytest.mark.parametrize("file_nbytes", [0, 4096, 150_000])
def test_a_file_that_cannot_grow_leaves_nothing(
    base: Path, tmp_path: Path, file_nbytes: int
) -> None:
    """E2: RLIMIT_FSIZE, at the header and in the middle of the weights."""
    finished = stack(base, tmp_path / "out", file_nbytes=file_nbytes)
    assert_failed_cleanly(finished, tmp_path, "base")
    assert "EFBIG" in finished.stderr


@pytest.mark.case("E3")
def test_every_file_may_be_the_one_that_does_not_fit(base: Path, tmp_path: Path) -> None:
    """E3: with a shard for each tensor, the limit is met by weights, index, lineage and card."""
    whole = tmp_path / "all"
    tiny_shards = ("--max-shard-size", "1")
    assert stack(base, whole, *tiny_shards).returncode == 0
    sizes = sorted({len(raw) for name, raw in content(whole).items()}, reverse=True)
    largest = {name for name, raw in content(whole).items() if len(raw) >= sizes[2]}
    assert not all(name.endswith(".safetensors") for name in largest)
    for size in sizes[:3]:
        finished = stack(base, tmp_path / "out", *tiny_shards, file_nbytes=size - 1)
        assert_failed_cleanly(finished, tmp_path, "all", "base")


@pytest.mark.case("E7")
def test_overwriting_keeps_the_old_output_when_the_new_one_fails(
    base: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert stack(base, out).returncode == 0
    before = content(out)
    finished = stack(base, out, "--overwrite", file_nbytes=50_000)
    assert_failed_cleanly(finished, tmp_path, "base", "out")
    assert content(out) == before


@pytest.mark.case("E6")
def test_an_output_that_exists_is_kept_without_overwrite(base: Path, tmp_path: Path) -> None:
    """E6 and promise 4."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("mine")
    finished = stack(base, tmp_path / "out")
    assert_failed_cleanly(finished, tmp_path, "base", "out")
    assert "--overwrite" in finished.stderr
    assert content(tmp_path / "out") == {"mine": b"mine"}


@pytest.mark.case("D10", "E5")
def test_a_disk_that_is_too_small_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    """E5 and D10: a sparse base whose growth needs more than the disk has free."""
    base = tmp_path / "base"
    base.mkdir()
    free = shutil.disk_usage(tmp_path).free
    ffn = free // (3 * 4 * 32 * 4)
    config = {**SIZES, "model_type": "llama", "intermediate_size": ffn}
    (base / "config.json").write_text(json.dumps(config))
    shapes = FAMILIES["llama"].shapes(config, tied=False)
    header = build_header([(name, "F32", shape) for name, shape in shapes.items()], metadata={})
    numbers = sum(shape[0] * (shape[1] if len(shape) == 2 else 1) for shape in shapes.values())
    try:
        with (base / "model.safetensors").open("wb") as file:
            file.write(header)
            file.truncate(len(header) + 4 * numbers)
    except OSError:
        pytest.skip("the file system has no sparse files of that size")
    words = ("stack", base, "--g", "4", "--out", tmp_path / "out")
    finished = run_hfgrow(*words, timeout=20)
    assert_failed_cleanly(finished, tmp_path, "base")
    assert "GB free" in finished.stderr
    foreseen = run_hfgrow(*words, "--dry-run", timeout=20)
    assert foreseen.returncode == 0
    assert "would stop here" in foreseen.stderr


@pytest.mark.case("E8")
def test_a_parent_that_belongs_to_somebody_else_is_refused(base: Path, tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere; the read-only file system covers it")
    (tmp_path / "locked").mkdir(mode=0o500)
    assert stack(base, tmp_path / "locked" / "out").returncode == 7
