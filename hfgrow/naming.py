"""What an output is named after its steps: short, and the same for the same request."""

import inspect
import json
import re
from collections.abc import Mapping, Sequence
from hashlib import sha256

from hfgrow.learned_arguments import OUTCOMES
from hfgrow.operators import OPERATORS

# A repository's name has at most 96 characters, and the base's name comes first.
_MAX_SUFFIX = 60
# Amounts and seeds tell variants of one growth apart, not growths.
_AMOUNTS = ("seed", "noise", "amount", "exponent", "mask", "shrink")
# Neither does how long a growth learned, from what, and what came of it.
_LEARNING = ("steps", "batch_tokens", "sequence_length", "lr", "maps", *OUTCOMES)
_NOT_NAMED = (*_AMOUNTS, *_LEARNING)


def suffix_of_steps(steps: Sequence[tuple[str, Mapping[str, object]]]) -> str:
    """Return how an output is named after its steps; many of them are named by a hash."""
    suffix = "-".join(suffix_of(operator, arguments) for operator, arguments in steps)
    if len(suffix) <= _MAX_SUFFIX or len(steps) == 1:
        return suffix
    text = json.dumps([[operator, dict(arguments)] for operator, arguments in steps], default=str)
    return f"{len(steps)}-steps-{sha256(text.encode()).hexdigest()[:8]}"


def suffix_of(operator: str, arguments: Mapping[str, object]) -> str:
    """Return how an output is named after one step, such as `stack-g4` or `lemon-hs864`.

    Defaults, seeds and amounts are left out.
    """
    defaults = _defaults(operator)
    parts = [operator]
    for key, value in arguments.items():
        if value is None or key in _NOT_NAMED or value == defaults.get(key):
            continue
        text = re.sub(r"[^\w.-]", "", str(value).replace("*", "x").replace(":", "to"))
        if isinstance(value, bool):
            parts.append(key.replace("_", "-") if value else f"no-{key.replace('_', '-')}")
        else:
            parts.append(text if isinstance(value, str) else f"{_label(key, defaults)}{text}")
    return "-".join(parts)


def _defaults(operator: str) -> dict[str, object]:
    if operator not in OPERATORS:
        return {}
    parameters = list(inspect.signature(OPERATORS[operator].function).parameters.values())[1:]
    return {parameter.name: parameter.default for parameter in parameters}


def _label(key: str, keys: Mapping[str, object]) -> str:
    """Return the initials of an argument's name, or the name if another has the same initials."""
    initials = _initials(key)
    others = [other for other in keys if other != key and _initials(other) == initials]
    return key.replace("_", "") if others else initials


def _initials(key: str) -> str:
    return "".join(word[0] for word in key.split("_") if word)
