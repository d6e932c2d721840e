"""Single files copied in every way, and closed where a server refuses at the end."""

import errno
import os
from pathlib import Path

import pytest

from hfgrow.checkpoint import output
from hfgrow.checkpoint.header import BLOCK_NBYTES
from hfgrow.checkpoint.output import OutputFile
from hfgrow.errors import ModelError
from tests.checkpoint.ways import CONTENT, WAYS, Way


@pytest.mark.parametrize("nbytes", [0, 700, BLOCK_NBYTES, len(CONTENT)])
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_a_file_is_copied_in_every_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: Way, nbytes: int
) -> None:
    monkeypatch.setattr(output, "_READ_NBYTES", 4 * BLOCK_NBYTES)
    (tmp_path / "base").write_bytes(CONTENT[:nbytes])
    told: list[int] = []
    way(monkeypatch)
    output.copy_file(tmp_path / "base", tmp_path / "copy", told.append)
    assert (tmp_path / "copy").read_bytes() == CONTENT[:nbytes]
    assert sum(told) == nbytes


@pytest.mark.case("A25")
@pytest.mark.parametrize("how", ["edited", "truncated"])
def test_a_file_that_changes_while_it_is_copied_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(output, "_READ_NBYTES", 4 * BLOCK_NBYTES)
    (tmp_path / "base").write_bytes(CONTENT)

    def change(nbytes: int) -> None:
        if how == "truncated":
            os.truncate(tmp_path / "base", 5 * BLOCK_NBYTES)
        os.utime(tmp_path / "base", ns=(1, 1))

    with pytest.raises(ModelError, match=r"base changed while it was read$"):
        output.copy_file(tmp_path / "base", tmp_path / "copy", change)


def test_a_server_that_refuses_when_a_file_is_closed_leaves_no_descriptor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    close = os.close

    def refuse(descriptor: int) -> None:
        close(descriptor)
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    monkeypatch.setattr(os, "close", refuse)
    before = len(os.listdir("/proc/self/fd"))
    file = OutputFile(tmp_path / "file", 1)
    with pytest.raises(OSError, match=os.strerror(errno.EDQUOT)):
        file.close()
    assert len(os.listdir("/proc/self/fd")) == before
