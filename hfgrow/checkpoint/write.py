"""Carry a plan out in a folder: weights copied in the kernel or computed, config, side files."""

import errno
import fcntl
import json
import os
import shutil
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any

from hfgrow.checkpoint.compute.chunks import Chunk, chunks, computed, in_threads, rows_of_files
from hfgrow.checkpoint.compute.evaluate import Evaluator
from hfgrow.checkpoint.files import CONFIG, INDEX, open_regular, opened, side_files_of
from hfgrow.checkpoint.header import BLOCK_NBYTES
from hfgrow.checkpoint.layout import Layout, Placed, Run, Shard, runs
from hfgrow.console import size
from hfgrow.errors import ModelError, OutputError, argument, printable
from hfgrow.plan.plan import GrowthPlan, SourceFile, is_zero
from hfgrow.plan.tensors import leaves, predictor_of

# _IOW(0x94, 13, struct file_clone_range) on Linux.
_FICLONERANGE = 0x4020940D
# One call: large enough to cost nothing, small enough for progress and for an interrupt to act.
_CHUNK_NBYTES = 64 << 20
_BUFFER_NBYTES = 1 << 20
_CANNOT = frozenset(
    {errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.ENOSYS, errno.EPERM}
    | {errno.ETXTBSY}
)
Advance = Callable[[int], None]


class Copier:
    """Copies ranges by the best way the file systems have, remembering which ways failed.

    Attributes:
        cloned_nbytes: Bytes that share their blocks with the base.
        copied_nbytes: Bytes that were copied.
    """

    def __init__(self, advance: Advance) -> None:
        self._advance = advance
        self._can_clone = hasattr(fcntl, "ioctl")
        self._can_copy = hasattr(os, "copy_file_range")
        self.cloned_nbytes = 0
        self.copied_nbytes = 0

    def copy(
        self, source: int, target: int, source_offset: int, target_offset: int, nbytes: int
    ) -> None:
        """Copy `nbytes` between two open files.

        Blocks are shared where the two offsets are congruent modulo the block size; the unaligned
        ends go by copying.

        Raises:
            ModelError: The source ended early: somebody changed it.
            OSError: The target cannot take the bytes.
        """
        head = -source_offset % BLOCK_NBYTES
        middle = (nbytes - head) // BLOCK_NBYTES * BLOCK_NBYTES
        if (source_offset - target_offset) % BLOCK_NBYTES or middle <= 0 or not self._can_clone:
            self._copy(source, target, source_offset, target_offset, nbytes)
            return
        self._copy(source, target, source_offset, target_offset, head)
        at = head
        if self._clone(source, target, source_offset + at, target_offset + at, middle):
            at += middle
        self._copy(source, target, source_offset + at, target_offset + at, nbytes - at)

    def _clone(
        self, source: int, target: int, source_offset: int, target_offset: int, nbytes: int
    ) -> bool:
        request = struct.pack("qQQQ", source, source_offset, nbytes, target_offset)
        try:
            fcntl.ioctl(target, _FICLONERANGE, request)
        except OSError as error:
            if error.errno in _CANNOT:
                self._can_clone = False
                return False
            raise
        self.cloned_nbytes += nbytes
        self._advance(nbytes)
        return True

    def _copy(
        self, source: int, target: int, source_offset: int, target_offset: int, nbytes: int
    ) -> None:
        done = 0
        while done < nbytes:
            step = self._copy_some(
                source, target, source_offset + done, target_offset + done, nbytes - done
            )
            if step == 0:
                raise ModelError(
                    "the input changed while it was read: a weight file ended early",
                    hint="run again when nothing writes to the base",
                )
            done += step
            self.copied_nbytes += step
            self._advance(step)

    def _copy_some(
        self, source: int, target: int, source_offset: int, target_offset: int, nbytes: int
    ) -> int:
        if self._can_copy:
            try:
                step = os.copy_file_range(
                    source, target, min(nbytes, _CHUNK_NBYTES), source_offset, target_offset
                )
            except OSError as error:
                if error.errno not in _CANNOT:
                    raise
                step = 0
            if step:
                return step
            # Some file systems answer 0 instead of an error; only a plain read tells the end.
            self._can_copy = False
        buffer = os.pread(source, min(nbytes, _BUFFER_NBYTES), source_offset)
        return os.pwrite(target, buffer, target_offset) if buffer else 0


# What config, card and lineage take at most; part of the free-space check.
_SLACK_NBYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Written:
    """How the weights' bytes got where they are: shared with the base, or copied."""

    cloned_nbytes: int
    copied_nbytes: int


def write(
    plan: GrowthPlan,
    layout: Layout,
    folder: Path,
    *,
    allow_nonfinite: bool = True,
    advance: Advance = lambda nbytes: None,
) -> Written:
    """Write the weights, the config and the side files of a grown model.

    Args:
        plan: What to write; its folder holds the base.
        layout: Where every tensor goes.
        folder: An empty folder, such as `staged` gives.
        allow_nonfinite: Whether tensors may be computed from NaN or infinity.
        advance: Called with the number of bytes as they are written.

    Raises:
        ModelError: The base changed while it was read, or a computed number is none.
        OSError: The file system refuses.
    """
    base = Path(plan.folder)
    copier = Copier(advance)
    for shard in layout.shards:
        path = folder / shard.name
        _write_shard(shard, plan.files, base, path, copier, advance, allow_nonfinite)
    texts = {CONFIG: json.dumps(plan.config, indent=2, ensure_ascii=False) + "\n"}
    if layout.index is not None:
        texts[INDEX] = layout.index
    write_texts(folder, texts)
    for name in _sources_apart(plan):
        _copy_file(Path(name), folder / Path(name).name)
    copy_side_files(base, folder)
    return Written(copier.cloned_nbytes, copier.copied_nbytes)


