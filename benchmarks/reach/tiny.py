"""A tiny model of every causal language model of transformers: 4 to 8 layers, hidden_size 32.

The defaults of the config class are kept but for sizes, so that each type shows its own traits:
kinds of layers, windows shorter than the probe, experts, latents. Every tensor is perturbed, so
that no zero and no equal layers hide a mistake.
"""

import copy
from collections.abc import Mapping
from typing import Any

PROBE_LENGTH = 16
_HIDDEN, _HEADS, _KV, _HEAD, _FFN, _VOCAB, _WINDOW, _LAYERS = 32, 4, 2, 8, 48, 64, 4, 4

# The sizes of a tiny model, by config key, wherever the default config has the key.
SIZES: dict[str, Any] = {
    **dict.fromkeys(
        ("hidden_size", "d_model", "n_embd", "emb_dim", "backbone_hidden_size"), _HIDDEN
    ),
    **dict.fromkeys(("attention_hidden_size", "lru_width", "word_embed_proj_dim"), _HIDDEN),
    **dict.fromkeys(("embedding_size", "input_embedding_size", "output_embedding_size"), _HIDDEN),
    **dict.fromkeys(
        (
            "num_attention_heads",
            "n_head",
            "n_heads",
            "num_heads",
            "attention_heads",
            "decoder_attention_heads",
            "encoder_attention_heads",
            "num_decoder_attention_heads",
            "num_encoder_attention_heads",
            "swa_num_attention_heads",
        ),
        _HEADS,
    ),
    **dict.fromkeys(
        ("num_key_value_heads", "swa_num_key_value_heads", "num_global_key_value_heads"), _KV
    ),
    **dict.fromkeys(
        ("head_dim", "swa_head_dim", "d_kv", "d_head", "dim_head", "kv_channels"), _HEAD
    ),
    **dict.fromkeys(
        ("global_head_dim", "attention_head_dim", "v_head_dim", "qk_nope_head_dim"), _HEAD
    ),
    **dict.fromkeys(
        (
            "intermediate_size",
            "ffn_dim",
            "d_ff",
            "dff",
            "dim_ff",
            "d_inner",
            "n_inner",
            "ffn_hidden_size",
            "feed_forward_size",
            "decoder_ffn_dim",
            "encoder_ffn_dim",
            "dense_intermediate_size",
            "intermediate_size_mlp",
            "expert_ffn_hidden_size",
            "mlp_dim",
        ),
        _FFN,
    ),
    **dict.fromkeys(
        (
            "moe_intermediate_size",
            "shared_intermediate_size",
            "shared_expert_intermediate_size",
            "shared_experts_intermediate_size",
            "moe_shared_expert_intermediate_size",
        ),
        24,
    ),
    **dict.fromkeys(
        (
            "num_hidden_layers",
            "n_layer",
            "n_layers",
            "num_layers",
            "decoder_layers",
            "num_decoder_layers",
            "encoder_layers",
            "num_encoder_layers",
            "num_blocks",
        ),
        _LAYERS,
    ),
    **dict.fromkeys(("sliding_window", "attention_window_size", "sliding_window_size"), _WINDOW),
    **dict.fromkeys(("window_size", "attention_chunk_size", "local_attention"), _WINDOW),
    **dict.fromkeys(("vocab_size", "vocab_size_per_layer_input", "decoder_vocab_size"), _VOCAB),
    # Rows of the embeddings that no token has: the head lacks them.
    "unpadded_vocab_size": _VOCAB - 4,
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), 4),
    **dict.fromkeys(
        ("num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_k", "moe_top_k"), 2
    ),
    **dict.fromkeys(("n_group", "num_expert_group", "topk_group", "n_groups"), 1),
    **dict.fromkeys(("q_lora_rank", "o_lora_rank"), 24),
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 4,
    "qk_head_dim": 12,
    "rotary_dim": 4,
    "max_position_embeddings": 128,
    "n_positions": 128,
    "n_ctx": 128,
    "max_seq_len": 128,
    "hidden_size_per_layer_input": 8,
    "laurel_rank": 8,
    "index_head_dim": 8,
    "index_n_heads": 2,
    "index_topk": PROBE_LENGTH,
    "indexer_head_dim": 8,
    # State space: expand 2, so 64 inner channels.
    **dict.fromkeys(("mamba_n_heads", "mamba_num_heads", "mamba_headdim"), 8),
    **dict.fromkeys(("mamba_d_head", "mamba_head_dim"), 8),
    **dict.fromkeys(("mamba_d_state", "ssm_state_size", "state_size"), 8),
    **dict.fromkeys(("mamba_chunk_size", "chunk_size"), 8),
    **dict.fromkeys(("mamba_dt_rank", "time_step_rank"), 4),
    "mamba_d_ssm": 64,
    **dict.fromkeys(("linear_num_key_heads", "linear_num_heads"), 2),
    "linear_num_value_heads": 4,
    **dict.fromkeys(("linear_key_head_dim", "linear_value_head_dim", "linear_head_dim"), 8),
    **dict.fromkeys(("router_hidden_size", "gated_norm_rank"), 16),
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "original_max_position_embeddings": 32,
}

# Of latent attention: all heads have keys, and head_dim is the part that is rotated.
_LATENT = {"num_key_value_heads": _HEADS, "head_dim": 4}

