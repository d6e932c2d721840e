"""What a checkpoint holds of model and optimizer: whole tensors by name, whatever shards them.

Names are those of the model's state dict. So a checkpoint of one process can be read by two, and
one of shards by copies.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from hfgrow.errors import TrainingError, printable
from hfgrow.train.state import Checkpoint

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
    found = {}
    for name, parameter in model.named_parameters():
        tensor = whole(parameter)
        if keep:
            found[name] = tensor
    return found


def optimizer_state(model: Any, optimizer: Any, *, keep: bool) -> dict[str, dict[str, Tensor]]:
    """Return the state of an optimizer by the names of parameters."""
    found: dict[str, dict[str, Tensor]] = {}
    for name, parameter in model.named_parameters():
        entry = {key: whole(value) for key, value in optimizer.state.get(parameter, {}).items()}
        if keep and entry:
            found[name] = entry
    return found


def flat(state: State) -> dict[str, Tensor]:
    """Return an optimizer's state as one mapping, `name/key`, as a file holds it."""
    return {f"{name}/{key}": value for name, entry in state.items() for key, value in entry.items()}


def unflat(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Return an optimizer's state from the mapping that a file holds."""
    found: dict[str, dict[str, Tensor]] = {}
    for path, tensor in tensors.items():
        name, _, key = path.rpartition("/")
        found.setdefault(name, {})[key] = tensor
    return found


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
            parameter.copy_(_like(tensors[name], parameter))


def put_optimizer(
    model: Any, optimizer: Any, state: State, groups: list[dict[str, Any]] | None = None
) -> None:
    """Put a state into an optimizer.

    Args:
        model: The transformers model whose parameters it has.
        optimizer: The optimizer.
        state: By names of parameters; those that do not train are passed over.
        groups: What `group_state` returned; None leaves the groups as they are.
    """
    trained = {id(p) for group in optimizer.param_groups for p in group["params"]}
    for name, parameter in model.named_parameters():
        if name in state and id(parameter) in trained:
            optimizer.state[parameter] = dict(_placed(state[name], parameter))
    for group, kept in zip(optimizer.param_groups, groups or [], strict=bool(groups)):
        group.update({key: kept[key] for key in _OF_GROUP if key in kept})


def read_optimizer(checkpoint: Checkpoint) -> dict[str, dict[str, Tensor]]:
    """Read the optimizer's state of a checkpoint."""
    return unflat(checkpoint.tensors(OPTIMIZER))


def _placed(entry: Mapping[str, Tensor], parameter: Any) -> Iterator[tuple[str, Tensor]]:
    for key, value in entry.items():
        is_scalar = value.ndim == 0 and parameter.ndim > 0
        # torch keeps the number of steps beside a fused kernel's tensors, else on the CPU.
        yield key, value.to(parameter.device) if is_scalar else _like(value, parameter)


def _like(tensor: Tensor, parameter: Any) -> Any:
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
