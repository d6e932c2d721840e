"""Weights written as the Hub has them; and those of a model that does not exist yet."""

import difflib
import json
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hfgrow.checkpoint.compute.state_dict import dtype_of
from hfgrow.checkpoint.files import CONFIG, INDEX, SINGLE
from hfgrow.checkpoint.header import build_header
from hfgrow.checkpoint.staging import staged
from hfgrow.checkpoint.write import copy_side_files
from hfgrow.data.text_tokenizer import open_tokenizer
from hfgrow.errors import ModelError, UsageError, printable, said
from hfgrow.growth.loading import built_model, config_of
from hfgrow.plan.elsewhere import with_older_keys
from hfgrow.plan.families import FAMILIES
from hfgrow.plan.plan import GrowthPlan, LayerSource, TensorPlan
from hfgrow.plan.tensors import Stored
from hfgrow.train.recipe.parts import FreshModel

_MAX_SHARD_NBYTES = 50_000_000_000
# As safetensors aligns them.
_ALIGNMENT_NBYTES = 8


def write_weights(
    folder: Path,
    tensors: Mapping[str, Tensor],
    converted: Callable[[str, Tensor], Tensor] = lambda name, tensor: tensor,
    *,
    dtype: torch.dtype,
    max_shard_nbytes: int = _MAX_SHARD_NBYTES,
) -> list[str]:
    """Write tensors into a folder as a model's weights, with the bytes of transformers' own.

    One is converted at a time, so that a second copy of the model is never in memory.

    Args:
        tensors: By name, on the CPU.
        converted: Returns what is written of a tensor, in `dtype`.
        dtype: That of all tensors in the files.
        max_shard_nbytes: The most bytes of tensors in a file.

    Returns:
        The names of the weight files.
    """
    shards: list[list[str]] = [[]]
    filled = 0
    for name, tensor in tensors.items():
        nbytes = tensor.numel() * dtype.itemsize
        if shards[-1] and filled + nbytes > max_shard_nbytes:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += nbytes
    files = {
        SINGLE
        if len(shards) == 1
        else f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors": sorted(names)
        for i, names in enumerate(shards)
    }
    word = dtype_of("", torch.empty(0, dtype=dtype))
    for file, names in files.items():
        entries = [(name, word, tuple(tensors[name].shape)) for name in names]
        header = build_header(entries, metadata={"format": "pt"}, block_nbytes=_ALIGNMENT_NBYTES)
        with (folder / file).open("xb") as opened:
            opened.write(header)
            for name in names:
                tensor = converted(name, tensors[name]).detach().contiguous()
                opened.write(tensor.flatten().view(torch.uint8).numpy().data)
    if len(files) > 1:
        total = sum(tensor.numel() * dtype.itemsize for tensor in tensors.values())
        weight_map = {name: file for file, names in files.items() for name in names}
        index = {
            "metadata": {"total_size": total},
            "weight_map": dict(sorted(weight_map.items())),
        }
        (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    return list(files)


# What config.json files of any model may hold beside the fields of their kind.
_OF_ANY = ("output_attentions", "torchscript", "use_bfloat16", "auto_map", "torch_dtype")
_MOST_NAMED = 5


def write_fresh(fresh: FreshModel, tokenizer: Path, seed: int, target: Path) -> None:
    """Write a model of random weights, as transformers initialises them.

    Args:
        tokenizer: A model folder whose tokenizer it has.
        seed: Decides the weights.
        target: The folder to make.

    Raises:
        UsageError: transformers refuses the config, or opens another tokenizer beside it.
        OutputError: It cannot be written.
    """
    torch.manual_seed(seed)
    model = fresh_model(fresh.config)
    content = json.loads(model.config.to_json_string(use_diff=False))
    content = {key: value for key, value in content.items() if value is not None}
    content |= {"architectures": [type(model).__name__], "dtype": "float32"}
    content = with_older_keys(content)
    with staged(target) as staging:
        write_weights(staging, dict(model.named_parameters()), dtype=torch.float32)
        (staging / CONFIG).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        copy_side_files(tokenizer, staging)
        _check_tokenizer(staging, fresh)


def _check_tokenizer(folder: Path, fresh: FreshModel) -> None:
    """Refuse a model whose type has transformers open another tokenizer than it was given."""
    try:
        open_tokenizer(folder)
    except ModelError as error:
        model_type = printable(fresh.config["model_type"])
        raise UsageError(
            f"base.config: beside a config.json of model_type {model_type} the tokenizer does not "
            f"open as it is: {str(error).removeprefix(printable(folder, 200)).lstrip(': ')}",
            hint="name a tokenizer that is made for it, or take another model_type, such as llama",
        ) from error


def fresh_config(config: Mapping[str, Any]) -> Any:
    """Return a config with transformers' defaults filled in.

    Args:
        config: What it says; `model_type` among it.

    Raises:
        UsageError: transformers refuses it.
    """
    try:
        found = config_of(config)
    except Exception as error:
        raise _refused(error) from error
    _refuse_unknown({key: v for key, v in config.items() if key != "model_type"}, found)
    return found


def _refuse_unknown(settings: Mapping[str, Any], found: Any) -> None:
    """Refuse what no model of the kind has: transformers keeps it, and takes a default instead."""
    known = {field.name for field in fields(found)} | set(found.attribute_map) | set(_OF_ANY)
    kept = found.to_dict()
    # Keys of older files that transformers renames are not kept under their name.
    unknown = [key for key in settings if key not in known and key in kept and key[0] != "_"]
    if not unknown:
        return
    near = [difflib.get_close_matches(key, known, n=1, cutoff=0.8) for key in unknown]
    guesses = [found[0] for found in near if found]
    raise UsageError(
        f"base.config: {', '.join(map(printable, unknown[:_MOST_NAMED]))} "
        f"{'is' if len(unknown) == 1 else 'are'} unknown to {found.model_type}",
        hint=f"did you mean {', '.join(guesses)}?" if guesses else "leave it out",
    )


def fresh_model(config: Mapping[str, Any]) -> Any:
    """Return a model of random weights, float32, on torch's default device.

    Args:
        config: As in `fresh_config`.

    Raises:
        UsageError: transformers refuses the config.
    """
    found = fresh_config(config)
    try:
        return built_model(found, dtype=torch.float32)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        raise _refused(error) from error


def fresh_plan(config: Mapping[str, Any]) -> GrowthPlan:
    """Return the plan of a model that does not exist yet.

    Args:
        config: As in `fresh_config`.

    Raises:
        UsageError: transformers refuses the config.
    """
    content = {key: v for key, v in fresh_config(config).to_dict().items() if v is not None}
    family = FAMILIES[config["model_type"]]
    content |= {"model_type": config["model_type"], "architectures": [family.architecture]}
    content = with_older_keys(content)
    return GrowthPlan(
        folder="",
        config=content,
        family=config["model_type"],
        layer_map=tuple(LayerSource(i) for i in range(content["num_hidden_layers"])),
        tensors={
            name: TensorPlan("F32", Stored(SINGLE, name, 0, shape, "F32"))
            for name, shape in family.shapes(content, tied=family.is_tied(content)).items()
        },
        files={},
    )


def _refused(error: Exception) -> UsageError:
    return UsageError(f"base.config: transformers refuses it: {said(error, 300)}")
