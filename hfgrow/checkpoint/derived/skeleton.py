"""transformers' model of a config.json without numbers: its one stack of layers, names and shapes.

torch and transformers are loaded here when they are called for; no code of a model ever runs.
"""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hfgrow.checkpoint.derived.layers import all_traits, kinds_of
from hfgrow.errors import ModelError, foreign, printable, require
from hfgrow.plan.families import FAMILIES
from hfgrow.plan.families.rewrite import DEPTHS

Shapes = Mapping[str, tuple[int, ...]]
_PACKAGES = ("torch", "transformers")
# Parts of a model that see or hear.
OTHERS = re.compile(r"(^|\.|_)(vision|visual|image|audio|multi_modal)(_|\.)")


@dataclass(frozen=True, slots=True)
class Form:
    """The tensors of a model under the names that files may have.

    Attributes:
        shapes: Name -> shape, parameters and the buffers that are stored.
        stack: What the names of the layers' tensors start with.
        tied: Names of one and the same tensor; any one of them is stored.
    """

    shapes: Shapes
    stack: str
    tied: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Skeleton:
    """A model on the meta device.

    Attributes:
        config: Its config.
        text: The part of the config that says how many layers there are.
        inside: The keys that lead to that part.
        model: The model.
        stack: The name of the list of its layers, as a module.
        layers: The layers.
        forms: Its tensors, as `state_dict` has them and as `save_pretrained` writes them.
        embeddings: The names of embeddings and head in any form.
    """

    config: Any
    text: Any
    inside: tuple[str, ...]
    model: Any
    stack: str
    layers: Any
    forms: tuple[Form, ...]
    embeddings: frozenset[str]

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of the layers with defaults filled in, as JSON."""
        filled: dict[str, Any] = json.loads(self.text.to_json_string(use_diff=False))
        return filled


def skeleton_of(config: Mapping[str, Any]) -> Skeleton:
    """Build the model of a config.json without numbers.

    Raises:
        ModelError: transformers is not installed or refuses the config, or the model is none whose
            layers stand in one list.
    """
    model_type = config.get("model_type")
    require(f"model_type {printable(repr(model_type))}, of which hfgrow has no table,", *_PACKAGES)
    if not _is_known(str(model_type)):
        raise ModelError(
            f"config.json: model_type {printable(repr(model_type))} is unknown; hfgrow grows "
            f"{', '.join(sorted(FAMILIES))}, and in depth what transformers knows"
        )
    settings = {key: value for key, value in config.items() if key != "hfgrow"}
    return _built(json.dumps(settings, sort_keys=True))


@lru_cache
def _is_known(model_type: str) -> bool:
    """Say whether transformers names a type, without importing it: that takes seconds."""
    found = find_spec("transformers")
    assert found is not None
    folders = [Path(place, "models", "auto") for place in found.submodule_search_locations or ()]
    tables = (file for folder in folders for file in folder.glob("*.py"))
    word = json.dumps(model_type)
    return bool(model_type) and any(word in one.read_text(encoding="utf-8") for one in tables)


@lru_cache(maxsize=8)
def _built(text: str) -> Skeleton:
    content = json.loads(text)
    with foreign(lambda said: ModelError(f"config.json: transformers refuses it: {said}")):
        config = loaded_config(content)
        model = model_without_numbers(config, content)
        model.tie_weights()
    inside, part = text_part(config)
    path, layers = _stack(model, part, content)
    with foreign(lambda said: ModelError(f"transformers cannot name the tensors: {said}")):
        forms = tuple(_forms(model, path))
    return Skeleton(config, part, inside, model, path, layers, forms, _embeddings(model))


def silence() -> None:
    """Import transformers with its notices switched off."""
    from transformers.utils import logging

    logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # it has no annotations


def loaded_config(content: Mapping[str, Any]) -> Any:
    """Return the config of a config.json; what transformers raises goes through.

    Only what it reads from a file is decoded whole: infinity is an object there.
    """
    silence()
    from transformers import AutoConfig

    with TemporaryDirectory(prefix="hfgrow-") as folder:
        Path(folder, "config.json").write_text(json.dumps(content), encoding="utf-8")
        return AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)


def model_class(config: Any, content: Mapping[str, Any]) -> Any:
    """Return the class of the model: the one that config.json names, if it is a language model's.

    Raises:
        ModelError: It is none.
    """
    from transformers.models.auto import modeling_auto

    found: list[Any] = []
    for name in ("MODEL_FOR_CAUSAL_LM_MAPPING", "MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING"):
        mapping = getattr(modeling_auto, name)
        if type(config) in mapping:
            classes = mapping[type(config)]
            found += classes if isinstance(classes, tuple | list) else [classes]
    if not found:
        raise ModelError(
            f"config.json: transformers has no language model for the model_type "
            f"{printable(content.get('model_type'))}",
            hint="only causal language models can be grown",
        )
    named = content.get("architectures")
    if named is None:
        return found[0]
    fitting = [one for one in found if [one.__name__] == named]
    if not fitting:
        names = " or ".join(dict.fromkeys(one.__name__ for one in found))
        raise ModelError(
            f"config.json: architectures is {printable(repr(named))}, but model_type "
            f"{printable(content.get('model_type'))} is a {names} here",
            hint="only causal language models can be grown",
        )
    return fitting[0]


def model_without_numbers(config: Any, content: Mapping[str, Any]) -> Any:
    """Build the model of a config on the meta device; what transformers raises goes through."""
    import torch

    wanted = model_class(config, content)
    with torch.device("meta"):
        return wanted._from_config(config)


@contextmanager
def real_buffers() -> Iterator[None]:
    """Let modules that are built have numbers in their buffers, and none in their parameters."""
    import torch
    from transformers.initialization import no_init_weights

    register = torch.nn.Module.register_parameter

    def without_numbers(module: Any, name: str, parameter: Any) -> None:
        if parameter is not None:
            parameter = torch.nn.Parameter(
                parameter.to("meta"), requires_grad=parameter.requires_grad
            )
        register(module, name, parameter)

    any_module: Any = torch.nn.Module
    any_module.register_parameter = without_numbers
    try:
        with no_init_weights():
            yield
    finally:
        any_module.register_parameter = register


def text_part(config: Any) -> tuple[tuple[str, ...], Any]:
    """Return the config of the layers, and the keys that lead to it."""
    part = config.get_text_config(decoder=True)
    if part is config:
        return (), config
    for key in ("text_config", "decoder", "generator"):
        if getattr(config, key, None) is part:
            return (key,), part
    return (), config


def layers_of(model: Any) -> Any:
    """Return the one list of layers of a transformers model.

    Raises:
        ModelError: There is none, or more than one.
    """
    return _stack(model, text_part(model.config)[1], {"model_type": model.config.model_type})[1]


def _stack(model: Any, text: Any, content: Mapping[str, Any]) -> tuple[str, Any]:
    """Return the name of the one list of layers, and the list.

    Raises:
        ModelError: There is none, or more than one.
    """
    import torch

    root = _decoder(model)
    filled = text.to_dict()
    depths = {filled[key] for key in DEPTHS if type(filled.get(key)) is int}
    depths |= {
        len(value)
        for key, value in filled.items()
        if key.endswith(("types", "layers_block_type")) and _is_list(value)
    }
    found: dict[str, Any] = {}
    for name, module in root.named_modules():
        is_inside = any(name.startswith(f"{other}.") for other in found) or OTHERS.search(name)
        if isinstance(module, torch.nn.ModuleList) and len(module) and not is_inside:
            found[name] = module
    chosen = {name: module for name, module in found.items() if len(module) in depths}
    if len(chosen) > 1:
        known = set(model._no_split_modules or ())
        split = {
            name: module for name, module in chosen.items() if type(module[0]).__name__ in known
        }
        chosen = split or chosen
    if len(chosen) != 1:
        what = f"{len(chosen)} lists ({', '.join(chosen)})" if chosen else "no list"
        raise ModelError(
            f"config.json: a {printable(content.get('model_type'))} has {what} of as many layers "
            "as config.json says, not one",
            hint="only a model whose layers stand in one list can be grown",
        )
    ((name, layers),) = chosen.items()
    names = {id(module): path for path, module in model.named_modules()}
    return names[id(layers)], layers


def _is_list(value: object) -> bool:
    return isinstance(value, list | tuple)


def _decoder(model: Any) -> Any:
    """Return the part of a model that predicts text."""
    import torch

    get = getattr(model, "get_decoder", None)
    found = get() if get is not None else None
    if found is None or not any(isinstance(m, torch.nn.ModuleList) for m in found.modules()):
        return model
    return found


def _embeddings(model: Any) -> frozenset[str]:
    """Return the names of the embeddings of the vocabulary and of the output head."""
    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    owned = {id(p) for end in ends if end is not None for p in end.parameters()}
    names = {name for name, p in model.named_parameters(remove_duplicate=False) if id(p) in owned}
    prefix = f"{model.base_model_prefix}."
    return frozenset(names | {name.removeprefix(prefix) for name in names})


def _forms(model: Any, stack: str) -> Iterator[Form]:
    """Yield the tensors under their names in memory, as they are saved, and of a base model."""
    from transformers.core_model_loading import revert_weight_conversion

    tensors = model.state_dict(keep_vars=True)
    tied = [names for names in _groups(tensors) if len(names) > 1]
    yield _form(tensors, f"{stack}.", tied)
    base = f"{model.base_model_prefix}."
    if model.base_model_prefix and stack.startswith(base):
        bare = {name.removeprefix(base): tensor for name, tensor in tensors.items()}
        yield _form(
            bare,
            f"{stack.removeprefix(base)}.",
            [tuple(name.removeprefix(base) for name in names) for names in tied],
        )
    plain = {name: tensor.detach() for name, tensor in tensors.items()}
    kinds = kinds_of(all_traits(model.get_submodule(stack)))
    # One layer of each kind stands for all: experts with a name each are tens of thousands.
    chosen = {kinds.index(kind) for kind in kinds}
    some = {name: t for name, t in plain.items() if _layer(name, f"{stack}.") in chosen | {None}}
    saved = revert_weight_conversion(model, some)
    if saved.keys() == some.keys():
        return

    def renamed(name: str) -> str:
        return str(next(iter(revert_weight_conversion(model, {name: plain[name]}))))

    inside = next(name for name in plain if name.startswith(f"{stack}."))
    found = re.match(r"(.*?\.)\d+\.", renamed(inside))
    if found is None:
        return
    prefix = found[1]
    groups = [tuple(dict.fromkeys(map(renamed, names))) for names in tied]
    every: dict[str, Any] = {}
    for name, tensor in saved.items():
        number = _layer(name, prefix)
        same = [i for i, kind in enumerate(kinds) if number is not None and kind == kinds[number]]
        for i in same:
            every[f"{prefix}{i}.{name.removeprefix(prefix).partition('.')[2]}"] = tensor
        if number is None:
            every[name] = tensor
    yield _form(every, prefix, groups)


def _layer(name: str, prefix: str) -> int | None:
    """Return the layer that a name belongs to."""
    number, dot, _ = name.removeprefix(prefix).partition(".")
    return int(number) if name.startswith(prefix) and dot and number.isdecimal() else None


def _groups(tensors: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return the names of each tensor; tied ones have several."""
    names: dict[int, list[str]] = {}
    for name, tensor in tensors.items():
        names.setdefault(id(tensor), []).append(name)
    return [tuple(found) for found in names.values()]


def _form(tensors: Mapping[str, Any], stack: str, tied: list[tuple[str, ...]]) -> Form:
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    return Form(shapes, stack, tuple(tied))
