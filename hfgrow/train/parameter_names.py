"""What the parameters of a model are called in memory and in its files.

In most models that is one name. transformers makes one tensor of the experts of a layer, and names
some models otherwise than they are saved; its own conversion goes there and back. A recipe, a plan
and an optimizer's state that grows speak of files, a checkpoint of a run of memory.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hfgrow.checkpoint.derived.skeleton import loaded_config, model_without_numbers
from hfgrow.errors import ModelError, TrainingError, printable
from hfgrow.growth.loading import transformers_config
from hfgrow.plan.families import FAMILIES
from hfgrow.plan.families.table import layer_of
from hfgrow.plan.plan import GrowthPlan
from hfgrow.plan.tensors import Stored

# Name of a parameter -> what an optimizer keeps for it.
State = Mapping[str, Mapping[str, Tensor]]
_EMBEDDINGS = ("model.embed_tokens.", "lm_head.")


# The number of an expert in a name in files.
EXPERT = re.compile(r"(?<=\.experts\.)\d+(?=\.)", re.ASCII)


def with_other_experts(names: Iterable[str], found: Iterable[str]) -> set[str]:
    """Return names in files, with those of the same matrix in the other experts of a layer."""
    patterns = {EXPERT.sub("*", name) for name in found}
    return {name for name in names if EXPERT.sub("*", name) in patterns}


@dataclass(frozen=True, slots=True)
class Names:
    """The parameters of a model in its files.

    Attributes:
        in_files: Name in memory -> its names in files; the same where that is left out.
        layer_of: The layer of a tensor by its name in files, and the rest of the name.
        is_embedding: Whether a tensor is of the embeddings or the head, by its name in files.
    """

    in_files: Mapping[str, tuple[str, ...]]
    layer_of: Callable[[str], tuple[int, str] | None]
    is_embedding: Callable[[str], bool]

    def of(self, name: str) -> tuple[str, ...]:
        """Return the names in files of a parameter."""
        return self.in_files.get(name, (name,))


# Those of a family with a table whose tensors are the same in memory.
PLAIN = Names({}, layer_of, lambda name: name.startswith(_EMBEDDINGS))


def names_in_files(plan: GrowthPlan) -> Names:
    """Return how the names in the files of a plan are to be read."""
    if plan.derived is None:
        return PLAIN
    return Names({}, plan.derived.layer_of, plan.derived.embeddings.__contains__)


def names_of(model: Any, plan: GrowthPlan) -> Names:
    """Return what the parameters of a model are called in the files of a plan.

    Raises:
        ModelError: A parameter lies in no file.
    """
    names, parameters = names_in_files(plan), dict(model.named_parameters())
    if _is_same(parameters, plan):
        return names
    # Numbers are not needed, and a conversion would copy them.
    found = {
        name: tuple(_saved(model, {name: parameter.to("meta")}, plan))
        for name, parameter in parameters.items()
    }
    for name, stored in found.items():
        if lacking := next((one for one in stored if one not in plan.tensors), None):
            raise ModelError(
                f"{printable(lacking)} of the loaded model lies in no file of it, so what {name} "
                "learns could not be written",
                hint="train the model elsewhere: its folder is a plain checkpoint",
            )
    return replace(names, in_files=found)


def in_files(model: Any, tensors: Mapping[str, Tensor], plan: GrowthPlan) -> dict[str, Tensor]:
    """Return parameters as the files of a plan hold them, with the buffers that these hold.

    Args:
        model: The transformers model.
        tensors: Its parameters, by their names in memory.
        plan: A model with the same tensors in its files.

    Raises:
        TrainingError: transformers would save the model otherwise than it was read.
    """
    if _is_plain(plan):
        return dict(tensors)
    own = {id(parameter): name for name, parameter in model.named_parameters()}
    whole = {
        name: tensors[own[id(tensor)]] if id(tensor) in own else tensor.detach().cpu()
        for name, tensor in model.state_dict(keep_vars=True).items()
    }
    saved = _saved(model, whole, plan)
    for name in plan.tensors:
        if name not in saved:
            raise TrainingError(
                f"transformers does not save {printable(name)} as it was read",
                hint="train the model elsewhere: its folder is a plain checkpoint",
            )
    return {name: saved[name] for name in plan.tensors}


def state_in_files(folder: Path, state: State, plan: GrowthPlan) -> State:
    """Return an optimizer's state by the names and shapes in the files of a model.

    Args:
        folder: The model that it was kept for.
        state: By the names in memory.
        plan: That model.
    """
    if _is_same(state, plan):
        return state
    config = transformers_config(folder)
    model = model_without_numbers(config, {"architectures": config.architectures})
    found: dict[str, dict[str, Tensor]] = {}
    for key in _keys(state):
        for name, tensor in _saved(model, _spread(state, key), plan).items():
            is_number = all(entry[key].ndim == 0 for entry in state.values() if key in entry)
            found.setdefault(name, {})[key] = tensor.flatten()[0].clone() if is_number else tensor
    return found


def state_in_memory(model: Any, state: State, plan: GrowthPlan) -> State:
    """Return an optimizer's state by the parameters of a loaded model.

    Args:
        model: The transformers model.
        state: By the names in the files of the model.
        plan: The model in its files.
    """
    parameters = dict(model.named_parameters())
    if _is_same(parameters, plan):
        return state
    names = names_of(model, plan)
    kept = {name for name in parameters if all(one in state for one in names.of(name))}
    found: dict[str, dict[str, Tensor]] = {name: {} for name in kept}
    for key in _keys(state):
        is_number = all(entry[key].ndim == 0 for entry in state.values() if key in entry)
        loaded = _loaded(model, _spread(state, key, plan), plan)
        for name in kept:
            tensor = loaded[name]
            found[name][key] = tensor.flatten()[0].clone() if is_number else tensor
    return found


def _is_same(names: Iterable[str], plan: GrowthPlan) -> bool:
    """Say whether the files hold the parameters by the names that they have in memory."""
    return _is_plain(plan) or all(name in plan.tensors for name in names)


def _is_plain(plan: GrowthPlan) -> bool:
    family = FAMILIES.get(plan.family)
    return family is not None and not family.has_experts


def _saved(model: Any, tensors: Mapping[str, Tensor], plan: GrowthPlan) -> dict[str, Tensor]:
    """Return tensors as transformers saves them, by the names of a plan where it has them."""
    from transformers.core_model_loading import revert_weight_conversion

    prefix = f"{model.base_model_prefix}."
    known = {name: name for name in plan.tensors}
    known |= {
        tensor.recipe.name: name
        for name, tensor in plan.tensors.items()
        if isinstance(tensor.recipe, Stored)
    }
    found = {}
    for name, tensor in revert_weight_conversion(model, dict(tensors)).items():
        others = (name, f"{prefix}{name}", name.removeprefix(prefix))
        found[next((known[one] for one in others if one in known), name)] = tensor
    return found


def _loaded(model: Any, tensors: Mapping[str, Tensor], plan: GrowthPlan) -> dict[str, Tensor]:
    """Return what transformers makes of tensors of files as parameters, on the CPU."""
    config = loaded_config({key: value for key, value in plan.config.items() if key != "hfgrow"})
    own = type(model).from_pretrained(
        None, config=config, state_dict=dict(tensors), dtype=torch.float32
    )
    return {name: parameter.detach() for name, parameter in own.named_parameters()}


def _keys(state: State) -> list[str]:
    return list(dict.fromkeys(key for entry in state.values() for key in entry))


def _spread(state: State, key: str, plan: GrowthPlan | None = None) -> dict[str, Tensor]:
    """Return what a state keeps under a key; a single number as a tensor full of it."""
    found = {}
    for name, entry in state.items():
        if key in entry:
            shapes = [value.shape for value in entry.values() if value.ndim]
            value = entry[key]
            found[name] = value.expand(shapes[0]) if not value.ndim and shapes else value
    return found
