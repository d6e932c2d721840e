"""The pictures of a report: loss against compute and tokens, speed-up, and what growth did.

Drawn by matplotlib; without it a report has no pictures. Lines are means over seeds, bands reach
from the lowest to the highest.
"""

from collections.abc import Iterator, Mapping, Sequence
from math import inf
from typing import Any

from hfgrow.lineage.canvas import canvas, open_corner, picture_bytes, plain_label
from hfgrow.study.accounting import ALL_IN, TOKENS
from hfgrow.study.results import Result, mean, speedup
from hfgrow.study.summary import Summary

DPI = 160
# Told apart by people who see few colours too, in this order; the reference is black.
_COLOURS = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#e69f00",
    "#56b4e9",
    "#7b3294",
    "#8c564b",
    "#5a8f29",
    "#b2182b",
    "#1b7f8c",
    "#6f6f6f",
)
_MARKERS = "osD^vP*Xhd<>"
_NUM_LOSSES = 60
PICTURES = ("loss-flops.png", "loss-tokens.png", "speedup.png", "growth.png")
_INCHES, _GAP = (6.6, 4.5), 0.055
# The size of names in the pictures.
NAME_POINTS = 9.5
# Where a line ends, its name, and how it is drawn.
End = tuple[float, float, str, Mapping[str, Any]]


def pictures(
    arms: Mapping[str, Sequence[Result]], found: Summary
) -> Iterator[tuple[str, bytes, str]]:
    """Yield the file name, PNG and caption of every picture that there is something for."""
    finished = {arm: results for arm, results in arms.items() if results}
    reference = found.reference if found.reference in finished else None
    band = "Lines are means over seeds, bands reach from the lowest to the highest."
    if finished:
        yield (
            "loss-flops.png",
            loss_picture(finished, reference, ALL_IN),
            f"Held-out loss against all FLOPs, those of the base included. {band}",
        )
        yield (
            "loss-tokens.png",
            loss_picture(finished, reference, TOKENS),
            f"Held-out loss against the tokens after the base. {band}",
        )
    if reference is not None and len(finished) > 1:
        yield (
            "speedup.png",
            speedup_picture(finished, reference),
            f"Speed-up in FLOPs at equal loss, base included, over {reference}. {band}",
        )
    if any(arm.jump for arm in found.arms):
        yield (
            "growth.png",
            spike_picture(found),
            "What growth did to the held-out loss; means over seeds.",
        )


def loss_picture(arms: Mapping[str, Sequence[Result]], reference: str | None, by: str) -> bytes:
    """Draw the held-out loss of every arm.

    Args:
        arms: Finished runs by arm.
        reference: The arm that is drawn in black.
        by: The accounting that costs are counted in.
    """
    from matplotlib.ticker import LogFormatterSciNotation, LogLocator

    figure, axes = _canvas()
    ends: list[End] = []
    lowest, highest = float("inf"), float("-inf")
    for arm, style in _styles(arms, reference):
        curves = [result.path(by) for result in arms[arm]]
        # A logarithm has no place for nothing spent; of a run that lacks one the rest is elsewhere.
        columns = [
            column
            for column in zip(*curves, strict=False)
            if column[0][0] > 0 and len({cost for cost, _ in column}) == 1
        ]
        if not columns:
            continue
        costs = [column[0][0] for column in columns]
        means = [mean([loss for _, loss in column]) for column in columns]
        lows = [min(loss for _, loss in column) for column in columns]
        highs = [max(loss for _, loss in column) for column in columns]
        axes.plot(costs, means, **style)
        axes.fill_between(costs, lows, highs, color=style["color"], alpha=0.15, linewidth=0)
        ends.append((costs[-1], means[-1], arm, style))
        lowest = min(lowest, *lows)
        # What comes before is steep and says little.
        highest = max(
            [highest, *(m for m, c in zip(means, costs, strict=True) if c >= costs[-1] / 6)]
        )
    axes.set_xscale("log")
    # 1, 2 and 5, which never touch.
    axes.xaxis.set_minor_locator(LogLocator(subs=(2, 5)))
    axes.xaxis.set_minor_formatter(LogFormatterSciNotation(minor_thresholds=(inf, inf)))
    room = 0.06 * (highest - lowest or 1.0)
    axes.set_ylim(lowest - room, highest + room)
    if ends:
        end = max(cost for cost, _, _, _ in ends)
        axes.set_xlim(end / 12, end * 1.02)
    what = "training FLOPs, 6ND, base included" if by == ALL_IN else "tokens after the base"
    axes.set_xlabel(what)
    axes.set_ylabel("held-out loss, nats a token")
    _name_ends(axes, ends)
    return picture_bytes(figure)


