"""A folder that a process writes is held: another one is refused, and nothing is left behind."""

import subprocess
import sys
from pathlib import Path

import pytest

from hfgrow.checkpoint.locks import held
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
