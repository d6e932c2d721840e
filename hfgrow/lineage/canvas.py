"""What every picture is drawn on, by matplotlib: loaded when something is drawn, never before."""

import io
import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from hfgrow.checkpoint.staging import replace_bytes
from hfgrow.errors import OutputError, UsageError, argument, printable

_FORMATS = {".png": "png", ".svg": "svg"}
_ELSEWHERE = f"choose another {argument('plot', 'FILE')}"


def has_matplotlib() -> bool:
    """Say whether pictures can be drawn."""
    return find_spec("matplotlib") is not None


def canvas(
    width: float, height: float, *, dpi: int, grid: Literal["major", "both"] = "major"
) -> tuple[Any, Any]:
    """Return a figure with its axes, a pale grid behind them.

    Args:
        width: In inches.
        height: In inches.
        dpi: Pixels of an inch.
        grid: Which lines of the grid are drawn: `major`, or `both` with those of a logarithm.
    """
    figure, (axes,) = panels(width, height, (1,), dpi=dpi, grid=grid)
    return figure, axes


def panels(
    width: float,
    height: float,
    shares: Sequence[float],
    *,
    dpi: int,
    grid: Literal["major", "both"] = "major",
) -> tuple[Any, list[Any]]:
    """Return a figure with axes below each other that share their x axis.

    Args:
        width: In inches.
        height: In inches.
        shares: How high each is, relative to the others.
        dpi: Pixels of an inch.
        grid: As of `canvas`.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=dpi, layout="constrained")
    FigureCanvasAgg(figure)
    every = figure.subplots(len(shares), 1, sharex=True, height_ratios=shares, squeeze=False)
    for axes in every[:, 0]:
        axes.grid(color="#e6e6e6", linewidth=0.7, which=grid)
        axes.set_axisbelow(True)
    return figure, list(every[:, 0])


def open_corner(axes: Any) -> None:
    """Leave the frame open at the top and to the right."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def picture_bytes(figure: Any, kind: str = "png") -> bytes:
    """Return a figure as a file, the same bytes for the same numbers on any day and machine.

    Args:
        figure: What was drawn.
        kind: `png` or `svg`.
    """
    import matplotlib

    out = io.BytesIO()
    metadata: dict[str, None] = {"Software": None} if kind == "png" else {"Date": None}
    with warnings.catch_warnings(), matplotlib.rc_context({"svg.hashsalt": "hfgrow"}):
        # A name in letters that the font lacks is drawn as boxes.
        warnings.filterwarnings("ignore", "Glyph", UserWarning)
        figure.savefig(out, format=kind, metadata=metadata)
    return out.getvalue()


def plain_label(name: str) -> str:
    """Return a name that matplotlib does not take for a formula."""
    return printable(name, 60).replace("$", "_")


def format_of(path: Path) -> str:
    """Return the format of a picture by its name.

    Raises:
        UsageError: It is none that is drawn.
    """
    kind = _FORMATS.get(path.suffix.lower())
    if kind is None:
        raise UsageError(f"{argument('plot', path)} must end in {' or '.join(_FORMATS)}")
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
        kind, add = (
            ("a folder", "")
            if path.is_dir()
            else ("there already", f"add {argument('overwrite')}, or ")
        )
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
