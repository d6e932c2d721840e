"""Fit the law of the growth timing to results of one's own: least squares in log10 d.

A fit that the points do not determine is refused, not shown: constants of noise look like others.
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
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from math import log10
from pathlib import Path
from typing import Any

from hfgrow.checkpoint.strict import read_bounded
from hfgrow.errors import UsageError, printable
from hfgrow.study.budget import TimingLaw

_LEAST_LOSSES = 3
_MAX_NBYTES = 1 << 26
_MOST = 1e36
_LEAST_POINTS = 4
_NUM_CONSTANTS = 3
# Points whose log10 is the same to so many decimals are no different ones.
_DECIMALS = 6
# The largest N of the points, and the largest C, over the smallest.
_LEAST_RANGE = 2.0
# Of the columns of the fit, centred and scaled: the smallest singular value over the largest. 0.1
# is a correlation of 0.98, which makes the variance of a constant 25 times as large.
_LEAST_CONDITION = 0.1
# How far a standard error of a constant may move d from one end of the points to the other.
_MOST_UNCERTAINTY = 2.0


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
        residual: The standard deviation of log10 d around the law, with `degrees` of freedom.
        errors: The standard errors of a, b and c.
        left_out: Budgets that had no best timing between those that were tried.
    """

    law: TimingLaw
    points: tuple[TimingPoint, ...]
    residual: float
    errors: tuple[float, float, float]
    left_out: int

    @property
    def degrees(self) -> int:
        """The degrees of freedom that three constants leave."""
        return len(self.points) - _NUM_CONSTANTS

    def to_json(self) -> dict[str, object]:
        """Return everything as JSON has it."""
        return {
            "law": asdict(self.law),
            "standard_errors": dict(zip("abc", self.errors, strict=True)),
            "points": [asdict(point) for point in self.points],
            "residual": self.residual,
            "degrees_of_freedom": self.degrees,
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
    found = [point for path in paths for point in read_points(path)]
    points = tuple(point for point in found if point is not None)
    return fit_law(points, source, left_out=len(found) - len(points))


def fit_law(points: tuple[TimingPoint, ...], source: str, *, left_out: int = 0) -> Fit:
    """Fit the constants of the law.

    Args:
        points: The best timing of at least 4 budgets.
        source: Where they come from.
        left_out: Budgets beside these that had no best timing.

    Raises:
        UsageError: They are too few, or do not determine the constants.
    """
    import numpy as np

    _check_points(points, left_out)
    columns = np.array([(log10(one.parameters), 1 / log10(one.flops)) for one in points])
    mean, spread = columns.mean(axis=0), columns.std(axis=0)
    scaled = (columns - mean) / spread
    largest, smallest = np.linalg.svd(scaled, compute_uv=False)
    if smallest < _LEAST_CONDITION * largest:
        raise UsageError(
            "in these points flops follow from parameters, or nearly so: their parts in d cannot "
            "be told apart",
            hint="add points of the same parameters with other flops",
        )
    wanted = np.log10([point.base_tokens for point in points])
    matrix = np.column_stack((scaled, np.ones(len(points))))
    solution, *_ = np.linalg.lstsq(matrix, wanted, rcond=None)
    # From the scaled columns to a, b and c.
    back = np.diag([*(1 / spread), 1.0])
    back[2, :2] = -mean / spread
    a, b, c = (float(value) for value in back @ solution)
    left = wanted - matrix @ solution
    variance = float(left @ left) / (len(points) - _NUM_CONSTANTS)
    covariance = variance * (back @ np.linalg.inv(matrix.T @ matrix) @ back.T)
    errors = np.sqrt(np.diag(covariance))
    _check_errors(errors[:2] * np.ptp(columns, axis=0))
    n, flops = _ends([one.parameters for one in points]), _ends([one.flops for one in points])
    return Fit(
        law=TimingLaw(a, b, c, n, flops, source),
        points=points,
        residual=variance**0.5,
        errors=(float(errors[0]), float(errors[1]), float(errors[2])),
        left_out=left_out,
    )


def _check_points(points: Sequence[TimingPoint], left_out: int) -> None:
    """Refuse points that are too few, or too much alike."""
    different = {
        (round(log10(one.parameters), _DECIMALS), round(log10(one.flops), _DECIMALS))
        for one in points
    }
    if len(different) < _LEAST_POINTS:
        raise UsageError(
            f"{len(different)} point{'' if len(different) == 1 else 's'} of different parameters "
            f"or flops cannot be fitted: the law has {_NUM_CONSTANTS} constants, so it takes at "
            f"least {_LEAST_POINTS}{_but(left_out)}",
            hint="try more growth timings, or add results of other sizes and budgets",
        )
    for name, values in (
        ("parameters", [one.parameters for one in points]),
        ("flops", [one.flops for one in points]),
    ):
        least, most = _ends(values)
        if most < _LEAST_RANGE * least:
            raise UsageError(
                f"the {name} of all points lie between {least:.4g} and {most:.4g}: their part in d "
                f"cannot be seen; expected the largest to be at least {_LEAST_RANGE:g} times the "
                "smallest",
                hint=f"add points of other {name}",
            )


def _check_errors(uncertainties: Sequence[float]) -> None:
    """Refuse constants that the noise of the points leaves open.

    Args:
        uncertainties: How far a standard error of a and of b moves log10 d over all points.
    """
    for name, column, found in zip("ab", ("parameters", "flops"), uncertainties, strict=True):
        if found > log10(_MOST_UNCERTAINTY):
            raise UsageError(
                f"these points do not determine {name}: its standard error alone moves d by a "
                f"factor of {10 ** min(found, 99):.3g} between their smallest and largest "
                f"{column}; expected at most {_MOST_UNCERTAINTY:g}",
                hint="add points, or average more seeds for each",
            )


def _but(left_out: int) -> str:
    if not left_out:
        return ""
    return f"; of {left_out} more the loss has no lowest point between the timings tried"


def _ends(values: Sequence[float]) -> tuple[float, float]:
    return min(values), max(values)


def read_points(path: Path) -> list[TimingPoint | None]:
    """Return the points of a file; None for a budget that has no best timing.

    Raises:
        UsageError: It cannot be read, or says something else.
    """
    shown = printable(path, 200)
    raw = read_bounded(path, _MAX_NBYTES, shown)
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
