"""Where every byte of the output goes: the order of tensors, the shards, the runs to copy.

Tensors are ordered by how often their source was used before, then by where it lies. So each
repeat of the layers is one contiguous range of the base, and copying it is one call.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from hfgrow.checkpoint.files import INDEX, SINGLE
from hfgrow.checkpoint.header import build_header
from hfgrow.errors import UsageError, printable
from hfgrow.plan.plan import GrowthPlan, TensorPlan
from hfgrow.plan.tensors import Stored, leaves

DEFAULT_MAX_SHARD_NBYTES = 50 * 10**9
# The Hub's client does not read larger headers from afar (25 MB); one tensor takes about 100 bytes.
_MAX_TENSORS_PER_SHARD = 200_000
# Where tensors that read nothing of the base stand.
_LAST = (1 << 62, "", 0)
_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_UNITS |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}


@dataclass(frozen=True, slots=True)
class Placed:
    """A tensor in its file: its name, its plan, and where its bytes start in the file."""

    name: str
    tensor: TensorPlan
    offset: int


@dataclass(frozen=True, slots=True)
class Shard:
    """One output file: its name, its header as bytes, and its tensors in order."""

    name: str
    header: bytes
    tensors: tuple[Placed, ...]

    @property
    def nbytes(self) -> int:
        """The size of the whole file."""
        last = self.tensors[-1]
        return last.offset + last.tensor.nbytes


@dataclass(frozen=True, slots=True)
class Layout:
    """All output files, the index included if there is more than one shard."""

    shards: tuple[Shard, ...]

    @property
    def nbytes(self) -> int:
        """The bytes of all weight files."""
        return sum(shard.nbytes for shard in self.shards)

    @property
    def index(self) -> str | None:
        """The text of the index, or None for a single file."""
        if len(self.shards) == 1:
            return None
        total = sum(placed.tensor.nbytes for shard in self.shards for placed in shard.tensors)
        weight_map = {placed.name: shard.name for shard in self.shards for placed in shard.tensors}
        index = {
            "metadata": {"total_size": total},
            "weight_map": {name: weight_map[name] for name in sorted(weight_map)},
        }
        return json.dumps(index, indent=2) + "\n"

    @property
    def file_names(self) -> tuple[str, ...]:
        """The names of the weight files, the index last."""
        names = tuple(shard.name for shard in self.shards)
        return names if len(names) == 1 else (*names, INDEX)


@dataclass(frozen=True, slots=True)
class CopyRun:
    """Neighbouring tensors that lie in the same order in one source file: one range to copy."""

    file: str
    source_offset: int
    offset: int
    nbytes: int


def parse_nbytes(text: str) -> int:
    """Parse a size such as 5GB, 500MB or 2GiB into bytes.

    Raises:
        UsageError: The text is no size, or zero.
    """
    match = re.fullmatch(r"(\d{1,9})\s*([A-Za-z]*)", text.strip())
    unit = _UNITS.get(match[2].upper()) if match else None
    if match is None or unit is None or int(match[1]) == 0:
        raise UsageError(f"{printable(text)!r} is no size", hint="try 5GB, 500MB or 2GiB")
    return int(match[1]) * unit


def lay_out(plan: GrowthPlan, max_shard_nbytes: int = DEFAULT_MAX_SHARD_NBYTES) -> Layout:
    """Place every tensor of a plan in files of at most `max_shard_nbytes` of tensor bytes.

    A tensor larger than that gets a file of its own; no file is empty. The result depends on
    nothing but the plan and the limit, so the same command gives the same bytes.
    """
    groups: list[list[tuple[str, TensorPlan]]] = [[]]
    filled = 0
    for name, tensor in _ordered(plan):
        full = filled + tensor.nbytes > max_shard_nbytes
        if groups[-1] and (full or len(groups[-1]) >= _MAX_TENSORS_PER_SHARD):
            groups.append([])
            filled = 0
        groups[-1].append((name, tensor))
        filled += tensor.nbytes
    count = len(groups)
    names = (
        [SINGLE]
        if count == 1
        else [f"model-{i + 1:05d}-of-{count:05d}.safetensors" for i in range(count)]
    )
    return Layout(tuple(_shard(name, group) for name, group in zip(names, groups, strict=True)))


def runs(shard: Shard) -> Iterator[CopyRun | Placed]:
    """Yield what a shard is written from: ranges to copy, and tensors to compute, in order."""
    run: CopyRun | None = None
    for placed in shard.tensors:
        source = placed.tensor.recipe
        if not isinstance(source, Stored) or not placed.tensor.is_copy:
            if run:
                yield run
                run = None
            yield placed
        elif run and (source.file, source.offset) == (run.file, run.source_offset + run.nbytes):
            run = CopyRun(run.file, run.source_offset, run.offset, run.nbytes + source.nbytes)
        else:
            if run:
                yield run
            run = CopyRun(source.file, source.offset, placed.offset, source.nbytes)
    if run:
        yield run


def _ordered(plan: GrowthPlan) -> list[tuple[str, TensorPlan]]:
    uses: Counter[Stored] = Counter()
    keyed = []
    for name, tensor in plan.tensors.items():
        source = next(leaves(tensor.recipe), None)
        if source is None:
            keyed.append((_LAST, name, tensor))
            continue
        keyed.append(((uses[source], source.file, source.offset), name, tensor))
        uses[source] += 1
    keyed.sort(key=lambda item: item[0])
    return [(name, tensor) for _, name, tensor in keyed]


def _shard(name: str, group: list[tuple[str, TensorPlan]]) -> Shard:
    first = group[0][1].recipe
    header = build_header(
        ((tensor_name, tensor.dtype, tensor.shape) for tensor_name, tensor in group),
        metadata={"format": "pt"},
        first_offset=first.offset if isinstance(first, Stored) else 0,
    )
    placed = []
    offset = len(header)
    for tensor_name, tensor in group:
        placed.append(Placed(tensor_name, tensor, offset))
        offset += tensor.nbytes
    return Shard(name, header, tuple(placed))
