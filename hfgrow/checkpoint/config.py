"""config.json, checked before anything is believed of it."""

import re
from collections.abc import Iterator
from typing import Any

from hfgrow.checkpoint.files import Files
from hfgrow.checkpoint.foreign import refuse_folder
from hfgrow.checkpoint.strict import is_int, read_json_object
from hfgrow.errors import ModelError, printable
from hfgrow.plan.elsewhere import with_older_keys, with_older_rotary
from hfgrow.plan.families import FAMILIES, NOT_GROWN, NOT_GROWN_WITH
from hfgrow.plan.families.rewrite import GLOBAL_KEYS, GLOBAL_LISTS
from hfgrow.plan.families.table import Family
from hfgrow.plan.tensors import CONFIG_DTYPES

_COUNTS = (
    "hidden_size",
    "intermediate_size",
    "num_attention_heads",
    "num_hidden_layers",
    "vocab_size",
)
_OPTIONAL_COUNTS = ("num_key_value_heads", "head_dim")
# What no size follows from, but transformers or a measurement: it makes a table of all labels.
_BOUNDS = {"num_labels": (0, 1 << 16), "max_position_embeddings": (2, (1 << 31) - 1)}
# What is computed besides the next token; the tensors say whether a text model lies in the rest.
_OTHER_TASK = re.compile(r"For(?!CausalLM|ConditionalGeneration)[A-Z]")
# A dtype as torch and trainers spell it.
_DTYPE_WORDS = {
    **{"half": "float16", "float": "float32", "double": "float64"},
    **{"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"},
}
_SWITCHES = (
    "tie_word_embeddings",
    "attention_bias",
    "attention_out_bias",
    "mlp_bias",
    "use_bias",
    "use_sliding_window",
)
# What the rules for lists of layers count with, and its least value.
_RULES = {"max_window_layers": 0, "no_rope_layer_interval": 1, "sliding_window_pattern": 1}
_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_intermediate_size")
_OTHER_WEIGHTS = {
    "transformers_weights": "makes transformers load other weights than the ones read here",
}
_SINGLE_LAYERS = "per_layer_config"
# The part of a model that sees which its layers stand in.
_TEXT = "text_config"
# What chooses an implementation, and may name one to be downloaded; never part of a model.
_IMPLEMENTATIONS = ("attn_implementation", "_attn_implementation", "experts_implementation")
# A list of texts under another key says nothing about single layers: languages, tags, data sets.
_OF_LAYERS = re.compile(r"layer|block|type|kind|pattern|depth", re.IGNORECASE)
_OF_TOKENS = re.compile(r"(_ids?|_tokens?)$")


def read_config(files: Files) -> tuple[dict[str, Any], Family | None, list[str]]:
    """Read and check config.json.

    Returns:
        The config without any `auto_map`, its family, and notes for the user; no family where no
        table knows the `model_type`, so that transformers has to be asked.

    Raises:
        ModelError: The model is of a kind that hfgrow cannot grow, or the config contradicts
            itself.
    """
    if "config.json" not in files.names():
        refuse_folder(files)
        raise ModelError(f"there is no config.json in {files.label}")
    config = read_json_object(files, "config.json")
    family = _family(config)
    _refuse_kinds(config)
    notes = _settle_dtypes(config)
    if family is not None:
        _refuse_experts(config, family)
        notes += [*_settle_architecture(config, family), *_fill_in(config, family)]
        _check_counts(config, family)
        _check_per_layer_lists(config, family)
        config = with_older_keys(config)
    else:
        config = with_older_rotary(config)
        if isinstance(config.get(_TEXT), dict):
            config[_TEXT] = with_older_rotary(config[_TEXT])
    for part, at in _parts(config):
        if part.pop("auto_map", None) is not None:
            notes.append(f"{at}auto_map was dropped: code in a model repository is never run")
        for key in _IMPLEMENTATIONS:
            if part.pop(key, None) is not None:
                notes.append(f"{at}{key} was dropped: it belongs to a run, not to a model")
    if config.get("pretraining_tp") not in (None, 1):
        # Weights are stored whole whatever it says; SmolLM3 is published with 2.
        notes.append("pretraining_tp is kept, and ignored by transformers 5")
    return config, family, notes


