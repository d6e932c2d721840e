"""OLMo 2: norms only behind attention and MLP, and norms over all query and all key heads."""

from hfgrow.plan.families.llama import HEAD, INNER, KEY, OUTER, POST_NORMS, QUERY
from hfgrow.plan.families.table import Family, Kind, Role, class_defaults

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
