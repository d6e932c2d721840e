"""Pictures of a model card: its layer map as an SVG, and the loss of its training as a PNG.

The loss is drawn by matplotlib: without it there is no such picture.
"""

import io
import warnings
from collections.abc import Mapping, Sequence
from html import escape
from importlib.util import find_spec
from itertools import cycle

from hfgrow.checkpoint.files import LOSS_PICTURE
from hfgrow.console import Progress
from hfgrow.errors import printable

_HEIGHT = 420
_TOP = 34
_BOX_WIDTH = 96
_LEFT, _RIGHT = 40, 424
_MOST_LINES = 1000
_FIRST_HUE, _LAST_HUE = 210, 350

Point = tuple[float, float]
_INCHES = (8.0, 4.5)
_DPI = 150
_TRAINING, _GROWTH = "#9db8d9", "#555555"
_SMOOTH = "#1f5fa8"
_VALIDATION = ("#d1495b", "#2a9d5c", "#e08a1e", "#7b4fa3", "#2b8c9e", "#8a6d3b")
_MOST_TEXTS, _MOST_GROWTHS = 6, 12
_SMOOTHED_FROM = 30


def layer_picture(num_base_layers: int, layer_map: Sequence[int], title: str) -> str:
    """Return an SVG of a layer map: one colour for each base layer, a line for each copy.

    Args:
        num_base_layers: How many layers the base has.
        layer_map: For every grown layer, the 0-based layer of the base, bottom layer first.
        title: The line above the picture.
    """
    scale = _HEIGHT / max(len(layer_map), num_base_layers)
    base_bottom = _TOP + (_HEIGHT + scale * num_base_layers) / 2
    grown_bottom = _TOP + (_HEIGHT + scale * len(layer_map)) / 2
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 560 {_HEIGHT + 70}" '
        'font-family="sans-serif" font-size="13">',
        f"<title>{escape(title)}</title>",
        '<rect width="100%" height="100%" fill="#fff"/>',
        f'<text x="280" y="20" text-anchor="middle" font-size="15">{escape(title)}</text>',
    ]
    every = len(layer_map) // _MOST_LINES + 1
    for i, source in list(enumerate(layer_map))[::every]:
        y1 = base_bottom - (source + 0.5) * scale
        y2 = grown_bottom - (i + 0.5) * scale
        parts.append(
            f'<path d="M{_LEFT + _BOX_WIDTH} {y1:.1f}C280 {y1:.1f} 280 {y2:.1f} {_RIGHT} {y2:.1f}" '
            f'fill="none" stroke="{_colour(source, num_base_layers)}" stroke-opacity=".55"/>'
        )
    for x, bottom, sources in (
        (_LEFT, base_bottom, range(num_base_layers)),
        (_RIGHT, grown_bottom, layer_map),
    ):
        for i, source in list(enumerate(sources))[::every]:
            parts.append(
                f'<rect x="{x}" y="{bottom - (i + 1) * scale:.1f}" width="{_BOX_WIDTH}" '
                f'height="{scale * (every - 0.14):.2f}" fill="{_colour(source, num_base_layers)}"/>'
            )
            if scale >= 11:
                parts.append(
                    f'<text x="{x + _BOX_WIDTH / 2}" y="{bottom - (i + 0.5) * scale + 3:.1f}" '
                    f'text-anchor="middle" font-size="10" fill="#fff">{source}</text>'
                )
    below = _TOP + _HEIGHT + 24
    for x, count, word in ((_LEFT, num_base_layers, "base"), (_RIGHT, len(layer_map), "grown")):
        parts.append(
            f'<text x="{x + _BOX_WIDTH / 2}" y="{below}" text-anchor="middle">'
            f"{word}: {count} layers</text>"
        )
    parts.append("</svg>")
    return "\n".join(parts) + "\n"


def _colour(layer: int, num_layers: int) -> str:
    share = layer / max(num_layers - 1, 1)
    hue = _FIRST_HUE + (_LAST_HUE - _FIRST_HUE) * share
    return f"hsl({hue:.0f},62%,{46 - 8 * share:.0f}%)"


