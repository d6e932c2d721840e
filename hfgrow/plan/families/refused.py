"""The model types that people will try and hfgrow does not grow, and why."""

_REMOTE = "its code is not in transformers, and code in a model repository is never run"
_SEES = "a model of text and images whose text layers hfgrow cannot grow inside it"
_ENCODER = "no causal language model"

NOT_GROWN: dict[str, str] = {
    "idefics3": _SEES,
    "kimi_k2": _REMOTE,
    "llava": _SEES,
    "mllama": _SEES,
    "paligemma": _SEES,
    "qwen2_5_vl": _SEES,
    "qwen2_vl": _SEES,
    "qwen3_vl": _SEES,
    "reformer": "its layers are reversible and hand on two streams",
    "rwkv": "its weights are divided by what follows the number of the layer",
    "smolvlm": _SEES,
    "t5": _ENCODER,
}
