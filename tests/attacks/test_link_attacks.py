"""Group B, links, pipes and devices in place of files."""

import os
import shutil
from pathlib import Path

import pytest

from tests.attacks.craft import check
from tests.attacks.refusal import assert_refused
from tests.attacks.test_index_attacks import INDEX, NORM, shard_of


@pytest.fixture
def folder(sharded_base: Path) -> Path:
    return sharded_base


@pytest.mark.case("B3")
def test_a_shard_may_not_be_a_link_out_of_the_folder(folder: Path) -> None:
    shard = shard_of(folder, NORM)
    outside = shutil.move(shard, folder.parent / "outside.safetensors")
    shard.symlink_to(outside)
    assert_refused(folder, shard.name, "symbolic link")


@pytest.mark.case("B3")
def test_a_config_may_not_be_a_link_out_of_the_folder(folder: Path) -> None:
    outside = shutil.move(folder / "config.json", folder.parent / "config.json")
    (folder / "config.json").symlink_to(outside)
    assert_refused(folder, "config.json", "symbolic link")


@pytest.mark.case("B3")
def test_a_chain_of_links_out_of_the_folder_is_refused(folder: Path) -> None:
    shard = shard_of(folder, NORM)
    outside = shutil.move(shard, folder.parent / "outside.safetensors")
    (folder / "between.safetensors").symlink_to(outside)
    shard.symlink_to("between.safetensors")
    assert_refused(folder, shard.name, "symbolic link")


@pytest.mark.case("B3")
def test_the_links_of_the_hub_cache_are_followed(base: Path, tmp_path: Path) -> None:
    """B3: `snapshots/SHA/NAME` links to `../../blobs/HASH`."""
    repo = tmp_path / "models--a--b"
    snapshot = repo / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (repo / "blobs").mkdir()
    for i, path in enumerate(sorted(base.iterdir())):
        shutil.move(path, repo / "blobs" / f"{i:064}")
        (snapshot / path.name).symlink_to(f"../../blobs/{i:064}")
    check(snapshot)


@pytest.mark.case("B3")
def test_blobs_beside_an_ordinary_folder_are_no_cache(base: Path, tmp_path: Path) -> None:
    """B3: only `snapshots/SHA` may link into `blobs`."""
    (tmp_path / "blobs").mkdir()
    folder = Path(shutil.copytree(base, tmp_path / "other" / "model"))
    shutil.move(folder / "config.json", tmp_path / "blobs" / "x")
    (folder / "config.json").symlink_to("../../blobs/x")
    assert_refused(folder, "config.json", "symbolic link")


@pytest.mark.case("B4")
def test_a_shard_that_is_a_fifo_is_refused_without_waiting(folder: Path) -> None:
    shard = shard_of(folder, NORM)
    shard.unlink()
    os.mkfifo(shard)
    assert_refused(folder, shard.name, "not a regular file")


@pytest.mark.case("B4")
def test_a_shard_that_is_a_folder_is_refused(folder: Path) -> None:
    shard = shard_of(folder, NORM)
    shard.unlink()
    shard.mkdir()
    assert_refused(folder, shard.name, "not a regular file")


@pytest.mark.case("B4")
@pytest.mark.parametrize("device", ["/dev/zero", "/dev/null", "/dev/stdin"], ids="B4-{}".format)
def test_a_shard_that_is_a_device_is_refused(folder: Path, device: str) -> None:
    shard = shard_of(folder, NORM)
    shard.unlink()
    shard.symlink_to(device)
    assert_refused(folder, shard.name)


@pytest.mark.case("B4")
@pytest.mark.parametrize("name", ["config.json", INDEX], ids="B4-{}".format)
def test_a_json_file_that_is_a_fifo_is_refused_without_waiting(folder: Path, name: str) -> None:
    (folder / name).unlink()
    os.mkfifo(folder / name)
    assert_refused(folder, name, "not a regular file")
