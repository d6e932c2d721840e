"""The arithmetic of training: parameters that multiply, FLOPs of a token, and the peak of a device.

Two counts of a token's forward and backward pass: `6 N`, the headline of the literature, with `N`
the parameters that the token passes, and an exact one,

    6 N_matmul + 6 sum over layers of heads (qk_dim + head_dim) keys

with `N_matmul` the matrices of the layers and the head, tied or not, which embeddings that are
looked up are no part of, and `keys` the mean number of keys that a query sees: half the sequence,
or `w (1 - w / (2 T))` under a window of `w` in `T` tokens. With equal heads and no windows the
second term is `6 L h T`. Of the experts of a mixture those count that a token passes, by their
share `num_experts_per_tok / num_experts`; `derived_flops` says what a layer with a state costs.
What a device does beyond that, such as recomputation, is not counted.
Of a matrix that does not train the gradient is not computed, and below the lowest layer that trains
nothing goes backward at all: that is taken off.

Sources: Kaplan et al. 2020, "Scaling Laws for Neural Language Models",
https://arxiv.org/abs/2001.08361, Sec. 2.1 (6 N); Chowdhery et al. 2022, "PaLM",
https://arxiv.org/abs/2204.02311, App. B (the share of attention, and MFU; there without the half)
"""

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cache
from math import prod
from typing import Any

from hfgrow.plan.families import FAMILIES
from hfgrow.plan.families.table import Kind, layer_of
from hfgrow.train.derived_flops import Product, Work, derived_work, mean_keys
from hfgrow.train.peaks import peak_of

_GEMM_SIZE = 1024
_GEMM_SECONDS = 0.3


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """What one token of training costs.

    Attributes:
        num_parameters: All parameters, tied ones once.
        num_active_parameters: Those that a token passes, embeddings and head included: fewer in a
            mixture of experts.
        num_non_embedding_parameters: Those outside embeddings and head.
        num_matmul_parameters: Those that a token is multiplied with, the head among them; of a
            mixture those of the experts that it passes.
        attention_flops: FLOPs of a token's scores and weighted means, and of states, forward and
            backward.
    """

    num_parameters: int
    num_active_parameters: int
    num_non_embedding_parameters: int
    num_matmul_parameters: int
    attention_flops: float

    @property
    def headline_flops(self) -> int:
        """`6 N` of one token, `N` the parameters that it passes."""
        return 6 * self.num_active_parameters

    @property
    def exact_flops(self) -> float:
        """FLOPs of one token, forward and backward."""
        return 6 * self.num_matmul_parameters + self.attention_flops


def arithmetic(config: Mapping[str, Any], num_tokens: int) -> Arithmetic:
    """Count what one token of training costs.

    Args:
        config: The config of a family in `hfgrow.plan.families` with all defaults filled in, as
            transformers' `to_dict` gives it; or any config of a derived family.
        num_tokens: Tokens of a sequence, `T`.

    Raises:
        ModelError: transformers has no such model.
    """
    work = work_of(config, num_tokens)
    multiplied = sum(product.numbers for product in work.products.values())
    return Arithmetic(
        num_parameters=work.num_parameters,
        num_active_parameters=work.num_active_parameters,
        num_non_embedding_parameters=work.num_non_embedding_parameters,
        num_matmul_parameters=round(multiplied),
        attention_flops=3 * sum(work.mixing),
    )


def spent_flops(config: Mapping[str, Any], num_tokens: int, trained: Collection[str]) -> float:
    """Count the FLOPs of one token, forward and backward, where not everything trains.

    Args:
        config: As in `arithmetic`.
        num_tokens: Tokens of a sequence.
        trained: The names in files of the tensors that train. A tied head trains with the
            embeddings.
    """
    work = work_of(config, num_tokens, trained)
    layers = [layer for name in trained if (layer := work.layer_of(name)) is not None]
    reaches_bottom = any(name in work.embeddings for name in trained)
    lowest = 0 if reaches_bottom else min(layers, default=len(work.mixing))
    spent = 0.0
    for name, product in work.products.items():
        # What lies behind the layers, as the head does, always sends a gradient on.
        goes_back = product.layer is None or product.layer >= lowest
        spent += 2.0 * product.numbers * (1 + goes_back + (name in trained))
    for layer, flops in enumerate(work.mixing):
        spent += flops * (3 if layer >= lowest else 1)
    return spent


def work_of(config: Mapping[str, Any], num_tokens: int, names: Collection[str] = ()) -> Work:
    """Return what a token passes on its way forward.

    Args:
        config: As in `arithmetic`.
        num_tokens: Tokens of a sequence.
        names: Names in files of some of its tensors, where files may have several.
    """
    if config["model_type"] not in FAMILIES:
        return derived_work(config, num_tokens, names)
    family = FAMILIES[config["model_type"]]
    tied = family.is_tied(config)
    shapes, sizes = family.shapes(config, tied=tied), family.sizes(config)
    outside = {family.embeddings.tensor, family.head.tensor}
    linear = {name for name, role in family.roles(config).items() if role.kind is Kind.LINEAR}
    products = {
        name: Product(found[0], prod(shape) * family.share(name, config))
        for name, shape in shapes.items()
        if (found := layer_of(name)) and found[1] in linear
    }
    head = family.embeddings.tensor if tied else family.head.tensor
    products[head] = Product(None, sizes["vocab"] * sizes["hidden"])
    width = sizes["heads"] * (sizes["qk_dim"] + sizes["head_dim"])
    return Work(
        num_parameters=sum(map(prod, shapes.values())),
        num_active_parameters=round(
            sum(prod(shape) * family.share(name, config) for name, shape in shapes.items())
        ),
        num_non_embedding_parameters=sum(
            prod(shape) for name, shape in shapes.items() if name not in outside
        ),
        products=products,
        mixing=tuple(
            2.0 * width * mean_keys(window, num_tokens) for window in layer_windows(config)
        ),
        embeddings=frozenset({family.embeddings.tensor}),
        layer_of=_layer_of,
    )


def _layer_of(name: str) -> int | None:
    found = layer_of(name)
    return None if found is None else found[0]


def utilization(tokens_per_s: float, flops_per_token: float, peak: float) -> float:
    """Return the share of a peak that is used: MFU.

    Args:
        tokens_per_s: Tokens per second, of all devices together.
        peak: FLOP/s of all devices together.
    """
    return tokens_per_s * flops_per_token / peak


def peak_flops(device: Any) -> float | None:
    """Return the peak of a torch device in FLOP/s: bf16 on a GPU, measured on a CPU.

    On a CPU it is the rate of a float32 matrix product with the threads that torch has, which takes
    about a third of a second, once in a process.

    Returns:
        None for a device whose peak is unknown.
    """
    import torch

    match device.type:
        case "cuda":
            return peak_of(torch.cuda.get_device_name(device))
        case "cpu":
            return _peak_on_cpu(torch.get_num_threads())
        case _:
            return None


@cache
def _peak_on_cpu(num_threads: int) -> float:
    return measured_on_cpu()


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
