"""Amounts as people type them: 7B, 300e9, 2_000_000."""

import math
import re

from hfgrow.errors import UsageError, printable

_UNITS = {"": 1.0, "K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}
_AMOUNT = re.compile(r"(\d[\d_]*(?:\.\d+)?(?:e\+?\d{1,3})?)\s*([kmbt]?)", re.ASCII | re.IGNORECASE)
MOST = 1e36


def amount(text: str, what: str) -> float:
    """Return the number that a text says, from 1 on.

    Args:
        text: Digits with an exponent or one of the letters K, M, B, T behind them.
        what: The option that it is given for, as the start of the message.

    Raises:
        UsageError: It is no such number.
    """
    found = _AMOUNT.fullmatch(text.strip())
    value = float(found[1].replace("_", "")) * _UNITS[found[2].upper()] if found else math.nan
    if not 1 <= value <= MOST:
        raise UsageError(f"{what} cannot be {printable(text)}; expected a number such as 7B or 3e9")
    return value


def shown(value: float) -> str:
    """Return a number of parameters or tokens with two decimals of its unit: 15.84 B."""
    for unit in ("T", "B", "M", "K"):
        # What rounds up to 1000 of a unit is one of the next.
        if value >= _UNITS[unit] * (1 - 5e-6):
            return f"{value / _UNITS[unit]:,.2f} {unit}"
    return f"{value:.0f}"
