"""The model types that people will try and hfgrow does not grow, and why."""

_EXPERTS = "a mixture of experts, whose router and experts have no growth rule here"
_LATENT = f"{_EXPERTS}, with latent attention"
_SEES = "a model of text and images; only text models can be grown"
_STATE = "its layers are state-space models, not attention"
_HYBRID = "attention is mixed with other kinds of layers, which have no growth rule here"
_LAYER_NORM = "it has LayerNorm, and the growth rules are those of RMSNorm"
_ENCODER = "no causal language model"

NOT_GROWN: dict[str, str] = {
    "bamba": _HYBRID,
    "bart": _ENCODER,
    "bert": _ENCODER,
    "bloom": _LAYER_NORM,
    "cohere": _LAYER_NORM,
    "cohere2": _LAYER_NORM,
    "dbrx": _EXPERTS,
    "deepseek_v2": _LATENT,
    "deepseek_v3": _LATENT,
    "ernie4_5_moe": _EXPERTS,
    "falcon": _LAYER_NORM,
    "falcon_h1": _HYBRID,
    "falcon_mamba": _STATE,
    "gemma3": _SEES,
    "gemma3n": "its layers share embeddings and keys in ways that have no growth rule here",
    "glm4_moe": _EXPERTS,
    "gpt2": _LAYER_NORM,
    "gpt_bigcode": _LAYER_NORM,
    "gpt_neo": _LAYER_NORM,
    "gpt_neox": _LAYER_NORM,
    "gpt_oss": f"{_EXPERTS}, with attention sinks",
    "gptj": _LAYER_NORM,
    "granitemoe": _EXPERTS,
    "granitemoehybrid": _HYBRID,
    "granitemoeshared": _EXPERTS,
    "idefics3": _SEES,
    "jamba": _HYBRID,
    "kimi_k2": _LATENT,
    "lfm2": _HYBRID,
    "llama4": f"{_EXPERTS}, and {_SEES}",
    "llama4_text": "attention in chunks, and experts in some layers, have no growth rule here",
    "llava": _SEES,
    "mamba": _STATE,
    "mamba2": _STATE,
    "mistral3": _SEES,
    "mllama": _SEES,
    "mpt": _LAYER_NORM,
    "nemotron": _LAYER_NORM,
    "nemotron_h": _HYBRID,
    "olmo": _LAYER_NORM,
    "olmoe": _EXPERTS,
    "opt": _LAYER_NORM,
    "paligemma": _SEES,
    "phi": _LAYER_NORM,
    "phi4_multimodal": _SEES,
    "phimoe": _EXPERTS,
    "qwen2_5_vl": _SEES,
    "qwen2_vl": _SEES,
    "qwen3_next": _HYBRID,
    "qwen3_vl": _SEES,
    "recurrent_gemma": _HYBRID,
    "roberta": _ENCODER,
    "rwkv": "its layers are recurrent, not attention",
    "smolvlm": _SEES,
    "stablelm": _LAYER_NORM,
    "starcoder2": _LAYER_NORM,
    "t5": _ENCODER,
    "zamba": _HYBRID,
    "zamba2": _HYBRID,
}

# What a hint can say to those who have such a model.
INSTEAD: dict[str, str] = {
    "gemma3": "take a checkpoint of text only, model_type gemma3_text, such as gemma-3-1b-it",
}