def _family(config: dict[str, Any]) -> Family | None:
    model_type = config.get("model_type")
    family = FAMILIES.get(model_type) if isinstance(model_type, str) else None
    if family is None:
        known = f"hfgrow grows {', '.join(sorted(FAMILIES))}"
        if not isinstance(model_type, str):
            found = "is missing" if model_type is None else f"{printable(repr(model_type))} is none"
            raise ModelError(f"config.json: model_type {found}; {known}")
        if model_type in NOT_GROWN:
            raise ModelError(
                f"config.json: model_type {model_type} cannot be grown: {NOT_GROWN[model_type]}",
                hint=known,
            )
        flag, why = NOT_GROWN_WITH.get(model_type, ("", ""))
        if config.get(flag):
            raise ModelError(
                f"config.json: a {model_type} with {flag} cannot be grown: {why}",
                hint=f'set "{flag}": false if the weights are to act as they are stored',
            )
        return None
    return family


def _parts(config: dict[str, Any], at: str = "") -> Iterator[tuple[dict[str, Any], str]]:
    """Yield the config and those inside it, each with what stands before its keys."""
    yield config, at
    for key, value in config.items():
        if isinstance(value, dict) and key != "hfgrow":
            yield from _parts(value, f"{at}{printable(key)}.")


def _refuse_kinds(config: dict[str, Any]) -> None:
    for part, at in _parts(config):
        if (method := part.get("quantization_config")) is not None:
            kind = method.get("quant_method") if isinstance(method, dict) else method
            where = f"{at}quantization_config: " if at else ""
            raise ModelError(
                f"config.json: {where}the model is quantised ({printable(kind)})",
                hint="grow the unquantised base and quantise the result",
            )
    for key, what in _OTHER_WEIGHTS.items():
        if config.get(key) is not None:
            raise ModelError(f"config.json: {key} {what}", hint="remove the key if it is not used")


def _refuse_experts(config: dict[str, Any], family: Family) -> None:
    """Refuse what a written family cannot have."""
    if config.get(_SINGLE_LAYERS) is not None:
        raise ModelError(
            f"config.json: {_SINGLE_LAYERS} changes single layers, and hfgrow does not know how it "
            "grows",
            hint="remove the key if it is not used",
        )
    for key in () if family.has_experts else _EXPERTS:
        if config.get(key):
            raise ModelError(
                f"config.json: {key} says this is a mixture of experts, which a "
                f"{family.model_type} is not"
            )


def _settle_architecture(config: dict[str, Any], family: Family) -> list[str]:
    """Write the name of the class that model_type loads, whatever a trainer called its own."""
    found = config.get("architectures")
    names = [found] if isinstance(found, str) else found
    known: tuple[object, ...] = (None, [], [family.architecture], [family.published_as])
    if names in known and not isinstance(found, str):
        return []
    if (
        not isinstance(names, list)
        or not all(isinstance(name, str) for name in names)
        or any(_OTHER_TASK.search(name) for name in names)
    ):
        raise ModelError(
            f"config.json: architectures is {printable(repr(found))}, but model_type "
            f"{family.model_type} is a {family.architecture} here",
            hint="only causal language models can be grown",
        )
    config["architectures"] = [family.architecture]
    return [
        f"architectures {printable(', '.join(names))} is written as {family.architecture}: "
        "model_type decides which class loads"
    ]


def _settle_dtypes(config: dict[str, Any]) -> list[str]:
    """Write dtypes as config.json names them; what is stored decides where one says auto."""
    notes = []
    for part, at in _parts(config):
        for key in ("dtype", "torch_dtype"):
            dtype = part.get(key)
            if dtype is None:
                continue
            word = dtype.removeprefix("torch.") if isinstance(dtype, str) else ""
            if word == "auto":
                del part[key]
                notes.append(
                    f"{at}{key} auto was dropped: the tensors have the dtype they are stored in"
                )
                continue
            name = _DTYPE_WORDS.get(word, word)
            if name not in CONFIG_DTYPES:
                raise ModelError(f"config.json: {at}{key} {printable(repr(dtype))} is no dtype")
            if name != dtype:
                part[key] = name
                notes.append(f"{at}{key} {printable(dtype)} is written as {name}")
    return notes


def _fill_in(config: dict[str, Any], family: Family) -> list[str]:
    """Write out the sizes that config.json leaves to the class, as transformers reads them."""
    absent = {key: size for key, size in family.class_defaults.items() if key not in config}
    config.update(absent)
    if not absent:
        return []
    listed = ", ".join(f"{key} {size}" for key, size in absent.items())
    return [f"config.json leaves out {listed}: written out, as the class of the model has it"]


