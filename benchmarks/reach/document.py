"""docs/families.md: every type, and what comes of growing it."""

from collections import Counter
from collections.abc import Mapping, Sequence
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


def written(version: str, releases: Sequence[str], rows: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the document of a release of transformers, and of which the table that ships has."""
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
            *(_SHOWN[row[name]] for name in _OPERATORS),
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
        releases=" and ".join(releases),
        types=len(rows),
        grown=grown,
        silent=silent,
        summary=summary,
        table=table(["type", "family", *_OPERATORS], lines),
        reasons="\n".join(reasons),
    )
