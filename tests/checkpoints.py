"""Tiny random checkpoints, made by transformers itself, and their in-memory twins."""

import copy
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

SIZES: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": 0,
}
# What makes each family show its own traits at a depth of 4: biases, windows, layers without rope,
# caps and multipliers that are not 1.
TRAITS: dict[str, dict[str, Any]] = {
    "gemma": {"head_dim": 16, "attention_bias": True},
    "gemma2": {
        "head_dim": 16,
        "attention_bias": True,
        "sliding_window": 5,
        "query_pre_attn_scalar": 20,
        "attn_logit_softcapping": 5.0,
        "final_logit_softcapping": 8.0,
    },
    "gemma3_text": {
        "head_dim": 16,
        "attention_bias": True,
        "sliding_window": 5,
        "sliding_window_pattern": 3,
        "query_pre_attn_scalar": 20,
        "final_logit_softcapping": 8.0,
    },
    "granite": {
        "attention_bias": True,
        "mlp_bias": True,
        "embedding_multiplier": 3.0,
        "attention_multiplier": 0.25,
        "residual_multiplier": 0.5,
        "logits_scaling": 0.75,
    },
    "llama": {"attention_bias": True, "mlp_bias": True},
    "minicpm3": {
        "num_key_value_heads": 4,
        "q_lora_rank": 24,
        "kv_lora_rank": 16,
        "qk_nope_head_dim": 8,
        "qk_rope_head_dim": 4,
        "attention_bias": True,
        "mlp_bias": True,
        "scale_emb": 3,
        "scale_depth": 1.4,
        "dim_model_base": 24,
    },
    "mistral": {"sliding_window": 5, "head_dim": 16},
    "olmo2": {"attention_bias": True},
    "phi3": {"sliding_window": 5, "partial_rotary_factor": 0.5},
    "qwen2": {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 3},
    "qwen3": {
        "head_dim": 16,
        "attention_bias": True,
        "use_sliding_window": True,
        "sliding_window": 5,
        "max_window_layers": 2,
    },
    "cwm": {
        "bos_token_id": 1,
        "head_dim": 16,
        "mlp_bias": True,
        "sliding_window": 5,
        "rope_parameters": {
            "rope_type": "llama3",
            "rope_theta": 1e6,
            "factor": 16.0,
            "high_freq_factor": 4.0,
            "low_freq_factor": 1.0,
            "original_max_position_embeddings": 16,
        },
    },
    "ernie4_5": {"head_dim": 16, "use_bias": True},
    "exaone4": {"sliding_window": 5, "sliding_window_pattern": 3},
    "glm": {"head_dim": 16},
    "glm4": {"head_dim": 16},
    "granite_swa": {
        "attention_bias": True,
        "mlp_bias": True,
        "embedding_multiplier": 3.0,
        "attention_multiplier": 0.25,
        "residual_multiplier": 0.5,
        "logits_scaling": 0.75,
        "sliding_window": 5,
        "layer_rope_theta": [1e4, 0, 1e5, 1e4],
    },
    "helium": {"head_dim": 8, "attention_bias": True, "mlp_bias": True},
    "hunyuan_v1_dense": {"head_dim": 16, "attention_bias": True},
    "internlm3": {"head_dim": 16, "attention_bias": True, "mlp_bias": True},
    "iquestcoder": {"head_dim": 16, "attention_bias": True, "mlp_bias": True},
    "ministral": {"sliding_window": 5, "head_dim": 16},
    "ministral3": {
        "sliding_window": 5,
        "head_dim": 16,
        "rope_parameters": {
            "rope_type": "yarn",
            "rope_theta": 1e6,
            "factor": 4.0,
            "original_max_position_embeddings": 4,
            "beta_fast": 32.0,
            "beta_slow": 1.0,
            "mscale": 1.0,
            "mscale_all_dim": 1.0,
            "llama_4_scaling_beta": 0.3,
        },
    },
    "olmo3": {"attention_bias": True, "sliding_window": 5},
    "seed_oss": {
        "head_dim": 16,
        "attention_out_bias": True,
        "mlp_bias": True,
        "attention_dropout": 0.0,
        "residual_dropout": 0.0,
    },
    "vaultgemma": {
        "head_dim": 16,
        "attention_bias": True,
        "sliding_window": 5,
        "query_pre_attn_scalar": 20,
        "attn_logit_softcapping": 5.0,
        "final_logit_softcapping": 8.0,
    },
    "flex_olmo": {"num_experts": 4, "num_experts_per_tok": 2, "attention_bias": True},
    "mixtral": {
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "sliding_window": 5,
        "head_dim": 16,
    },
    "qwen2_moe": {
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 16,
        "shared_expert_intermediate_size": 24,
        "use_sliding_window": True,
        "sliding_window": 5,
        "max_window_layers": 3,
    },
    "qwen3_moe": {
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "norm_topk_prob": True,
        "moe_intermediate_size": 16,
        "head_dim": 16,
        "attention_bias": True,
        "use_sliding_window": True,
        "sliding_window": 5,
    },
    "smollm3": {"no_rope_layer_interval": 3, "attention_bias": True, "mlp_bias": True},
}
CHARACTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ .,"

