"""From what a recipe has wrong to one line: the key path, the value, what was expected."""

import re
from typing import Any

from pydantic import ValidationError

from hfgrow.errors import UsageError, printable

# A kind of fault -> what was expected, where its own words would be those of Python.
_EXPECTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "finite_number": "a finite number",
    "greater_than": "more than {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "less than {lt}",
    "less_than_equal": "at most {le}",
}
_PREFIX = "Input should be "
# A mapping or list by its path -> an example; VALUE is what was given, if that may be meant there.
_EXAMPLES = {
    "data": ("{train: [{path: VALUE}], sequence_length: 1024}", "text/"),
    "data.train": ("[{path: VALUE}]", "text/"),
    "data.train.N": ("{path: VALUE}", "text/"),
    "data.validation": ("[{path: VALUE}]", "text/"),
    "data.validation.N": ("{path: VALUE}", "text/"),
    "optimizer": ("{name: VALUE}", "adamw"),
    "optimizer.betas": ("[0.9, 0.95]", ""),
    "checkpoint": ("{every_tokens: VALUE}", "10M"),
    "evaluation": ("{every_tokens: VALUE}", "10M"),
    "stages": ("[{train: {tokens: 1B, learning_rate: 1e-3}}]", ""),
    "stages.N": ("{train: {tokens: 1B, learning_rate: 1e-3}}", ""),
    "stages.N.train": ("{tokens: VALUE, learning_rate: 1e-3}", "1B"),
    "stages.N.grow": ("{operator: VALUE, g: 2}", "stack"),
    "trackers": ("[VALUE]", "tensorboard"),
    "push": ("{repo: VALUE}", "you/name"),
    "world": ("{processes: 2}", ""),
}
_NUMBER = re.compile(r"(?<=\.)\d+", re.ASCII)
_WORD = re.compile(r"[A-Za-z0-9][\w./-]{0,99}", re.ASCII)


def refused(error: ValidationError, content: object, where: str) -> UsageError:
    """Return the refusal of a recipe: its first fault in words, the paths of the others as hint.

    Args:
        error: What pydantic found.
        content: The recipe as it was read.
        where: How messages name the file.
    """
    faults = {_path(fault, content): fault for fault in reversed(error.errors(include_url=False))}
    # A list with a faulty entry is also called too short.
    paths = [p for p in faults if not any(other.startswith(f"{p}.") for other in faults)][::-1]
    more = printable(", ".join(paths[1:]), 300)
    hint = f"wrong too: {more}" if more else ""
    return UsageError(f"{where}: {_said(faults[paths[0]], paths[0])}", hint=hint)


def _said(fault: Any, path: str) -> str:
    kind, context = fault["type"], fault.get("ctx", {})
    if kind == "unknown":
        near = context["near"]
        told = f"the keys here are {near}" if ", " in near else f"did you mean {near}?"
        return f"there is no key {path} (= {_shown(fault['input'])}); {told}"
    if kind in ("missing", "union_tag_not_found"):
        return f"{path} is missing"
    if kind == "union_tag_invalid":
        return f"{path} is {_shown(context['tag'])}; expected {context['expected_tags']}"
    if kind in ("too_short", "too_long"):
        bound = f"at least {context['min_length']}" if kind == "too_short" else ""
        bound = bound or f"at most {context['max_length']}"
        return f"{path} has {context['actual_length']} entries; expected {bound}"
    known = _EXPECTED.get(kind)
    words = known.format(**context) if known else fault["msg"].removeprefix(_PREFIX)
    example = _example(path, fault["input"]) if words in ("a mapping", "a list") else ""
    return f"{path} is {_shown(fault['input'])}; expected {words}{example}"


def _example(path: str, value: object) -> str:
    """Return what could stand at a path, with the value in it where it is text."""
    example, usual = _EXAMPLES.get(_NUMBER.sub("N", path), ("", ""))
    given = value if isinstance(value, str) and _WORD.fullmatch(value) else usual
    return f", such as {example.replace('VALUE', given)}" if example else ""


def _path(fault: Any, content: Any) -> str:
    """Return where a fault stands in what was read; pydantic names its own alternatives too."""
    path: list[str] = []
    *_, last = fault["loc"] or (None,)
    for part in fault["loc"]:
        try:
            content = content[part]
        except (KeyError, IndexError, TypeError):
            if part != last or not isinstance(content, dict | list):
                continue
        path.append(printable(part))
    if fault["type"].startswith("union_tag"):
        path.append(fault["ctx"]["discriminator"].strip("'"))
    return ".".join(path) or "the recipe"


def _shown(value: object) -> str:
    return "null" if value is None else printable(repr(value))
