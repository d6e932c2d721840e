"""What docs/elsewhere.md says of programs: read, renewed in part, and written."""

import re
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from benchmarks.document import between
from benchmarks.elsewhere.models import BASES, rows
from benchmarks.elsewhere.tools import TOOLS, Tool
from benchmarks.measure import table

PAGE = Path(__file__).resolve().parents[2] / "docs" / "elsewhere.md"
_NOT_RUN = "not run"
_NOT_GROWN = ", as transformers 5 saves"


class Cell(NamedTuple):
    """What a program made of one model: right, wrong or refused, and what is to be said of it."""

    word: str
    detail: str = ""


# By program, family and growth as it is typed, "" for a base.
Found = Mapping[tuple[str, str, str], Cell]


def standing() -> Found:
    """Return what the page says of programs in the versions that would be run now."""
    text = between(PAGE.read_text(encoding="utf-8"), "programs")
    if _reference() not in text:
        return {}
    (used,) = re.findall(r"^Read with: (.*)\. Compared with ", text, re.MULTILINE)
    kept = {tool.name for tool in TOOLS if _used(tool) in used.split("; ")}
    header, _, *lines = (_cells(line) for line in text.splitlines() if line.startswith("| "))
    details = _details(text)
    found = {}
    for name, how, *words in lines:
        growth = _growth(how.removesuffix(_NOT_GROWN))
        for tool, word in zip(header[2:], words, strict=True):
            key = tool, name, growth
            if tool in kept and word != _NOT_RUN:
                found[key] = Cell(word, details.get(key, ""))
    return found


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def _details(text: str) -> dict[tuple[str, str, str], str]:
    how = "(?:not grown|`[^`]+`)"
    names = "|".join(re.escape(tool.name) for tool in TOOLS)
    pattern = rf"^- ({names}), (.+?), ({how}(?:, {how})*): (.*)$"
    return {
        (tool, name, _growth(growth)): detail
        for tool, name, growths, detail in re.findall(pattern, text, re.MULTILINE)
        for growth in re.findall(how, growths)
    }


def _growth(how: str) -> str:
    return "" if how == "not grown" else how.strip("`")


def written(found: Found) -> str:
    """Return the table, what was read with what, and what is to be said of single cells."""
    how_of = {row: f"`{row[1]}`" if row[1] else "not grown" for base in BASES for row in rows(base)}
    lines = [
        [name, how if growth else how + _NOT_GROWN]
        + [found.get((tool.name, name, growth), Cell(_NOT_RUN)).word for tool in TOOLS]
        for (name, growth), how in how_of.items()
    ]
    used = "; ".join(map(_used, TOOLS))
    told: dict[tuple[str, str, str], list[str]] = {}
    for tool in TOOLS:
        for (name, growth), how in how_of.items():
            cell = found.get((tool.name, name, growth))
            if cell and cell.detail:
                told.setdefault((tool.name, name, cell.detail), []).append(how)
    said = [
        f"- {tool}, {name}, {', '.join(growths)}: {detail}"
        for (tool, name, detail), growths in told.items()
    ]
    header = ["family", "growth", *(tool.name for tool in TOOLS)]
    return "\n\n".join(
        [table(header, lines), f"Read with: {used}. {_reference()}", "\n".join(said)]
    )


def _used(tool: Tool) -> str:
    return ", ".join((*tool.packages, *filter(None, [tool.source])))


def _reference() -> str:
    return f"Compared with transformers {version('transformers')}, torch {version('torch')}."
