"""Partial stacking: some of the layers repeated, in the paper's notation.

Source: Du et al. 2024, "Stacking Your Transformers", https://arxiv.org/abs/2405.15319, appendix on
partial stacking (Table 5)
"""

import re

from hfgrow.depth import apply_layer_map, check_num_layers
from hfgrow.errors import UsageError, printable
from hfgrow.plan import GrowthPlan

_PART = re.compile(r"(?P<layers>\d+|\[\d+(?::\d+)?\])(?:\*(?P<times>\d+))?")


def partial(base: GrowthPlan, pattern: str) -> GrowthPlan:
    """Repeat some of the layers, as 12-345*7-6.

    Parts are joined by "-"; a part is a run of layers, counted from 1, and "*n" repeats it n times.
    In a part like 345 each digit is a layer; layers above 9 are written as a range, [10:24], or
    alone, [10]. Every layer stands once and in order, as in the paper. Not function preserving.

    Args:
        base: The plan to grow.
        pattern: The notation, such as 12-345*7-6 for a base of 6 layers, or [1:8]-[9:16]*3-[17:22].

    Raises:
        UsageError: The notation is wrong, leaves a layer out, or does not grow the base.
    """
    num_layers = base.num_hidden_layers
    layer_map: list[int] = []
    named: list[int] = []
    for part in pattern.split("-"):
        match = _PART.fullmatch(part)
        if match is None:
            raise UsageError(
                f"{printable(part)!r} in {printable(pattern)!r} is no part of the notation",
                hint="try 12-345*7-6, or [1:8]-[9:16]*3-[17:22] for layers above 9",
            )
        run = _run_of(match["layers"], num_layers)
        times = int(match["times"] or 1)
        if times < 1:
            raise UsageError(f"{printable(part)!r} repeats its layers {times} times; at least 1")
        check_num_layers(len(layer_map) + len(run) * times)
        named += run
        layer_map += run * times
    if named != list(range(num_layers)):
        raise UsageError(
            f"{printable(pattern)!r} must name each of the layers 1 to {num_layers} once, in order",
            hint=f"this names {', '.join(str(i + 1) for i in named[:40])}",
        )
    if len(layer_map) == num_layers:
        raise UsageError(f"{printable(pattern)!r} repeats nothing", hint="add *n to a part")
    return apply_layer_map(base, layer_map, operator="partial", arguments={"pattern": pattern})


def _run_of(text: str, num_layers: int) -> list[int]:
    if text.startswith("["):
        first, _, last = text.strip("[]").partition(":")
        # A range is cut to the base's depth here only to bound it; the caller reports the misfit.
        run = range(int(first) - 1, min(int(last or first), num_layers + 1))
        return list(run)
    return [int(digit) - 1 for digit in text]
