"""Head dimension: every head gets more rotary pairs.

Source: Gesmundo and Maile 2023, "Composable Function-preserving Expansions for Transformer
Architectures", https://arxiv.org/abs/2308.06103 (attention expansion); the places of the rotary
pairs follow from `theta^(-2 k i / (k head_dim)) = theta^(-2 i / head_dim)`
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

from hfgrow.errors import UsageError, printable
from hfgrow.operators.checks import check_seed
from hfgrow.plan.families import FAMILIES
from hfgrow.plan.families.llama import KEY, VALUE
from hfgrow.plan.families.table import Kind, Role
from hfgrow.plan.plan import GrowthPlan
from hfgrow.plan.tensors import Fresh
from hfgrow.plan.width import WidthGrowth, apply_width, check_width
from hfgrow.plan.width_maps import rotary_maps

# Rotary embeddings whose frequencies depend on the pair's number alone, or on its frequency.
_ROPE_TYPES = (None, "default", "linear", "llama3")


def head_dim(base: GrowthPlan, *, factor: int, seed: int = 0) -> GrowthPlan:
    """Make every head wider by a whole factor; each rotary pair keeps its frequency.

    New dimensions of queries are zero, and so is what reads new dimensions of values; those of
    keys and values are random, so that gradients reach all of them, but keys that pass a norm stay
    zero there. Queries and keys are scaled so that the attention logits stay. Function preserving.

    Args:
        base: The plan to grow.
        factor: By how much head_dim grows, at least 2.
        seed: Seeds what is random; the same seed gives the same bytes.

    Raises:
        UsageError: The factor is below 2, or the rotary embeddings depend on head_dim.
    """
    if factor < 2:
        raise UsageError(f"the factor of head_dim must be at least 2, not {factor}")
    family, config = FAMILIES[base.family], base.config
    if reason := why_fixed(config):
        raise UsageError(f"head_dim cannot grow: {reason}")
    check_seed(seed)
    dim = family.sizes(config)["head_dim"]
    check_width(factor * dim)
    normalised = any("norm" in name and "self_attn" in name for name in family.roles(config))
    maps = rotary_maps(
        dim, factor * dim, normalised=normalised, fixed_scale=bool(family.softmax_scale_key)
    )
    return apply_width(
        base,
        WidthGrowth(maps=maps, seed=seed, fresh=partial(_fresh, normalised)),
        operator="head-dim",
        arguments={"factor": factor, "seed": seed},
        preserves_function=True,
    )


def _fresh(normalised: bool, role: Role, std: float) -> Fresh:
    # Queries and keys that are both zero in a dimension would never leave it; nor would values
    # that nothing reads. Fused projections hold queries too.
    keys_or_values = (VALUE,) if normalised else (KEY, VALUE)
    is_random = role.kind is Kind.LINEAR and role.dimensions[0] in keys_or_values
    return Fresh(rows=std, corner=std) if is_random else Fresh()


def why_fixed(config: Mapping[str, Any]) -> str | None:
    """Return why the rotary embeddings of a config let no head grow, or None if they do."""
    if config.get("partial_rotary_factor") not in (None, 1, 1.0):
        return "only a part of it is rotary"
    reasons = (_why_fixed(config.get(key), key) for key in ("rope_parameters", "rope_scaling"))
    return next(filter(None, reasons), None)


def _why_fixed(settings: object, key: str) -> str | None:
    if not isinstance(settings, dict):
        return None
    kind = settings.get("rope_type", settings.get("type"))
    if kind not in _ROPE_TYPES:
        return f"the frequencies of {key} of the type {printable(repr(kind))} depend on it"
    if settings.get("partial_rotary_factor") not in (None, 1, 1.0):
        return "only a part of it is rotary"
    return next(filter(None, (_why_fixed(nested, key) for nested in settings.values())), None)
