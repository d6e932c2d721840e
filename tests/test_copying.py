"""Copying ranges between files, by every way there is."""

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hfgrow.checkpoint.write import Copier
from hfgrow.errors import ModelError

CONTENT = random.Random(1).randbytes(40_000)
WAYS = {"clone": (True, True), "copy_file_range": (False, True), "pread": (False, False)}


@pytest.fixture(params=WAYS)
def copier(request: pytest.FixtureRequest) -> Copier:
    made = Copier(lambda nbytes: None)
    made._can_clone, made._can_copy = WAYS[request.param]
    return made


@pytest.fixture
def source(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "source").write_bytes(CONTENT)
    descriptor = os.open(tmp_path / "source", os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


@pytest.fixture
def target(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path / "target", os.O_RDWR | os.O_CREAT)
    yield descriptor
    os.close(descriptor)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    start=st.integers(0, 20_000),
    shift=st.integers(-5, 5) | st.sampled_from([-4096, 4096, 8192]),
    nbytes=st.integers(0, 20_000),
)
def test_a_range_arrives_whole_and_nothing_else_changes(
    copier: Copier, source: int, target: int, start: int, shift: int, nbytes: int
) -> None:
    at = max(start + shift, 0)
    os.ftruncate(target, 0)
    os.ftruncate(target, at + nbytes + 10)
    copier.copy(source, target, start, at, nbytes)
    found = os.pread(target, at + nbytes + 10, 0)
    assert found == bytes(at) + CONTENT[start : start + nbytes] + bytes(10)


def test_every_byte_is_counted_once(copier: Copier, source: int, target: int) -> None:
    counted: list[int] = []
    copier._advance = counted.append
    copier.copy(source, target, 100, 100, 30_000)
    assert sum(counted) == 30_000 == copier.cloned_nbytes + copier.copied_nbytes


def test_a_source_that_ends_early_was_changed(copier: Copier, source: int, target: int) -> None:
    with pytest.raises(ModelError, match="changed while it was read"):
        copier.copy(source, target, 30_000, 30_000, 20_000)


def test_a_way_that_failed_is_not_tried_again(tmp_path: Path, source: int, target: int) -> None:
    copier = Copier(lambda nbytes: None)
    copier.copy(source, target, 0, 0, 40_000)
    if copier.cloned_nbytes == 0:
        assert not copier._can_clone
    else:
        assert copier.cloned_nbytes == 36_864


@pytest.mark.case("E20")
@pytest.mark.skipif(not os.path.isdir("/dev/shm"), reason="there is no second file system")
def test_a_range_is_copied_to_another_file_system(copier: Copier, source: int) -> None:
    path = f"/dev/shm/hfgrow-test-{os.getpid()}"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
    try:
        copier.copy(source, descriptor, 4096, 4096, 20_000)
        assert os.pread(descriptor, 20_000, 4096) == CONTENT[4096:24_096]
    finally:
        os.close(descriptor)
        os.unlink(path)


def test_an_error_of_the_target_is_not_taken_for_a_missing_way(
    copier: Copier, source: int, tmp_path: Path
) -> None:
    (tmp_path / "readonly").touch()
    descriptor = os.open(tmp_path / "readonly", os.O_RDONLY)
    try:
        with pytest.raises(OSError, match="Bad file descriptor"):
            copier.copy(source, descriptor, 0, 0, 100)
    finally:
        os.close(descriptor)
