"""What other programs make of a grown model, where that is not what transformers makes of it.

Of Gemma 3 and SmolLM3 llama.cpp knows which layers are special by their number alone, and mlx-lm
knows Gemma 3's by a period. A matrix with rows of zeros has no norm to divide by (DoRA) and nothing
to turn or part (OFT, PiSSA).
"""

from collections.abc import Mapping
from dataclasses import dataclass

from hfgrow.plan.axes import FRESH
from hfgrow.plan.families import FAMILIES
from hfgrow.plan.families.older import GEMMA3_PERIOD, keeps_beat
from hfgrow.plan.families.table import layer_of
from hfgrow.plan.plan import GrowthPlan
from hfgrow.plan.tensors import Blend, Fill, Lift, Recipe

# The families of whose special layers others take a period for granted.
PERIODS: Mapping[str, int] = {"gemma3_text": GEMMA3_PERIOD, "smollm3": 4}


@dataclass(frozen=True, slots=True)
class OffBeat:
    """A model whose special layers do not stand where other programs look for them.

    Attributes:
        model_type: Its family.
        pattern: What `partial` grows of the same base to about the same depth on the beat; None
            where there is no such growth.
    """

    model_type: str
    pattern: str | None


def off_beat(base: GrowthPlan, plan: GrowthPlan) -> OffBeat | None:
    """Say what is off the beat in a grown model; None if nothing is.

    Args:
        base: What it grew from.
        plan: The grown model.
    """
    if plan.family not in PERIODS or _is_on_beat(plan):
        return None
    period, num_layers = PERIODS[plan.family], base.num_hidden_layers
    whole = num_layers // period * period
    if not whole or plan.num_hidden_layers <= num_layers or not _is_on_beat(base):
        return OffBeat(plan.family, None)
    times = max(2, round((plan.num_hidden_layers - num_layers + whole) / whole))
    rest = {0: "", 1: f"-{num_layers}"}.get(num_layers - whole, f"-[{whole + 1}:{num_layers}]")
    return OffBeat(plan.family, f"[1:{whole}]*{times}{rest}")


def _is_on_beat(plan: GrowthPlan) -> bool:
    lists = FAMILIES[plan.family].per_layer(plan.config)
    if plan.family == "smollm3":
        return all(bool(rope) == (i % 4 != 0) for i, rope in enumerate(lists["no_rope_layers"], 1))
    return keeps_beat(lists["layer_types"], GEMMA3_PERIOD)


def zero_rows(plan: GrowthPlan) -> dict[str, tuple[int, ...]]:
    """Return the modules whose matrix has rows of zeros, whatever the base holds, and where.

    Returns:
        A module inside a layer, such as `mlp.down_proj` -> the 0-based layers.
    """
    parted = plan.derived.layer_of if plan.derived else layer_of
    found: dict[str, list[int]] = {}
    for name, tensor in plan.tensors.items():
        part = parted(name)
        is_matrix = len(tensor.shape) == 2 and name.endswith(".weight")
        if part and is_matrix and _zero_rows(tensor.recipe):
            found.setdefault(part[1].removesuffix(".weight"), []).append(part[0])
    return {module: tuple(sorted(layers)) for module, layers in found.items()}


def _zero_rows(recipe: Recipe) -> set[int]:
    match recipe:
        case Fill():
            return set() if recipe.value else set(range(recipe.shape[0]))
        case Blend():
            return set.intersection(*(_zero_rows(term) for _, term in recipe.terms))
        case Lift():
            rows, fresh = recipe.rows, recipe.fresh
            is_wider = recipe.cols is not None and recipe.cols.has_fresh
            inner = set() if is_wider and fresh.columns else _zero_rows(recipe.recipe)
            is_silent = not (fresh.rows or (is_wider and fresh.corner))
            if not inner and not (is_silent and rows.has_fresh):
                return set()
            return {
                i
                for i, source in enumerate(rows.sources)
                if (is_silent if source == FRESH else source in inner)
            }
        case _:
            return set()
