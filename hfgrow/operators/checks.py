"""Checks of numbers that operators are told."""

from hfgrow.errors import UsageError, printable

MAX_SEED = (1 << 32) - 1


def check_amount(name: str, value: float) -> None:
    """Refuse an amount that is no number from 0 to 1.

    Raises:
        UsageError: It is not.
    """
    if not 0 <= value <= 1:
        raise UsageError(f"--{name} must be from 0 to 1, not {printable(value, 40)}")


def check_seed(seed: int) -> None:
    """Refuse a seed that other programs could not read back.

    Raises:
        UsageError: It is negative or takes more than 32 bits.
    """
    if not 0 <= seed <= MAX_SEED:
        raise UsageError(f"--seed must be from 0 to {MAX_SEED}, not {printable(seed, 40)}")
