"""Measure every operator on a tiny model of every family, and write the table of the docs.

The program itself grows random models in float64, whose norms then compute in float64 too: what is
left is the rounding of float64, or a mistake. Each pair is tried tied and untied, with grouped
queries and without; `tests/growth/test_growth_matrix.py` holds the same cases to 1e-12. Families
near another have a table of their own, one row for each.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

# Models this small are slower with more threads; torch reads this when it is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

from benchmarks.document import OPERATORS as DOCUMENT
from benchmarks.document import between, put
from benchmarks.measure import table
from hfgrow.plan.families import FAMILIES
from hfgrow.plan.operators import OPERATORS
from tests.checkpoints import load, logits, write_checkpoint
from tests.growths import NEAR, OTHERWISE, REFUSED, Case, with_exact_norms
from tests.program import call_hfgrow

Logits = Callable[[Path], Any]
_NAME = "proof matrix"
_NEAR_NAME = "near families"
_FAMILIES = [name for name in FAMILIES if name not in NEAR]


def cases(operator: str, model_type: str) -> list[Case]:
    """Return the traits in which a pair is tried."""
    return [
        Case(operator, model_type, tied=tied, sharded=False, grouped=grouped)
        for tied, grouped in product((False, True), repeat=2)
        if tied or operator != "untie"
    ]


def error(case: Case, folder: Path, logits_of: Logits) -> float:
    """Return max |dlogit| / max |logit| of a growth."""
    settings = case.base("float64")
    base = folder / "-".join((case.model_type, *map(str, settings.values())))
    if not base.is_dir():
        write_checkpoint(base, case.model_type, **settings)
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        operator, *arguments = case.command
        finished = call_hfgrow(operator, base, *arguments, "--out", Path(temporary, "out"))
        if finished.returncode:
            sys.exit(f"{case}: {finished.stderr}")
        found = logits(with_exact_norms(load(Path(temporary, "out"))[0]))
    expected = logits_of(base)
    return float((found - expected).abs().max() / expected.abs().max())


def cell(operator: str, model_type: str, folder: Path, logits_of: Logits) -> str:
    """Return the largest error of a growth that promises none, or else the smallest change."""
    if (operator, model_type) in REFUSED:
        return f"refused ({reasons().index(REFUSED[operator, model_type]) + 1})"
    errors = [error(case, folder, logits_of) for case in cases(operator, model_type)]
    promised = OPERATORS[operator].preserves_function
    shown = f"{max(errors):.0e}" if promised else f"changes {min(errors):.2g}"
    return ("0" if promised and not max(errors) else shown) + "*" * (
        (operator, model_type) in OTHERWISE
    )


def reasons() -> list[str]:
    """Return the different reasons of what is refused."""
    refused = [reason for (_, family), reason in REFUSED.items() if family in _FAMILIES]
    return list(dict.fromkeys(refused))


def near_row(model_type: str, folder: Path, logits_of: Logits) -> list[str]:
    """Return what all operators do on a family near another."""
    promised, others, another = [], [], []
    refused: dict[str, list[str]] = {}
    for operator, row in OPERATORS.items():
        if row.axis == "experts":
            continue
        if (operator, model_type) in REFUSED:
            refused.setdefault(REFUSED[operator, model_type], []).append(f"`{operator}`")
            continue
        if (operator, model_type) in OTHERWISE:
            another.append(f"`{operator}`")
        errors = [error(case, folder, logits_of) for case in cases(operator, model_type)]
        if row.preserves_function:
            promised.append(max(errors))
        else:
            others.append(min(errors))
    return [
        model_type,
        NEAR[model_type],
        f"{len(promised)}: {max(promised):.0e}",
        f"{len(others)}: {min(others):.2g}",
        ", ".join(another),
        "; ".join(f"{', '.join(names)}: {reason}" for reason, names in refused.items()),
    ]


def standing() -> dict[str, list[str]]:
    """Return the rows that stand in the document, by operator."""
    lines = between(DOCUMENT.read_text(encoding="utf-8"), _NAME).splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
    return {row[0].strip("`"): row for row in rows if row[0].startswith("`")}


def written(folder: Path, kept: dict[str, list[str]]) -> str:
    """Return the table and its footnotes; rows that are kept are not measured."""

    @cache
    def logits_of(base: Path) -> Any:
        return logits(with_exact_norms(load(base)[0]))

    lines = []
    for operator in OPERATORS:
        if operator in kept:
            lines.append(kept[operator])
            continue
        cells = [cell(operator, model_type, folder, logits_of) for model_type in _FAMILIES]
        lines.append([f"`{operator}`", *cells])
        print(*lines[-1], file=sys.stderr, flush=True)
    notes = [f"({i}) {reason}" for i, reason in enumerate(reasons(), 1)]
    return "\n".join(
        (
            table(["operator", *_FAMILIES], lines),
            "",
            f"\\* another target, for norms over all heads or for heads that are fixed. Refused: "
            f"{'; '.join(notes)}.",
        )
    )


def measure_near() -> None:
    """Measure the families near another, and write their table into docs/operators.md."""
    rows = []
    with tempfile.TemporaryDirectory() as temporary:

        @cache
        def logits_of(base: Path) -> Any:
            return logits(with_exact_norms(load(base)[0]))

        for model_type in NEAR:
            rows.append(near_row(model_type, Path(temporary), logits_of))
            print(*rows[-1], file=sys.stderr, flush=True)
    columns = ["family", "near", "exact", "other", "another target for", "refused"]
    found = table(columns, rows)
    print(found)
    put(DOCUMENT, _NEAR_NAME, found)


def main() -> None:
    """Measure, print the table, and write it into docs/operators.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=OPERATORS, help="keep the other rows")
    parser.add_argument("--near", action="store_true", help="measure the families near another")
    options = parser.parse_args()
    if options.near:
        measure_near()
        return
    only = options.only
    kept = {name: row for name, row in standing().items() if name not in only} if only else {}
    with tempfile.TemporaryDirectory() as temporary:
        found = written(Path(temporary), kept)
    print(found)
    put(DOCUMENT, _NAME, found)


if __name__ == "__main__":
    main()
