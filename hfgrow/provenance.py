"""Prove a growth without torch: headers against the plan, bytes against the base."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from hfgrow.checkpoint.compute.chunks import Chunk, chunks, computed, in_threads, rows_of_files
from hfgrow.checkpoint.compute.evaluate import Evaluator
from hfgrow.checkpoint.files import LocalFolder, open_regular
from hfgrow.checkpoint.read import read
from hfgrow.errors import ModelError, VerificationError, printable
from hfgrow.plan.plan import GrowthPlan, TensorPlan, is_zero, stored_in
from hfgrow.plan.tensors import Stored, leaves, predictor_of

_CHUNK_NBYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class Provenance:
    """The outcome of a comparison of every tensor with its source."""

    num_tensors: int
    num_computed: int
    nbytes: int


def check_headers(folder: Path, plan: GrowthPlan) -> GrowthPlan:
    """Compare what lies in a folder with the plan it was written from; no weight is read.

    Returns:
        The plan of the folder as the strict reader sees it.

    Raises:
        VerificationError: A tensor, a shape, a dtype or a config value differs.
    """
    try:
        found = read(LocalFolder(folder))
    except ModelError as error:
        raise VerificationError(f"the written model cannot be read back: {error}") from error
    for name in plan.tensors.keys() | found.tensors.keys():
        planned, written = plan.tensors.get(name), found.tensors.get(name)
        if planned is None or written is None:
            where = "written but not planned" if planned is None else "planned but not written"
            raise VerificationError(f"{printable(name)} was {where}")
        if (planned.shape, planned.dtype) != (written.shape, written.dtype):
            raise VerificationError(
                f"{printable(name)} is {written.dtype} {list(written.shape)}, "
                f"planned was {planned.dtype} {list(planned.shape)}"
            )
    for key in plan.config.keys() | found.config.keys():
        if key != "hfgrow" and plan.config.get(key) != found.config.get(key):
            raise VerificationError(
                f"config.json: {printable(key)} is {printable(repr(found.config.get(key)))}, "
                f"planned was {printable(repr(plan.config.get(key)))}"
            )
    return found


def check_provenance(
    folder: Path, plan: GrowthPlan, *, advance: Callable[[int], None] = lambda nbytes: None
) -> Provenance:
    """Derive every tensor again from base and plan and compare it with what lies in a folder.

    Args:
        folder: The grown model.
        plan: The plan, made again from the base.
        advance: Called with the number of bytes as they are compared.

    Raises:
        VerificationError: A tensor differs from its source.
    """
    found = check_headers(folder, plan)
    with _opened(Path(plan.folder)) as base_file, _opened(folder) as grown_file:
        for name, planned in plan.tensors.items():
            if isinstance(planned.recipe, Stored) and planned.is_copy:
                source, written = planned.recipe, stored_in(found.tensors[name])
                same = _same_range(
                    base_file(source.file),
                    grown_file(written.file),
                    source.offset,
                    written.offset,
                    written.nbytes,
                )
                if not same:
                    raise _differs(name, planned)
                advance(planned.nbytes)
        to_compute = {name: t for name, t in plan.tensors.items() if not t.is_copy}
        _check_computed(to_compute, found, base_file, grown_file, advance)
    return Provenance(len(plan.tensors), len(to_compute), plan.nbytes)


@contextmanager
def _opened(folder: Path) -> Iterator[Callable[[str], int]]:
    descriptors: dict[str, int] = {}

    def descriptor_of(name: str) -> int:
        if name not in descriptors:
            descriptors[name] = open_regular(folder / name)
        return descriptors[name]

    try:
        yield descriptor_of
    finally:
        for descriptor in descriptors.values():
            os.close(descriptor)


def _same_range(source: int, target: int, source_offset: int, offset: int, nbytes: int) -> bool:
    for at in range(0, nbytes, _CHUNK_NBYTES):
        step = min(_CHUNK_NBYTES, nbytes - at)
        one = os.pread(source, step, source_offset + at)
        if len(one) != step or one != os.pread(target, step, offset + at):
            return False
    return True


def _check_computed(
    tensors: Mapping[str, TensorPlan],
    found: GrowthPlan,
    base_file: Callable[[str], int],
    grown_file: Callable[[str], int],
    advance: Callable[[int], None],
) -> None:
    """Compute tensors again and compare; zeros need no torch."""
    work = []
    for name, planned in sorted(tensors.items(), key=lambda item: predictor_of(item[1].recipe)):
        written = stored_in(found.tensors[name])
        target = grown_file(written.file)
        if is_zero(planned):
            if not _all_zero(target, written.offset, written.nbytes):
                raise _differs(name, planned)
            advance(planned.nbytes)
            continue
        for leaf in leaves(planned.recipe):
            base_file(leaf.file)
        work += [(chunk, target, written.offset) for chunk in chunks(name, planned)]
    if not work:
        return
    evaluator = Evaluator(rows_of_files(base_file))

    def compare(chunk: Chunk, target: int, offset: int) -> int:
        content = computed(chunk, evaluator)
        for at in chunk.offsets:
            if os.pread(target, chunk.nbytes, offset + at) != content:
                raise _differs(chunk.name, chunk.tensor)
        return chunk.nbytes * chunk.num_repeats

    for nbytes in in_threads(partial(compare, *piece) for piece in work):
        advance(nbytes)


def _all_zero(target: int, offset: int, nbytes: int) -> bool:
    for at in range(0, nbytes, _CHUNK_NBYTES):
        step = min(_CHUNK_NBYTES, nbytes - at)
        if os.pread(target, step, offset + at) != bytes(step):
            return False
    return True


def _differs(name: str, planned: TensorPlan) -> VerificationError:
    sources = ", ".join(dict.fromkeys(leaf.name for leaf in leaves(planned.recipe)))
    made_from = sources if planned.is_copy else f"what the plan makes of {sources}"
    wanted = f"{printable(made_from)} of the base" if sources else "what was planned"
    hint = "the model was changed after it was grown, or the base is another one"
    if predictor_of(planned.recipe):
        hint += ", or another machine or another version of torch predicted it"
    return VerificationError(
        f"{printable(name)} differs from {wanted}",
        hint=hint,
    )
