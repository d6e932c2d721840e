"""A page of paragraphs, tables and pictures, as Markdown and as HTML that needs nothing else."""

import base64
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from hfgrow.errors import printable
from hfgrow.lineage.tables import markdown_table

_LONGEST = 4096


_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #ffffff;
  max-width: 68rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; }
.lead { font-size: 1.15rem; }
/* A shadow at the side on which there is more. */
.wide { overflow-x: auto; background:
  linear-gradient(90deg, #ffffff 1.5rem, #ffffff00) 0 0 / 3rem 100% no-repeat local,
  linear-gradient(270deg, #ffffff 1.5rem, #ffffff00) 100% 0 / 3rem 100% no-repeat local,
  linear-gradient(90deg, #00000038, #00000000) 0 0 / 0.9rem 100% no-repeat scroll,
  linear-gradient(270deg, #00000038, #00000000) 100% 0 / 0.9rem 100% no-repeat scroll; }
table { border-collapse: collapse; font-size: 0.85rem; font-variant-numeric: tabular-nums; }
th, td { padding: 0.3rem 0.6rem; border-bottom: 1px solid #dddddd; text-align: right; }
th { border-bottom: 2px solid #888888; vertical-align: bottom; }
th:first-child, td:first-child { text-align: left; }
td:first-child, td span { white-space: nowrap; }
figure { margin: 1.5rem 0; } figcaption { font-size: 0.85rem; color: #555555; }
img { max-width: min(100%, 46rem); height: auto; }
code { background: #f2f2f2; padding: 0.1rem 0.25rem; overflow-wrap: anywhere; }
"""


@dataclass(frozen=True, slots=True)
class Heading:
    """A heading of the second level."""

    text: str


@dataclass(frozen=True, slots=True)
class Paragraph:
    """A paragraph; `code` sets it as what was typed, `lead` as what is said first."""

    text: str
    code: bool = False
    lead: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """A table: the names of its columns, and its rows."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture: the name of its file, its PNG, and what it shows."""

    name: str
    png: bytes
    caption: str


Block = Heading | Paragraph | Table | Picture


def markdown(title: str, blocks: Iterable[Block], folder: str) -> str:
    """Return a page as Markdown.

    Args:
        folder: Where the pictures lie, seen from the page.
    """
    parts = [f"# {_plain(title)}", *(_in_markdown(block, folder) for block in blocks)]
    return "\n\n".join(parts) + "\n"


def html(title: str, blocks: Iterable[Block]) -> str:
    """Return a page as HTML: one file that loads nothing and runs nothing."""
    head = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "img-src data:; style-src 'unsafe-inline'\">\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{_safe(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
    )
    body = "\n".join(_in_html(block) for block in blocks)
    return f"{head}<h1>{_safe(title)}</h1>\n{body}\n</body>\n</html>\n"


def _in_markdown(block: Block, folder: str) -> str:
    match block:
        case Heading(text):
            return f"## {_plain(text)}"
        case Paragraph(text, code, lead):
            if code:
                return f"    {printable(text, _LONGEST)}"
            return f"**{_plain(text)}**" if lead else _plain(text)
        case Table(header, rows):
            shown = [[_plain(cell) for cell in row] for row in rows]
            return "\n".join(markdown_table(header, shown, of_numbers=True))
        case Picture(name, _, caption):
            return f"![{_plain(caption)}]({folder}/{name})\n\n{_plain(caption)}"


def _in_html(block: Block) -> str:
    match block:
        case Heading(text):
            return f"<h2>{_safe(text)}</h2>"
        case Paragraph(text, code, lead):
            if code:
                return f"<p><code>{_safe(text)}</code></p>"
            return f'<p class="lead">{_safe(text)}</p>' if lead else f"<p>{_safe(text)}</p>"
        case Table(header, rows):
            head = "".join(f"<th>{_safe(cell)}</th>" for cell in header)
            body = "".join(
                f"<tr>{''.join(f'<td>{_whole_ranges(cell)}</td>' for cell in row)}</tr>\n"
                for row in rows
            )
            table = f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody>\n</table>"
            return f'<div class="wide">{table}</div>'
        case Picture(_, png, caption):
            data = base64.b64encode(png).decode()
            image = f'<img alt="{_safe(caption)}" src="data:image/png;base64,{data}">'
            return f"<figure>{image}<figcaption>{_safe(caption)}</figcaption></figure>"


def _safe(text: str) -> str:
    return escape(printable(text, _LONGEST))


def _whole_ranges(cell: str) -> str:
    """Return a cell that breaks before a range, and not within one."""
    return re.sub(r"\([^()]*\)|\[[^][]*\]", lambda found: f"<span>{found[0]}</span>", _safe(cell))


def _plain(text: str) -> str:
    """Return text that Markdown takes for text."""
    clean = printable(text, _LONGEST)
    return "".join(f"\\{c}" if c in "\\`*_[]<>|#" else c for c in clean)
