"""A budget as a picture: the tokens of the base against compute, and where the law was fitted."""

import io
from pathlib import Path

from hfgrow.budget import MOST_SHARE, Budget
from hfgrow.checkpoint.staging import replace_bytes
from hfgrow.console import shown
from hfgrow.errors import OutputError, UsageError, printable

_INCHES = (8.0, 4.5)
_LAW, _BOUND, _HERE = "#1f5fa8", "#d1495b", "#222222"
_NUM_POINTS = 240
_DECADES = 1.0
FORMATS = {".png": "png", ".svg": "svg"}
_ELSEWHERE = "choose another --plot FILE"


def format_of(path: Path) -> str:
    """Return the format of a picture by its name.

    Raises:
        UsageError: It is none that is drawn.
    """
    kind = FORMATS.get(path.suffix.lower())
    if kind is None:
        raise UsageError(f"--plot {printable(path, 200)} must end in {' or '.join(FORMATS)}")
    return kind


def check_picture(path: Path, *, overwrite: bool) -> None:
    """Refuse a file that a picture must not be written to, before anything is computed.

    Raises:
        OutputError: It exists, is a folder, or there is no folder for it.
    """
    shown_path = printable(path, 200)
    if not path.parent.is_dir():
        raise OutputError(
            f"there is no folder {printable(path.parent, 200)} for the picture {path.name}",
            hint=_ELSEWHERE,
        )
    if path.is_dir() or (path.exists() and not overwrite):
        kind, add = ("a folder", "") if path.is_dir() else ("there already", "add --overwrite, or ")
        raise OutputError(f"the picture {shown_path} is {kind}", hint=f"{add}{_ELSEWHERE}")


def write_picture(path: Path, content: bytes) -> None:
    """Write a picture, complete or not at all.

    Raises:
        OutputError: The file system refuses.
    """
    try:
        replace_bytes(path, content)
    except OSError as error:
        raise OutputError(
            f"cannot write {printable(path, 200)}: {error.strerror}", hint=_ELSEWHERE
        ) from error


def draw_budget(budget: Budget, kind: str) -> bytes:
    """Draw the law at the budget's parameters, its bound, and the budget.

    Args:
        budget: The budget.
        kind: `png` or `svg`.
    """
    import matplotlib
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter

    law, n = budget.law, budget.num_parameters
    least, most = law.flops
    low, high = min(least, budget.flops), max(most, budget.flops)
    flops = np.logspace(np.log10(low) - _DECADES, np.log10(high) + _DECADES, _NUM_POINTS)
    said = np.array([law.base_tokens(n, value) for value in flops])
    figure = Figure(figsize=_INCHES, dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    fitted = np.array([not law.outside(n, value) for value in flops])
    axes.plot(flops, said, color=_LAW, linewidth=1.4, linestyle="--", label="law, extrapolated")
    if fitted.any():
        inside = np.where(fitted, said, np.nan)
        axes.plot(flops, inside, color=_LAW, linewidth=2.4, label="law, where it was fitted")
    bound = MOST_SHARE * flops / (6 * n)
    label = f"{MOST_SHARE:.0%} of the tokens from scratch"
    axes.plot(flops, bound, color=_BOUND, linewidth=1, label=label)
    here = (budget.flops, budget.base_tokens)
    axes.plot(*here, color=_HERE, marker="o", linestyle="none", label="this budget")
    axes.annotate(
        f"d = {shown(budget.base_tokens)}", here, xytext=(8, 8), textcoords="offset points"
    )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(_tick))
    axes.set_xlabel("compute C, FLOPs")
    axes.set_ylabel("tokens of the base d")
    axes.set_title(f"When to grow to {shown(n)} parameters", loc="left", fontsize=11)
    axes.grid(color="#e6e6e6", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.legend(frameon=False, fontsize=9)
    out = io.BytesIO()
    # Nothing of the machine or the day: the same budget gives the same picture.
    metadata: dict[str, None] = {"Software": None} if kind == "png" else {"Date": None}
    with matplotlib.rc_context({"svg.hashsalt": "hfgrow"}):
        figure.savefig(out, format=kind, metadata=metadata)
    return out.getvalue()


def _tick(value: float, _: int | None) -> str:
    return shown(value).replace(".00", "")
