"""What may go once a run is finished: its checkpoints, the models between stages, its tokens."""

import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from hfgrow.checkpoint.files import CONFIG, RECIPE, is_run
from hfgrow.checkpoint.locks import held, undisturbed
from hfgrow.checkpoint.staging import sweep_beside, translated
from hfgrow.errors import UsageError, command, printable
from hfgrow.train.run_folder import RunFolder

KINDS = {
    "checkpoints": "the states of training",
    "stages": "the models between stages",
    "tokens": "the tokenised text",
}

_EXPECTED = "name the output of a run, or the folder in which a command was killed"


def removable(run: RunFolder) -> dict[str, int]:
    """Return what of a finished run may go, and the bytes that it takes on the disk.

    Files that are linked, as a study links those of a base, count once they are the last.
    """
    found = {kind: _nbytes(run.path / kind) for kind in KINDS}
    return {kind: nbytes for kind, nbytes in found.items() if nbytes}


def clean(folder: Path, *, keep: frozenset[str] = frozenset(), dry_run: bool = False) -> "Cleaned":
    """Remove what a finished run has no more use for, or what killed commands left in a folder.

    Args:
        folder: The folder of a run, or any other.
        keep: Of `KINDS`, what of a run stays.
        dry_run: Whether all of it stays.

    Raises:
        UsageError: There is no such folder, it is a model's, or the run is not finished.
        OutputError: Another process writes it, or the file system refuses.
    """
    shown = printable(folder, 200)
    if not folder.is_dir():
        raise UsageError(f"there is no folder {shown}", hint=_EXPECTED)
    if not is_run(folder):
        leftovers = tuple(sweep_beside(folder, dry_run=dry_run))
        if not leftovers and (folder / CONFIG).is_file():
            raise UsageError(f"{shown} holds a model and is no folder of a run", hint=_EXPECTED)
        return Cleaned({}, leftovers)
    run = RunFolder(folder)
    if not run.is_finished:
        recipe = printable(folder / RECIPE, 200)
        raise UsageError(
            f"the run in {shown} is not finished, and its checkpoints are what it goes on from",
            hint=f"{command(f'train {recipe}', resume='')}, or remove the folder",
        )
    with held(folder, hint="wait for it"):
        found = {kind: n for kind, n in removable(run).items() if kind not in keep}
        if dry_run:
            return Cleaned(found, tuple(sweep_beside(folder, dry_run=True)))
        for kind in found:
            with translated(printable(folder / kind, 200)), undisturbed():
                shutil.rmtree(folder / kind)
        return Cleaned(found, tuple(sweep_beside(folder)))


class Cleaned:
    """What was removed, or would be.

    Attributes:
        kinds: Of a run, by `KINDS`, the bytes that were freed.
        leftovers: What killed commands had left.
    """

    def __init__(self, kinds: Mapping[str, int], leftovers: tuple[Path, ...]) -> None:
        self.kinds, self.leftovers = kinds, leftovers

    @property
    def nbytes(self) -> int:
        """All bytes of the run that were freed."""
        return sum(self.kinds.values())


def _nbytes(folder: Path) -> int:
    files = list(_files(folder))
    return sum(file.st_blocks * 512 for file in files if file.st_nlink == 1)


def _files(folder: Path) -> Iterator[os.stat_result]:
    for where, _, names in os.walk(folder):
        for name in names:
            yield os.lstat(os.path.join(where, name))
