"""A folder that a process writes is held: another one is refused, and nothing is left behind.

A folder for the time of one run goes with it, and what a killed run left goes with the next.
"""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hfgrow.checkpoint.locks import held, scratch_folder
from hfgrow.errors import OutputError

_HOLD = """
import sys, pathlib
from hfgrow.checkpoint.locks import held
with held(pathlib.Path(sys.argv[1]), hint=""):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_folder_that_another_process_holds_is_refused_until_that_one_is_gone(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "run"
    other = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert other.stdout is not None
    assert other.stdout.readline() == b"held\n"
    with pytest.raises(OutputError, match="another run is writing"), held(folder, hint="wait"):
        pass
    other.kill()
    other.communicate()
    with held(folder, hint="wait"):
        pass
    assert list(folder.iterdir()) == []


def test_a_file_cannot_be_held(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="is no folder"), held(tmp_path / "file", hint=""):
        pass


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot write"), held(tmp_path / "file/x", hint=""):
        pass


_HOLD_SCRATCH = """
import sys, pathlib
from hfgrow.checkpoint.locks import scratch_folder
with scratch_folder(pathlib.Path(sys.argv[1])) as folder:
    (folder / "deep").mkdir()
    (folder / "deep" / "file").touch()
    print(folder, flush=True)
    sys.stdin.read()
"""


def _holder(parent: Path) -> tuple["subprocess.Popen[str]", Path]:
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLD_SCRATCH, str(parent)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_scratch_folder_is_private_and_gone_after_an_error(tmp_path: Path) -> None:
    def check_it_is_private_and_fail() -> None:
        with scratch_folder(tmp_path / "new") as folder:
            (folder / "file").touch()
            assert folder.stat().st_mode & 0o777 == 0o700
            raise KeyError

    with pytest.raises(KeyError):
        check_it_is_private_and_fail()
    assert _names(tmp_path / "new") == []


@pytest.mark.case("E10", "E14")
def test_what_a_killed_run_left_is_swept_and_what_a_living_one_holds_is_not(tmp_path: Path) -> None:
    killed, left = _holder(tmp_path)
    living, held = _holder(tmp_path)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert (left / "deep" / "file").exists()
    with scratch_folder(tmp_path):
        assert not left.exists()
        assert (held / "deep" / "file").exists()
    living.communicate("")
    assert living.returncode == 0
    assert _names(tmp_path) == []


def test_nothing_else_is_swept(tmp_path: Path) -> None:
    name = ".hfgrow-scratch-0123456789abcdef"
    (tmp_path / "mine").mkdir()
    (tmp_path / f"{name}0").mkdir()
    (tmp_path / name).symlink_to("mine")
    before = _names(tmp_path)
    with scratch_folder(tmp_path):
        pass
    assert _names(tmp_path) == before


@pytest.mark.case("E8")
def test_a_scratch_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(OutputError, match="cannot write to") as caught,
        scratch_folder(tmp_path / "file"),
    ):
        pass
    assert "out=DIR" in caught.value.hint


def test_runs_that_begin_and_end_beside_each_other_do_not_stop_each_other(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib\n"
        "from hfgrow.checkpoint.locks import scratch_folder\n"
        "for _ in range(150):\n"
        "    with scratch_folder(pathlib.Path(sys.argv[1])) as folder:\n"
        "        (folder / 'file').touch()\n"
    )
    words = [sys.executable, "-c", code, str(tmp_path)]
    runs = [subprocess.Popen(words, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    said = [run.communicate()[1] for run in runs]
    assert [run.returncode for run in runs] == [0] * 4, said
    assert _names(tmp_path) == []


def test_a_pipe_that_is_called_like_one_is_left_alone(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / ".hfgrow-scratch-0123456789abcdef")
    with scratch_folder(tmp_path):
        pass
    assert len(_names(tmp_path)) == 1


def test_a_place_that_takes_no_files_is_told_with_its_reason() -> None:
    with (
        pytest.raises(OutputError, match="cannot write to /proc: ") as caught,
        scratch_folder(Path("/proc")),
    ):
        pass
    assert "could not be acquired" not in str(caught.value)


def test_a_scratch_folder_that_cannot_be_made_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, *arguments: int, **more: bool) -> None:
        if not path.exists():
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "mkdir", full)
    with pytest.raises(OutputError, match="No space left"), scratch_folder(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []
