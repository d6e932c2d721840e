"""Rows of cells as a table: lines of text, or Markdown."""

from collections.abc import Iterable, Sequence


def text_table(rows: Sequence[Sequence[str]], *, left: Sequence[int]) -> list[str]:
    """Return lines whose cells stand below each other, numbers to the right.

    Args:
        rows: The rows, the header first.
        left: The columns of words, from 0.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if i in left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def markdown_table(
    header: Sequence[str], rows: Iterable[Sequence[str]], *, of_numbers: bool = False
) -> list[str]:
    """Return the lines of a table in Markdown.

    Args:
        header: The names of the columns.
        rows: The rows, nothing in them that Markdown reads as more than text.
        of_numbers: Whether every column but the first stands to the right.
    """
    rule = f"|{'---|' * len(header)}"
    if of_numbers:
        rule = f"| {' | '.join(['---', *['---:'] * (len(header) - 1)])} |"
    return [_markdown_row(header), rule, *map(_markdown_row, rows)]


def _markdown_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
