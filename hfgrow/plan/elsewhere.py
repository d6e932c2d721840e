"""Other programs: what config.json says twice for them, and what they make otherwise of a model.

transformers 5 saves the rotary settings as `rope_parameters` alone. Programs that look for
`rope_theta`, `rope_scaling` and `partial_rotary_factor` (mlx-lm, transformers 4) then take a
default of their own without a word. Said both ways, transformers 5 builds the same model, and so do
they. Of Gemma 3 they read which layers have no window from `sliding_window_pattern`, not
`layer_types`.

Of Gemma 3 and SmolLM3 llama.cpp knows which layers are special by their number alone, and mlx-lm
knows Gemma 3's by a period. A matrix with rows of zeros has no norm to divide by (DoRA) and nothing
to turn or part (OFT, PiSSA).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hfgrow.plan.axes import FRESH
from hfgrow.plan.families import FAMILIES
from hfgrow.plan.families.table import Config, layer_of
from hfgrow.plan.plan import GrowthPlan
from hfgrow.plan.tensors import Blend, Fill, Lift, Recipe

_GEMMA3, _GEMMA3_THAT_SEES = "gemma3_text", "gemma3"
_GEMMA3_PERIOD = 6
# Their layers with a window have rotary settings of their own.
_BY_KIND = (_GEMMA3, "olmo3")
_FULL = "full_attention"
# What stands inside `rope_parameters`, and what older programs call it at the top.
_OLDER = {"rope_theta": "rope_theta", "partial_rotary_factor": "partial_rotary_factor"}
_OLDER_NEOX = {"rope_theta": "rotary_emb_base", "partial_rotary_factor": "rotary_pct"}
_NEOX = ("gpt_neox", "gpt_neox_japanese")
OLDER_KEYS = frozenset(
    {*_OLDER.values(), *_OLDER_NEOX.values(), "rope_scaling", "rope_local_base_freq"}
)
# The families of whose special layers others take a period for granted.
PERIODS: Mapping[str, int] = {_GEMMA3: _GEMMA3_PERIOD, "smollm3": 4}


def with_older_keys(config: Config) -> dict[str, Any]:
    """Return a config that says its rotary settings, and Gemma 3's pattern, in older words too.

    What it says in older words already stays, but for what `with_true_pattern` takes away.

    Args:
        config: A config.json whose counts are checked.
    """
    return with_true_pattern(with_older_rotary(config))


def with_older_rotary(config: Config) -> dict[str, Any]:
    """Return a config, or the part with the layers, that says its rotary settings both ways."""
    rope = config.get("rope_parameters")
    older = _rotary(config, rope) if isinstance(rope, Mapping) else {}
    return {**config, **{key: value for key, value in older.items() if key not in config}}


def with_true_pattern(config: Config) -> dict[str, Any]:
    """Return a config whose `sliding_window_pattern` says of Gemma 3 what `layer_types` says.

    It has none where the layers have no such beat, and as it is where `layer_types` is left out.
    """
    layer_types = config.get("layer_types")
    if config.get("model_type") != _GEMMA3 or layer_types is None:
        return dict(config)
    period = _period(layer_types, config.get("sliding_window_pattern"))
    said = {key: value for key, value in config.items() if key != "sliding_window_pattern"}
    return said if period is None else {**said, "sliding_window_pattern": period}


def _rotary(config: Config, rope: Config) -> dict[str, Any]:
    if config.get("model_type") not in _BY_KIND:
        return _plain(rope, _OLDER_NEOX if config.get("model_type") in _NEOX else _OLDER)
    found = _plain(rope.get(_FULL))
    local = _plain(rope.get("sliding_attention")).get("rope_theta")
    is_said = local is not None and config["model_type"] == _GEMMA3
    return {**found, "rope_local_base_freq": local} if is_said else found


def _plain(rope: object, names: Mapping[str, str] = _OLDER) -> dict[str, Any]:
    """Return theta, the share that is rotated, and `rope_scaling` where positions are scaled."""
    if not isinstance(rope, Mapping) or not isinstance(rope.get("rope_theta"), int | float):
        return {}
    found = {names[key]: value for key, value in rope.items() if key in names}
    scaling = {key: value for key, value in rope.items() if key != "rope_theta"}
    is_scaled = rope.get("rope_type", "default") != "default"
    return {**found, **({"rope_scaling": scaling} if is_scaled else {})}


def _period(layer_types: Sequence[str], said: object) -> int | None:
    """Return in how many layers the last is the only full one, none where they have no such beat.

    The one that is said if it is true, else the usual one before the shortest.
    """
    for period in (said, _GEMMA3_PERIOD, *range(1, len(layer_types) + 1)):
        if type(period) is int and period > 0 and _keeps_beat(layer_types, period):
            return period
    return None


def _keeps_beat(layer_types: Sequence[str], period: int) -> bool:
    """Say whether exactly the last of every `period` layers is without a window."""
    return all((kind == _FULL) == (i % period == 0) for i, kind in enumerate(layer_types, 1))


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
    # The text layers of a Gemma 3 that sees are those of one that does not.
    kind = _GEMMA3 if plan.family == _GEMMA3_THAT_SEES else plan.family
    if kind not in PERIODS or _is_on_beat(plan):
        return None
    period, num_layers = PERIODS[kind], base.num_hidden_layers
    whole = num_layers // period * period
    if not whole or plan.num_hidden_layers <= num_layers or not _is_on_beat(base):
        return OffBeat(kind, None)
    times = max(2, round((plan.num_hidden_layers - num_layers + whole) / whole))
    rest = {0: "", 1: f"-{num_layers}"}.get(num_layers - whole, f"-[{whole + 1}:{num_layers}]")
    return OffBeat(kind, f"[1:{whole}]*{times}{rest}")


def _is_on_beat(plan: GrowthPlan) -> bool:
    lists = plan.settings if plan.derived else FAMILIES[plan.family].per_layer(plan.config)
    if plan.family == "smollm3":
        return all(bool(rope) == (i % 4 != 0) for i, rope in enumerate(lists["no_rope_layers"], 1))
    return _keeps_beat(lists["layer_types"], _GEMMA3_PERIOD)


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
