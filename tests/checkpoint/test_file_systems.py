"""Growths on file systems of every kind, made in files and mounted; skipped where nobody may."""

import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from hfgrow.checkpoint.files import LocalFolder
from hfgrow.checkpoint.layout import lay_out
from hfgrow.checkpoint.output import shares_blocks
from hfgrow.checkpoint.read import read
from hfgrow.checkpoint.staging import staged
from hfgrow.checkpoint.write import Written, write
from hfgrow.errors import OutputError
from hfgrow.growth.steps import Steps, planned
from tests.checkpoint.ways import is_direct

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Kind:
    """A file system: how it is made, and what it can."""

    make: tuple[str, ...] = ()
    sector_nbytes: int = 512
    is_direct: bool = True
    shares_blocks: bool = False
    is_overlay: bool = False


KINDS = {
    "ext4": Kind(("mkfs.ext4", "-q", "-m", "0")),
    "ext4 on sectors of 4096": Kind(
        ("mkfs.ext4", "-q", "-m", "0", "-b", "4096"), sector_nbytes=4096
    ),
    "xfs": Kind(("mkfs.xfs", "-q", "-m", "reflink=0")),
    "xfs with reflink": Kind(("mkfs.xfs", "-q", "-m", "reflink=1"), shares_blocks=True),
    "btrfs": Kind(("mkfs.btrfs", "-q"), shares_blocks=True),
    "tmpfs": Kind(is_direct=False),
    "overlay on ext4": Kind(("mkfs.ext4", "-q", "-m", "0"), is_overlay=True),
    "overlay on tmpfs": Kind(is_overlay=True),
}
STEPS: dict[str, Steps] = {
    "stack": [("stack", {"g": 3})],
    "hyperclone": [("hyperclone", {"g": 2})],
    "zero-width": [("zero-width", {"hidden_size": 48})],
}


def run(undo: ExitStack, command: list[str | Path], *undoing: str | Path) -> str:
    """Run a command, or skip the test if this machine does not let us; undo it at the end."""
    if shutil.which(command[0]) is None:
        pytest.skip(f"there is no {command[0]}")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"this machine does not let us: {done.stderr.strip()}")
    if undoing:
        undo.callback(subprocess.run, undoing, capture_output=True, check=True)
    return done.stdout.strip()


def mount_overlay(undo: ExitStack, folder: Path, place: Path) -> None:
    for name in ("lower", "upper", "work"):
        (folder / name).mkdir()
    options = ",".join(f"{name}dir={folder / name}" for name in ("lower", "upper", "work"))
    run(undo, ["mount", "-t", "overlay", "-o", options, "none", place], "umount", place)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    return KINDS[request.param]


@pytest.fixture
def mount(kind: Kind, tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("only root may mount")
    place = tmp_path / "mounted"
    place.mkdir()
    # Never the disk of this machine itself: a test fills it.
    folder = tmp_path / "under" if kind.is_overlay else place
    folder.mkdir(exist_ok=True)
    with ExitStack() as undo:
        if not kind.make:
            run(undo, ["mount", "-t", "tmpfs", "-o", "size=99m", "none", folder], "umount", folder)
        else:
            image = tmp_path / "image"
            with image.open("wb") as file:
                file.truncate(320 << 20)
            run(undo, [*kind.make, image])
            size = ["--sector-size", str(kind.sector_nbytes)]
            device = run(undo, ["losetup", "--find", "--show", *size, image])
            undo.callback(subprocess.run, ["losetup", "-d", device], check=True)
            run(undo, ["mount", device, folder], "umount", folder)
        if kind.is_overlay:
            mount_overlay(undo, folder, place)
        yield place


def grown(base: Path, out: Path, steps: Steps) -> Written:
    plan = planned(read(LocalFolder(base)), steps, None)
    with staged(out) as staging:
        return write(plan, lay_out(plan), staging, hashes=True)


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


@pytest.mark.parametrize("name", STEPS)
def test_a_growth_has_the_same_bytes_on_every_file_system(
    base: Path, mount: Path, tmp_path: Path, kind: Kind, name: str
) -> None:
    shutil.copytree(base, mount / "base")
    expected = grown(base, tmp_path / "out", STEPS[name])
    written = grown(mount / "base", mount / "out", STEPS[name])
    assert digests(mount / "out") == digests(tmp_path / "out")
    found = digests(mount / "out")["model.safetensors"]
    assert written.sha256 == expected.sha256 == {"model.safetensors": found}


def test_a_file_system_is_written_in_the_way_that_is_its_own(
    base: Path, mount: Path, kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    pwrite, direct = os.pwrite, set()

    def watch(descriptor: int, content: bytes, offset: int) -> int:
        direct.add(is_direct(descriptor))
        return pwrite(descriptor, content, offset)

    monkeypatch.setattr(os, "pwrite", watch)
    shutil.copytree(base, mount / "base")
    written = grown(mount / "base", mount / "out", STEPS["stack"])
    nbytes = (mount / "out" / "model.safetensors").stat().st_size
    assert (nbytes > written.cloned_nbytes > 0) == kind.shares_blocks
    assert shares_blocks(mount / "base", mount) == kind.shares_blocks
    if not kind.shares_blocks:
        assert direct == {kind.is_direct, False}


@pytest.mark.case("E1")
def test_a_disk_may_be_full_at_any_byte(base: Path, mount: Path) -> None:
    """E1: with room for none, one, two, ... steps of 16 blocks of the output."""
    if shutil.disk_usage(mount).free > 1 << 30:
        pytest.skip("it would fill a disk that is not ours")
    filler = mount / "filler"
    fill(filler)
    before, failed = sorted(path.name for path in mount.iterdir()), 0
    for _ in range(100):
        try:
            grown(base, mount / "out", STEPS["stack"])
            break
        except OutputError as error:
            assert "ENOSPC" in str(error)  # noqa: PT017 - the loop ends with a run that succeeds
            failed += 1
        assert sorted(path.name for path in mount.iterdir()) == before
        os.truncate(filler, max(0, filler.stat().st_size - (16 << 12)))
        subprocess.run(["sync", "-f", mount], check=True)
    assert failed
    assert (mount / "out" / "model.safetensors").is_file()


def fill(filler: Path) -> None:
    """Fill a disk."""
    with filler.open("wb", buffering=0) as file:
        for nbytes in (1 << 20, 1 << 12):
            with suppress(OSError):
                while True:
                    file.write(bytes(nbytes))
        os.fsync(file.fileno())
