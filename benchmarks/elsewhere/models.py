"""Tiny random bases as transformers 5 saves them, and what they are grown by."""

import json
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import hfgrow

typed_step = import_module("hfgrow_cli.typed_steps").typed_step


DEMO = Path(hfgrow.__file__).parent / "demo"
_SIZES: Mapping[str, Any] = {
    "vocab_size": 2048,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": None,
    "tie_word_embeddings": False,
}
NARROW_HEADS = "zero-width --hidden-size 96"
_AS_MISTRAL = "the same, said to be a Mistral"
# No class has it by default.
_THETA = {"rope_type": "default", "rope_theta": 500_000.0}
_SHARE = {"rope_parameters": {**_THETA, "partial_rotary_factor": 0.75}}
_LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
_GEMMA3 = {
    "num_hidden_layers": 8,
    "head_dim": 16,
    "query_pre_attn_scalar": 16,
    "sliding_window": 64,
    "rope_parameters": {
        "full_attention": _THETA,
        "sliding_attention": {"rope_type": "default", "rope_theta": 20_000.0},
    },
}
_PUBLISHED_GEMMA3 = {
    "full_attention": {"rope_type": "default", "rope_theta": 1_000_000.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
}


@dataclass(frozen=True)
class Base:
    """A base: its family, what is special, and the growths, as they are typed."""

    name: str
    model_type: str
    growths: tuple[str, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)


BASES = (
    Base(
        "Llama",
        "llama",
        ("stack --g 2", "zero-depth --g 2", "hyperclone --g 2", NARROW_HEADS),
    ),
    Base("Llama, llama3 scaling", "llama", ("stack --g 2",), {"rope_parameters": _LLAMA3}),
    Base("Mistral", "mistral", ("stack --g 2", NARROW_HEADS)),
    Base("Qwen2", "qwen2", ("stack --g 2",)),
    Base("Qwen3", "qwen3", ("stack --g 2", "hyperclone --g 2"), {"head_dim": 16}),
    Base("OLMo 2", "olmo2", ("stack --g 2",)),
    Base("Granite", "granite", ("stack --g 2",)),
    Base("SmolLM3", "smollm3", ("stack --g 2", "zero-depth --g 2"), {"num_hidden_layers": 8}),
    Base(
        "Gemma 3",
        "gemma3_text",
        ("stack --g 2", "partial [1:6]*2-[7:8]", "hyperclone --g 2", "head-dim --factor 2"),
        _GEMMA3,
    ),
    Base(
        "Gemma 3, published thetas",
        "gemma3_text",
        ("stack --g 2", "hyperclone --g 2"),
        {**_GEMMA3, "rope_parameters": _PUBLISHED_GEMMA3},
    ),
    Base(
        "Phi-3, part of each head rotated",
        "phi3",
        ("stack --g 2", "hyperclone --g 2"),
        {**_SHARE, "original_max_position_embeddings": 512},
    ),
    Base(
        "OLMoE",
        "olmoe",
        ("stack --g 2",),
        {"num_experts": 4, "num_experts_per_tok": 2, "num_key_value_heads": 4},
    ),
    # mlx-lm knows it only with an MLP of four times the width.
    Base(
        "GPT-NeoX",
        "gpt_neox",
        ("stack --g 2",),
        {**_SHARE, "intermediate_size": 256, "num_key_value_heads": 4},
    ),
    Base("StableLM", "stablelm", ("stack --g 2",), _SHARE),
    Base("Nemotron", "nemotron", ("stack --g 2",), _SHARE),
    Base("Cohere", "cohere", ("stack --g 2",), {"tie_word_embeddings": True}),
)


@dataclass(frozen=True)
class Grown:
    """A grown model, or an ungrown one as transformers 5 saved it."""

    name: str
    growth: str
    folder: Path


def rows(base: Base) -> Iterator[tuple[str, str]]:
    """Return the names and growths of the rows of a base, first the one that is not grown."""
    yield base.name, ""
    for growth in base.growths:
        yield base.name, growth
        if (base.name, growth) == ("Llama", NARROW_HEADS):
            yield _AS_MISTRAL, growth


def made(bases: Sequence[Base], folder: Path) -> Iterator[Grown]:
    """Make bases and grown models in a folder, anew."""
    shutil.rmtree(folder, ignore_errors=True)
    for i, base in enumerate(bases):
        for j, (name, growth) in enumerate(rows(base)):
            print(name, growth, file=sys.stderr)
            out = folder / f"{i}-{j}"
            if not growth:
                write_base(base, out)
            elif name == _AS_MISTRAL:
                _write_as_mistral(folder / f"{i}-{j - 1}", out)
            else:
                steps = [typed_step(growth)]
                hfgrow.grow(
                    hfgrow.GrowthRequest(model=str(folder / f"{i}-0"), steps=steps, out=out)
                )
            yield Grown(name, growth, out)


def _write_as_mistral(folder: Path, out: Path) -> None:
    """Copy a Llama whose heads are not hidden_size / num_attention_heads wide as a Mistral."""
    shutil.copytree(folder, out)
    config = json.loads((out / "config.json").read_text(encoding="utf-8"))
    config |= {"model_type": "mistral", "architectures": ["MistralForCausalLM"]}
    text = json.dumps({**config, "sliding_window": None})
    (out / "config.json").write_text(text, encoding="utf-8")


def grown_llamas(folder: Path, growths: Sequence[str]) -> list[Path]:
    """Write a Llama and what growths as they are typed make of it; return the folders in order."""
    base = folder / "base"
    write_base(BASES[0], base)
    folders = [base]
    for i, growth in enumerate(growths):
        folders.append(folder / f"grown-{i}")
        steps, out = [typed_step(growth)], folders[-1]
        hfgrow.grow(hfgrow.GrowthRequest(model=str(base), steps=steps, out=out, overwrite=True))
    return folders


def write_base(base: Base, folder: Path) -> None:
    """Write a random model whose norms and logits are none of the usual ones."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    settings = {**_SIZES, "rope_parameters": _THETA, **base.settings}
    config: Any = AutoConfig.for_model(base.model_type, **json.loads(json.dumps(settings)))
    auto: Any = AutoModelForCausalLM
    model = auto.from_config(config)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(parameter + 0.2 * noise if "norm" in name else 0.15 * noise)
    model.save_pretrained(folder)
    shutil.copy(DEMO / "tokenizer.json", folder)
    settings = json.loads((DEMO / "tokenizer_config.json").read_text(encoding="utf-8"))
    # ctranslate2 wants one.
    settings["unk_token"] = settings["eos_token"]
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
