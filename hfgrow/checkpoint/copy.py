"""Whole files and whole models copied, in the ways that the file system of the copy has."""

import mmap
import os
from collections.abc import Callable
from pathlib import Path

from hfgrow.checkpoint.files import (
    CARD,
    CONFIG,
    INDEX,
    MANIFEST,
    RECIPE,
    WEIGHTS_NAME,
    open_regular,
    read_into,
    side_files_of,
)
from hfgrow.checkpoint.output import OutputFile
from hfgrow.checkpoint.staging import check_target, staged
from hfgrow.console import Progress, counting
from hfgrow.errors import ModelError, printable

_READ_NBYTES = 8 << 20
_OF_A_MODEL = frozenset({CONFIG, INDEX, CARD, MANIFEST, RECIPE})


def copy_file(
    source: Path, target: Path, advance: Callable[[int], None] = lambda nbytes: None
) -> None:
    """Copy a file; blocks are shared, or copied by a server, where that can be.

    Args:
        source: A regular file, or a link to one that its folder may have.
        target: The file to make.
        advance: Called with the number of bytes as they are there.

    Raises:
        ModelError: The source cannot be read, is a link out of its folder, or became shorter.
        OSError: The file system refuses.
    """
    with os.fdopen(open_regular(source), "rb") as reading:
        descriptor = reading.fileno()
        nbytes = os.fstat(descriptor).st_size
        with OutputFile(target, nbytes) as output:
            if (shared := output.clone(descriptor, 0, 0, nbytes)) is not None:
                advance(shared[1])
            done = shared or output.copy(descriptor, 0, 0, nbytes, advance) or (0, 0)
            memory = memoryview(mmap.mmap(-1, _READ_NBYTES))
            for at in range(done[1], nbytes, _READ_NBYTES):
                part = memory[: nbytes - at]
                if not read_into(part, descriptor, at):
                    raise ModelError(f"{printable(source, 200)} became shorter while it was read")
                output.write(part, at)
                advance(len(part))


def copy_model(folder: Path, out: Path, progress: Progress, *, overwrite: bool = False) -> None:
    """Copy a model into a folder of its own, which appears complete or not at all.

    What is a model's: weights, config, index, card, lineage, recipe, and the side files.

    Args:
        folder: The model.
        out: The folder to make.
        progress: Told how it goes on.
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
