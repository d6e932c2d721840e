"""The pictures of a growth, as SVG: what layers come from, and what the units of a width do."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

from hfgrow.errors import printable
from hfgrow.plan.axes import FRESH, MIXED, AxisMap, Span
from hfgrow.plan.plan import LayerSource

_WIDTH, _HEIGHT = 560, 420
_TOP = 34
_BOX_WIDTH = 96
_LEFT, _RIGHT = 46, 418
_MOST_LINES = 1000
_FIRST_HUE, _LAST_HUE = 210, 350
# A lower box has no room for a number.
_LEAST_FOR_NUMBER = 11
_INK, _PALE = "#555", "#c9ccd3"
# Numbers on a colour, and on hatches.
_WHITE = 'fill="#fff"'
_DARK = 'fill="#222" stroke="#fff" stroke-width="3" paint-order="stroke"'
_HATCHED = "url(#hatched)"
_HATCHES = (
    '<defs><pattern id="hatched" width="6" height="6" patternUnits="userSpaceOnUse" '
    'patternTransform="rotate(45)"><rect width="2.6" height="6" fill="#fff"/></pattern></defs>'
)
# What a layer of a mode is, beside a copy; the first word says how it is drawn.
_MODES = {
    "zero": "hatched: a copy that adds nothing yet",
    "random": "grey: fresh weights",
    "average": "two lines: the mean of a layer and the one above it",
    "aligned": "two lines, hatched: their aligned mean, adding nothing yet",
    "predicted": "two lines: predicted between a layer and the one above it",
    "learned": "dotted: mixed by learned maps",
}
_ADD_NOTHING = ("zero", "aligned")
# A unit that is narrower has no number of its own.
_LEAST_FOR_UNIT = 16
_AXIS_LEFT, _AXIS_WIDTH, _AXIS_HEIGHT, _BAR_HEIGHT = 40, 480, 100, 18
# Boxes of a bar, and what their order is multiplied by where it is none.
_MOST_CELLS, _STRIDE = 64, 27
# The marks of the kinds of layers, the most frequent one first, which has none.
_MARKS = ("", "#111", "#fff", "#ffd24a")
_MARK_WIDTH = 7


def layer_picture(
    num_base_layers: int,
    layer_map: Sequence[LayerSource],
    title: str,
    kinds: Sequence[str] = (),
) -> str:
    """Return an SVG of a layer map: one colour for each base layer, a line for each copy.

    Args:
        num_base_layers: How many layers the base has.
        layer_map: For every grown layer, the 0-based layer of the base and how it is made of it,
            bottom layer first.
        title: The line above the picture.
        kinds: The kind of every layer of the base, such as `full_attention`; of one kind, or none
            known, there is no mark.
    """
    marks = _marks(kinds) if len(kinds) == num_base_layers else {}
    scale = _HEIGHT / max(len(layer_map), num_base_layers)
    every = len(layer_map) // _MOST_LINES + 1
    base_bottom = _TOP + (_HEIGHT + scale * num_base_layers) / 2
    grown_bottom = _TOP + (_HEIGHT + scale * len(layer_map)) / 2
    parts = []
    for i, source in list(enumerate(layer_map))[::every]:
        colour = _colour(source.layer, num_base_layers)
        y2 = grown_bottom - (i + 0.5) * scale
        for layer in _comes_from(source, num_base_layers):
            y1 = base_bottom - (layer + 0.5) * scale
            parts.append(
                f'<path d="M{_LEFT + _BOX_WIDTH} {y1:.1f}C280 {y1:.1f} 280 {y2:.1f} {_RIGHT} '
                f'{y2:.1f}" fill="none" stroke="{colour}"{_stroke(source.mode)}/>'
            )
    base = [LayerSource(i) for i in range(num_base_layers)]
    for x, bottom, sources in ((_LEFT, base_bottom, base), (_RIGHT, grown_bottom, layer_map)):
        outer = x if x == _LEFT else x + _BOX_WIDTH - _MARK_WIDTH
        for i, source in list(enumerate(sources))[::every]:
            y, height = bottom - (i + 1) * scale, scale * (every - 0.14)
            colour = _colour(source.layer, num_base_layers)
            parts += _box(x, y, _BOX_WIDTH, height, source.mode, colour)
            if mark := marks.get(kinds[source.layer] if marks else ""):
                parts.append(_rect(outer, y, _MARK_WIDTH, height, mark))
            if scale >= _LEAST_FOR_NUMBER and source.mode != "random":
                ink = _DARK if source.mode in _ADD_NOTHING else _WHITE
                parts.append(_number(x + _BOX_WIDTH / 2, y + scale / 2, str(source.layer), ink))
        parts += _ends(x, bottom, scale, len(sources))
    below = _TOP + _HEIGHT + 24
    for x, count, word in ((_LEFT, num_base_layers, "base"), (_RIGHT, len(layer_map), "grown")):
        parts.append(
            f'<text x="{x + _BOX_WIDTH / 2}" y="{below}" text-anchor="middle">'
            f"{word}: {count} layers</text>"
        )
    legend = list(_legend(layer_map, kinds, marks))
    parts += _legend_rows(legend, below + 26)
    return _svg(title, below + 22 + 20 * len(legend), parts)


@dataclass(frozen=True, slots=True)
class GrownAxis:
    """An axis that grew.

    Attributes:
        name: Its name.
        axis_map: Where its units come from.
        adds_nothing: Whether units without a source contribute nothing yet.
    """

    name: str
    axis_map: AxisMap
    adds_nothing: bool


def width_picture(axes: Sequence[GrownAxis], title: str) -> str:
    """Return an SVG of axes that grew: the units of the base above, those of the grown one below.

    Args:
        axes: The axes, one below the other.
    """
    parts: list[str] = []
    top = _TOP + 6.0
    for axis in axes:
        parts += _axis(axis, top)
        top += _AXIS_HEIGHT
    legend = list(_width_legend(axes))
    parts += _legend_rows(legend, top + 8)
    return _svg(title, top + 4 + 20 * len(legend), parts)


def _axis(axis: GrownAxis, top: float) -> Iterator[str]:
    """Yield an axis: its sizes, both bars, and bands from where units come to where they go."""
    grown = axis.axis_map
    unit = _AXIS_WIDTH / grown.size
    upper, lower = top + 20, top + 64
    yield (
        f'<text x="{_AXIS_LEFT}" y="{top + 10:g}" font-size="12">{escape(axis.name)}: '
        f"{grown.base:,} to {grown.size:,}</text>"
    )
    base = Span(0, grown.base)
    at = 0
    for span in grown.spans:
        if span.start != FRESH:
            yield _band(base if span.start == MIXED else span, at, span.length, unit, upper, grown)
        at += span.length
    for y, spans in ((upper, (base,)), (lower, grown.spans)):
        at = 0
        for span in spans:
            yield from _units(span, at, unit, y, axis)
            at += span.length


def _band(source: Span, at: int, length: int, unit: float, upper: float, axis: AxisMap) -> str:
    y1, y2 = upper + _BAR_HEIGHT, upper + 44
    x1, x2 = _AXIS_LEFT + source.start * unit, _AXIS_LEFT + (source.start + source.length) * unit
    x3, x4 = _AXIS_LEFT + at * unit, _AXIS_LEFT + (at + length) * unit
    middle = (y1 + y2) / 2
    colour = _colour(source.start + (source.length - 1) / 2, axis.base)
    return (
        f'<path d="M{x1:.1f} {y1:g}C{x1:.1f} {middle:g} {x3:.1f} {middle:g} {x3:.1f} {y2:g}'
        f'L{x4:.1f} {y2:g}C{x4:.1f} {middle:g} {x2:.1f} {middle:g} {x2:.1f} {y1:g}Z" '
        f'fill="{colour}" fill-opacity=".14"/>'
    )


def _units(span: Span, at: int, unit: float, y: float, axis: GrownAxis) -> Iterator[str]:
    """Yield the units of a span, a box for each, or for several where they are many."""
    base = axis.axis_map.base
    x, width = _AXIS_LEFT + at * unit, span.length * unit
    if span.start == FRESH:
        yield _rect(x, y, width, _BAR_HEIGHT, _PALE)
        if axis.adds_nothing:
            yield _rect(x, y, width, _BAR_HEIGHT, _HATCHED)
        words, ink = f"{span.length:,} new", _DARK
    else:
        told = unit >= _LEAST_FOR_UNIT and span.start != MIXED
        cells = span.length
        if not told:
            cells = min(cells, max(1, round(_MOST_CELLS * width / _AXIS_WIDTH)))
        step = width / cells
        for i in range(cells):
            source = span.start + (i + 0.5) * span.length / cells - 0.5
            if span.start == MIXED:
                source = i * _STRIDE % _MOST_CELLS / _MOST_CELLS * base
            overlap = -0.1 * step if told else 0.6 * (i < cells - 1)
            left = x + i * step
            yield _rect(left, y, step + overlap, _BAR_HEIGHT, _colour(source, base))
            if told:
                middle = left + 0.45 * step
                yield _number(middle, y + _BAR_HEIGHT / 2, str(span.start + i), _WHITE)
        if told:
            return
        last = span.start + span.length - 1
        words, ink = f"{span.start:,}-{last:,}" if span.length > 1 else f"{span.start:,}", _WHITE
        if span.start == MIXED:
            words, ink = f"{span.length:,} copies", _DARK
    if width > 6.5 * len(words):
        yield _number(x + width / 2, y + _BAR_HEIGHT / 2, words, ink)


def _width_legend(axes: Sequence[GrownAxis]) -> Iterator[tuple[list[str], str]]:
    fresh = {a.adds_nothing for a in axes if a.axis_map.has_fresh}
    if any(span.start == MIXED for axis in axes for span in axis.axis_map.spans):
        mosaic = [_rect(2 * i, -10, 2, 11, _colour(i * _STRIDE % 11, 11)) for i in range(11)]
        yield mosaic, "mosaic: copies of units in no order"
    if True in fresh:
        hatched = [_rect(0, -10, 22, 11, _PALE), _rect(0, -10, 22, 11, _HATCHED)]
        yield hatched, "hatched: new units, which contribute nothing yet"
    if False in fresh:
        yield [_rect(0, -10, 22, 11, _PALE)], "grey: new units"


def _comes_from(source: LayerSource, num_base_layers: int) -> list[int]:
    if source.mode == "random":
        return []
    if source.mode in ("average", "aligned", "predicted"):
        return [layer for layer in (source.layer, source.layer + 1) if layer < num_base_layers]
    return [source.layer]


def _stroke(mode: str) -> str:
    if mode in _ADD_NOTHING:
        return ' stroke-opacity=".35" stroke-dasharray="3 4"'
    if mode == "learned":
        return ' stroke-opacity=".55" stroke-dasharray="1 3"'
    return ' stroke-opacity=".55"'


def _box(x: float, y: float, width: float, height: float, mode: str, colour: str) -> list[str]:
    """Return a box: pale and hatched where it adds nothing yet, grey where nothing was copied."""
    if mode == "random":
        return [_rect(x, y, width, height, _PALE)]
    if mode in _ADD_NOTHING:
        return [_rect(x, y, width, height, colour, ".5"), _rect(x, y, width, height, _HATCHED)]
    return [_rect(x, y, width, height, colour)]


def _ends(x: float, bottom: float, scale: float, count: int) -> list[str]:
    """Say on which side the first layer is."""
    at, anchor = (x - 4, "end") if x == _LEFT else (x + _BOX_WIDTH + 4, "start")
    ends = [(0, "layer 0"), (count - 1, str(count - 1))][: min(count, 2)]
    return [
        f'<text x="{at}" y="{bottom - (i + 0.5) * scale + 3.5:.1f}" text-anchor="{anchor}" '
        f'font-size="10" fill="{_INK}">{text}</text>'
        for i, text in ends
    ]


def _marks(kinds: Sequence[str]) -> dict[str, str]:
    """Return the mark of each kind; nothing where all are of one."""
    found = [kind for kind, _ in Counter(kinds).most_common()]
    if len(found) < 2:
        return {}
    return {kind: _MARKS[min(i, len(_MARKS) - 1)] for i, kind in enumerate(found)}


def _legend(
    layer_map: Sequence[LayerSource], kinds: Sequence[str], marks: dict[str, str]
) -> Iterator[tuple[list[str], str]]:
    """Yield what is drawn otherwise than a copy of the only kind, and what that means."""
    modes = {source.mode for source in layer_map}
    for mode, words in _MODES.items():
        if mode in modes:
            yield _box(0, -10, 22, 11, mode, _colour(0, 2)), words
    counts = Counter(kinds[source.layer] for source in layer_map) if marks else Counter[str]()
    by_mark: dict[str, list[str]] = {}
    for kind, mark in marks.items():
        # Of kinds that have no name a letter stands.
        name = f"kind {kind}" if len(kind) == 1 else printable(kind, 40).replace("_", " ")
        told = f"{name} ({counts[kind]})"
        by_mark.setdefault(mark, []).append(told)
    for mark, words_of in by_mark.items():
        swatch = [_rect(0, -10, 22, 11, "#8288a0")]
        if mark:
            swatch.append(_rect(22 - _MARK_WIDTH, -10, _MARK_WIDTH, 11, mark))
        yield swatch, ", ".join(words_of)


def _legend_rows(legend: Sequence[tuple[list[str], str]], top: float) -> list[str]:
    return [
        f'<g transform="translate({_LEFT} {top + 20 * i:g})">{"".join(swatch)}'
        f'<text x="30" font-size="12">{escape(words)}</text></g>'
        for i, (swatch, words) in enumerate(legend)
    ]


def _number(x: float, middle: float, text: str, ink: str) -> str:
    return (
        f'<text x="{x:.1f}" y="{middle + 3.5:.1f}" text-anchor="middle" font-size="10" {ink}>'
        f"{text}</text>"
    )


def _rect(x: float, y: float, width: float, height: float, fill: str, opacity: str = "") -> str:
    faded = f' fill-opacity="{opacity}"' if opacity else ""
    return (
        f'<rect x="{x:g}" y="{y:.1f}" width="{width:g}" height="{height:.2f}" fill="{fill}"'
        f"{faded}/>"
    )


def _svg(title: str, height: float, parts: Sequence[str]) -> str:
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height:g}" '
            'font-family="sans-serif" font-size="13">',
            f"<title>{escape(title)}</title>",
            *([_HATCHES] if any(_HATCHED in part for part in parts) else []),
            '<rect width="100%" height="100%" fill="#fff"/>',
            f'<text x="280" y="20" text-anchor="middle" font-size="15">{escape(title)}</text>',
            *parts,
            "</svg>\n",
        ]
    )


def _colour(index: float, count: int) -> str:
    share = index / max(count - 1, 1)
    hue = _FIRST_HUE + (_LAST_HUE - _FIRST_HUE) * share
    return f"hsl({hue:.0f},62%,{46 - 8 * share:.0f}%)"
