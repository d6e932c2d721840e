"""The settings of a deeper model of a derived family: every key that counts or places layers.

A key that is not understood is refused, never kept: transformers would load a model without a word
whose layers are others than those of the base.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from hfgrow.errors import ModelError, UsageError, printable

# Lists that say nothing about single layers, whatever their length.
GLOBAL_KEYS = frozenset(
    # Tables of rope are as long as half a head, and checked by the family; the others are names.
    {"hfgrow", "id2label", "label2id", "rope_parameters", "rope_scaling"}
)
GLOBAL_LISTS = frozenset(
    {
        "architectures",
        "bad_words_ids",
        "begin_suppress_tokens",
        "bos_token_id",
        "eos_token_id",
        "forced_eos_token_id",
        "keys_to_ignore_at_inference",
        "pad_token_id",
        "suppress_tokens",
    }
)
# Such lists of single families: cycles, factors, shapes.
_MORE_GLOBAL_LISTS = frozenset(
    {
        "attention_types",
        "axial_pos_embds_dim",
        "axial_pos_shape",
        "block_types",
        "languages",
        "L_bp_cycles",
        "mlp_multipliers",
        "mtp_layers_block_type",
        "ssm_multipliers",
        "time_step_limit",
    }
)
# The number of layers.
DEPTHS = (
    "num_hidden_layers",
    "n_layer",
    "n_layers",
    "num_layers",
    "num_blocks",
    "decoder_layers",
    "num_decoder_layers",
)
# One entry for each layer.
_PER_LAYER = frozenset(
    {
        "activation_sparsity_pattern",
        "attention_layers",
        "attn_layers",
        "indexer_types",
        "intermediate_size",
        "layer_rope_theta",
        "layer_types",
        "layers_block_type",
        "mlp_layer_types",
        "moe_intermediate_size",
        "moe_topk",
        "no_rope_layers",
        "num_attention_heads_per_layer",
        "num_shared_expert",
    }
)
# Lists of layers -> the number of the first layer in them.
INDICES = {
    "attn_layer_indices": 0,
    "cross_attention_layers": 0,
    "full_attn_idxs": 0,
    "hybrid_layer_ids": 0,
    "mlp_only_layers": 0,
    "moe_layers": 0,
    "ple_layer_ids": 1,
}
_KIMI, _KIMI_LISTS = "linear_attn_config", ("full_attn_layers", "kda_layers")
# The kinds of layers, again and again.
_CYCLE = "block_types"
# How many of the first layers are of another kind, where no list says it.
_FIRST = ("first_k_dense_replace", "num_dense_layers")
# How many of the last layers take keys and values from a layer before them.
_LAST = "num_kv_shared_layers"
# Blocks behind the layers that predict further tokens: they are not grown, and dropped.
PREDICTORS = ("num_nextn_predict_layers", "num_mtp_layers", "mtp_num_hidden_layers")


def rewritten(
    config: Mapping[str, Any],
    filled: Mapping[str, Any],
    layer_map: Sequence[int],
    num_layers: int,
) -> dict[str, Any]:
    """Return what config.json is to say of the deeper model.

    Args:
        config: What it says of the layers of the base.
        filled: The same with transformers' defaults filled in.
        layer_map: For every layer of the deeper model the 0-based layer of the base.
        num_layers: The depth of the base.

    Raises:
        ModelError: A list has another length than the layers are many, or a key has something for
            each layer and is not known.
        UsageError: A key cannot say what the layer map asks for.
    """
    known = {**filled, **{key: value for key, value in config.items() if value is not None}}
    _check_lists(known, num_layers)
    changes: dict[str, Any] = {}
    for key, value in known.items():
        if key in _PER_LAYER and isinstance(value, list):
            if len(value) != num_layers:
                raise ModelError(
                    f"config.json: {key} has {len(value)} entries for {num_layers} layers"
                )
            changes[key] = [value[i] for i in layer_map]
        elif key in INDICES and isinstance(value, list):
            changes[key] = _indices(value, layer_map, INDICES[key])
        elif key == _CYCLE and isinstance(value, list) and value:
            changes[key] = [value[i % len(value)] for i in layer_map]
        elif key in PREDICTORS and value:
            changes[key] = 0
    if "attention_layers" in changes and "attention_types" in known:
        changes["attention_types"] = [[changes["attention_layers"], 1]]
    changes |= _depths(config, filled, len(layer_map), num_layers)
    changes |= _counts(known, layer_map, num_layers)
    if isinstance(nested := config.get(_KIMI), Mapping):
        lists = {key: nested[key] for key in _KIMI_LISTS if isinstance(nested.get(key), list)}
        mapped = {key: _indices(value, layer_map, 1) for key, value in lists.items()}
        changes[_KIMI] = {**nested, **mapped}
    if known.get("per_layer_config"):
        changes["per_layer_config"] = _by_layer(known["per_layer_config"], layer_map)
    return {**config, **changes}


def _indices(numbers: Sequence[int], layer_map: Sequence[int], first: int) -> list[int]:
    chosen = {number - first for number in numbers}
    return [j + first for j, source in enumerate(layer_map) if source in chosen]


def _depths(
    config: Mapping[str, Any], filled: Mapping[str, Any], depth: int, num_layers: int
) -> dict[str, Any]:
    """Return the counts of layers; a class that counts sublayers has a multiple of them."""
    found: dict[str, Any] = {}
    for key in DEPTHS:
        value = filled.get(key, config.get(key))
        if type(value) is not int or not value or value % num_layers:
            continue
        if value == num_layers or key == "num_hidden_layers":
            found[key] = value // num_layers * depth
    said = {key: value for key, value in found.items() if key in config}
    return said or found


def _counts(known: Mapping[str, Any], layer_map: Sequence[int], num_layers: int) -> dict[str, Any]:
    """Return the counts of first or last layers that are of another kind."""
    changes: dict[str, Any] = {}
    for key in _FIRST:
        count = known.get(key)
        if type(count) is not int or "mlp_layer_types" in known:
            continue
        changes[key] = _run([source < count for source in layer_map], key, count, "first")
    if count := known.get(_LAST):
        shares = [source >= num_layers - count for source in layer_map]
        changes[_LAST] = _run(shares[::-1], _LAST, count, "last")
    start, end = known.get("moe_layer_start_index"), known.get("moe_layer_end_index")
    if type(start) is int and type(end) is int:
        end = num_layers - 1 if end == -1 else end
        inside = [j for j, source in enumerate(layer_map) if start <= source <= end]
        changes["moe_layer_start_index"] = min(inside, default=len(layer_map))
        changes["moe_layer_end_index"] = max(inside, default=len(layer_map) - 1)
    return changes


def _run(is_other: Sequence[bool], key: str, count: int, where: str) -> int:
    """Return how many stand together at the end that the key counts from."""
    length = is_other.index(False) if False in is_other else len(is_other)
    if any(is_other[length:]):
        raise UsageError(
            f"config.json can only say that the {where} layers are of another kind ({key} "
            f"{count}), and this growth puts them elsewhere too"
        )
    return length


def _by_layer(settings: Mapping[str, Any], layer_map: Sequence[int]) -> dict[str, Any]:
    """Return settings of single layers, whose keys are numbers."""
    by_number = {int(key): value for key, value in settings.items()}
    for number, value in by_number.items():
        if isinstance(value, Mapping) and "skip" in value:
            raise UsageError(
                f"config.json: per_layer_config skips parts of layer {number}, which transformers "
                "accepts and ignores"
            )
    width = len(str(len(layer_map) - 1))
    return {
        f"{j:0{width}d}": by_number[source]
        for j, source in enumerate(layer_map)
        if source in by_number
    }


def _check_lists(known: Mapping[str, Any], num_layers: int) -> None:
    """Refuse what has an entry for each layer, if nothing is known of it."""
    expected = _PER_LAYER | INDICES.keys() | GLOBAL_LISTS | GLOBAL_KEYS | _MORE_GLOBAL_LISTS
    numbers = {str(i) for i in range(num_layers)}
    for key, value in known.items():
        if key in expected or key == "per_layer_config":
            continue
        is_list = isinstance(value, list) and len(value) == num_layers
        if is_list or (isinstance(value, Mapping) and value.keys() == numbers):
            raise ModelError(
                f"config.json: {printable(key)} has one entry for each layer, and hfgrow does not "
                "know how it grows",
                hint="remove the key if the model does not need it",
            )
