"""One command for every operator on the tiny bases, and what some families cannot do."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from hfgrow.plan.families import FAMILIES
from hfgrow.plan.operators import OPERATORS

# On a base of 4 layers, hidden_size 32, intermediate_size 48, 4 query and 2 key-value heads.
WIDE = ("--hidden-size", "40", "--ffn", "60")
COMMANDS: dict[str, tuple[str, ...]] = {
    "stack": ("--layers", "7"),
    "interpolate": ("--g", "2"),
    "partial": ("1-23*2-4",),
    "solar": ("--overlap", "1"),
    "append-top": ("--layers", "6"),
    "midas": ("--block", "2"),
    "lidas": ("--block", "2"),
    "progressive": ("--layers", "3"),
    "zero-depth": ("--layers", "7"),
    "random-depth": ("--layers", "6"),
    "average": ("--layers", "6"),
    "opt-deus": ("--layers", "6"),
    "lesa": ("--layers", "6"),
    "branch-scale": (),
    "hyperclone-noisy": (*WIDE, "--heads", "8"),
    "hyperclone": ("--g", "2"),
    "split": ("--g", "2"),
    "zero-width": ("--g", "2"),
    "random-width": ("--hidden-size", "48", "--heads", "8"),
    "lemon": ("--hidden-size", "72", "--ffn", "60"),
    "net2net": (*WIDE, "--heads", "8"),
    "bert2bert-fpi": ("--g", "2"),
    "bert2bert-aki": ("--g", "2"),
    "staged": ("--g", "2"),
    "snp": ("--g", "2"),
    "head-dim": ("--factor", "2"),
    "untie": (),
    "paper-noise": ("--amount", "0.2"),
    "tensor-scale": ("self_attn:0.5,*:0.75", "--layers", "[2:3]"),
    "upcycle": ("--experts", "6", "--shards", "3"),
}
# The layer maps of those that only copy layers, written out by hand.
LAYER_MAPS: dict[str, tuple[int, ...]] = {
    "stack": (0, 1, 2, 3, 1, 2, 3),
    "interpolate": (0, 0, 1, 1, 2, 2, 3, 3),
    "partial": (0, 1, 2, 1, 2, 3),
    "solar": (0, 1, 2, 1, 2, 3),
    "append-top": (0, 1, 2, 3, 2, 3),
    "midas": (0, 1, 0, 1, 2, 3),
    "lidas": (0, 1, 2, 1, 2, 3),
    "progressive": (0, 0, 0),
}
# Mixtures of experts -> the dense family that becomes one.
MIXTURES = {
    "flex_olmo": "olmo2",
    "mixtral": "mistral",
    "qwen2_moe": "qwen2",
    "qwen3_moe": "qwen3",
}
UPCYCLED = ("llama", "mistral", "olmo2", "qwen2", "qwen3")
# Families one row or default away from another; of these the default tests run two operators.
NEAR = {
    "cwm": "llama",
    "ernie4_5": "llama",
    "exaone4": "olmo2",
    "glm": "qwen2",
    "glm4": "qwen2",
    "granite_swa": "granite",
    "helium": "llama",
    "hunyuan_v1_dense": "qwen3",
    "internlm3": "llama",
    "iquestcoder": "llama",
    "ministral": "mistral",
    "ministral3": "mistral",
    "olmo3": "olmo2",
    "seed_oss": "qwen2",
    "vaultgemma": "gemma",
    **MIXTURES,
}
NEAR_OPERATORS = ("zero-depth", "hyperclone-noisy")
SQUARE = ("--hidden-size", "64", "--ffn", "60", "--heads", "8")
# Where a family needs another command: norms of OLMo 2 and 3 span all heads, MiniCPM3's heads are
# fixed, and Helium's are as wide as its stream; a mixture has experts to copy.
OTHERWISE: dict[tuple[str, str], tuple[str, ...]] = {
    **{("upcycle", family): ("--experts", "12") for family in MIXTURES},
    **{
        (operator, family): WIDE
        for family in ("olmo2", "olmo3")
        for operator in (
            "zero-width",
            "random-width",
            "net2net",
            "bert2bert-fpi",
            "bert2bert-aki",
            "snp",
        )
    },
    **{
        (operator, "helium"): SQUARE
        for operator in ("hyperclone-noisy", "random-width", "lemon", "net2net")
    },
    **{
        (operator, "minicpm3"): ("--hidden-size", "64", "--ffn", "96")
        for operator in (
            "hyperclone",
            "split",
            "zero-width",
            "random-width",
            "lemon",
            "hyperclone-noisy",
            "net2net",
            "bert2bert-fpi",
            "bert2bert-aki",
            "snp",
        )
    },
}
# What is refused, and a part of the reason.
REFUSED = {
    ("staged", "minicpm3"): "the heads share latents",
    ("head-dim", "minicpm3"): "the heads share latents",
    ("head-dim", "phi3"): "only a part of it is rotary",
    **{
        ("head-dim", family): "rotary pairs are neighbours"
        for family in ("ernie4_5", "glm", "glm4", "helium")
    },
    ("head-dim", "ministral3"): "the frequencies of rope_parameters of the type 'yarn'",
    **{
        (operator, family): "it is a mixture of experts"
        for operator, row in OPERATORS.items()
        for family in MIXTURES
        if row.axis == "width"
    },
    **{
        ("upcycle", family): "there is no mixture of experts"
        for family in FAMILIES
        if family not in (*UPCYCLED, *MIXTURES)
    },
}


@dataclass(frozen=True)
class Case:
    """An operator on a base of a family."""

    operator: str
    model_type: str
    tied: bool
    sharded: bool
    grouped: bool

    def __str__(self) -> str:
        traits = ("tied" * self.tied, "shards" * self.sharded, "mha" * (not self.grouped))
        return "-".join((self.operator, self.model_type, *filter(None, traits)))

    @property
    def command(self) -> tuple[str, ...]:
        """The operator and its arguments, without the base."""
        arguments = OTHERWISE.get((self.operator, self.model_type), COMMANDS[self.operator])
        if self.operator == "branch-scale":
            return ("stack", "--g", "2", "--branch-scale", "0.5")
        return (self.operator, *arguments)

    def base(self, dtype: str) -> dict[str, Any]:
        """The base, as `make_checkpoint` makes it."""
        settings: dict[str, Any] = {"tied": self.tied, "sharded": self.sharded, "dtype": dtype}
        if not self.grouped:
            settings["num_key_value_heads"] = 4
        if self.operator == "progressive":
            settings["num_hidden_layers"] = 1
            if self.model_type == "granite_swa":
                settings["layer_rope_theta"] = [1e5]
        if self.operator == "upcycle":
            # A mixtral has no biases, and a qwen3_moe one window for all layers.
            plain: dict[str, dict[str, Any]] = {
                "llama": {"attention_bias": False, "mlp_bias": False},
                "qwen3": {"max_window_layers": 0},
            }
            settings |= plain.get(self.model_type, {})
        return settings


def with_exact_norms(model: Any) -> Any:
    """Let norms and routers compute in the model's dtype; those of transformers use float32."""
    for module in model.modules():
        if type(module).__name__.endswith("TopKRouter"):
            module.forward = _exact_router(module)
        if type(module).__name__.endswith("RMSNorm"):
            module.forward = _exact_norm(module)
    return model