def speedup_picture(arms: Mapping[str, Sequence[Result]], reference: str) -> bytes:
    """Draw the all-in speed-up over the reference at every loss that both came down to."""
    figure, axes = _canvas()
    curves = {r.seed: r.curve(ALL_IN) for r in arms[reference] if not r.falls}
    scratch = {seed: curve for seed, curve in curves.items() if curve}
    ends: list[End] = []
    seen: list[float] = []
    for arm, style in _styles(arms, reference):
        pairs = [
            (scratch[r.seed], curve)
            for r in arms[arm]
            if r.seed in scratch and not r.falls and (curve := r.curve(ALL_IN))
        ]
        if arm == reference or not pairs:
            continue
        top = min(min(one[0][1], other[0][1]) for one, other in pairs)
        bottom = max(max(min(loss for _, loss in curve) for curve in pair) for pair in pairs)
        xs, means, lows, highs = [], [], [], []
        for i in range(1, _NUM_LOSSES + 1):
            loss = top + (bottom - top) * i / _NUM_LOSSES
            gains = [speedup(one, other, loss) for one, other in pairs]
            known = [100 * gain.value for gain in gains if gain and not gain.is_bound]
            if bottom < top and len(known) == len(pairs):
                xs.append(loss)
                means.append(mean(known))
                lows.append(min(known))
                highs.append(max(known))
        if xs:
            axes.plot(xs, means, **(style | {"marker": ""}))
            axes.fill_between(xs, lows, highs, color=style["color"], alpha=0.15, linewidth=0)
            ends.append((xs[-1], means[-1], arm, style | {"marker": ""}))
            seen += xs
    axes.axhline(0, color="black", linewidth=1, linestyle="--")
    if seen:
        room = 0.02 * (max(seen) - min(seen))
        axes.set_xlim(max(seen) + room, min(seen) - room)
    axes.set_xlabel("held-out loss, nats a token (training goes on to the right)")
    axes.set_ylabel(f"speed-up over {plain_label(reference)}, % of FLOPs, all-in")
    _name_ends(axes, ends)
    return picture_bytes(figure)


def spike_picture(found: Summary) -> bytes:
    """Draw the loss just before growth, just after, and at the next evaluation."""
    grown = [arm for arm in found.arms if arm.jump]
    figure, axes = _canvas(height=1.2 + 0.38 * len(grown))
    for row, arm in enumerate(reversed(grown)):
        assert arm.jump is not None
        known = [spread for spread in arm.jump if spread]
        axes.plot([s.mean for s in known], [row] * len(known), color="#bbbbbb", zorder=1)
        for spread, (colour, marker, label) in zip(
            known,
            (
                ("#555555", "|", "before growth"),
                ("#d55e00", "o", "just after"),
                ("#0072b2", "D", "at the next evaluation"),
            ),
            strict=False,
        ):
            size = 160 if marker == "|" else 42
            shown = label if row == 0 else "_"
            axes.scatter(spread.mean, row, s=size, c=colour, marker=marker, label=shown, zorder=2)
    axes.set_yticks(range(len(grown)), [plain_label(arm.arm) for arm in reversed(grown)])
    axes.set_ylim(-0.6, len(grown) - 0.4)
    axes.set_xlabel("held-out loss, nats a token")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, frameon=False, fontsize=9)
    return picture_bytes(figure)


def _styles(
    arms: Mapping[str, object], reference: str | None
) -> Iterator[tuple[str, dict[str, Any]]]:
    number = 0
    for arm in arms:
        style: dict[str, Any] = {"linewidth": 1.5, "markersize": 3}
        if arm == reference:
            yield arm, style | {"color": "black", "linestyle": "--"}
            continue
        colour = _COLOURS[number % len(_COLOURS)]
        yield arm, style | {"color": colour, "marker": _MARKERS[number % len(_MARKERS)]}
        number += 1


def _canvas(height: float = _INCHES[1]) -> tuple[Any, Any]:
    figure, axes = canvas(_INCHES[0], height, dpi=DPI, grid="both")
    open_corner(axes)
    return figure, axes


def _name_ends(axes: Any, ends: Sequence[End]) -> None:
    """Write the names of the lines beside the axes, in the order in which they end.

    Each stands at the height of its end, moved apart where they would overlap, behind a piece of
    its line. Nothing leads from there to the end: it would look like what was measured.
    """
    from matplotlib.lines import Line2D

    low, high = axes.get_ylim()
    listed = sorted(ends, key=lambda end: end[1])
    places: list[float] = []
    for _, y, _, _ in listed:
        places.append(max((y - low) / (high - low), places[-1] + _GAP if places else 0.0))
    highest = 1.0
    for i in reversed(range(len(places))):
        places[i] = min(places[i], highest)
        highest = places[i] - _GAP
    for (_, _, name, style), at in zip(listed, places, strict=True):
        known = {key: style[key] for key in ("color", "linestyle", "marker") if key in style}
        piece = Line2D([1.02, 1.075], [at, at], transform=axes.transAxes, clip_on=False, **known)
        piece.set(linewidth=1.6, markersize=4, markevery=[1])
        axes.add_line(piece)
        axes.annotate(
            plain_label(name),
            xy=(1.095, at),
            xycoords="axes fraction",
            color=style["color"],
            fontsize=NAME_POINTS,
            verticalalignment="center",
            annotation_clip=False,
        )
