"""What config.json says twice, for programs that do not read how transformers 5 says it.

transformers 5 saves the rotary settings as `rope_parameters` alone. Programs that look for
`rope_theta` and `rope_scaling` (mlx-lm, transformers 4) then take a default of their own without a
word. Said both ways, transformers 5 builds the same model, and so do they.

Of Gemma 3 they read which layers have no window from `sliding_window_pattern`, not `layer_types`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from hfgrow.plan.families.table import Config

_GEMMA3 = "gemma3_text"
GEMMA3_PERIOD = 6
# Their layers with a window have rotary settings of their own.
_BY_KIND = (_GEMMA3, "olmo3")
_FULL = "full_attention"


def with_older_keys(config: Config) -> dict[str, Any]:
    """Return a config that says its rotary settings, and Gemma 3's pattern, in older words too.

    What it says in older words already stays, but for what `with_true_pattern` takes away.

    Args:
        config: A config.json whose counts are checked.
    """
    rope = config.get("rope_parameters")
    older = _rotary(config, rope) if isinstance(rope, Mapping) else {}
    return with_true_pattern({**config, **{k: v for k, v in older.items() if k not in config}})


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
        return _plain(rope)
    found = _plain(rope.get(_FULL))
    local = _plain(rope.get("sliding_attention")).get("rope_theta")
    is_said = local is not None and config["model_type"] == _GEMMA3
    return {**found, "rope_local_base_freq": local} if is_said else found


def _plain(rope: object) -> dict[str, Any]:
    """Return `rope_theta` and, where positions are scaled, `rope_scaling`."""
    if not isinstance(rope, Mapping) or not isinstance(rope.get("rope_theta"), int | float):
        return {}
    scaling = {key: value for key, value in rope.items() if key != "rope_theta"}
    is_scaled = rope.get("rope_type", "default") != "default"
    return {"rope_theta": rope["rope_theta"], **({"rope_scaling": scaling} if is_scaled else {})}


def _period(layer_types: Sequence[str], said: object) -> int | None:
    """Return in how many layers the last is the only full one, none where they have no such beat.

    The one that is said if it is true, else the usual one before the shortest.
    """
    for period in (said, GEMMA3_PERIOD, *range(1, len(layer_types) + 1)):
        if type(period) is int and period > 0 and keeps_beat(layer_types, period):
            return period
    return None


def keeps_beat(layer_types: Sequence[str], period: int) -> bool:
    """Say whether exactly the last of every `period` layers is without a window."""
    return all((kind == _FULL) == (i % period == 0) for i, kind in enumerate(layer_types, 1))