@contextmanager
def exact_norms(model: Any) -> Iterator[Any]:
    """Let them compute so for a while."""
    yield with_exact_norms(model)
    for module in model.modules():
        module.__dict__.pop("forward", None)


def _exact_router(router: Any) -> Any:
    def forward(hidden: torch.Tensor) -> Any:
        scores = hidden.reshape(-1, router.hidden_dim) @ router.weight.T
        shares, chosen = scores.softmax(-1).topk(router.top_k, dim=-1)
        if getattr(router, "norm_topk_prob", True):
            shares = shares / shares.sum(-1, keepdim=True)
        return scores, shares, chosen

    return forward


def _exact_norm(norm: Any) -> Any:
    epsilon = norm.eps if hasattr(norm, "eps") else norm.variance_epsilon
    centre = 1 if "Gemma" in type(norm).__name__ else 0

    def forward(hidden: torch.Tensor) -> Any:
        return (centre + norm.weight) * (
            hidden * torch.rsqrt(hidden.pow(2).mean(-1, keepdim=True) + epsilon)
        )

    return forward


def kept_neurons(
    mlp: str, after: Mapping[str, torch.Tensor], source: str, before: Mapping[str, torch.Tensor]
) -> torch.Tensor:
    """Return which neurons of an MLP are those of another, in all three of its matrices alike."""
    same = {
        part: after[f"{mlp}.{part}_proj.weight"] == before[f"{source}.{part}_proj.weight"]
        for part in ("gate", "up", "down")
    }
    kept = same["gate"].all(1)
    assert torch.equal(kept, same["up"].all(1))
    assert torch.equal(kept, same["down"].all(0))
    return kept
