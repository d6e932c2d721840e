"""Amounts as people type them: 7B, 300e9, 2_000_000."""

import math
import re

from hfgrow.errors import UsageError, printable

UNITS = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}
# Digits, then one of the units.
AMOUNT = re.compile(r"(\d[\d_]*(?:\.\d+)?(?:e\+?\d{1,2})?)\s*([kmbt]?)", re.ASCII | re.IGNORECASE)
MOST = 1e36
# Beyond it more digits stand before the unit than anybody counts.
_MOST_SHOWN = 1e15


def amount(text: str, what: str) -> float:
    """Return the number that a text says, from 1 on.

    Args:
        text: Digits with an exponent or one of the letters K, M, B, T behind them.
        what: The option that it is given for, as the start of the message.

    Raises:
        UsageError: It is no such number.
    """
    found = AMOUNT.fullmatch(text.strip())
    value = float(found[1].replace("_", "")) * UNITS[found[2].upper()] if found else math.nan
    if not 1 <= value <= MOST:
        raise UsageError(f"{what} cannot be {printable(text)}; expected a number such as 7B or 3e9")
    return value


def shown(value: float) -> str:
    """Return a number of parameters or tokens with two decimals of its unit: 15.84 B."""
    if value >= _MOST_SHOWN:
        return f"{value:.3g}"
    for unit in ("T", "B", "M", "K"):
        # What rounds up to 1000 of a unit is one of the next.
        if value >= UNITS[unit] * (1 - 5e-6):
            return f"{value / UNITS[unit]:,.2f} {unit}"
    return f"{value:.0f}"
