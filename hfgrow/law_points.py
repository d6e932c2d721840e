"""Growth timings out of files: what `hfgrow budget --fit` fits the law to.

The input is JSON, of points that are the best of their budget,

    {"points": [{"parameters": 1.4e6, "flops": 1e13, "base_tokens": 2e5}, ...]}

or of timings, several `d` tried with the same budget, of which the best is found here,

    {"timings": [{"parameters": 1.4e6, "flops": 1e13,
                  "losses": [{"base_tokens": 1e5, "loss": 3.4}, ...]}, ...]}

or both; the `results.json` of a study of growth timing has such `timings`. The best `d` is the
lowest point of a parabola through the losses over log10 d, as Hoffmann et al. find the best size of
a model. A budget whose lowest point is not between the timings that were tried has no best one, and
is left out.

Source: Hoffmann et al. 2022, "Training Compute-Optimal Large Language Models",
https://arxiv.org/abs/2203.15556, Sec. 3.2
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hfgrow.errors import UsageError, printable

_LEAST_LOSSES = 3
# Timings whose log10 is the same to so many decimals are no different ones.
_DECIMALS = 6
_MAX_NBYTES = 1 << 26
_MOST = 1e36


@dataclass(frozen=True, slots=True)
class TimingPoint:
    """The best growth timing of one budget.

    Attributes:
        parameters: `N`, of the grown model.
        flops: `C`, of everything.
        base_tokens: `d`.
    """

    parameters: float
    flops: float
    base_tokens: float


def read_points(path: Path) -> list[TimingPoint | None]:
    """Return the points of a file; None for a budget that has no best timing.

    Raises:
        UsageError: It cannot be read, or says something else.
    """
    shown = printable(path, 200)
    try:
        with path.open("rb") as file:
            raw = file.read(_MAX_NBYTES + 1)
    except OSError as error:
        raise UsageError(f"cannot read {shown}: {error.strerror}") from error
    if len(raw) > _MAX_NBYTES:
        raise UsageError(f"{shown} has more than {_MAX_NBYTES} bytes")
    try:
        content = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{shown} is no JSON") from error
    if not isinstance(content, dict) or not content.keys() & {"points", "timings"}:
        raise UsageError(
            f"{shown} has neither points nor timings",
            hint='{"points": [{"parameters": N, "flops": C, "base_tokens": d}, ...]}',
        )
    points = [
        TimingPoint(*(_number(item, key, where) for key in TimingPoint.__dataclass_fields__))
        for where, item in _items(content, "points", f"{shown}: ")
    ]
    timings = _items(content, "timings", f"{shown}: ")
    return [*points, *(_best(item, where) for where, item in timings)]


def _best(item: Any, where: str) -> TimingPoint | None:
    """Return the lowest point of a parabola through losses over log10 d, if it has one there."""
    import numpy as np

    losses = [
        (_number(one, "base_tokens", at), _number(one, "loss", at))
        for at, one in _items(item, "losses", f"{where}.")
    ]
    x, y = np.log10([tokens for tokens, _ in losses]), np.array([loss for _, loss in losses])
    if len(set(np.round(x, _DECIMALS))) < _LEAST_LOSSES:
        raise UsageError(f"{where} has fewer than {_LEAST_LOSSES} different base_tokens")
    square, slope, _ = np.polyfit(x - x.mean(), y, 2)
    n, flops = (_number(item, key, where) for key in ("parameters", "flops"))
    if square <= 0:
        return None
    lowest = float(x.mean() - slope / (2 * square))
    return TimingPoint(n, flops, 10**lowest) if x.min() <= lowest <= x.max() else None


def _items(content: Any, key: str, prefix: str) -> list[tuple[str, Any]]:
    """Return the items of a list with their places."""
    found = content.get(key, []) if isinstance(content, dict) else None
    if not isinstance(found, list):
        raise UsageError(f"{prefix}{key} is no list")
    return [(f"{prefix}{key}[{i}]", item) for i, item in enumerate(found)]


def _number(item: Any, key: str, where: str) -> float:
    """Return a number; one of tokens, parameters or FLOPs is above 1, a loss above 0."""
    value = item.get(key) if isinstance(item, dict) else None
    least = 0 if key == "loss" else 1
    if isinstance(value, int | float) and not isinstance(value, bool) and least < value <= _MOST:
        return float(value)
    raise UsageError(f"{where}.{key} is {printable(repr(value))}; expected a number above {least}")
