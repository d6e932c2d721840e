"""The arithmetic of training: parameters that multiply, FLOPs of a token, and the peak of a device.

Two counts of a token's forward and backward pass: `6 N` with `N` all parameters, the headline of
the literature, and an exact one,

    6 N_matmul + 6 sum over layers of heads (qk_dim + head_dim) keys

with `N_matmul` the matrices of the layers and the head, tied or not, which embeddings that are
looked up are no part of, and `keys` the mean number of keys that a query sees: half the sequence,
or `w (1 - w / (2 T))` under a window of `w` in `T` tokens. With equal heads and no windows the
second term is `6 L h T`. What a device does beyond that, such as recomputation, is not counted.
Of a matrix that does not train the gradient is not computed, and below the lowest layer that trains
nothing goes backward at all: that is taken off.

Sources: Kaplan et al. 2020, "Scaling Laws for Neural Language Models",
https://arxiv.org/abs/2001.08361, Sec. 2.1 (6 N); Chowdhery et al. 2022, "PaLM",
https://arxiv.org/abs/2204.02311, App. B (the share of attention, and MFU; there without the half)
"""

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from hfgrow.plan.families import FAMILIES
from hfgrow.plan.families.table import Kind, layer_of

# Dense bf16 FLOP/s of one device, from the makers' data sheets: a part of its name -> peak. The
# first part that fits counts.
PEAKS: Mapping[str, float] = {
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "H200": 989e12,
    "GH200": 989e12,
    "H800": 989e12,
    "H20": 148e12,
    "B200": 2250e12,
    "B100": 1750e12,
    "A100": 312e12,
    "A800": 312e12,
    "A40": 149.7e12,
    "A30": 165e12,
    "A10": 125e12,
    "A6000": 154.8e12,
    "L40S": 362e12,
    "L40": 181e12,
    "L4": 121e12,
    "RTX 4090": 165.2e12,
    "RTX 3090": 71e12,
    "MI300X": 1307e12,
    "MI250X": 383e12,
}
# The share of it that a training usually reaches.
USUAL_MFU = 0.4
_GEMM_SIZE = 1024
_GEMM_SECONDS = 0.3


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """What one token of training costs.

    Attributes:
        num_parameters: All parameters, tied ones once.
        num_non_embedding_parameters: Those outside embeddings and head.
        num_matmul_parameters: Those that every token is multiplied with, the head among them.
        attention_flops: FLOPs of a token's scores and weighted means, forward and backward.
    """

    num_parameters: int
    num_non_embedding_parameters: int
    num_matmul_parameters: int
    attention_flops: float

    @property
    def headline_flops(self) -> int:
        """`6 N` of one token."""
        return 6 * self.num_parameters

    @property
    def exact_flops(self) -> float:
        """FLOPs of one token, forward and backward."""
        return 6 * self.num_matmul_parameters + self.attention_flops


def arithmetic(config: Mapping[str, Any], num_tokens: int) -> Arithmetic:
    """Count what one token of training costs.

    Args:
        config: The config of a family in `hfgrow.plan.families` with all defaults filled in, as
            transformers' `to_dict` gives it.
        num_tokens: Tokens of a sequence, `T`.
    """
    family = FAMILIES[config["model_type"]]
    tied = family.is_tied(config)
    shapes = family.shapes(config, tied=tied)
    sizes = family.sizes(config)
    outside = {family.embeddings.tensor, family.head.tensor}
    linear = {name for name, role in family.roles(config).items() if role.kind is Kind.LINEAR}
    inside = sum(
        prod(shape)
        for name, shape in shapes.items()
        if (found := layer_of(name)) and found[1] in linear
    )
    seen = sum(_mean_keys(window, num_tokens) for window in layer_windows(config))
    return Arithmetic(
        num_parameters=sum(map(prod, shapes.values())),
        num_non_embedding_parameters=sum(
            prod(shape) for name, shape in shapes.items() if name not in outside
        ),
        num_matmul_parameters=inside + sizes["vocab"] * sizes["hidden"],
        attention_flops=6 * sizes["heads"] * (sizes["qk_dim"] + sizes["head_dim"]) * seen,
    )


