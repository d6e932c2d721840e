"""Fit the law of the growth timing to results of one's own: least squares in log10 d.

The input is JSON, of points that are the best of their budget,

    {"points": [{"parameters": 1.4e6, "flops": 1e13, "base_tokens": 2e5}, ...]}

or of timings, several `d` tried with the same budget, of which the best is found here,

    {"timings": [{"parameters": 1.4e6, "flops": 1e13,
                  "losses": [{"base_tokens": 1e5, "loss": 3.4}, ...]}, ...]}

or both; the `results.json` of a study of growth timing has such `timings`. The best `d` is the
lowest point of a parabola through the losses over log10 d, as Hoffmann et al. find the best size of
a model. A budget whose lowest point is not between the timings that were tried has no best one, and
is left out.

Sources: Du et al. 2024, https://arxiv.org/abs/2405.15319, Sec. 4.2 (the law); Hoffmann et al. 2022,
"Training Compute-Optimal Large Language Models", https://arxiv.org/abs/2203.15556, Sec. 3.2
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hfgrow.errors import UsageError, printable
from hfgrow.scaling import TimingLaw

_NUM_CONSTANTS, _LEAST_POINTS = 3, 4
_LEAST_LOSSES = 3
# Timings whose log10 is the same to so many decimals are no different ones.
_DECIMALS = 6
_MAX_NBYTES = 1 << 26
# Of the columns of the fit, centred and scaled: the smallest singular value over the largest.
# Below it a rounding of the input moves the constants by more than they are.
_LEAST_CONDITION = 1e-3
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


@dataclass(frozen=True, slots=True)
class Fit:
    """A law fitted to points.

    Attributes:
        law: The law.
        points: What it was fitted to.
        residual: What is left in log10 d: the root of the squares over points less constants.
        errors: The standard errors of `a` and `b` that follow from it.
        left_out: Budgets that had no best timing between those that were tried.
    """

    law: TimingLaw
    points: tuple[TimingPoint, ...]
    residual: float
    errors: tuple[float, float]
    left_out: int

    def to_json(self) -> dict[str, object]:
        """Return everything as JSON has it."""
        return {
            "law": asdict(self.law),
            "points": [asdict(point) for point in self.points],
            "residual": self.residual,
            "errors": dict(zip("ab", self.errors, strict=True)),
            "left_out": self.left_out,
        }


def fit_files(paths: Iterable[Path], source: str) -> Fit:
    """Fit the constants of the law to what files say, all of them together.

    Args:
        paths: The files.
        source: What to call them.

    Raises:
        UsageError: One cannot be read or says something else, or they say too little.
    """
    found = [point for path in paths for point in _read(path)]
    points = tuple(point for point in found if point is not None)
    return fit_law(points, source, left_out=len(found) - len(points))


def _read(path: Path) -> list[TimingPoint | None]:
    """Return the points of a file; None for a budget that has no best timing."""
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


def fit_law(points: tuple[TimingPoint, ...], source: str, *, left_out: int = 0) -> Fit:
    """Fit the constants of the law.

    Args:
        points: The best timing of at least 4 budgets.
        source: Where they come from.
        left_out: Budgets beside these that had no best timing.

    Raises:
        UsageError: They are too few, or do not tell N, C and the constant apart.
    """
    import numpy as np

    if len({(point.parameters, point.flops) for point in points}) < _LEAST_POINTS:
        raise UsageError(
            f"{len(points)} point{'' if len(points) == 1 else 's'} cannot be fitted: the law has 3 "
            f"constants, so it takes at least {_LEAST_POINTS} points of different parameters or "
            f"flops{_but(left_out)}",
            hint="try more growth timings, or add results of other sizes and budgets",
        )
    log_parameters = np.log10([point.parameters for point in points])
    inverse = 1 / np.log10([point.flops for point in points])
    for name, column in (("parameters", log_parameters), ("flops", inverse)):
        if np.ptp(column) < 1e-9:
            raise UsageError(f"all points have the same {name}: their part in d cannot be seen")
    columns = np.stack((log_parameters, inverse), axis=1)
    mean, spread = columns.mean(axis=0), columns.std(axis=0)
    scaled = (columns - mean) / spread
    largest, smallest = np.linalg.svd(scaled, compute_uv=False)
    if smallest < _LEAST_CONDITION * largest:
        raise UsageError(
            "in these points flops follow from parameters: their parts in d cannot be told apart",
            hint="add points of the same parameters with other flops",
        )
    wanted = np.log10([point.base_tokens for point in points])
    solution, *_ = np.linalg.lstsq(scaled, wanted - wanted.mean(), rcond=None)
    a, b = (float(value) for value in solution / spread)
    c = float(wanted.mean() - solution @ (mean / spread))
    left = a * log_parameters + b * inverse + c - wanted
    residual = float(np.sqrt(np.sum(left**2) / (len(points) - _NUM_CONSTANTS)))
    errors = residual * np.sqrt(np.diag(np.linalg.inv(scaled.T @ scaled))) / spread
    law = TimingLaw(a, b, c, _range(points, "parameters"), _range(points, "flops"), source)
    return Fit(law, points, residual, (float(errors[0]), float(errors[1])), left_out)


def _but(left_out: int) -> str:
    if not left_out:
        return ""
    return f"; of {left_out} more the loss has no lowest point between the timings tried"


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


def _range(points: tuple[TimingPoint, ...], key: str) -> tuple[float, float]:
    values = [getattr(point, key) for point in points]
    return min(values), max(values)
