"""OLMo 2: norms only behind attention and MLP, and norms over all query and all key heads.

OLMo 3: OLMo 2 with sliding windows in three of four layers.

EXAONE 4: OLMo 2 with norms on every head, as in Qwen3, and sliding windows in three of four layers.
"""

from dataclasses import replace
from functools import partial

from hfgrow.plan.families.llama import HEAD, INNER, KEY, OUTER, POST_NORMS, QUERY
from hfgrow.plan.families.qwen import HEAD_NORMS
from hfgrow.plan.families.table import (
    Config,
    Family,
    Kind,
    Role,
    class_defaults,
    last_is_full,
    windowed,
)

OLMO2 = Family(
    model_type="olmo2",
    architecture="Olmo2ForCausalLM",
    layer=(
        *INNER,
        Role("self_attn.q_norm.weight", (QUERY,), Kind.GAIN),
        Role("self_attn.k_norm.weight", (KEY,), Kind.GAIN),
        *POST_NORMS,
    ),
    outer=OUTER,
    head=HEAD,
    class_defaults=class_defaults(vocab=50304, hidden=4096, ffn=11008, layers=32, heads=32),
)


OLMO3 = replace(
    OLMO2,
    model_type="olmo3",
    architecture="Olmo3ForCausalLM",
    derived_lists=lambda config: windowed(config, lambda i: (i + 1) % 4),
)


def exaone4_objection(config: Config) -> str:
    """Say why the class cannot derive the kinds of the layers."""
    if config.get("layer_types") is None and config.get("sliding_window", 4096) is None:
        return "sliding_window is null, so layer_types must be given"
    return ""


EXAONE4 = Family(
    model_type="exaone4",
    architecture="Exaone4ForCausalLM",
    class_defaults=class_defaults(vocab=102400, hidden=4096, ffn=16384, layers=32, heads=32),
    layer=(*(role for role in INNER if not role.when), *HEAD_NORMS, *POST_NORMS),
    outer=OUTER,
    head=HEAD,
    kv_heads_default=32,
    derived_lists=partial(last_is_full, pattern=4),
    refuses=exaone4_objection,
)