def _check_counts(config: dict[str, Any], family: Family) -> None:
    for key in (*_COUNTS, *_OPTIONAL_COUNTS):
        value = config.get(key)
        if value is None and (key in _OPTIONAL_COUNTS):
            continue
        if value is None:
            raise ModelError(f"config.json: {key} is missing")
        if key == "num_hidden_layers" and value == 0 and is_int(value):
            continue
        if not is_int(value) or not 0 < value < 1 << 31:
            raise ModelError(
                f"config.json: {key} must be a positive integer, not {printable(repr(value))}"
            )
    for key, (low, high) in _BOUNDS.items():
        value = config.get(key)
        if value is not None and not (is_int(value) and low <= value <= high):
            raise ModelError(
                f"config.json: {key} must be an integer from {low} to {high}, not "
                f"{printable(repr(value))}"
            )
    for key in _SWITCHES:
        if config.get(key) is not None and not isinstance(config[key], bool):
            raise ModelError(
                f"config.json: {key} must be true or false, not {printable(repr(config[key]))}"
            )
    ruled = family.derived_lists is not None and not family.gives_lists(config)
    for key, least in _RULES.items():
        value = config.get(key, least)
        if ruled and (not is_int(value) or value < least):
            raise ModelError(
                f"config.json: {key} must be an integer from {least}, not {printable(repr(value))}"
            )
    if objection := family.objection(config):
        raise ModelError(f"config.json: {objection}")
    sizes = family.sizes(config)
    if sizes["heads"] % sizes["kv_heads"]:
        raise ModelError(
            f"config.json: num_attention_heads {sizes['heads']} is no multiple of "
            f"num_key_value_heads {sizes['kv_heads']}"
        )
    computed = config.get("head_dim") is None and family.head_dim_default is None
    if computed and sizes["hidden"] % sizes["heads"]:
        raise ModelError(
            f"config.json: hidden_size {sizes['hidden']} is no multiple of num_attention_heads "
            f"{sizes['heads']}, and there is no head_dim"
        )
    # The class of latent attention rotates a part of its own.
    rotary_key = "qk_rope_head_dim" if "rope_dim" in sizes else "head_dim"
    rotary = sizes.get("rope_dim", sizes["head_dim"])
    if rotary % 2:
        raise ModelError(f"config.json: {rotary_key} {rotary} is odd; rotary embeddings need pairs")


def _check_per_layer_lists(config: dict[str, Any], family: Family) -> None:
    num_layers = config["num_hidden_layers"]
    for key, value in config.items():
        if not isinstance(value, list) or key in GLOBAL_LISTS:
            if key in family.per_layer_lists and value is not None and not isinstance(value, list):
                raise ModelError(f"config.json: {key} must be a list")
            continue
        if key in family.per_layer_lists:
            if len(value) != num_layers:
                raise ModelError(
                    f"config.json: {key} has {len(value)} entries for {num_layers} layers"
                )
        elif 0 < len(value) == num_layers and not _is_by_chance(key, value):
            raise _unknown_list(key)
    for key, value in config.items() if num_layers else ():
        if key not in (*GLOBAL_LISTS, *GLOBAL_KEYS, *family.per_layer_lists):
            _check_nested(key, value, num_layers)


def _check_nested(key: str, value: object, num_layers: int) -> None:
    """Refuse what has an entry for each layer, however deep inside a key it lies."""
    numbers = {str(i) for i in range(num_layers)} if isinstance(value, dict | list) else set()
    waiting: list[tuple[str, object]] = [(key, value)]
    while waiting:
        where, current = waiting.pop()
        if isinstance(current, dict):
            if current.keys() == numbers:
                raise _unknown_list(where)
            waiting += [(f"{where}.{name}", inside) for name, inside in current.items()]
        elif isinstance(current, list):
            is_long = len(current) == num_layers and where != key
            if is_long and not _is_by_chance(where.rpartition(".")[2], current):
                raise _unknown_list(where)
            waiting += [(f"{where}.{i}", inside) for i, inside in enumerate(current)]


def _is_by_chance(key: str, entries: list[object]) -> bool:
    """Say whether a list has as many entries as there are layers, and says nothing about them."""
    if _OF_TOKENS.search(key):
        return True
    texts = [entry for entry in entries if isinstance(entry, str)]
    is_named = _OF_LAYERS.search(key) is not None
    return len(texts) == len(entries) == len(set(texts)) and not is_named


def _unknown_list(where: str) -> ModelError:
    return ModelError(
        f"config.json: {printable(where)} has one entry for each layer, and hfgrow does not know "
        "how it grows",
        hint="remove the key if the model does not need it",
    )
