"""Partial stacking: some of the layers repeated, in the paper's notation.

Source: Du et al. 2024, "Stacking Your Transformers", https://arxiv.org/abs/2405.15319, appendix on
partial stacking (Table 5)
"""

import re

from hfgrow.errors import UsageError, printable
from hfgrow.plan.depth import apply_layer_map, check_num_layers
from hfgrow.plan.plan import GrowthPlan

_PART = re.compile(r"(?P<layers>\d+|\[\d{1,9}(?::\d{1,9})?\])(?:\*(?P<times>\d{1,9}))?", re.ASCII)


def partial(base: GrowthPlan, pattern: str) -> GrowthPlan:
    """Repeat some of the layers, as 12-345*7-6.

    Parts are joined by "-"; a part is a run of neighbouring layers, counted from 1, and "*n"
    repeats it n times. In a part like 345 each digit is a layer; layers above 9 are written as a
    range, [10:24], or alone, [10]. A part may take up layers that stand before it, as in the
    paper's 12-3456*5-56, but none may be left out. Not function preserving.

    Args:
        base: The plan to grow.
        pattern: The notation, such as 12-345*7-6 for a base of 6 layers, or [1:8]-[9:16]*3-[17:22].

    Raises:
        UsageError: The notation is wrong, leaves a layer out, or does not grow the base.
    """
    num_layers = base.num_hidden_layers
    shown = printable(repr(pattern))
    layer_map: list[int] = []
    reached = 0
    for part in pattern.split("-"):
        match = _PART.fullmatch(part)
        run = _run_of(match["layers"]) if match else range(0)
        if match is None or not run:
            raise UsageError(
                f"{printable(part)!r} in {shown} is no run of neighbouring layers",
                hint="try 12-345*7-6, or [1:8]-[9:16]*3-[17:22] for layers above 9",
            )
        if run.start < 0 or run.stop > num_layers:
            raise UsageError(
                f"{printable(part)!r} in {shown} leaves the layers 1 to {num_layers} of the base"
            )
        if run.start > reached:
            raise _left_out(shown, reached, run.start)
        times = int(match["times"] or 1)
        if times < 1:
            raise UsageError(f"{printable(part)!r} repeats its layers {times} times; at least 1")
        check_num_layers(len(layer_map) + len(run) * times)
        layer_map += [*run] * times
        reached = max(reached, run.stop)
    if reached < num_layers:
        raise _left_out(shown, reached, num_layers)
    if len(layer_map) == num_layers:
        raise UsageError(f"{shown} repeats nothing", hint="add *n to a part")
    return apply_layer_map(base, layer_map, operator="partial", arguments={"pattern": pattern})


def _run_of(text: str) -> range:
    """Return the 0-based layers of a part; an empty range if they are no neighbours."""
    if text.startswith("["):
        first, _, last = text.strip("[]").partition(":")
        return range(int(first) - 1, int(last or first))
    run = range(int(text[0]) - 1, int(text[-1]))
    return run if [*text] == [str(i + 1) for i in run] else range(0)


def _left_out(shown: str, reached: int, upper: int) -> UsageError:
    return UsageError(
        f"{shown} leaves out the layers {reached + 1} to {upper} of the base",
        hint="every layer stands at least once, the lower ones first",
    )
