"""Weights written in every way that a file system may have, to the same bytes.

The ways are real ones where this machine has them; others are played by a file system that says it
is another one, or by calls that are refused.
"""

import ctypes
import errno
import fcntl
import hashlib
import mmap
import os
import signal
import tempfile
import threading
import time
from dataclasses import replace
from itertools import accumulate
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hfgrow.checkpoint import output, pages, write
from hfgrow.checkpoint.compute import chunks
from hfgrow.checkpoint.files import file_stamp
from hfgrow.checkpoint.header import BLOCK_NBYTES
from hfgrow.checkpoint.layout import Layout, Placed, Shard
from hfgrow.checkpoint.output import OutputFile
from hfgrow.errors import ModelError
from hfgrow.plan.axes import AxisMap, Span
from hfgrow.plan.plan import GrowthPlan, SourceFile, TensorPlan
from hfgrow.plan.tensors import Fill, Lift, Stored
from tests.checkpoint.ways import (
    CONTENT,
    EXT4,
    NFS,
    TMPFS,
    WAYS,
    Way,
    copy_file_range,
    is_direct,
    pwrite,
    says,
)


@pytest.fixture(params=WAYS, ids=lambda way: way.__name__)
def way(request: pytest.FixtureRequest) -> Way:
    found: Way = request.param
    return found


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages of a few blocks, little memory and small chunks: what large models do, in small."""
    monkeypatch.setattr(pages, "DIRECT_PAGE_NBYTES", 4 * BLOCK_NBYTES)
    monkeypatch.setattr(write, "DIRECT_PAGE_NBYTES", 4 * BLOCK_NBYTES)
    monkeypatch.setattr(pages, "PLAIN_PAGE_NBYTES", BLOCK_NBYTES)
    monkeypatch.setattr(write, "PLAIN_PAGE_NBYTES", BLOCK_NBYTES)
    monkeypatch.setattr(pages, "_MEMORY_NBYTES", 9 * BLOCK_NBYTES)
    monkeypatch.setattr(chunks, "_CHUNK_ELEMENTS", 700)


# A part of a file: what it is, how many numbers, where they come from, how often they stand there.
Part = tuple[str, int, int, int]
PARTS = st.lists(
    st.tuples(
        st.sampled_from(["copied", "next", "zero", "computed"]),
        st.integers(1, 9000),
        st.integers(0, 30_000),
        st.integers(1, 4),
    ),
    min_size=1,
    max_size=8,
)


def plan_of(base: Path, parts: list[Part], header: bytes) -> tuple[GrowthPlan, Layout, bytes]:
    """A plan of such parts, its only file, and the bytes that this file must have."""
    tensors: dict[str, TensorPlan] = {}
    wanted, end = header, 0
    for i, (kind, count, start, repeats) in enumerate(parts):
        first = end if kind == "next" else 4 * start + i % 5
        count = min(count, (len(CONTENT) - first) // 4)
        stored = Stored("base", "x", first, (count,), "F32")
        raw = CONTENT[first : first + stored.nbytes]
        if count < 1:
            continue
        if kind == "zero":
            recipe, raw = Fill((count,), 0.0), bytes(4 * count)
            tensors[str(i)] = TensorPlan("F32", recipe)
        elif kind == "computed":
            axis = AxisMap(count, (Span(0, count),) * repeats)
            tensors[str(i)] = TensorPlan("F32", Lift(stored, axis))
            raw *= repeats
        else:
            tensors[str(i)] = TensorPlan("F32", stored)
            end = first + stored.nbytes
        wanted += raw
    offsets = accumulate((tensor.nbytes for tensor in tensors.values()), initial=len(header))
    placed = tuple(
        Placed(name, tensors[name], at) for name, at in zip(tensors, offsets, strict=False)
    )
    file = SourceFile(len(CONTENT), file_stamp((base / "base").stat()))
    plan = GrowthPlan(str(base), {}, "llama", (), tensors, {"base": file})
    return plan, Layout((Shard("out", header, placed),)), wanted


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "base").write_bytes(CONTENT)
    return tmp_path / "base"


def folder_in(source: Path) -> Path:
    """A new folder."""
    folder = source / "written"
    folder.mkdir()
    return folder


def check_no_more_than(num_threads: int) -> None:
    """A thread of a pool that an interrupt met while it began ends by itself, a moment later."""
    until = time.monotonic() + 10
    while threading.active_count() > num_threads and time.monotonic() < until:
        time.sleep(0.01)
    assert threading.active_count() <= num_threads


LARGE: list[Part] = [
    *(("copied", 9000, 100 * i, 1) for i in range(8)),
    ("computed", 9000, 0, 2),
    ("computed", 9000, 300, 1),
]


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(parts=PARTS, header=st.binary(max_size=9000), hashes=st.booleans())
@pytest.mark.usefixtures("small")
def test_every_way_gives_the_same_bytes(
    way: Way, source: Path, parts: list[Part], header: bytes, hashes: bool
) -> None:
    """Copies, zeros and what is computed, wherever they begin and end, and the hash of it all."""
    plan, layout, wanted = plan_of(source, parts, header)
    if not plan.tensors:
        return
    with tempfile.TemporaryDirectory(dir=source) as folder, pytest.MonkeyPatch.context() as patch:
        way(patch)
        counted: list[int] = []
        written = write.write(plan, layout, Path(folder), hashes=hashes, advance=counted.append)
        assert (Path(folder) / "out").read_bytes() == wanted
    assert sum(counted) == plan.nbytes
    digest = {"out": hashlib.sha256(wanted).hexdigest()}
    assert written.sha256 == (digest if hashes else {})


def written_by(path: Path, content: bytes) -> bytes:
    """Write aligned memory to a new file, and return what lies there."""
    memory = memoryview(mmap.mmap(-1, len(content)))
    memory[:] = content
    with OutputFile(path, len(content)) as file:
        file.write(memory, 0)
    return path.read_bytes()


@pytest.mark.parametrize("nbytes", [1, 511, BLOCK_NBYTES, BLOCK_NBYTES + 1, 100_000])
def test_a_file_of_any_size_is_written_in_every_way(way: Way, tmp_path: Path, nbytes: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        way(patch)
        assert written_by(tmp_path / "file", CONTENT[:nbytes]) == CONTENT[:nbytes]


def test_a_local_disk_is_written_past_the_page_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: dict[bool, int] = {True: 0, False: 0}

    def count(descriptor: int, content: bytes, offset: int) -> int:
        done = pwrite(descriptor, content, offset)
        counted[is_direct(descriptor)] += done
        return done

    monkeypatch.setattr(os, "pwrite", count)
    with OutputFile(tmp_path / "probe", 1) as probe:
        if not probe.is_direct:
            pytest.skip("this is no local disk")
    written_by(tmp_path / "file", CONTENT[:10_000])
    assert counted == {True: 2 * BLOCK_NBYTES, False: 10_000 - 2 * BLOCK_NBYTES}


@pytest.mark.parametrize("kind", [NFS, TMPFS, None])
def test_what_is_no_local_disk_is_never_asked_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: int | None
) -> None:
    says(monkeypatch, kind)
    with OutputFile(tmp_path / "file", 1) as file:
        assert not file.is_direct


def test_a_server_is_asked_to_copy_and_a_local_disk_is_not(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def copy(source: int, target: int, count: int, at: int, to: int) -> int:
        asked.append(count)
        return copy_file_range(source, target, count, at, to)

    monkeypatch.setattr(os, "copy_file_range", copy)
    plan, layout, wanted = plan_of(source, [("copied", 9000, 0, 1)], b"head")
    for name, kind in (("local", EXT4), ("server", NFS)):
        (source / name).mkdir()
        says(monkeypatch, kind)
        write.write(plan, layout, source / name)
        assert (source / name / "out").read_bytes() == wanted
        assert asked == ([36_000] if name == "server" else [])


def test_a_way_that_was_refused_is_not_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused: list[int] = []

    def refuse(descriptor: int, content: bytes, offset: int) -> int:
        if is_direct(descriptor):
            refused.append(offset)
            raise OSError(errno.EINVAL, "Invalid argument")
        return pwrite(descriptor, content[:5000], offset)

    monkeypatch.setattr(os, "pwrite", refuse)
    says(monkeypatch, EXT4)
    assert written_by(tmp_path / "file", CONTENT[:50_000]) == CONTENT[:50_000]
    assert refused == [0]


def test_a_file_system_that_takes_no_byte_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "pwrite", lambda descriptor, content, offset: 0)
    with pytest.raises(OSError, match="the file system took no byte"):
        written_by(tmp_path / "file", CONTENT[:5000])


def test_a_machine_without_direct_writing_and_names_of_file_systems_writes_plainly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_library(name: str | None, *, use_errno: bool) -> None:
        raise OSError(errno.ENOENT, "no such library")

    monkeypatch.delattr(os, "O_DIRECT")
    monkeypatch.setattr(ctypes, "CDLL", no_library)
    assert written_by(tmp_path / "file", CONTENT[:50_000]) == CONTENT[:50_000]


def test_blocks_are_not_shared_with_another_file_system(tmp_path: Path) -> None:
    assert not output.shares_blocks(Path("/proc/version"), tmp_path)


def test_a_disk_that_fails_while_blocks_are_shared_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> int:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(fcntl, "ioctl", fail)
    with pytest.raises(OSError, match="Input/output error"):
        output.shares_blocks(tmp_path, tmp_path)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EFBIG])
@pytest.mark.parametrize("at", range(5))
@pytest.mark.usefixtures("small")
def test_an_error_of_any_write_is_told_and_ends_all_threads(
    source: Path, monkeypatch: pytest.MonkeyPatch, code: int, at: int
) -> None:
    """E1: it is no missing way, and nothing waits for a thread that is gone."""
    left = [at]

    def fail(descriptor: int, content: bytes, offset: int) -> int:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(code, os.strerror(code))
        return pwrite(descriptor, content, offset)

    plan, layout, _ = plan_of(source, LARGE, b"head")
    monkeypatch.setattr(os, "pwrite", fail)
    before = threading.active_count()
    with pytest.raises(OSError, match=os.strerror(code)) as caught:
        write.write(plan, layout, folder_in(source), hashes=True)
    assert caught.value.errno == code
    check_no_more_than(before)


@pytest.mark.usefixtures("small")
def test_an_interrupt_ends_all_threads(source: Path) -> None:
    def interrupt(nbytes: int) -> None:
        raise KeyboardInterrupt

    plan, layout, _ = plan_of(source, LARGE, b"head")
    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        write.write(plan, layout, folder_in(source), hashes=True, advance=interrupt)
    check_no_more_than(before)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("hashes", [True, False])
@pytest.mark.parametrize("num_writes", [3, 8, 20])
def test_an_interrupt_of_what_is_computed_ends_what_waits_for_memory(
    source: Path, monkeypatch: pytest.MonkeyPatch, hashes: bool, num_writes: int
) -> None:
    left, waiter = [num_writes], threading.get_ident()

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    def write_slowly(descriptor: int, content: bytes, offset: int) -> int:
        left[0] -= 1
        if left[0] == 0:
            signal.pthread_kill(waiter, signal.SIGALRM)
        time.sleep(0.01)
        return pwrite(descriptor, content, offset)

    monkeypatch.setattr(os, "pwrite", write_slowly)
    plan, layout, _ = plan_of(source, [("computed", 9000, 300 * i, 2) for i in range(8)], b"head")
    before, threads = signal.signal(signal.SIGALRM, interrupt), threading.active_count()
    try:
        with pytest.raises(KeyboardInterrupt):
            write.write(plan, layout, folder_in(source), hashes=hashes)
    finally:
        signal.signal(signal.SIGALRM, before)
    check_no_more_than(threads)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("at", [0, 20_000, 35_000])
def test_a_number_that_is_none_ends_all_threads(
    source: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """In the middle of what is computed, while others wait for the hash, which waits for it."""
    monkeypatch.setattr(pages, "DIRECT_PAGE_NBYTES", BLOCK_NBYTES)
    monkeypatch.setattr(pages, "_MEMORY_NBYTES", 0)
    with (source / "base").open("r+b") as file:
        file.seek(at)
        file.write(b"\xff" * 8)
    plan, layout, _ = plan_of(source, [*LARGE, ("computed", 9000, 0, 2), *LARGE], b"head")
    before = threading.active_count()
    with pytest.raises(ModelError, match="NaN or infinite"):
        write.write(plan, layout, folder_in(source), hashes=True, allow_nonfinite=False)
    check_no_more_than(before)


@pytest.mark.usefixtures("small")
def test_signals_that_come_meanwhile_change_nothing(source: Path) -> None:
    """EINTR, which ends a call that waits, every half a millisecond."""
    plan, layout, wanted = plan_of(source, LARGE, b"head")
    before = signal.signal(signal.SIGALRM, lambda number, frame: None)
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    try:
        write.write(plan, layout, folder := folder_in(source), hashes=True)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert (folder / "out").read_bytes() == wanted


@pytest.mark.case("A25")
@pytest.mark.usefixtures("small")
def test_a_source_that_ends_early_was_changed(way: Way, source: Path) -> None:
    """A25: found by the read that gets nothing, not by the comparison of stamps at the end."""
    plan, layout, _ = plan_of(source, [("copied", 9000, 60_000, 1)], b"head")
    with (source / "base").open("r+b") as file:
        file.truncate(250_000)
    stamp = file_stamp((source / "base").stat())
    plan = replace(plan, files={"base": SourceFile(len(CONTENT), stamp)})
    with pytest.MonkeyPatch.context() as patch:
        way(patch)
        with pytest.raises(ModelError, match="a weight file ended early"):
            write.write(plan, layout, folder_in(source), hashes=True)


@pytest.mark.usefixtures("small")
def test_zeros_are_a_hole_in_every_way(way: Way, source: Path) -> None:
    parts: list[Part] = [("copied", 100, 0, 1), ("zero", 70_000, 0, 1), ("copied", 100, 0, 1)]
    plan, layout, wanted = plan_of(source, parts, b"head")
    with pytest.MonkeyPatch.context() as patch:
        way(patch)
        write.write(plan, layout, folder := folder_in(source))
    assert (folder / "out").read_bytes() == wanted
    assert (folder / "out").stat().st_blocks * 512 <= 4 * BLOCK_NBYTES


@pytest.mark.usefixtures("small")
def test_no_more_memory_is_taken_than_pages_may_have(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hash or a disk that is slow is waited for."""
    taken: list[int] = []

    class Counting(mmap.mmap):
        def __new__(cls, descriptor: int, nbytes: int) -> "Counting":
            taken.append(nbytes)
            return super().__new__(cls, descriptor, nbytes)

    def write_slowly(descriptor: int, content: bytes, offset: int) -> int:
        time.sleep(0.01)
        return pwrite(descriptor, content, offset)

    monkeypatch.setattr(os, "pwrite", write_slowly)
    monkeypatch.setattr(mmap, "mmap", Counting)
    plan, layout, _ = plan_of(source, LARGE, b"head")
    write.write(plan, layout, folder_in(source))
    # Nine blocks, or as many pages as wait for the rest of their bytes.
    assert sum(taken) <= 30 * BLOCK_NBYTES < plan.nbytes
