"""Checkpoints of a training run: complete or not there, checked when read, no pickle.

A checkpoint is a folder `step-NNNNNNNN` with safetensors files, `state.json` with everything that
is no tensor, and `manifest.json`, written last, with the size and sha256 of every other file. A
folder without a manifest that fits is passed over, and put aside when its step comes again.
"""

import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from hfgrow.checkpoint.files import hash_file
from hfgrow.checkpoint.staging import translated
from hfgrow.console import Progress
from hfgrow.errors import TrainingError, printable
from hfgrow.train.weights import as_os_error

_FOLDER = re.compile(r"step-(\d{8,12})")
_STATE, _MANIFEST = "state.json", "manifest.json"
Tensors = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint that was read and checked.

    Attributes:
        folder: Where it lies.
        state: Everything that is no tensor.
    """

    folder: Path
    state: Mapping[str, Any]

    def tensors(self, name: str) -> dict[str, Any]:
        """Read one of its safetensors files, by name without suffix."""
        from safetensors.torch import load_file

        return load_file(self.folder / f"{name}.safetensors")


def save_checkpoint(
    folder: Path,
    step: int,
    files: Mapping[str, Tensors],
    state: Mapping[str, Any],
    *,
    keep: int,
) -> Path:
    """Write a checkpoint, then remove all but the newest `keep`.

    Args:
        folder: Where the checkpoints of the run lie.
        step: Optimizer steps done; part of the name.
        files: Name of a safetensors file without suffix -> its tensors.
        state: Everything that is no tensor.
        keep: How many checkpoints stay, at least 1.

    Raises:
        OutputError: It cannot be written; the older ones are as they were.
    """
    from safetensors.torch import save_file

    final = folder / f"step-{step:08d}"
    staging = folder / f".{final.name}.partial"
    with translated(printable(final, 200)):
        folder.mkdir(parents=True, exist_ok=True)
        for left_over in folder.glob(".step-*.partial"):
            shutil.rmtree(left_over)
        _put_aside(final)
        staging.mkdir()
        try:
            for name, tensors in files.items():
                own = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
                with as_os_error():
                    save_file(own, staging / f"{name}.safetensors")
            _write_json(staging / _STATE, state)
            written = {path.name: path for path in sorted(staging.iterdir())}
            manifest = {
                name: {"nbytes": path.stat().st_size, "sha256": hash_file(path)}
                for name, path in written.items()
            }
            for path in written.values():
                _sync(path)
            _write_json(staging / _MANIFEST, {"files": manifest})
            _sync(staging / _MANIFEST)
            _sync(staging)
            staging.rename(final)
            _sync(folder)
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            raise
        for other in _folders(folder):
            # Passed over as damaged, it would be taken for the newest ever after.
            if _step_of(other) > step:
                _put_aside(other)
        for old in _folders(folder)[keep:]:
            shutil.rmtree(old)
    return final


def latest_checkpoint(folder: Path, progress: Progress) -> Checkpoint | None:
    """Return the newest checkpoint that is whole, or None where there are none.

    Args:
        folder: Where the checkpoints of the run lie.
        progress: Told which ones are passed over, and why.

    Raises:
        TrainingError: None of those that are there is whole, or one cannot be read.
    """
    faults = []
    for found in _folders(folder):
        try:
            return _read(found)
        except OSError as error:
            reason = error.strerror or error
            raise TrainingError(
                f"checkpoint {printable(found.name)} cannot be read: {printable(reason)}",
                hint="try again; to go on from the one before it, move it somewhere else",
            ) from error
        except TrainingError as error:
            faults.append(str(error))
            progress.say(f"Note: {error}; it is passed over")
    if faults:
        raise TrainingError(
            f"no checkpoint of the run is whole: {'; '.join(faults[:3])}",
            hint=f"restore one, or move {printable(folder, 200)} somewhere else: the run then goes "
            "on from the last model it has trained, or begins anew",
        )
    return None


def _read(folder: Path) -> Checkpoint:
    shown = printable(folder.name)
    try:
        recorded = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))["files"]
        files = {str(name): (int(f["nbytes"]), str(f["sha256"])) for name, f in recorded.items()}
    except (
        FileNotFoundError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        RecursionError,
    ) as error:
        raise TrainingError(f"checkpoint {shown} has no manifest that can be read") from error
    for name, (nbytes, digest) in files.items():
        path = folder / Path(name).name
        if not path.is_file() or path.is_symlink():
            raise TrainingError(f"checkpoint {shown} lacks {printable(name)}")
        if path.stat().st_size != nbytes or hash_file(path) != digest:
            raise TrainingError(f"{printable(name)} of checkpoint {shown} was changed")
    if _STATE not in files:
        raise TrainingError(f"checkpoint {shown} lacks {_STATE}")
    try:
        state = json.loads((folder / _STATE).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise TrainingError(f"{_STATE} of checkpoint {shown} is no JSON") from error
    if not isinstance(state, dict):
        raise TrainingError(f"{_STATE} of checkpoint {shown} is no state of a run")
    return Checkpoint(folder, state)


def _put_aside(path: Path) -> None:
    """Rename a checkpoint that is in the way: damaged or not, somebody may want it."""
    if path.exists():
        names = (path.with_name(f".damaged-{path.name}-{i}") for i in count(1))
        path.rename(next(name for name in names if not name.exists()))


def _folders(folder: Path) -> list[Path]:
    """Return the checkpoints of a run, the newest first."""
    if not folder.is_dir():
        return []
    found = [path for path in folder.iterdir() if _FOLDER.fullmatch(path.name)]
    return sorted(found, key=_step_of, reverse=True)


def _step_of(path: Path) -> int:
    return int(path.name.removeprefix("step-"))


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
