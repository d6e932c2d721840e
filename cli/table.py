"""Rows of cells as lines of text."""

from collections.abc import Sequence


def table_lines(rows: Sequence[Sequence[str]], left: int) -> list[str]:
    """Return lines whose cells stand below each other, numbers to the right.

    Args:
        rows: The rows, the header first.
        left: The column of words, from 0.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if i == left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
