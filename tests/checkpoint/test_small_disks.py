"""Outputs, bases and caches on file systems of their own: full, without inodes, read-only."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from hfgrow.checkpoint.files import LocalFolder
from hfgrow.checkpoint.layout import lay_out
from hfgrow.checkpoint.read import read
from hfgrow.checkpoint.staging import staged
from hfgrow.checkpoint.write import write, write_texts
from hfgrow.errors import OutputError
from hfgrow.plan.operators.stacking import stack as stack_of
from tests.checkpoint.test_write import check_failed_cleanly, run_stack
from tests.hub_server import ALICE, Hub
from tests.hub_server.fixtures import hub_environment
from tests.program import run_hfgrow


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Path]:
    """A folder where small file systems can be mounted; unmounted at the end."""
    folder = tmp_path / "mounted"
    folder.mkdir()
    yield folder
    subprocess.run(["umount", folder], capture_output=True, check=False)


def mount_tmpfs(folder: Path, options: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root may mount")
    command = ["mount", "-t", "tmpfs", "-o", options, "none", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("this machine does not let us mount")


@pytest.mark.case("E4")
def test_a_disk_without_inodes_leaves_nothing(base: Path, mount: Path) -> None:
    mount_tmpfs(mount, "size=200m,nr_inodes=7")
    check_failed_cleanly(run_stack(base, mount / "out"), mount)


@pytest.mark.case("E1")
def test_a_disk_that_fills_up_meanwhile_leaves_nothing(base: Path, mount: Path) -> None:
    """E1: the space goes away after the check, while the first layers are written."""
    mount_tmpfs(mount, "size=70m")
    plan = stack_of(read(LocalFolder(base)), g=3)

    def fill_up(nbytes: int) -> None:
        with suppress(OSError), (mount / "filler").open("ab", buffering=0) as filler:
            while True:
                filler.write(bytes(1 << 16))

    with pytest.raises(OutputError, match="ENOSPC"), staged(mount / "out") as staging:
        write(plan, lay_out(plan), staging, advance=fill_up)
    assert [path.name for path in mount.iterdir()] == ["filler"]


@pytest.mark.case("E1", "E3")
def test_the_disk_may_be_full_at_any_file(base: Path, mount: Path) -> None:
    """The weights are written, and then there is room for none, one, two, ... of the others."""
    mount_tmpfs(mount, "size=70m")
    (base / "tokenizer.json").write_text("{}")
    plan = stack_of(read(LocalFolder(base)), g=2)
    texts = {"hfgrow.json": "{}", "README.md": "# x", "layers.svg": "<svg/>"}
    out, filler, failed = mount / "out", mount / "filler", 0
    for num_pages in range(100):
        left = plan.nbytes

        def advance(nbytes: int, num_pages: int = num_pages) -> None:
            nonlocal left
            left -= nbytes
            if left == 0:
                fill(filler, num_pages)

        try:
            with staged(out) as staging:
                write(plan, lay_out(plan, 60_000), staging, advance=advance)
                write_texts(staging, texts)
            break
        except OutputError as error:
            assert "ENOSPC" in str(error)  # noqa: PT017 - the loop ends with a run that succeeds
            failed += 1
        assert [path.name for path in mount.iterdir()] == ["filler"]
        filler.unlink()
    # Config, index, two side files and three texts: each was the one that did not fit.
    assert failed >= 7
    assert {"config.json", "tokenizer.json", *texts} <= {path.name for path in out.iterdir()}


def fill(filler: Path, num_pages: int) -> None:
    """Fill a disk but for some pages."""
    with filler.open("wb", buffering=0) as file:
        with suppress(OSError):
            while True:
                file.write(bytes(1 << 16))
        file.truncate(max(0, file.tell() - (num_pages << 12)))


@pytest.mark.case("E8")
def test_a_read_only_file_system_is_refused(base: Path, mount: Path) -> None:
    mount_tmpfs(mount, "ro,size=200m")
    finished = run_stack(base, mount / "out")
    check_failed_cleanly(finished, mount)
    assert "EROFS" in finished.stderr


@pytest.mark.case("E9", "E20")
def test_a_read_only_base_can_be_grown(base: Path, mount: Path, tmp_path: Path) -> None:
    """E9 and E20: from another, read-only file system."""
    mount_tmpfs(mount, "size=10m")
    shutil.copytree(base, mount / "base")
    subprocess.run(["mount", "-o", "remount,ro", mount], check=True)
    assert run_stack(mount / "base", tmp_path / "out").returncode == 0


@pytest.mark.case("E9")
@pytest.mark.parametrize(
    "is_offline",
    [pytest.param(False, marks=pytest.mark.slow, id="online"), pytest.param(True, id="offline")],
)
def test_a_read_only_cache_is_read_from(
    hub: Hub, base: Path, mount: Path, tmp_path: Path, is_offline: bool
) -> None:
    hub.seed("alice/tiny", {path.name: path for path in base.iterdir()})
    mount_tmpfs(mount, "size=20m")
    env = hub_environment(hub, mount / "hf", token=ALICE) | {"HF_HUB_OFFLINE": "0"}
    assert run_hfgrow("pull", "alice/tiny", env=env).returncode == 0
    subprocess.run(["mount", "-o", "remount,ro", mount], check=True)
    env["HF_HUB_OFFLINE"] = str(int(is_offline))
    out = tmp_path / "out"
    finished = run_hfgrow("stack", "alice/tiny", "--g", "2", "--out", out, env=env)
    assert finished.returncode == 0, finished.stderr
    assert (out / "model.safetensors").is_file()


@pytest.mark.case("E9")
def test_a_read_only_cache_that_lacks_the_model_is_told(
    hub: Hub, base: Path, mount: Path, tmp_path: Path
) -> None:
    hub.seed("alice/tiny", {path.name: path for path in base.iterdir()})
    mount_tmpfs(mount, "ro,size=20m")
    env = hub_environment(hub, mount / "hf", token=ALICE) | {"HF_HUB_OFFLINE": "0"}
    finished = run_hfgrow("stack", "alice/tiny", "--g", "2", "--out", tmp_path / "out", env=env)
    assert finished.returncode == 7, finished.stderr
    assert "cannot write to the cache: Read-only file system" in finished.stderr
    assert not (tmp_path / "out").exists()
