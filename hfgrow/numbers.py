"""Numbers as people say them."""


def count(number: int) -> str:
    """Return a number of parameters: 134.5 M as 135 M."""
    for limit, unit in ((10**9, "B"), (10**6, "M"), (10**3, "K")):
        if number >= limit:
            return f"{_three_digits(number / limit)} {unit}"
    return str(number)


def size(nbytes: int) -> str:
    """Return a number of bytes: 8.01 GB."""
    for limit, unit in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if nbytes >= limit:
            return f"{_three_digits(nbytes / limit)} {unit}"
    return f"{nbytes} B"


def duration(seconds: float) -> str:
    """Return a time to wait: 45 s, 12 min, 3.4 h, 2.1 days."""
    for limit, unit in ((86_400, "days"), (3_600, "h"), (60, "min")):
        if seconds >= 1.5 * limit:
            number = seconds / limit
            return (
                f"{number:.0f} {unit}" if number >= 10 or unit == "min" else f"{number:.1f} {unit}"
            )
    return f"{seconds:.0f} s"


def short_count(number: int) -> str:
    """Return a number of tokens as it stands in a name: 100K, 2B."""
    for limit, unit in ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**3, "K")):
        if number >= limit:
            return f"{number / limit:.3g}{unit}"
    return str(number)


def _three_digits(value: float) -> str:
    return f"{value:.3g}" if value < 999.5 else f"{value:,.0f}"
