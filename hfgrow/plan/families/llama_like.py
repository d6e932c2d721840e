"""Families one row or one default away from Llama, Mistral and Granite.

Ministral: Mistral with a list that says which layers have the window. Ministral 3: Mistral, and
queries that grow with their position.

ERNIE 4.5, CWM, InternLM3, IQuest-Coder and Helium: Llama with other names or rules for what
config.json leaves out. ERNIE 4.5 and Helium rotate neighbours.

SmolLM3: Llama, some layers without rotary embeddings, told by a list that must follow the depth.

Granite with sliding windows: Granite, and a sink for each head, which takes a share of its
attention.
"""

from dataclasses import replace
from typing import Any

from hfgrow.plan.families.llama import (
    ATTENTION_BIASES,
    GRANITE,
    LLAMA,
    MATRICES,
    MISTRAL,
    MLP_BIASES,
    head_dim_objection,
    query_key_value_biases,
)
from hfgrow.plan.families.table import Config, Kind, Role, class_defaults, windowed

NEIGHBOURS_ROTATE = {"qk_dim": "rotary pairs are neighbours, and hfgrow has no map for those"}


def one_kind_of_layer(config: Config) -> dict[str, list[Any]]:
    """Derive `layer_types`: all layers are sliding unless `sliding_window` is null."""
    window = config.get("sliding_window", 4096)
    return windowed(config, lambda i: window is not None)


def first_is_full(config: Config) -> dict[str, list[Any]]:
    """Derive `layer_types`: of every four layers the first is not sliding."""
    return windowed(config, lambda i: i % 4)


MINISTRAL = replace(
    MISTRAL,
    model_type="ministral",
    architecture="MinistralForCausalLM",
    derived_lists=one_kind_of_layer,
    refuses=head_dim_objection,
)

MINISTRAL3 = replace(
    MISTRAL,
    model_type="ministral3",
    architecture="Ministral3ForCausalLM",
    class_defaults=class_defaults(vocab=131072, hidden=4096, ffn=14336, layers=34, heads=32),
    head_dim_default=128,
    rope_default={"rope_type": "yarn"},
)


ERNIE4_5 = replace(
    LLAMA,
    model_type="ernie4_5",
    architecture="Ernie4_5ForCausalLM",
    class_defaults=class_defaults(vocab=103424, hidden=1024, ffn=3072, layers=18, heads=16),
    layer=(
        *MATRICES,
        *(replace(role, when="use_bias") for role in (*ATTENTION_BIASES, *MLP_BIASES)),
    ),
    tied_default=True,
    kv_heads_default=2,
    head_dim_default=128,
    heads_divide_hidden=False,
    fixed_axes=NEIGHBOURS_ROTATE,
)

CWM = replace(
    LLAMA,
    model_type="cwm",
    architecture="CwmForCausalLM",
    class_defaults=class_defaults(vocab=128256, hidden=6144, ffn=21504, layers=64, heads=48),
    layer=(*MATRICES, *MLP_BIASES),
    kv_heads_default=8,
    head_dim_default=128,
    derived_lists=first_is_full,
)


def rope_layers(config: Config) -> dict[str, list[Any]]:
    """Derive `no_rope_layers` (1 means with rotary embeddings) and `layer_types`."""
    num_layers = config["num_hidden_layers"]
    interval = config.get("no_rope_layer_interval", 4)
    with_rope = config.get("no_rope_layers") or [
        int((i + 1) % interval != 0) for i in range(num_layers)
    ]
    windowed = config.get("use_sliding_window") and config.get("sliding_window") is not None
    return {
        "no_rope_layers": with_rope,
        "layer_types": [
            "sliding_attention" if windowed and not rope else "full_attention" for rope in with_rope
        ],
    }


SMOLLM3 = replace(
    LLAMA,
    model_type="smollm3",
    architecture="SmolLM3ForCausalLM",
    class_defaults=class_defaults(vocab=128256, hidden=2048, ffn=11008, layers=36, heads=16),
    tied_default=True,
    kv_heads_default=4,
    heads_divide_hidden=False,
    per_layer_lists=("no_rope_layers", "layer_types"),
    derived_lists=rope_layers,
)


def internlm3_objection(config: Config) -> str:
    """Say which biases the class of InternLM3 cannot have, or hfgrow does not read."""
    for key, name in (("qkv_bias", "attention_bias"), ("bias", "mlp_bias")):
        if config.get(key):
            return f"{key} is true; hfgrow reads it by the name {name} only"
    if bool(config.get("attention_bias")) != bool(config.get("mlp_bias")):
        return "attention_bias and mlp_bias differ"
    return ""


INTERNLM3 = replace(
    LLAMA,
    model_type="internlm3",
    published_as="InternLM3ForCausalLM",
    class_defaults=class_defaults(vocab=128512, hidden=4096, ffn=10240, layers=48, heads=32),
    kv_heads_default=2,
    head_dim_default=128,
    refuses=internlm3_objection,
)


def iquestcoder_objection(config: Config) -> str:
    """Say what the class of IQuest-Coder does not compute."""
    if config.get("clip_qkv") is not None:
        return "clip_qkv is not supported"
    return "use_sliding_window is not supported" if config.get("use_sliding_window") else ""


IQUESTCODER = replace(
    LLAMA,
    model_type="iquestcoder",
    published_as="IQuestCoderForCausalLM",
    class_defaults=class_defaults(vocab=76800, hidden=5120, ffn=27648, layers=80, heads=40),
    kv_heads_default=8,
    head_dim_default=128,
    refuses=iquestcoder_objection,
)


def helium_objection(config: Config) -> str:
    """Say where what the heads give is not as wide as o_proj, which the class makes square."""
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    head_dim = config.get("head_dim") or 128
    if heads * head_dim == hidden:
        return ""
    return (
        f"hidden_size {hidden} is not num_attention_heads {heads} x head_dim {head_dim}, and "
        "o_proj of a helium is square"
    )


HELIUM = replace(
    LLAMA,
    model_type="helium",
    architecture="HeliumForCausalLM",
    class_defaults=class_defaults(vocab=48000, hidden=2560, ffn=7040, layers=24, heads=20),
    layer=(*MATRICES, *query_key_value_biases("attention_bias"), *MLP_BIASES),
    kv_heads_default=20,
    head_dim_default=128,
    heads_divide_hidden=False,
    refuses=helium_objection,
    fixed_axes=NEIGHBOURS_ROTATE,
)

GRANITE_SWA = replace(
    GRANITE,
    model_type="granite_swa",
    architecture="GraniteSWAForCausalLM",
    class_defaults=class_defaults(vocab=100352, hidden=2560, ffn=8192, layers=24, heads=20),
    # Added to the scores of a head, as a bias is to what a map writes.
    layer=(*GRANITE.layer, Role("self_attn.sinks", ((("heads",),),), Kind.BIAS)),
    tied_default=True,
    kv_heads_default=4,
    per_layer_lists=("layer_types", "layer_rope_theta"),
    derived_lists=first_is_full,
)
