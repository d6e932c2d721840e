"""What a token of training costs, counted from the config and checked against the model."""

import math
from typing import Any

import pytest
import torch

from hfgrow.plan.families import FAMILIES
from hfgrow.train.flops import arithmetic, peak_flops, spent_flops, utilization
from hfgrow.train.peaks import PEAKS, peak_of
from tests.checkpoints import MakeCheckpoint, load, probe
from tests.families import EVERY_FAMILY

LLAMA = {"model_type": "llama"}


def llama(**sizes: Any) -> dict[str, Any]:
    return LLAMA | {"num_key_value_heads": sizes["num_attention_heads"]} | sizes


@pytest.mark.parametrize("tied", [False, True], ids=["", "tied"])
@pytest.mark.parametrize("model_type", EVERY_FAMILY)
def test_every_family_is_counted_as_torch_counts_it(
    model_type: str, tied: bool, make_checkpoint: MakeCheckpoint
) -> None:
    """Torch's counter sees the matrix products: 2 FLOPs forward, 4 backward, scores in full."""
    from torch.utils.flop_counter import FlopCounterMode

    model, _ = load(make_checkpoint(model_type, tied=tied))
    model.set_attn_implementation("eager")
    # One expert after the other, whose products torch's counter sees.
    model.set_experts_implementation("eager")
    ids = probe()
    num_tokens = ids.shape[1]
    with FlopCounterMode(display=False) as counter:
        model(ids, use_cache=False).logits.sum().backward()
    config = model.config.to_dict() | {"sliding_window": None}
    counted = arithmetic(config, num_tokens)
    whole_scores = counted.exact_flops + counted.attention_flops
    # Rotary frequencies are matrix products too, of a few FLOPs, in one pass.
    excess = counter.get_total_flops() / ids.numel() / whole_scores - 1
    assert 0 <= excess < 0.003


@pytest.mark.parametrize("tied", [False, True], ids=["", "tied"])
@pytest.mark.parametrize("model_type", EVERY_FAMILY)
def test_parameters_are_those_of_the_model(
    model_type: str, tied: bool, make_checkpoint: MakeCheckpoint
) -> None:
    model, _ = load(make_checkpoint(model_type, tied=tied))
    counted = arithmetic(model.config.to_dict(), 8)
    assert counted.num_parameters == sum(p.numel() for p in model.parameters())
    inside = (
        sum(p.numel() for p in model.model.layers.parameters()) + model.model.norm.weight.numel()
    )
    assert counted.num_non_embedding_parameters == inside
    experts = getattr(model.config, "num_experts", getattr(model.config, "num_local_experts", 0))
    share = model.config.num_experts_per_tok / experts if experts else 1
    active = sum(
        p.numel() * (share if "experts" in name.split(".") else 1)
        for name, p in model.named_parameters()
    )
    assert counted.num_active_parameters == active
    assert counted.headline_flops == 6 * active


def test_equal_heads_without_windows_cost_six_l_h_t() -> None:
    config = llama(
        hidden_size=64,
        intermediate_size=96,
        num_attention_heads=4,
        num_hidden_layers=3,
        vocab_size=50,
    )
    assert arithmetic(config, 128).attention_flops == 6 * 3 * 64 * 128


def test_a_tied_head_multiplies_but_counts_once_as_parameters() -> None:
    sizes = {
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_attention_heads": 4,
        "num_hidden_layers": 3,
        "vocab_size": 50,
    }
    tied = arithmetic(llama(**sizes, tie_word_embeddings=True), 8)
    untied = arithmetic(llama(**sizes, tie_word_embeddings=False), 8)
    assert tied.num_matmul_parameters == untied.num_matmul_parameters
    assert untied.num_parameters - tied.num_parameters == 50 * 64


def test_grouped_heads_save_matrices_but_no_scores() -> None:
    sizes = {
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_attention_heads": 4,
        "num_hidden_layers": 3,
        "vocab_size": 50,
    }
    full = arithmetic(llama(**sizes), 8)
    grouped = arithmetic(llama(**sizes) | {"num_key_value_heads": 1}, 8)
    assert grouped.attention_flops == full.attention_flops
    assert full.num_matmul_parameters - grouped.num_matmul_parameters == 3 * 2 * 3 * 16 * 64


def test_a_window_is_what_its_queries_see_on_average() -> None:
    config = {
        "model_type": "mistral",
        "sliding_window": 256,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "num_hidden_layers": 1,
        "vocab_size": 50,
    }
    num_tokens = 1024
    seen = sum(min(place + 0.5, 256) for place in range(num_tokens)) / num_tokens
    flops = arithmetic(config, num_tokens).attention_flops
    assert flops == pytest.approx(6 * 2 * 64 * seen, rel=1e-3)
    assert arithmetic(config, 256).attention_flops == 6 * 64 * 256


def test_tinyllama_costs_what_the_literature_says() -> None:
    """7.31 GFLOPs by PaLM's count, which has no half: 6 (N + V h) + 12 L h T at T = 2048."""
    config = llama(
        hidden_size=2048,
        intermediate_size=5632,
        num_attention_heads=32,
        num_hidden_layers=22,
        vocab_size=32000,
    ) | {"num_key_value_heads": 4}
    counted = arithmetic(config, 2048)
    assert counted.num_parameters == 1_100_048_384
    assert counted.exact_flops + counted.attention_flops == pytest.approx(7.31e9, rel=1e-3)


def test_utilization_is_what_is_used_of_the_peak() -> None:
    assert utilization(50_000, 7.31e9, PEAKS["H100"]) == pytest.approx(0.3696, rel=1e-3)


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA H200", 989e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA A10", 125e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA GeForce RTX 4090", 165.2e12),
        ("Some Device 9000", None),
    ],
)
def test_the_peak_is_known_by_the_name_of_the_device(name: str, peak: float | None) -> None:
    assert peak_of(name) == peak


def test_the_peak_of_a_cpu_is_measured() -> None:
    peak = peak_flops(torch.device("cpu"))
    assert peak is not None
    assert 1e8 < peak < 1e15
    assert math.isfinite(peak)


def test_the_peak_of_another_device_is_unknown() -> None:
    assert peak_flops(torch.device("meta")) is None


def whole_config(make_checkpoint: MakeCheckpoint) -> dict[str, Any]:
    config: dict[str, Any] = load(make_checkpoint("llama"))[0].config.to_dict()
    return config


def test_what_trains_whole_spends_the_exact_flops(make_checkpoint: MakeCheckpoint) -> None:
    config = whole_config(make_checkpoint)
    names = FAMILIES["llama"].shapes(config, tied=False)
    assert spent_flops(config, 128, names) == arithmetic(config, 128).exact_flops


def test_frozen_matrices_and_layers_below_the_lowest_that_trains_cost_less(
    make_checkpoint: MakeCheckpoint,
) -> None:
    config = whole_config(make_checkpoint)
    names = FAMILIES["llama"].shapes(config, tied=False)
    whole = spent_flops(config, 128, names)
    top = spent_flops(config, 128, [n for n in names if n.startswith("model.layers.1.")])
    bottom = spent_flops(config, 128, [n for n in names if n.startswith("model.layers.0.")])
    head = spent_flops(config, 128, ["lm_head.weight"])
    assert whole / 3 < head < top < bottom < whole
