"""The picture of a training: its loss, drawn by matplotlib; without it there is none."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle, pairwise
from math import isfinite
from typing import Any

from hfgrow.checkpoint.files import LOSS_PICTURE
from hfgrow.console import Progress
from hfgrow.lineage.canvas import has_matplotlib, open_corner, panels, picture_bytes, plain_label

Point = tuple[float, float]
_INCHES = (8.0, 4.5)
_DPI = 150
_TRAINING, _GROWTH = "#9db8d9", "#555555"
_SMOOTH = "#1f5fa8"
_VALIDATION = ("#d1495b", "#2a9d5c", "#e08a1e", "#7b4fa3", "#2b8c9e", "#8a6d3b")
_MOST_TEXTS, _MOST_GROWTHS = 6, 12
_SMOOTHED_FROM = 30
# The share of a run in which a loss falls from random weights, and measurements too few for that.
_SETTLED, _FEW = 0.05, 4
# How much wider the losses of training and text lie together than those of text alone, from which
# on each has axes of its own, and how high these are.
_APART, _SHARES = 4, (3, 2)
# Names of growths below each other, the share of the height that one takes, and that of the width
# from which on they stand to the left of their lines.
_MOST_LABELS, _LINE, _RIGHT_PART = 3, 0.06, 0.7


def loss_curve(
    points: Sequence[Point],
    growths: Sequence[tuple[float, str]],
    validation: Mapping[str, Sequence[Point]],
    progress: Progress | None = None,
) -> bytes | None:
    """Draw the loss of a training, and across it what the loss was before the model grew.

    The axis reaches over the losses of held-out text and the course of the training loss; the fall
    from random weights and single batches may lie outside.

    Args:
        points: Tokens and training loss, in order.
        growths: Tokens and name of every growth.
        validation: The same as `points` of every held-out text, by its label.
        progress: Told if there is nothing to draw with; None tells nobody.

    Returns:
        A PNG, or None without matplotlib.
    """
    if not has_matplotlib():
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
    from matplotlib.ticker import EngFormatter

    texts = dict(list(validation.items())[:_MOST_TEXTS])
    marks = growths[:_MOST_GROWTHS]
    end = max((x for losses in (points, *texts.values()) for x, _ in losses), default=0.0)
    # Behind the fall from random weights.
    settled = end * _SETTLED
    courses = list(_courses(points, growths))
    trained = [y for part, _ in courses for x, y in part if x >= settled]
    measured = [y for losses in texts.values() for y in _that_matter(losses, growths, settled)]
    is_apart = _span(measured) * _APART < _span([*measured, *trained]) and bool(measured)
    figure, panes = panels(*_INCHES, _SHARES if is_apart else (1,), dpi=_DPI)
    upper, lower = panes[0], panes[-1]
    line = _LINE * (sum(_SHARES) / _SHARES[0] if is_apart else 1)
    for number, (smooth, raw) in enumerate(courses):
        label = "_" if number else "training"
        if raw:
            lower.plot(*_columns(raw), color=_TRAINING, linewidth=0.7)
        marker = "" if raw else "."
        lower.plot(*_columns(smooth), color=_SMOOTH, linewidth=1.6, marker=marker, label=label)
    for (name, losses), colour in zip(texts.items(), cycle(_VALIDATION), strict=False):
        whose = plain_label(name)
        before = f"{whose} before growth" if len(texts) > 1 else "before growth"
        parts = _parts(losses, growths, twice=True)
        for i, part in enumerate(parts):
            label = "_" if i else f"validation: {whose}"
            style = {"linewidth": 1.2, "marker": "o", "markersize": 3.5}
            upper.plot(*_columns(part), color=colour, label=label, **style)
        for i, (earlier, later) in enumerate(pairwise(parts)):
            is_last = i == len(parts) - 2
            (start, loss), until = earlier[-1], end if is_last else later[-1][0]
            label = f"{before}: {loss:.3f}" if is_last else "_"
            upper.plot([start, until], [loss, loss], "--", color=colour, linewidth=1, label=label)
    if is_apart:
        _show(lower, [y for x, y in points if x >= settled], above=0)
        _show(upper, measured, above=line * min(len(marks), _MOST_LABELS))
    else:
        _show(upper, [*measured, *trained], above=line * min(len(marks), _MOST_LABELS))
    for axes in panes:
        open_corner(axes)
        axes.set_ylabel("nats per token" if is_apart else "loss, nats per token")
        for tokens, _ in marks:
            axes.axvline(tokens, color=_GROWTH, linestyle=":", linewidth=1)
    _name_growths(upper, marks, end, line)
    lower.set_xlabel("tokens trained on")
    lower.xaxis.set_major_formatter(EngFormatter(sep=" "))
    lower.margins(x=0.02)
    handles = [handle for axes in panes[::-1] for handle in axes.get_legend_handles_labels()[0]]
    if handles:
        # Above the axes: inside them it would lie over the last losses, which are the result.
        where = {"loc": "lower left", "bbox_to_anchor": (0, 1), "ncols": 3}
        upper.legend(handles=dict.fromkeys(handles), frameon=False, fontsize=9, **where)
    return picture_bytes(figure)


def _courses(
    points: Sequence[Point], growths: Sequence[tuple[float, str]]
) -> Iterator[tuple[Sequence[Point], Sequence[Point]]]:
    """Yield the training loss between growths, smoothed, and as it was; few losses stay alone."""
    for part in _parts(points, growths):
        if len(points) < _SMOOTHED_FROM:
            yield part, ()
        else:
            smooth = _smoothed([y for _, y in part])
            yield [(x, y) for (x, _), y in zip(part, smooth, strict=True)], part


def _that_matter(
    losses: Sequence[Point], growths: Sequence[tuple[float, str]], settled: float
) -> Iterator[float]:
    """Yield the losses of a text that have to be seen."""
    yield from (y for x, y in losses if x >= settled or len(losses) < _FEW)
    for earlier, later in pairwise(_parts(losses, growths, twice=True)):
        yield from (earlier[-1][1], later[0][1])


def _columns(points: Sequence[Point]) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]


def _span(losses: Sequence[float]) -> float:
    known = list(filter(isfinite, losses))
    return max(known) - min(known) if known else 0.0


def _show(axes: Any, losses: Sequence[float], *, above: float) -> None:
    """Let the axes reach over losses, with a share of their height above them."""
    known = list(filter(isfinite, losses))
    if known:
        low, height = min(known), _span(known) or 1.0
        axes.set_ylim(low - 0.06 * height, low + height / (0.95 - above))


def _name_growths(axes: Any, growths: Sequence[tuple[float, str]], end: float, line: float) -> None:
    """Write the names of growths at the top, beside their lines, where no loss lies."""
    for i, (tokens, name) in enumerate(growths):
        is_left = tokens > end * _RIGHT_PART
        axes.annotate(
            plain_label(name),
            (tokens, 0.985 - line * (i % _MOST_LABELS)),
            xycoords=("data", "axes fraction"),
            xytext=(-4 if is_left else 4, 0),
            textcoords="offset points",
            horizontalalignment="right" if is_left else "left",
            verticalalignment="top",
            fontsize=8.5,
            color=_GROWTH,
        )


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
    """Return the mean of each loss and its neighbours, a fortieth of the curve to both sides."""
    reach = max(2, len(losses) // 40)
    windows = (losses[max(0, i - reach) : i + reach + 1] for i in range(len(losses)))
    return [sum(window) / len(window) for window in windows]