# What the sizes above leave wrong, or hide: periods of kinds that are longer than 4 layers, and
# sizes that are to fit each other.
_LINEAR, _FULL, _SLIDING = "linear_attention", "full_attention", "sliding_attention"
TRAITS: dict[str, dict[str, Any]] = {
    "afmoe": {"num_dense_layers": 1, "num_hidden_layers": 6},
    "bailing_hybrid": {"num_hidden_layers": 8},
    "bamba": {"attn_layer_indices": [1, 3]},
    "cohere_compass_text": {
        "rope_parameters": {
            kind: {"rope_type": "default", "rope_theta": 10000.0} for kind in (_FULL, _SLIDING)
        }
    },
    "dbrx": {
        "attn_config": {"rope_theta": 10000.0, "kv_n_heads": 2, "clip_qkv": 8},
        "ffn_config": {"ffn_hidden_size": 48, "moe_num_experts": 4, "moe_top_k": 2},
    },
    "deepseek_v2": {"first_k_dense_replace": 1},
    "deepseek_v3": {"first_k_dense_replace": 1},
    "dots1": {"n_routed_experts": 4, "n_shared_experts": 1, "first_k_dense_replace": 1},
    "dots3_note_text": {"num_key_value_heads": 4},
    "gemma2": {"sliding_window": 4},
    "gemma3_text": {"num_hidden_layers": 6},
    "gemma3n_text": {"num_kv_shared_layers": 2, "num_hidden_layers": 10},
    "gemma4": {
        "vision_config": {
            "model_type": "gemma4_vision",
            "hidden_size": _HIDDEN,
            "intermediate_size": _FFN,
            "num_hidden_layers": 2,
            "num_attention_heads": _HEADS,
            "num_key_value_heads": _HEADS,
            "head_dim": _HEAD,
        }
    },
    "gemma4_text": {"num_hidden_layers": 6},
    "glm4_moe": {"first_k_dense_replace": 1},
    "gpt_neo": {"attention_types": [[["global", "local"], 2]]},
    "granitemoehybrid": {"layer_types": [_LINEAR, _FULL] * 2},
    "jamba": {"num_hidden_layers": 8, "attn_layer_period": 4, "attn_layer_offset": 2},
    "kimi_linear": {"num_hidden_layers": 6},
    "lfm2": {"layer_types": ["conv", _FULL] * 2},
    "lfm2_moe": {"layer_types": ["conv", _FULL] * 2, "num_dense_layers": 1},
    "mamba2": {"num_heads": 8, "head_dim": 8},
    "reformer": {
        "is_decoder": True,
        "axial_pos_embds_dim": [8, 24],
        "attn_layers": ["local", "lsh"] * 2,
        "axial_pos_shape": [4, 8],
    },
    "xlstm": {"hidden_size": 128, "num_heads": 4, "chunk_size": 8},
    "xmod": {"default_language": "en_XX"},
    "qwen4_exp_text": {
        "indexer_n_heads": 2,
        "indexer_kv_heads": 1,
        "indexer_head_dim": 8,
        "indexer_budget": 16,
        "indexer_compress_ratio": 4,
    },
    "zamba": {
        "num_hidden_layers": 6,
        "attn_layer_period": 3,
        "attn_layer_offset": 2,
        "attention_hidden_size": 64,
        "attention_head_dim": 16,
    },
    "zamba2": {
        "num_hidden_layers": 6,
        "layers_block_type": [_LINEAR, _LINEAR, "hybrid", _LINEAR, _LINEAR, "hybrid"],
        "num_key_value_heads": 4,
        "attention_head_dim": 16,
        "attention_hidden_size": 64,
        "kv_channels": 8,
    },
    "zaya": {"num_experts_per_tok": 1},
}


def tiny_config(model_type: str, more: Mapping[str, Any] | None = None) -> Any:
    """Return the config of a tiny model, with more said in it."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    config_class: Any = CONFIG_MAPPING[model_type]
    changes = _merged(_changes(_defaults(config_class)), TRAITS.get(model_type, {}))
    changes = _merged(changes, more or {})
    return config_class(**{key: value for key, value in changes.items() if value is not ...})


def _defaults(config_class: Any) -> dict[str, Any]:
    try:
        found: dict[str, Any] = config_class().to_dict()
    except Exception:
        return {}
    return found


def _changes(defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return what makes a config tiny, in it and in the configs inside it."""
    changes: dict[str, Any] = {}
    for key, value in defaults.items():
        if isinstance(value, Mapping) and "model_type" in value:
            inside = _changes(value)
            changes[key] = {"model_type": value["model_type"], **inside}
        elif key in SIZES and not isinstance(value, list | tuple):
            changes[key] = copy.deepcopy(SIZES[key])
    if "qk_rope_head_dim" in defaults:
        changes |= {key: value for key, value in _LATENT.items() if key in defaults}
    return changes


def _merged(changes: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(changes)
    for key, value in more.items():
        inside = merged.get(key)
        if isinstance(value, Mapping) and isinstance(inside, Mapping):
            merged[key] = _merged(inside, value)
        else:
            merged[key] = value
    return merged


def tiny_model(config: Any, *, whole: bool = False) -> Any:
    """Build a model of a config on the CPU, every floating-point tensor perturbed, seeded.

    Args:
        config: The config.
        whole: Whether the model sees too, if it can.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    torch.manual_seed(0)
    any_model: Any = AutoModelForImageTextToText if whole else AutoModelForCausalLM
    model = any_model.from_config(config, attn_implementation="eager")
    generator = torch.Generator().manual_seed(20261130)
    seen: set[int] = set()
    with torch.no_grad():
        for tensor in model.state_dict(keep_vars=True).values():
            if id(tensor) in seen or not tensor.is_floating_point():
                continue
            seen.add(id(tensor))
            tensor.add_(0.1 * torch.randn(tensor.shape, generator=generator))
    return model.eval()


def probe(vocab_size: int = _VOCAB) -> Any:
    """Return 1 x 16 tokens."""
    import torch

    generator = torch.Generator().manual_seed(7)
    return torch.randint(3, vocab_size, (1, PROBE_LENGTH), generator=generator)
