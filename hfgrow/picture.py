"""The layer map as a picture: base layers on the left, grown layers on the right."""

from collections.abc import Sequence
from html import escape

_HEIGHT = 420
_TOP = 34
_BOX_WIDTH = 96
_LEFT, _RIGHT = 40, 424
_MOST_LINES = 1000
_FIRST_HUE, _LAST_HUE = 210, 350


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
