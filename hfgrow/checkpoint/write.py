"""Carry a plan out in a folder: weights copied or computed, config, side files; or copy a model."""

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from hfgrow.checkpoint.compute.chunks import Chunk, chunks, computed, in_threads, rows_of_files
from hfgrow.checkpoint.compute.recipe_rows import Evaluator
from hfgrow.checkpoint.files import (
    CARD,
    CONFIG,
    INDEX,
    MANIFEST,
    RECIPE,
    WEIGHTS_NAME,
    opened,
    side_files_of,
)
from hfgrow.checkpoint.layout import CopyRun, Layout, Placed, Shard, runs
from hfgrow.checkpoint.output import OutputFile, copy_file, shares_blocks
from hfgrow.checkpoint.pages import (
    DIRECT_PAGE_NBYTES,
    PLAIN_PAGE_NBYTES,
    InPlace,
    Pages,
    down,
    fill,
    up,
)
from hfgrow.checkpoint.staging import check_target, staged
from hfgrow.console import Progress, counting, size
from hfgrow.errors import OutputError, argument, printable
from hfgrow.plan.plan import GrowthPlan, SourceFile, is_zero
from hfgrow.plan.tensors import leaves, predictor_of

Advance = Callable[[int], None]

# What config, card and lineage take at most; part of the free-space check.
_SLACK_NBYTES = 1 << 20
_OF_A_MODEL = frozenset({CONFIG, INDEX, CARD, MANIFEST, RECIPE})


@dataclass(frozen=True, slots=True)
class Written:
    """What is known of the weight files: how many bytes share the base's blocks, and each sha256.

    Attributes:
        cloned_nbytes: Bytes that share their blocks with the base.
        sha256: File name -> hash, where it was asked for and the bytes went by in order.
    """

    cloned_nbytes: int
    sha256: Mapping[str, str]


def write(
    plan: GrowthPlan,
    layout: Layout,
    folder: Path,
    *,
    allow_nonfinite: bool = True,
    hashes: bool = False,
    advance: Advance = lambda nbytes: None,
) -> Written:
    """Write the weights, the config and the side files of a grown model.

    Args:
        plan: What to write; its folder holds the base.
        layout: Where every tensor goes.
        folder: An empty folder, such as `staged` gives.
        allow_nonfinite: Whether tensors may be computed from NaN or infinity.
        hashes: Whether to take the sha256 of the weight files, as their bytes go by. What matrices
            are predicted for, or mapped to, is not written in order, and not hashed.
        advance: Called with the number of bytes as they are written.

    Raises:
        ModelError: The base changed while it was read, or a computed number is none.
        OSError: The file system refuses.
    """
    base, cloned_nbytes, sha256 = Path(plan.folder), 0, {}
    for shard in layout.shards:
        nbytes, digest = _write_shard(
            shard,
            plan.files,
            base,
            folder / shard.name,
            allow_nonfinite=allow_nonfinite,
            hashes=hashes,
            advance=advance,
        )
        cloned_nbytes += nbytes
        if digest is not None:
            sha256[shard.name] = digest
    texts = {CONFIG: json.dumps(plan.config, indent=2, ensure_ascii=False) + "\n"}
    if layout.index is not None:
        texts[INDEX] = layout.index
    write_texts(folder, texts)
    for name in _sources_apart(plan):
        copy_file(Path(name), folder / Path(name).name)
    copy_side_files(base, folder)
    return Written(cloned_nbytes, sha256)


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
        copy_file(base / name, target)