MakeCheckpoint = Callable[..., Path]


def write_checkpoint(
    folder: Path,
    model_type: str = "llama",
    *,
    tied: bool = False,
    sharded: bool = False,
    dtype: str = "float32",
    tokenizer: bool = False,
    traits: bool = True,
    **config: Any,
) -> Path:
    """Save a random model of 4 layers: random norms and non-zero biases, so that mistakes show."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    settings = {**SIZES, **(TRAITS[model_type] if traits else {}), **config}
    settings["tie_word_embeddings"] = tied
    model_config: Any = AutoConfig.for_model(model_type, **settings)
    auto_model: Any = AutoModelForCausalLM
    model = auto_model.from_config(model_config)
    generator = torch.Generator().manual_seed(20240524)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            # Norms begin as no change, which is 1 or, where gains are stored less 1, 0.
            parameter.copy_(parameter + 0.2 * noise if "norm" in name else 0.3 * noise)
    model.to(getattr(torch, dtype))
    model.save_pretrained(folder, max_shard_size="40KB" if sharded else "1GB")
    if tokenizer:
        write_tokenizer(folder)
    return folder


def write_tokenizer(folder: Path) -> None:
    """Save a tokenizer of single characters, 56 tokens."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    vocab = {"<unk>": 0} | {character: i + 1 for i, character in enumerate(CHARACTERS)}
    tokens = Tokenizer(models.BPE(vocab=vocab, merges=[], unk_token="<unk>"))
    fast: Any = PreTrainedTokenizerFast
    fast(tokenizer_object=tokens, unk_token="<unk>").save_pretrained(folder)


def load(folder: Path) -> tuple[Any, dict[str, Any]]:
    """Load a model as a user would; also return what transformers reports about the loading."""
    import torch
    from transformers import AutoModelForCausalLM

    auto_model: Any = AutoModelForCausalLM
    model, report = auto_model.from_pretrained(
        folder, dtype="auto", local_files_only=True, output_loading_info=True
    )
    if hasattr(model.config, "num_experts_per_tok") and model.dtype == torch.float64:
        # The product of all experts at once knows no float64.
        model.set_experts_implementation("eager")
    return model.eval(), dict(report)


def tensors_of(folder: Path) -> dict[str, Any]:
    """Return every tensor of a folder, read by the safetensors library."""
    from safetensors.torch import load_file

    found: dict[str, Any] = {}
    for path in sorted(folder.glob("*.safetensors")):
        found |= load_file(path)
    return found


def naive_twin(base: Any, layer_map: Sequence[int]) -> Any:
    """Grow a loaded model in memory, by copying layers and nothing else of hfgrow's."""
    config = copy.deepcopy(base.config)
    config.num_hidden_layers = len(layer_map)
    for key in ("layer_types", "no_rope_layers"):
        if getattr(base.config, key, None) is not None:
            setattr(config, key, [getattr(base.config, key)[i] for i in layer_map])
    twin = type(base)._from_config(config, dtype=base.dtype)
    twin.model.embed_tokens.load_state_dict(base.model.embed_tokens.state_dict())
    twin.model.norm.load_state_dict(base.model.norm.state_dict())
    twin.lm_head.load_state_dict(base.lm_head.state_dict())
    for i, source in enumerate(layer_map):
        twin.model.layers[i].load_state_dict(base.model.layers[source].state_dict())
        if base.config.model_type == "minicpm3":
            # The class makes it smaller with depth; the layers are to do what they did.
            twin.model.layers[i].residual_scale = base.model.layers[source].residual_scale
    return twin.eval()


def probe() -> Any:
    """Return 2 x 12 tokens, longer than the sliding windows of `TRAITS`."""
    import torch

    return torch.randint(1, 64, (2, 12), generator=torch.Generator().manual_seed(7))


def logits(model: Any) -> Any:
    """Return a model's logits on the probe."""
    import torch

    with torch.inference_mode():
        return model(probe()).logits


def edit_json(path: Path, **changes: Any) -> None:
    """Change keys of a JSON file; the value `...` takes the key away."""
    content = json.loads(path.read_text(encoding="utf-8"))
    for key, value in changes.items():
        if value is ...:
            content.pop(key, None)
        else:
            content[key] = value
    path.write_text(json.dumps(content), encoding="utf-8")


def copied_models(folder: Path, target: Path) -> Path:
    """Copy a folder of models; the notes of where their bases lie follow."""
    shutil.copytree(folder, target)
    for note in target.glob("*/.hfgrow-base"):
        note.write_text(note.read_text().replace(str(folder), str(target)))
    return target
