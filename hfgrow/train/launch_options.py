"""What goes to `accelerate launch`, read as it reads it before anything is started."""

from collections.abc import Sequence
from importlib import import_module
from typing import Any, NoReturn

from hfgrow.errors import UsageError, printable

_SCRIPT = "script"


def check_launch_options(words: Sequence[str]) -> None:
    """Refuse what `accelerate launch` does not take; it would print all its options, and end.

    Args:
        words: Its options, such as `--num_machines 2`.

    Raises:
        UsageError: One is none, or has no such value.
    """
    if not words:
        return
    # Untyped, and it takes a second to import.
    parser: Any = import_module("accelerate.commands.launch").launch_command_parser()

    def refuse(said: str) -> NoReturn:
        raise UsageError(
            f"accelerate launch, which gets what stands behind --, says: {printable(said, 300)}",
            hint="accelerate launch --help lists its options",
        )

    parser.error = refuse
    if any(word in ("-h", "--help") for word in words):
        refuse("its help was asked for")
    script = parser.parse_args([*words, "--", _SCRIPT]).training_script
    if script != _SCRIPT:
        refuse(f"{script} is no option")
