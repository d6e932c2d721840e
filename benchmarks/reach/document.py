"""docs/families.md: every type, and what comes of growing it."""

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.measure import table
from hfgrow.plan.families import FAMILIES

_SHOWN = {
    "right": "right",
    "close": "right to 1e-6",
    "refused": "refused rightly",
    "could": "refused, could be",
    "open": "not closed",
    "wrong": "WRONG",
    "crashed": "CRASHED",
    "not built": "not run alone",
    "not needed": "",
}
_OPERATORS = ("stack", "interpolate", "partial", "zero-depth")


Rows = Mapping[str, Mapping[str, Any]]


def written(version: str, known: Mapping[str, Rows], rows: Rows) -> str:
    """Return the document of a release of transformers.

    Args:
        version: The release.
        known: The table that ships, release -> type -> row.
        rows: The rows of this release, with details.
    """
    differing = _differing(version, known)
    grown = sum(
        any(row[name] in ("right", "close") for name in _OPERATORS) for row in rows.values()
    )
    silent = sum(row["zero-depth"] == "right" for row in rows.values())
    counts = Counter(row[name] for row in rows.values() for name in _OPERATORS)
    summary = ", ".join(
        f"{counts[key]} {shown}" for key, shown in _SHOWN.items() if shown and counts[key]
    )
    lines = [
        [
            f"`{model_type}`",
            "written" if model_type in FAMILIES else "derived",
            *_cells(row, model_type in differing),
        ]
        for model_type, row in sorted(rows.items())
    ]
    reasons = [
        f"* `{model_type}`, {name}: {' '.join(detail.split())}"
        for model_type, row in sorted(rows.items())
        for name, detail in row["details"].items()
        if row.get(name) not in ("right", "close")
    ]
    text = Path(__file__).with_name("families.md").read_text(encoding="utf-8")
    return text.format(
        version=version,
        releases=" and ".join(known),
        types=len(rows),
        grown=grown,
        silent=silent,
        summary=summary,
        table=table(["type", "family", *_OPERATORS], lines),
        reasons="\n".join(reasons),
        differing="\n".join(f"* `{name}`: {said}" for name, said in differing.items()),
        needed=_needed(known[version]),
    )


def _cells(row: Mapping[str, Any], is_marked: bool) -> list[str]:
    first, *others = (_SHOWN[row[name]] for name in _OPERATORS)
    return [f"{first}, [see below](#where-the-releases-differ)" if is_marked else first, *others]


def _differing(version: str, known: Mapping[str, Rows]) -> dict[str, str]:
    """Return what other releases say of types that this one has too, if it is something else."""
    found: dict[str, list[str]] = {}
    for model_type, row in sorted(known[version].items()):
        for release, rows in known.items():
            other = rows.get(model_type, row)
            said = [
                f"{name} {_SHOWN[other[name]]}"
                for name in _OPERATORS
                if other[name] != row[name] and _SHOWN[other[name]]
            ]
            if row["zero-depth"] == other["zero-depth"] == "right":
                said += _unlike(other.get("zero", {}), row.get("zero", {}))
            if said:
                found.setdefault(model_type, []).append(f"with {release} {', '.join(said)}")
    return {model_type: "; ".join(said) for model_type, said in found.items()}


def _unlike(other: Mapping[str, Any], zero: Mapping[str, Any]) -> list[str]:
    """Return in what a proof of layers that add nothing differs from that of this release."""
    if other == zero:
        return []
    before, after = ({*one.get("seen", ())} for one in (other, zero))
    return [
        f"layers that add nothing were found {word} {', '.join(names)}"
        for word, found in (("with", before - after), ("without", after - before))
        if (names := [f"`{name}`" for name in sorted(found)])
    ] or ["layers that add nothing rest on other ends or flags"]


def _needed(rows: Rows) -> str:
    """Return the flags that layers that add nothing need, a line a type."""
    return "\n".join(
        f"* `{model_type}`: " + ", ".join(f"`{key}` {json.dumps(needs[key])}" for key in needs)
        for model_type, row in sorted(rows.items())
        if (needs := row.get("zero", {}).get("needs"))
    )
