"""Checkpoints of a training run: complete or not there, checked when read, no pickle.

A checkpoint is a folder `step-NNNNNNNN` with safetensors files, `state.json` with everything that
is no tensor, and `manifest.json`, written last, with the size and sha256 of every other file. A
folder without a manifest that fits is passed over, and put aside when its step comes again.

Model and optimizer are whole tensors under the names of the model's state dict, whatever shards
them. So a checkpoint of one process can be read by two, and one of shards by copies.
"""

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hfgrow.checkpoint.files import hash_file
from hfgrow.checkpoint.staging import sync, translated
from hfgrow.console import Progress, counting
from hfgrow.errors import Text, TrainingError, printable

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
            for name in files:
                # safetensors writes what its owner alone can read, whatever the umask.
                shutil.copymode(staging / _STATE, staging / f"{name}.safetensors")
            written = {path.name: path for path in sorted(staging.iterdir())}
            manifest = {
                name: {"nbytes": path.stat().st_size, "sha256": hash_file(path)}
                for name, path in written.items()
            }
            for path in written.values():
                sync(path)
            _write_json(staging / _MANIFEST, {"files": manifest})
            sync(staging / _MANIFEST)
            sync(staging)
            staging.rename(final)
            sync(folder)
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
        progress: Told how far the reading is, and which ones are passed over, and why.

    Raises:
        TrainingError: None of those that are there is whole, or one cannot be read.
    """
    faults = []
    for found in _folders(folder):
        try:
            return _read(found, progress)
        except OSError as error:
            reason = error.strerror or error
            raise TrainingError(
                f"checkpoint {printable(found.name)} cannot be read: {printable(reason)}",
                hint="try again; to go on from the one before it, move it somewhere else",
            ) from error
        except TrainingError as error:
            faults.append(str(error))
            progress.say(Text(f"Note: {error}; it is passed over"))
    if faults:
        raise TrainingError(
            f"no checkpoint of the run is whole: {'; '.join(faults[:3])}",
            hint=f"restore one, or move {printable(folder, 200)} somewhere else: the run then goes "
            "on from the last model it has trained, or begins anew",
        )
    return None


def _read(folder: Path, progress: Progress) -> Checkpoint:
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
    total = sum(nbytes for nbytes, _ in files.values())
    with counting(progress, f"Checking checkpoint {shown}", total) as advance:
        for name, (nbytes, digest) in files.items():
            path = folder / Path(name).name
            if not path.is_file() or path.is_symlink():
                raise TrainingError(f"checkpoint {shown} lacks {printable(name)}")
            if path.stat().st_size != nbytes or hash_file(path, advance=advance) != digest:
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


MODEL, OPTIMIZER = "model", "optimizer"
# What a parameter group has beside its parameters and what the recipe says anew.
_OF_GROUP = ("k", "weight_sum", "lr_max", "train_mode")
# Name of a parameter -> what an optimizer keeps for it.
State = Mapping[str, Mapping[str, Tensor]]


def whole(tensor: Tensor) -> Tensor:
    """Return a tensor whole on the CPU; every process must ask for a sharded one."""
    gathered: Any = tensor.detach()
    if hasattr(gathered, "full_tensor"):
        gathered = gathered.full_tensor()
    result: Tensor = gathered.cpu()
    return result


def model_tensors(model: Any, *, keep: bool) -> dict[str, Tensor]:
    """Return the parameters of a model by name; a tied head is not among them.

    Args:
        model: The transformers model.
        keep: Whether this process wants them; it takes part in the gathering anyway.
    """
    tensors = {}
    for name, parameter in model.named_parameters():
        tensor = whole(parameter)
        if keep:
            tensors[name] = tensor
    return tensors


def optimizer_state(model: Any, optimizer: Any, *, keep: bool) -> dict[str, dict[str, Tensor]]:
    """Return the state of an optimizer by the names of parameters."""
    state: dict[str, dict[str, Tensor]] = {}
    for name, parameter in model.named_parameters():
        entry = {key: whole(value) for key, value in optimizer.state.get(parameter, {}).items()}
        if keep and entry:
            state[name] = entry
    return state


def flat(state: State) -> dict[str, Tensor]:
    """Return an optimizer's state as one mapping, `name/key`, as a file holds it."""
    return {f"{name}/{key}": value for name, entry in state.items() for key, value in entry.items()}


