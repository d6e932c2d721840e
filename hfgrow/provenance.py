"""Prove a growth without torch: headers against the plan, bytes against the base."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hfgrow.checkpoint.convert import converted_from
from hfgrow.checkpoint.files import LocalFolder, open_regular
from hfgrow.checkpoint.read import read
from hfgrow.errors import ModelError, VerificationError, printable
from hfgrow.plan import GrowthPlan, TensorPlan

_CHUNK_NBYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class Provenance:
    """The outcome of a comparison of every tensor with its source."""

    num_tensors: int
    num_converted: int
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
    converted = 0
    descriptors: dict[Path, int] = {}

    def descriptor_of(path: Path) -> int:
        if path not in descriptors:
            descriptors[path] = open_regular(path)
        return descriptors[path]

    try:
        for name, planned in plan.tensors.items():
            written = found.tensors[name].recipe
            source = descriptor_of(Path(plan.folder) / planned.recipe.file)
            target = descriptor_of(folder / written.file)
            if planned.recipe.dtype == planned.dtype:
                same = _same_range(
                    source, target, planned.recipe.offset, written.offset, written.nbytes
                )
            else:
                same = _same_converted(source, target, planned, written.offset)
                converted += 1
            if not same:
                raise VerificationError(
                    f"{printable(name)} differs from {printable(planned.recipe.name)} of the base",
                    hint="the model was changed after it was grown, or the base is another one",
                )
            advance(written.nbytes)
    finally:
        for descriptor in descriptors.values():
            os.close(descriptor)
    return Provenance(len(plan.tensors), converted, plan.nbytes)


def _same_range(source: int, target: int, source_offset: int, offset: int, nbytes: int) -> bool:
    for at in range(0, nbytes, _CHUNK_NBYTES):
        step = min(_CHUNK_NBYTES, nbytes - at)
        one = os.pread(source, step, source_offset + at)
        if len(one) != step or one != os.pread(target, step, offset + at):
            return False
    return True


def _same_converted(source: int, target: int, planned: TensorPlan, offset: int) -> bool:
    for chunk in converted_from(planned, source):
        if os.pread(target, len(chunk), offset) != chunk:
            return False
        offset += len(chunk)
    return True