def spent_flops(config: Mapping[str, Any], num_tokens: int, trained: Collection[str]) -> float:
    """Count the FLOPs of one token, forward and backward, where not everything trains.

    Args:
        config: As in `arithmetic`.
        num_tokens: Tokens of a sequence.
        trained: The names of the tensors that train. A tied head trains with the embeddings.
    """
    family = FAMILIES[config["model_type"]]
    tied = family.is_tied(config)
    sizes = family.sizes(config)
    linear = {name for name, role in family.roles(config).items() if role.kind is Kind.LINEAR}
    layers = [found[0] for name in trained if (found := layer_of(name))]
    reaches_bottom = family.embeddings.tensor in trained
    lowest = 0 if reaches_bottom else min(layers, default=int(config["num_hidden_layers"]))
    head = sizes["vocab"] * sizes["hidden"]
    head_name = family.embeddings.tensor if tied else family.head.tensor
    spent = head * (6.0 if head_name in trained else 4.0)
    for name, shape in family.shapes(config, tied=tied).items():
        place = layer_of(name)
        if place and place[1] in linear:
            passes = 1 + (place[0] >= lowest) + (name in trained)
            spent += 2.0 * prod(shape) * passes
    width = sizes["heads"] * (sizes["qk_dim"] + sizes["head_dim"])
    for layer, window in enumerate(layer_windows(config)):
        passes = 3 if layer >= lowest else 1
        spent += 2.0 * width * _mean_keys(window, num_tokens) * passes
    return spent


def utilization(tokens_per_s: float, flops_per_token: float, peak: float) -> float:
    """Return the share of a peak that is used: MFU.

    Args:
        tokens_per_s: Tokens per second, of all devices together.
        flops_per_token: FLOPs of one token.
        peak: FLOP/s of all devices together.
    """
    return tokens_per_s * flops_per_token / peak


def peak_flops(device: Any) -> float | None:
    """Return the peak of a torch device in FLOP/s: bf16 on a GPU, measured on a CPU.

    On a CPU it is the rate of a float32 matrix product with the threads that torch has, which takes
    about a third of a second.

    Returns:
        None for a device whose peak is unknown.
    """
    import torch

    match device.type:
        case "cuda":
            return peak_of(torch.cuda.get_device_name(device))
        case "cpu":
            return measured_on_cpu()
        case _:
            return None


def peak_of(name: str) -> float | None:
    """Return the dense bf16 FLOP/s of a device by its name; None if it is unknown."""
    words = f" {name.replace('-', ' ')} "
    return next((peak for part, peak in PEAKS.items() if f" {part} " in words), None)


def _mean_keys(window: int | None, num_tokens: int) -> float:
    reach = num_tokens if window is None else min(window, num_tokens)
    return reach * (1 - reach / (2 * num_tokens))


def measured_on_cpu(
    size: int = _GEMM_SIZE, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Return the FLOP/s of float32 matrix products on the threads that a run has, by a clock."""
    import torch

    from hfgrow.train.cpu_products import product

    left = torch.ones(size, size)
    right = torch.ones_like(left)
    product(left, right)
    best, start = float("inf"), clock()
    while (before := clock()) - start < _GEMM_SECONDS:
        product(left, right)
        best = min(best, clock() - before)
    return float(2 * size**3 / best)


# One window for all layers, and no list of layer types.
_ONE_WINDOW = ("ministral3", "mistral", "mixtral", "phi3", "qwen3_moe")


def layer_windows(config: Mapping[str, Any]) -> tuple[int | None, ...]:
    """Return the sliding window of every layer, in tokens; None for a layer that sees all.

    Args:
        config: A model's config with all defaults filled in, as transformers' `to_dict` gives it.
    """
    window = config.get("sliding_window")
    num_layers = int(config["num_hidden_layers"])
    if config["model_type"] in _ONE_WINDOW:
        return (window,) * num_layers
    kinds = config.get("layer_types") or ("full_attention",) * num_layers
    return tuple(window if kind == "sliding_attention" else None for kind in kinds)