def copy_model(folder: Path, out: Path, progress: Progress, *, overwrite: bool = False) -> None:
    """Copy a model into a folder of its own, which appears complete or not at all.

    What is a model's: weights, config, index, card, lineage, recipe, and the side files.

    Args:
        out: The folder to make.
        overwrite: Whether a model that stands there may be replaced.

    Raises:
        OutputError: It cannot be written, or something else stands there.
        ModelError: A file of the model cannot be read.
    """
    check_target(out, folder, overwrite=overwrite)
    names = {
        name for name in os.listdir(folder) if name in _OF_A_MODEL or WEIGHTS_NAME.fullmatch(name)
    }
    names |= set(side_files_of(folder))
    nbytes = sum((folder / name).stat().st_size for name in names)
    with (
        staged(out, overwrite=overwrite) as staging,
        counting(progress, f"Copying {printable(out.name)}", nbytes) as advance,
    ):
        for name in sorted(names):
            (staging / name).parent.mkdir(exist_ok=True)
            copy_file(folder / name, staging / name, advance)


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
    *,
    allow_nonfinite: bool,
    hashes: bool,
    advance: Advance,
) -> tuple[int, str | None]:
    """Write one file; return how many of its bytes are shared, and its sha256 as `write` says."""
    items = sorted(runs(shard), key=_predictor)
    # What one predictor predicts is computed together, wherever it lies.
    hashes = hashes and not any(map(_predictor, items))
    # With a hash what is in place is not done yet: it is read for it.
    at_once = advance if not hashes else lambda nbytes: None
    with opened(base, sources) as descriptor_of, OutputFile(path, shard.nbytes) as output:
        in_place, cloned_nbytes = _placed_at_once(items, output, descriptor_of, at_once)
        pages = Pages(
            output,
            shard.nbytes,
            in_place,
            {} if hashes else _cuts(items),
            advance=advance,
            uncounted_nbytes=len(shard.header),
            is_hashed=hashes,
        )
        computes = any(map(_is_computed, items))
        evaluator = Evaluator(rows_of_files(descriptor_of)) if computes else None
        filler = _Filler(pages, descriptor_of, evaluator, allow_nonfinite, in_order=hashes)
        with pages:
            filler.put(shard.header, 0)
            work = (piece for item in items for piece in filler.pieces(item))
            for _ in in_threads(work, pages.fail) if computes else (piece() for piece in work):
                pages.report()
    return cloned_nbytes, pages.sha256


def _is_computed(item: CopyRun | Placed) -> bool:
    return isinstance(item, Placed) and not is_zero(item.tensor)


def _predictor(item: CopyRun | Placed) -> str:
    return predictor_of(item.tensor.recipe) if isinstance(item, Placed) else ""


def _placed_at_once(
    items: Iterable[CopyRun | Placed],
    output: OutputFile,
    descriptor_of: Callable[[str], int],
    advance: Advance,
) -> tuple[list[InPlace], int]:
    """Share blocks, or have a server copy, and leave zeros out: what no page is needed for.

    Returns:
        The ranges that are in place, in order, and how many bytes are shared.
    """
    found, cloned_nbytes = [], 0
    for item in items:
        if isinstance(item, CopyRun):
            source = descriptor_of(item.file)
            where = source, item.source_offset, item.offset, item.nbytes
            done = output.clone(*where)
            if done is not None:
                cloned_nbytes += done[1] - done[0]
                advance(done[1] - done[0])
            else:
                done = output.copy(*where, advance)
            if done is not None:
                at = item.source_offset + done[0] - item.offset
                found.append(InPlace(*done, source, at))
        elif is_zero(item.tensor):
            # Zeros are never written, but where they share a block with others.
            start, stop = up(item.offset), down(item.offset + item.tensor.nbytes)
            if start < stop:
                found.append(InPlace(start, stop))
                advance(stop - start)
    return sorted(found, key=lambda range_: range_.start), cloned_nbytes


