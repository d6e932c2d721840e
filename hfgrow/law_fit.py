"""Fit the law of the growth timing to results of one's own: least squares in log10 d.

A fit that the points do not determine is refused, not shown: constants of noise look like others.

Source: Du et al. 2024, https://arxiv.org/abs/2405.15319, Sec. 4.2 (the law)
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from math import log10
from pathlib import Path

from hfgrow.errors import UsageError
from hfgrow.law_points import TimingPoint, read_points
from hfgrow.scaling import TimingLaw

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
