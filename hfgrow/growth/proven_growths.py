"""Which growths of a derived family were proven, and what would work where one does not fit.

The table is made by `python -m benchmarks.reach`: every causal language model of one release of
transformers, built tiny, grown by this program and compared with twins in memory.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hfgrow.checkpoint.derived.grown import fits
from hfgrow.checkpoint.derived.proven import proven, row_of
from hfgrow.errors import ModelError, UsageError, argument, growth, printable
from hfgrow.plan.families.derived import DerivedFamily, rhythm
from hfgrow.plan.operators import ALL_OPERATORS
from hfgrow.plan.plan import GrowthPlan

# The rows of the table that prove layers which add nothing, and copies of layers.
SILENT = ("zero-depth",)
COPIES = ("stack", "interpolate", "partial")


def check_proven(family: DerivedFamily, operators: Sequence[str]) -> None:
    """Refuse growths of a type that nobody has compared with a twin.

    Raises:
        ModelError: The type, or one of the growths, is not in the table of this transformers.
    """
    for operator in operators:
        if is_proven(family, operator):
            continue
        said = f"{operator} of a {printable(family.model_type)}"
        row = row_of(family.model_type, family.version)
        copies = [name for name in COPIES[:2] if row.get(name) == "right"]
        elsewhere = [release for release in proven() if is_proven(family, operator, release)]
        where = f" with transformers {family.version}"
        where += f", only with {', '.join(elsewhere)}" if elsewhere else ""
        hint = (
            f"{argument('untested')} grows it all the same; look at the result with "
            f"{argument('verify')}"
        )
        if _is_right(row, operator):
            (key, value), *_ = _missed(family, row)
            where = (
                f" with {key} {_as_json(family.settings.get(key))}, as config.json has it, only "
                f"with {_as_json(value)}"
            )
            hint = f"copies were proven: {growth(copies[0], g=2)}; {hint}" if copies else hint
        elif copies:
            hint = f"copies were proven: {growth(copies[0], g=2)}"
        if elsewhere:
            hint = f"pip install transformers=={elsewhere[-1]}; or {hint}"
        raise ModelError(f"{said} was not proven{where}", hint=hint)


def is_proven(family: DerivedFamily, operator: str, release: str = "") -> bool:
    """Say whether growth by an operator was compared with a twin: itself, or copies of layers.

    Args:
        family: The family.
        operator: The operator.
        release: A release of transformers, if not the one that is installed.
    """
    row = row_of(family.model_type, release or family.version)
    is_silent = ALL_OPERATORS[operator].adds_silent_layers
    return _is_right(row, operator) and not (is_silent and _missed(family, row))


def _is_right(row: Mapping[str, Any], operator: str) -> bool:
    wanted = SILENT if ALL_OPERATORS[operator].adds_silent_layers else COPIES
    return any(row.get(name) == "right" for name in wanted)


def _missed(family: DerivedFamily, row: Mapping[str, Any]) -> list[tuple[str, bool]]:
    """Return the flags that the proof of layers that add nothing rests on, and this one lacks."""
    needs: Mapping[str, bool] = row.get("zero", {}).get("needs", {})
    return [(key, value) for key, value in needs.items() if family.settings.get(key) != value]


def _as_json(value: object) -> str:
    return printable(json.dumps(value))


def suggestion(plan: GrowthPlan, depth: int) -> str:
    """Return a growth to about this depth that fits; empty if none was found.

    Args:
        plan: The base, of a derived family.
    """
    return next((said for said, layer_map in _others(plan, depth) if fits(plan, layer_map)), "")


def _others(plan: GrowthPlan, depth: int) -> Iterator[tuple[str, list[int]]]:
    num_layers = plan.num_hidden_layers
    times = max(2, round(depth / num_layers))
    every = range(num_layers)
    yield growth("interpolate", layers=depth), [i * num_layers // depth for i in range(depth)]
    kinds = plan.derived.kinds if plan.derived else ()
    prefix, period = rhythm(kinds) or (1, 1)
    if prefix and prefix < num_layers:
        pattern = f"[1:{prefix}]-[{prefix + 1}:{num_layers}]*{times}"
        yield (
            growth("partial", pattern=pattern),
            [*every[:prefix], *list(every[prefix:]) * times],
        )
    if period > 1 and not prefix and num_layers % period == 0:
        blocks = [every[i : i + period] for i in range(0, num_layers, period)]
        pattern = "-".join(f"[{block[0] + 1}:{block[-1] + 1}]*{times}" for block in blocks)
        yield (
            growth("partial", pattern=pattern),
            [i for block in blocks for i in list(block) * times],
        )
    yield growth("stack", g=times), list(every) * times
    pattern = f"[1:{num_layers - 1}]*{times}-[{num_layers}]"
    yield growth("partial", pattern=pattern), [*list(every[:-1]) * times, num_layers - 1]
    pattern = f"[1]-[2:{num_layers}]*{times}"
    yield growth("partial", pattern=pattern), [0, *list(every[1:]) * times]


def with_suggestion(plan: GrowthPlan, error: UsageError, operator: str) -> UsageError:
    """Return the refusal of an operator's layer map that says what would fit, if it says nothing.

    What fits are copies, which do not preserve the function as silent layers would.
    """
    layer_map = error.details.get("layer_map")
    if error.hint or not isinstance(layer_map, list):
        return error
    is_silent = ALL_OPERATORS[operator].adds_silent_layers
    told = "as copies it fits, the function not preserved" if is_silent else "this fits"
    found = suggestion(plan, len(layer_map))
    return UsageError(f"{error}", hint=f"{told}: {found}" if found else "", details=error.details)
