"""Rows of cells as a table: lines of text, or Markdown."""

from collections.abc import Iterable, Iterator, Sequence


def text_table(
    rows: Sequence[Sequence[str]], *, left: Sequence[int], width: int | None = None
) -> list[str]:
    """Return lines whose cells stand below each other, numbers to the right.

    Args:
        rows: The rows, the header first.
        left: The columns of words, from 0.
        width: What a line may take; columns that do not fit stand in a table of their own below,
            behind the first column once more. None fits all.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines: list[str] = []
    for columns in _that_fit(widths, width):
        lines += [""] if lines else []
        lines += [
            "  ".join(
                row[i].ljust(widths[i]) if i in left else row[i].rjust(widths[i]) for i in columns
            ).rstrip()
            for row in rows
        ]
    return lines


def _that_fit(widths: Sequence[int], most: int | None) -> Iterator[list[int]]:
    """Yield the columns of each table; every one of them begins with the first."""
    columns = [0]
    for i, width in enumerate(widths[1:], 1):
        taken = sum(widths[j] + 2 for j in columns)
        if most is not None and taken + width > most and columns[1:]:
            yield columns
            columns = [0]
        columns.append(i)
    yield columns


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