def _sources_apart(plan: GrowthPlan) -> list[str]:
    """Return the sources outside the folder: learned maps go where what is made of them goes."""
    return [name for name in plan.files if Path(name).is_absolute()]


def copy_side_files(base: Path, folder: Path) -> None:
    """Copy what belongs to a model beside its weights and config: tokenizer, templates, licences.

    Raises:
        ModelError: One of them cannot be read, or is a link out of the folder.
        OSError: The file system refuses.
    """
    for name in side_files_of(base):
        target = folder / name
        target.parent.mkdir(exist_ok=True)
        _copy_file(base / name, target)


def write_texts(folder: Path, texts: Mapping[str, str]) -> None:
    """Write new text files; a path in one of them, such as that of the base, may hold any bytes."""
    for name, text in texts.items():
        path = folder / name
        with path.open("x", encoding="utf-8", errors="surrogateescape", newline="\n") as file:
            file.write(text)


def config_with(config: Mapping[str, Any], record: Mapping[str, object]) -> dict[str, Any]:
    """Return a config with the small `hfgrow` record that survives load and save_pretrained."""
    return {**config, "hfgrow": dict(record)}


def _write_shard(
    shard: Shard,
    sources: Mapping[str, SourceFile],
    base: Path,
    path: Path,
    copier: Copier,
    advance: Advance,
    allow_nonfinite: bool,
) -> None:
    with opened(base, sources) as descriptor_of:
        target = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            os.pwrite(target, shard.header, 0)
            # Zeros are never written: what lies between the tensors written is a hole.
            os.ftruncate(target, shard.nbytes)
            to_compute = []
            for item in runs(shard):
                if isinstance(item, Run):
                    source = descriptor_of(item.file)
                    copier.copy(source, target, item.source_offset, item.offset, item.nbytes)
                elif is_zero(item.tensor):
                    advance(item.tensor.nbytes)
                else:
                    to_compute.append(item)
            _write_computed(to_compute, descriptor_of, target, advance, allow_nonfinite)
        finally:
            os.close(target)


def _write_computed(
    tensors: Sequence[Placed],
    descriptor_of: Callable[[str], int],
    target: int,
    advance: Advance,
    allow_nonfinite: bool,
) -> None:
    """Compute tensors on every core, a chunk each in memory, and write them.

    A file has one lock for writing, and threads that wait for it do not sleep but spin; so they
    wait for another one first.
    """
    if not tensors:
        return
    for placed in tensors:
        for leaf in leaves(placed.tensor.recipe):
            descriptor_of(leaf.file)
    evaluator = Evaluator(rows_of_files(descriptor_of))

    one_writes = Lock()

    def compute(chunk: Chunk, offset: int) -> int:
        content = computed(chunk, evaluator, allow_nonfinite=allow_nonfinite)
        for at in chunk.offsets:
            with one_writes:
                done = 0
                while done < len(content):
                    done += os.pwrite(target, content[done:], offset + at + done)
        return len(content) * chunk.num_repeats

    work = (
        partial(compute, chunk, placed.offset)
        for placed in sorted(tensors, key=lambda placed: predictor_of(placed.tensor.recipe))
        for chunk in chunks(placed.name, placed.tensor)
    )
    for nbytes in in_threads(work):
        advance(nbytes)


def _copy_file(source: Path, target: Path) -> None:
    descriptor = open_regular(source)
    with os.fdopen(descriptor, "rb") as reading, target.open("xb") as writing:
        shutil.copyfileobj(reading, writing)


def check_free_space(plan: GrowthPlan, layout: Layout, target: Path) -> None:
    """Refuse an output that does not fit on its disk.

    Raises:
        OutputError: It does not; the message says what it takes and what is free.
        ModelError: A side file of the base cannot be read.
    """
    base, side_files = Path(plan.folder), _sources_apart(plan)
    if plan.folder:
        side_files += side_files_of(base)
    parent = target.absolute().parent
    while not parent.exists():
        parent = parent.parent
    need = layout.nbytes + sum((base / name).stat().st_size for name in side_files) + _SLACK_NBYTES
    free = shutil.disk_usage(parent).free
    if need > free and not (plan.folder and _shares_blocks(base, parent)):
        wide = any(tensor.dtype in ("F32", "F64") for tensor in plan.tensors.values())
        raise OutputError(
            f"the output takes {size(need)}, but {printable(parent, 200)} has {size(free)} free",
            hint=f"choose another disk with {argument('out', 'DIR')}"
            + (f", or halve it with {argument('dtype', 'bfloat16')}" if wide else ""),
        )


def _shares_blocks(base: Path, parent: Path) -> bool:
    """Say whether the output can share the base's blocks: one file system that clones ranges."""
    import tempfile

    if base.stat().st_dev != parent.stat().st_dev:
        return False
    with tempfile.TemporaryFile(dir=parent) as one, tempfile.TemporaryFile(dir=parent) as other:
        one.write(bytes(1 << 13))
        one.flush()
        copier = Copier(lambda nbytes: None)
        copier.copy(one.fileno(), other.fileno(), 0, 0, 1 << 13)
        return copier.cloned_nbytes > 0
