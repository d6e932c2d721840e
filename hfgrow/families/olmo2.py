"""OLMo 2: norms only behind attention and MLP, and norms over all query and all key heads."""

from hfgrow.families.llama import HEAD, KEY, OUTER, QUERY
from hfgrow.families.postnorm import INNER, POST_NORMS
from hfgrow.families.table import Family, Kind, Role

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
)