def unflat(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Return an optimizer's state from the mapping that a file holds."""
    state: dict[str, dict[str, Tensor]] = {}
    for path, tensor in tensors.items():
        name, _, key = path.rpartition("/")
        state.setdefault(name, {})[key] = tensor
    return state


def group_state(optimizer: Any) -> list[dict[str, Any]]:
    """Return what an optimizer keeps for its groups, as JSON holds it."""
    return [
        {key: group[key] for key in _OF_GROUP if key in group} for group in optimizer.param_groups
    ]


def group_state_of(checkpoint: Checkpoint) -> list[dict[str, Any]]:
    """Return what the groups of a checkpoint's optimizer kept."""
    groups = checkpoint.state.get("groups")
    if not isinstance(groups, list):
        raise TrainingError("the checkpoint was written by another version of hfgrow")
    return groups


def put_model(model: Any, tensors: Mapping[str, Tensor]) -> None:
    """Put whole tensors into the parameters of a model, sharded or not.

    Raises:
        TrainingError: They are not those of the model.
    """
    parameters = dict(model.named_parameters())
    if parameters.keys() != tensors.keys():
        odd = sorted(parameters.keys() ^ tensors.keys())[0]
        raise TrainingError(f"the checkpoint is of another model: {printable(odd)} is in one only")
    with torch.no_grad():
        for name, parameter in parameters.items():
            if tuple(parameter.shape) != tuple(tensors[name].shape):
                raise TrainingError(
                    f"{printable(name)} has shape {list(parameter.shape)}, in the checkpoint "
                    f"{list(tensors[name].shape)}"
                )
            parameter.copy_(like(tensors[name], parameter))


def put_optimizer(
    model: Any, optimizer: Any, state: State, groups: Sequence[Mapping[str, Any]] = ()
) -> None:
    """Put a state into an optimizer.

    Args:
        model: The transformers model whose parameters it has.
        state: By names of parameters; those that do not train are passed over.
        groups: What `group_state` returned; empty leaves the groups as they are.
    """
    trained = {id(p) for group in optimizer.param_groups for p in group["params"]}
    for name, parameter in model.named_parameters():
        if name in state and id(parameter) in trained:
            optimizer.state[parameter] = dict(_placed(state[name], parameter))
    own = optimizer.param_groups
    for group, kept in zip(own, _kept_for(own, groups), strict=False):
        group.update(kept)


def _kept_for(
    own: Sequence[Mapping[str, Any]], groups: Sequence[Mapping[str, Any]]
) -> Iterator[dict[str, Any]]:
    """Yield what each group of an optimizer goes on with; nothing where nothing was kept.

    Where there were as many groups, each has its own; else all have the first one's. How far the
    average of Schedule-Free is, in its rate, is then said in units of their own peak, so that the
    next iterate has the same share of the average everywhere.
    """
    for i, group in enumerate(own if groups else ()):
        is_own = len(groups) == len(own)
        kept = {key: value for key, value in groups[i if is_own else 0].items() if key in _OF_GROUP}
        if kept and not is_own:
            ratio = group["peak"] / own[0]["peak"]
            kept["weight_sum"] *= ratio ** group["weight_lr_power"]
            kept["lr_max"] *= ratio
        yield kept


def read_optimizer(checkpoint: Checkpoint) -> dict[str, dict[str, Tensor]]:
    """Read the optimizer's state of a checkpoint."""
    return unflat(checkpoint.tensors(OPTIMIZER))


def _placed(entry: Mapping[str, Tensor], parameter: Any) -> Iterator[tuple[str, Tensor]]:
    for key, value in entry.items():
        is_scalar = value.ndim == 0 and parameter.ndim > 0
        # torch keeps the number of steps beside a fused kernel's tensors, else on the CPU.
        yield key, value.to(parameter.device) if is_scalar else like(value, parameter)


def like(tensor: Tensor, parameter: Any) -> Any:
    """Return a whole tensor where the parameter is, parted as the parameter is parted."""
    if not hasattr(parameter, "device_mesh"):
        return tensor.to(parameter.device)
    from torch.distributed.tensor import distribute_tensor

    # Every process read the same file, so none has to send its part to the others.
    return distribute_tensor(
        tensor.to(parameter.device),
        parameter.device_mesh,
        parameter.placements,
        src_data_rank=None,
    )


@contextmanager
def as_os_error() -> Iterator[None]:
    """Let what the file system refuses be an OSError again; safetensors makes a text of it."""
    from safetensors import SafetensorError

    try:
        yield
    except SafetensorError as error:
        found = re.search(r"os error (\d+)", str(error))
        if found is None:
            raise
        raise OSError(int(found[1]), os.strerror(int(found[1]))) from error