def loss_curve(
    points: Sequence[Point],
    growths: Sequence[tuple[float, str]],
    validation: Mapping[str, Sequence[Point]],
    progress: Progress | None = None,
) -> bytes | None:
    """Draw the loss of a training.

    Args:
        points: Tokens and training loss, in order.
        growths: Tokens and name of every growth.
        validation: The same as `points` of every held-out text, by its label.
        progress: Told if there is nothing to draw with; None tells nobody.

    Returns:
        A PNG, or None without matplotlib.
    """
    if find_spec("matplotlib") is None:
        if progress is not None:
            progress.say(
                f"Note: no {LOSS_PICTURE}: that needs matplotlib, pip install 'hfgrow[plots]'"
            )
        return None
    return _draw(points, growths, validation)


def _draw(
    points: Sequence[Point],
    growths: Sequence[tuple[float, str]],
    validation: Mapping[str, Sequence[Point]],
) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter

    figure = Figure(figsize=_INCHES, dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    smooth = len(points) >= _SMOOTHED_FROM
    for i, part in enumerate(_parts(points, growths)):
        xs, ys = [x for x, _ in part], [y for _, y in part]
        label = "training" if i == 0 else "_"
        if smooth:
            axes.plot(xs, ys, color=_TRAINING, linewidth=0.7)
            axes.plot(xs, _smoothed(ys), color=_SMOOTH, linewidth=1.6, label=label)
        else:
            axes.plot(xs, ys, color=_SMOOTH, linewidth=1.4, marker=".", label=label)
    shown = list(validation.items())[:_MOST_TEXTS]
    for (name, losses), colour in zip(shown, cycle(_VALIDATION), strict=False):
        for i, part in enumerate(_parts(losses, growths, twice=True)):
            axes.plot(
                [x for x, _ in part],
                [y for _, y in part],
                color=colour,
                linewidth=1.2,
                marker="o",
                markersize=3.5,
                label=f"validation: {_plain(name)}" if i == 0 else "_",
            )
    for tokens, name in growths[:_MOST_GROWTHS]:
        axes.axvline(tokens, color=_GROWTH, linestyle="--", linewidth=1)
        axes.annotate(
            _plain(name),
            (tokens, 0.98),
            xycoords=("data", "axes fraction"),
            xytext=(3, 0),
            textcoords="offset points",
            rotation=90,
            verticalalignment="top",
            fontsize=8,
            color=_GROWTH,
        )
    axes.set_xlabel("tokens trained on")
    axes.set_ylabel("loss, nats per token")
    axes.xaxis.set_major_formatter(EngFormatter(sep=" "))
    axes.margins(x=0.02)
    axes.grid(color="#e6e6e6", linewidth=0.7)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    if points or shown:
        # Above the axes: inside them it would lie over the last losses, which are the result.
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, frameon=False, fontsize=9)
    out = io.BytesIO()
    with warnings.catch_warnings():
        # A name in letters that the font lacks is drawn as boxes.
        warnings.filterwarnings("ignore", "Glyph", UserWarning)
        # Nothing of the machine, nor the version: the same losses give the same bytes.
        figure.savefig(out, format="png", metadata={"Software": None})
    return out.getvalue()


def _parts(
    points: Sequence[Point], growths: Sequence[tuple[float, str]], *, twice: bool = False
) -> list[list[Point]]:
    """Return the points between growths; a line through a growth would hide its jump.

    A point at a growth is of the model before it. With `twice` a text may have been measured after
    it too: then the second point there is, and one alone if nothing was measured earlier.
    """
    parts: list[list[Point]] = [[]]
    marks = sorted({tokens for tokens, _ in growths})
    for x, y in points:
        while marks and (x > marks[0] or (twice and x == marks[0] and _is_after(x, parts, points))):
            marks.pop(0)
            parts.append([])
        parts[-1].append((x, y))
    return [part for part in parts if part]


def _is_after(x: float, parts: Sequence[Sequence[Point]], points: Sequence[Point]) -> bool:
    """Say whether the next point at a growth was measured after it."""
    if any(parts):
        return bool(parts[-1]) and parts[-1][-1][0] == x
    return sum(at == x for at, _ in points) == 1


def _smoothed(losses: Sequence[float]) -> list[float]:
    """Return the mean of each loss and its neighbours, a fiftieth of the curve to both sides."""
    reach = max(1, len(losses) // 50)
    windows = (losses[max(0, i - reach) : i + reach + 1] for i in range(len(losses)))
    return [sum(window) / len(window) for window in windows]


def _plain(name: str) -> str:
    """Return a name that matplotlib does not take for a formula."""
    return printable(name, 60).replace("$", "_")
