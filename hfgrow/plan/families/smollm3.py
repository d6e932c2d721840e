"""SmolLM3: some layers without rotary embeddings, told by a list that must follow the depth."""

from typing import Any

from hfgrow.plan.families.llama import ATTENTION_BIASES, HEAD, MATRICES, MLP_BIASES, OUTER
from hfgrow.plan.families.table import Config, Family, class_defaults


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


SMOLLM3 = Family(
    model_type="smollm3",
    architecture="SmolLM3ForCausalLM",
    layer=(*MATRICES, *ATTENTION_BIASES, *MLP_BIASES),
    outer=OUTER,
    head=HEAD,
    class_defaults=class_defaults(vocab=128256, hidden=2048, ffn=11008, layers=36, heads=16),
    tied_default=True,
    kv_heads_default=4,
    per_layer_lists=("no_rope_layers", "layer_types"),
    derived_lists=rope_layers,
)
