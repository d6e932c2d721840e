"""Grow tiny models, read them with other programs, and compare with transformers in float32.

    python -m benchmarks.elsewhere --folder DIR

"Right" is the same 24 tokens and, where a program tells logits, none off by more than a thousandth
of the largest (mlx-lm rounds the scale of Gemma's embeddings to bfloat16); "wrong" is anything else
that came without a word. Environments are made in DIR/venvs, about 10 GB, and stay there. The
tables go into docs/elsewhere.md.
"""

import argparse
import json
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.document import put
from benchmarks.elsewhere.adapters import adapter_rows
from benchmarks.elsewhere.models import Grown, made
from benchmarks.elsewhere.rounded import rounded_rows
from benchmarks.elsewhere.tools import TOOLS, Tool, answers, reference
from benchmarks.measure import table

PAGE = Path(__file__).resolve().parents[2] / "docs" / "elsewhere.md"
_TOLERANCE = 1e-3


def main() -> None:
    """Measure, print, and write the tables down."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", type=Path, required=True, help="for models and environments")
    parser.add_argument(
        "--only",
        nargs="+",
        choices=[tool.name for tool in TOOLS],
        help="programs by name; what is printed is not written",
    )
    args = parser.parse_args()
    folder: Path = args.folder.absolute()
    tools = [tool for tool in TOOLS if not args.only or tool.name in args.only]
    programs = _programs(list(made(folder / "models")), tools, folder)
    print(programs)
    if not args.only:
        adapters, rounded = adapter_rows(folder), rounded_rows(folder)
        print(adapters, rounded, sep="\n\n")
        put(PAGE, "programs", programs)
        put(PAGE, "adapters", adapters)
        put(PAGE, "rounded", rounded)


def _programs(models: Sequence[Grown], tools: Sequence[Tool], scratch: Path) -> str:
    folders = [model.folder for model in models]
    expected = [json.loads(line) for line in reference(folders)]
    columns: list[list[str]] = []
    details: dict[tuple[str, str, str], list[str]] = {}
    for tool in tools:
        column = []
        for model, want, line in zip(
            models, expected, answers(tool, folders, scratch), strict=True
        ):
            word, detail = _verdict(want, json.loads(line))
            column.append(word)
            if detail:
                how = f"`{model.growth}`" if model.growth else "not grown"
                details.setdefault((tool.name, model.name, detail), []).append(how)
        columns.append(column)
    rows = [
        [model.name, f"`{model.growth}`" if model.growth else "not grown, as transformers 5 saves"]
        + [column[i] for column in columns]
        for i, model in enumerate(models)
    ]
    header = ["family", "growth", *(tool.name for tool in tools)]
    used = "; ".join(", ".join((*tool.packages, *filter(None, [tool.source]))) for tool in tools)
    said = [table(header, rows), f"Read with: {used}. Compared with transformers "]
    said[-1] += f"{version('transformers')}, torch {version('torch')}."
    told = [
        f"- {tool}, {name}, {', '.join(growths)}: {detail}"
        for (tool, name, detail), growths in details.items()
    ]
    return "\n\n".join([*said, *(["\n".join(told)] if told else [])])


def _verdict(want: dict[str, Any], found: dict[str, Any]) -> tuple[str, str]:
    """Return right, wrong or refused, and what is to be said of it."""
    if "refused" in found:
        return "refused", " ".join(str(found["refused"]).split())[:100]
    same = sum(a == b for a, b in zip(want["tokens"], found["tokens"], strict=False))
    said = f"{same} of {len(want['tokens'])} tokens"
    is_right = same == len(want["tokens"])
    if "logits" in found:
        flat = [[x for row in one["logits"] for x in row] for one in (want, found)]
        off = max(abs(a - b) for a, b in zip(*flat, strict=True))
        is_right = is_right and off <= _TOLERANCE * max(map(abs, flat[0]))
        said += f", logits off by {off:.1g}"
    return ("right", "") if is_right else ("**wrong**", said)


if __name__ == "__main__":
    main()
