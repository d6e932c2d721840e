"""Carry a plan out: weights by in-kernel copies, config and side files, all in a staging folder."""

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any

from hfgrow.checkpoint.convert import Chunk, chunks, computed, is_zero, rows_of_files
from hfgrow.checkpoint.copying import Advance, Copier
from hfgrow.checkpoint.evaluate import Evaluator
from hfgrow.checkpoint.files import file_stamp, open_regular
from hfgrow.checkpoint.layout import Layout, Placed, Run, Shard, runs
from hfgrow.checkpoint.sidefiles import side_files_of
from hfgrow.checkpoint.staging import staged
from hfgrow.checkpoint.threads import in_threads
from hfgrow.errors import ModelError, OutputError, printable
from hfgrow.names import CONFIG, INDEX
from hfgrow.numbers import size
from hfgrow.plan import GrowthPlan, SourceFile
from hfgrow.tensor_recipes import leaves, predictor_of

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
    target: Path,
    *,
    finish: Callable[[Path], Mapping[str, str]],
    overwrite: bool = False,
    allow_nonfinite: bool = True,
    advance: Advance = lambda nbytes: None,
) -> Written:
    """Write a grown model so that it appears complete or not at all.

    Args:
        plan: What to write; its folder holds the base.
        layout: Where every tensor goes.
        target: The folder to create.
        finish: Called with the staging folder when weights and config lie there; it verifies them
            and returns the text files to add (card, lineage, picture).
        overwrite: Whether a model that stands there is replaced.
        allow_nonfinite: Whether tensors may be computed from NaN or infinity.
        advance: Called with the number of bytes as they are written.

    Raises:
        ModelError: The base changed while it was read, or a computed number is none.
        OutputError: The file system refuses, or has too little space.
    """
    base = Path(plan.folder)
    # A source outside the folder, such as learned maps, goes where what is made of it goes.
    side_files = [*side_files_of(base), *(name for name in plan.files if Path(name).is_absolute())]
    check_free_space(plan, layout, side_files, target)
    with staged(target, overwrite=overwrite) as staging:
        copier = Copier(advance)
        for shard in layout.shards:
            path = staging / shard.name
            _write_shard(shard, plan.files, base, path, copier, advance, allow_nonfinite)
        texts = {CONFIG: json.dumps(plan.config, indent=2, ensure_ascii=False) + "\n"}
        if layout.index is not None:
            texts[INDEX] = layout.index
        for name, text in texts.items():
            _write_text(staging / name, text)
        for name in side_files:
            _copy_file(base / name, staging / Path(name).name)
        for name, text in finish(staging).items():
            _write_text(staging / name, text)
    return Written(copier.cloned_nbytes, copier.copied_nbytes)


def _write_text(path: Path, text: str) -> None:
    # A path in a text, such as that of the base, may hold any bytes.
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
    with _opened(base, sources) as descriptor_of:
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


@contextmanager
def _opened(base: Path, sources: Mapping[str, SourceFile]) -> Iterator[Callable[[str], int]]:
    """Open each source once; check before and after that it is the file whose header was read."""
    opened: dict[str, int] = {}

    def check(name: str) -> None:
        if sources[name].stamp != file_stamp(os.fstat(opened[name])):
            raise ModelError(
                f"the input changed while it was read: {name}",
                hint="run again when nothing writes to the base",
            )

    def descriptor_of(name: str) -> int:
        if name not in opened:
            opened[name] = open_regular(base / name)
            check(name)
        return opened[name]

    try:
        yield descriptor_of
        for name in opened:
            check(name)
    finally:
        for descriptor in opened.values():
            os.close(descriptor)


def _copy_file(source: Path, target: Path) -> None:
    descriptor = open_regular(source)
    with os.fdopen(descriptor, "rb") as reading, target.open("xb") as writing:
        shutil.copyfileobj(reading, writing)


def check_free_space(
    plan: GrowthPlan, layout: Layout, side_files: Sequence[str], target: Path
) -> None:
    """Refuse an output that does not fit on its disk.

    Raises:
        OutputError: It does not; the message says what it takes and what is free.
    """
    base = Path(plan.folder)
    parent = target.absolute().parent
    while not parent.exists():
        parent = parent.parent
    need = layout.nbytes + sum((base / name).stat().st_size for name in side_files) + _SLACK_NBYTES
    free = shutil.disk_usage(parent).free
    if need > free and not (plan.folder and _shares_blocks(base, parent)):
        wide = any(tensor.dtype in ("F32", "F64") for tensor in plan.tensors.values())
        raise OutputError(
            f"the output takes {size(need)}, but {printable(parent, 200)} has {size(free)} free",
            hint="choose another disk with --out DIR"
            + (", or halve it with --dtype bfloat16" if wide else ""),
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
