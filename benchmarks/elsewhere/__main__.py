"""Grow tiny models, read them with other programs, and compare with transformers in float32.

    python -m benchmarks.elsewhere --folder DIR

"Right" is the same 24 tokens and, where a program tells logits, none off by more than a thousandth
of the largest (mlx-lm rounds the scale of Gemma's embeddings to bfloat16); "wrong" is anything else
that came without a word. Environments are made in DIR/venvs, about 10 GB, and stay there. The
tables go into docs/elsewhere.md; with --only and --families the other cells stay as they stand
there, and those of a program that was read in another version become "not run".
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.document import put
from benchmarks.elsewhere.adapters import adapter_rows
from benchmarks.elsewhere.models import BASES, Grown, made
from benchmarks.elsewhere.page import PAGE, Cell, Found, standing, written
from benchmarks.elsewhere.rounded import rounded_rows
from benchmarks.elsewhere.tools import TOOLS, Tool, answers, reference

_TOLERANCE = 1e-3


def main() -> None:
    """Measure, print, and write the tables down."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", type=Path, required=True, help="for models and environments")
    parser.add_argument(
        "--only",
        nargs="+",
        choices=[tool.name for tool in TOOLS],
        help="programs by name: the other columns stay as the page has them",
    )
    parser.add_argument(
        "--families",
        nargs="+",
        choices=[base.name for base in BASES],
        help="families by name: the other rows stay as the page has them",
    )
    args = parser.parse_args()
    folder: Path = args.folder.absolute()
    tools = [tool for tool in TOOLS if not args.only or tool.name in args.only]
    bases = [base for base in BASES if not args.families or base.name in args.families]
    found = _found(list(made(bases, folder / "models")), tools, folder)
    programs = written({**standing(), **found})
    print(programs)
    put(PAGE, "programs", programs)
    if not (args.only or args.families):
        adapters, rounded = adapter_rows(folder), rounded_rows(folder)
        print(adapters, rounded, sep="\n\n")
        put(PAGE, "adapters", adapters)
        put(PAGE, "rounded", rounded)


def _found(models: Sequence[Grown], tools: Sequence[Tool], scratch: Path) -> Found:
    folders = [model.folder for model in models]
    expected = [json.loads(line) for line in reference(folders)]
    return {
        (tool.name, model.name, model.growth): _verdict(want, json.loads(line))
        for tool in tools
        for model, want, line in zip(models, expected, answers(tool, folders, scratch), strict=True)
    }


def _verdict(want: dict[str, Any], found: dict[str, Any]) -> Cell:
    if "refused" in found:
        return Cell("refused", " ".join(str(found["refused"]).split())[:100].rstrip())
    same = sum(a == b for a, b in zip(want["tokens"], found["tokens"], strict=False))
    said = f"{same} of {len(want['tokens'])} tokens"
    is_right = same == len(want["tokens"])
    if "logits" in found:
        flat = [[x for row in one["logits"] for x in row] for one in (want, found)]
        off = max(abs(a - b) for a, b in zip(*flat, strict=True))
        is_right = is_right and off <= _TOLERANCE * max(map(abs, flat[0]))
        said += f", logits off by {off:.1g}"
    return Cell("right") if is_right else Cell("**wrong**", said)


if __name__ == "__main__":
    main()
