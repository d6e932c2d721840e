"""MiniCPM3: latent attention, and branches and logits that the class rescales with the size.

Queries, and keys with values, come from latents of rank `q_lora_rank` and `kv_lora_rank`; one
rotated key of `qk_rope_head_dim` serves all heads. A branch is multiplied by
`scale_depth / sqrt(num_hidden_layers)`, and the input of the output head by
`dim_model_base / hidden_size`.
"""

from math import inf, nextafter, sqrt
from typing import Any

from hfgrow.plan.families.llama import (
    ATTENDED,
    HEAD,
    HIDDEN,
    MLP_BIASES,
    MLP_IN,
    MLP_OUT,
    NORMS,
    OUTER,
    QUERY,
)
from hfgrow.plan.families.table import Config, Family, Kind, Role, class_defaults, is_count

_HEADS = "the heads share latents and one rotated key, for which hfgrow has no head map"
_LATENT = "the ranks of the latents are kept"
_Q_LATENT = (("q_latent",),)
_KV_LATENT = (("kv_latent",),)
_KV_IN = (("kv_latent",), ("rope_dim",))
# Head after head, what of the key is not rotated and then the value.
_KV_OUT = (("heads", "nope_and_value"),)


def latent_sizes(config: Config) -> dict[str, int]:
    """Return the sizes of latents and heads; `head_dim` in config.json means nothing here."""
    rope = int(config.get("qk_rope_head_dim", 32))
    nope = int(config.get("qk_nope_head_dim", 64))
    return {
        "q_latent": int(config.get("q_lora_rank", 768)),
        "kv_latent": int(config.get("kv_lora_rank", 256)),
        "rope_dim": rope,
        "qk_dim": nope + rope,
        "head_dim": _value_size(config),
        "nope_and_value": nope + _value_size(config),
    }


def compensated(before: Config, after: Config) -> dict[str, Any]:
    """Return the keys that keep the scale of every branch, of the logits, and the values' size."""
    changes: dict[str, Any] = {}
    depth = before["num_hidden_layers"], after["num_hidden_layers"]
    scale = before.get("scale_depth", 1.4)
    if scale is not None and depth[0] != depth[1]:
        changes["scale_depth"] = _scaled(scale, *depth)
    hidden = before["hidden_size"], after["hidden_size"]
    base = before.get("dim_model_base", 256)
    if base is not None and hidden[0] != hidden[1]:
        whole, rest = divmod(base * hidden[1], hidden[0])
        changes["dim_model_base"] = base * hidden[1] / hidden[0] if rest else whole
    if _value_size(before) != _value_size(after):
        changes["v_head_dim"] = _value_size(before)
    return changes


def objection(config: Config) -> str:
    """Say what of a config the classes cannot have, or hfgrow does not grow."""
    if config.get("q_lora_rank", 768) is None:
        return "q_lora_rank null, for queries without a latent, is no model that hfgrow grows"
    for key in ("q_lora_rank", "kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim"):
        if not is_count(config.get(key, 2)):
            return f"{key} must be a positive integer"
    for key in ("v_head_dim", "dim_model_base"):
        if config.get(key) is not None and not is_count(config[key]):
            return f"{key} must be a positive integer"
    scale = config.get("scale_depth", 1.4)
    if scale is not None and (type(scale) not in (int, float) or not 0 < scale < inf):
        return "scale_depth must be a positive number"
    heads, kv_heads = config["num_attention_heads"], config.get("num_key_value_heads", 40)
    if kv_heads not in (None, heads):
        return (
            f"num_key_value_heads {kv_heads} differs from num_attention_heads {heads}: latents "
            "hold a key and a value for each head"
        )
    return ""


def _value_size(config: Config) -> int:
    heads = int(config["num_attention_heads"])
    return int(config.get("v_head_dim") or int(config["hidden_size"]) // heads)


def _scaled(scale: float, depth: int, new_depth: int) -> float:
    """Return what divided by `sqrt(new_depth)` is `scale / sqrt(depth)`, to the last bit if any."""
    about = scale * sqrt(new_depth / depth)
    wanted = scale / sqrt(depth)
    near = (about, nextafter(about, 0), nextafter(about, inf))
    return min(near, key=lambda value: abs(value / sqrt(new_depth) - wanted))


MINICPM3 = Family(
    model_type="minicpm3",
    architecture="MiniCPM3ForCausalLM",
    layer=(
        *NORMS,
        Role("self_attn.q_a_proj.weight", (_Q_LATENT, HIDDEN)),
        Role("self_attn.q_a_proj.bias", (_Q_LATENT,), Kind.BIAS, "attention_bias"),
        Role("self_attn.q_a_layernorm.weight", (_Q_LATENT,), Kind.GAIN),
        Role("self_attn.q_b_proj.weight", (QUERY, _Q_LATENT)),
        Role("self_attn.kv_a_proj_with_mqa.weight", (_KV_IN, HIDDEN)),
        Role("self_attn.kv_a_proj_with_mqa.bias", (_KV_IN,), Kind.BIAS, "attention_bias"),
        Role("self_attn.kv_a_layernorm.weight", (_KV_LATENT,), Kind.GAIN),
        Role("self_attn.kv_b_proj.weight", (_KV_OUT, _KV_LATENT)),
        Role("self_attn.o_proj.weight", (HIDDEN, ATTENDED), ends_branch=True),
        Role("self_attn.o_proj.bias", (HIDDEN,), Kind.BIAS, "attention_bias", ends_branch=True),
        *MLP_IN,
        *MLP_OUT,
        *MLP_BIASES,
    ),
    outer=OUTER,
    head=HEAD,
    class_defaults=class_defaults(vocab=73448, hidden=2560, ffn=6400, layers=62, heads=40),
    tied_default=True,
    kv_heads_default=40,
    more_sizes=latent_sizes,
    compensated=compensated,
    heads_divide_hidden=True,
    refuses=objection,
    fixed_axes={
        "heads": _HEADS,
        "kv_heads": _HEADS,
        "head_dim": _HEADS,
        "qk_dim": _HEADS,
        "rope_dim": _HEADS,
        "nope_and_value": _HEADS,
        "q_latent": _LATENT,
        "kv_latent": _LATENT,
    },
)