def _cuts(items: Iterable[CopyRun | Placed]) -> dict[int, int]:
    """Return where pages begin, and how large they are: around what is not filled in order.

    That is what is predicted, and what is computed once and stands in several places; a block that
    two of these share is a page of its own.
    """
    cuts: dict[int, int] = {}
    for item in items:
        if not _is_computed(item):
            continue
        assert isinstance(item, Placed)
        first = next(chunks(item.name, item.tensor))
        is_large = item.tensor.nbytes > DIRECT_PAGE_NBYTES
        if not _predictor(item) and not (first.num_repeats > 1 and is_large):
            continue
        page_nbytes = max(up(DIRECT_PAGE_NBYTES // first.num_repeats), PLAIN_PAGE_NBYTES)
        for start in (item.offset + offset for offset in first.offsets):
            cuts |= {down(start): page_nbytes, up(start): page_nbytes}
        end = item.offset + item.tensor.nbytes
        cuts |= {down(end): DIRECT_PAGE_NBYTES, up(end): DIRECT_PAGE_NBYTES}
    return cuts


class _Filler:
    """Fills pages: with the bytes of sources, with zeros, and with what is computed.

    Args:
        pages: Those of the file.
        descriptor_of: Opens a file of the base.
        evaluator: Computes numbers, where some are computed.
        allow_nonfinite: Whether tensors may be computed from NaN or infinity.
        in_order: Whether pages have to be filled in order, what repeats itself once for each place.
    """

    def __init__(
        self,
        pages: Pages,
        descriptor_of: Callable[[str], int],
        evaluator: Evaluator | None,
        allow_nonfinite: bool,
        *,
        in_order: bool,
    ) -> None:
        self._pages = pages
        self._descriptor_of = descriptor_of
        self._allow_nonfinite = allow_nonfinite
        self._in_order = in_order
        self._evaluator = evaluator

    def pieces(self, item: CopyRun | Placed) -> Iterator[Callable[[], None]]:
        """Part the work for a range of the file in pieces that can be done on several cores."""
        if isinstance(item, CopyRun):
            source = self._descriptor_of(item.file)
            for at in range(0, item.nbytes, DIRECT_PAGE_NBYTES):
                nbytes = min(DIRECT_PAGE_NBYTES, item.nbytes - at)
                yield partial(self._copy, source, item.source_offset + at, item.offset + at, nbytes)
        elif is_zero(item.tensor):
            yield partial(self._zero, item.offset, item.tensor.nbytes)
        else:
            for leaf in leaves(item.tensor.recipe):
                self._descriptor_of(leaf.file)
            for chunk in chunks(item.name, item.tensor, in_order=self._in_order):
                yield partial(self._compute, chunk, item.offset)

    def put(self, content: bytes, offset: int) -> None:
        """Fill a range with bytes that are at hand."""
        for at, memory in self._pages.room(offset, len(content)):
            memory[:] = content[at : at + len(memory)]

    def _copy(self, source: int, source_offset: int, offset: int, nbytes: int) -> None:
        for at, memory in self._pages.room(offset, nbytes):
            fill(memory, source, source_offset + at)

    def _zero(self, offset: int, nbytes: int) -> None:
        for _, memory in self._pages.room(offset, nbytes):
            memory[:] = bytes(len(memory))

    def _compute(self, chunk: Chunk, offset: int) -> None:
        import numpy as np

        assert self._evaluator is not None
        compute = partial(computed, chunk, self._evaluator, allow_nonfinite=self._allow_nonfinite)
        numbers: Any = None
        for start in chunk.offsets:
            for at, memory in self._pages.room(offset + start, chunk.nbytes):
                if chunk.num_repeats == 1 and len(memory) == chunk.nbytes:
                    compute(into=memory)
                    continue
                if numbers is None:
                    numbers = np.frombuffer(compute(), np.uint8)
                # Unlike an assignment of memory this lets the other threads go on.
                np.copyto(np.frombuffer(memory, np.uint8), numbers[at : at + len(memory)])


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
    if need > free and not (plan.folder and shares_blocks(base, parent)):
        wide = any(tensor.dtype in ("F32", "F64") for tensor in plan.tensors.values())
        raise OutputError(
            f"the output takes {size(need)}, but {printable(parent, 200)} has {size(free)} free",
            hint=f"choose another disk with {argument('out', 'DIR')}"
            + (f", or halve it with {argument('dtype', 'bfloat16')}" if wide else ""),
        )
