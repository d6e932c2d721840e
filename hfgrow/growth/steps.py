"""The steps of a growth: read from YAML, typed, checked, planned, and an output named after them.

- zero-depth: {g: 2}
- hyperclone-noisy: {hidden-size: 864, seed: 1}
- untie
"""

import difflib
import json
import re
import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from hfgrow.checkpoint.derived.grown import checked
from hfgrow.checkpoint.derived.release import check_release
from hfgrow.checkpoint.learned_maps import open_maps
from hfgrow.checkpoint.strict import parse_yaml, read_bounded
from hfgrow.errors import GrowthError, UsageError, command, printable
from hfgrow.growth.mergekit import Passthrough, is_recipe, of_slices
from hfgrow.growth.proven_growths import check_proven, with_suggestion
from hfgrow.lineage.describe import describe_step
from hfgrow.plan.operators import ALL_OPERATORS, MAX_STEPS, OPERATORS, apply
from hfgrow.plan.operators.operator import Mark, Parameter, is_argument
from hfgrow.plan.plan import GrowthPlan, GrowthStep, with_dtype

_MAX_NBYTES = 1 << 16
# 1e-3 is a number to people and JSON, but text to YAML 1.1.
_SCIENTIFIC = re.compile(r"[-+]?\d+[eE][-+]?\d+", re.ASCII)


@dataclass(frozen=True, slots=True)
class StepsFile:
    """What a file asks for.

    Attributes:
        steps: The operators, in order, with their arguments.
        passthrough: What a recipe of mergekit says besides; None if it is none.
    """

    steps: list[tuple[str, dict[str, object]]]
    passthrough: Passthrough | None = None


def read_steps(path: Path | Traversable) -> StepsFile:
    """Read the steps of a growth.

    Args:
        path: A YAML list. An entry is the name of an operator, or a mapping from the name to the
            arguments, as `--help` shows them, with or without `-` for `_`. Or a passthrough recipe
            of mergekit: slices of one model, which is what `partial` does, or `zero-depth` where
            slices are scaled to add nothing; the name of the model is not read.

    Raises:
        UsageError: The file cannot be read, is no such list, or names an operator or argument that
            is none.
    """
    shown = printable(path, 200)
    raw = read_bounded(path, _MAX_NBYTES, f"the steps {shown}", verb="have")
    try:
        content = parse_yaml(raw)
    except UsageError as error:
        raise UsageError(f"the steps {shown}: {error}", hint=error.hint) from error
    if is_recipe(content):
        passthrough = of_slices(f"the steps {shown}", content)
        return StepsFile(passthrough.steps, passthrough)
    if not isinstance(content, list) or not content:
        kind = type(content).__name__
        kind = {"dict": "a mapping", "str": "a text"}.get(kind, f"a {kind}")
        found = "nothing" if content in (None, []) else kind
        trains = isinstance(content, dict) and "stages" in content
        raise UsageError(
            f"the steps {shown} hold {found}, not a list of operators",
            hint=f"a recipe with stages is run by {command(f'train {shlex.quote(shown)}')}"
            if trains
            else "such as: - stack: {g: 2}",
        )
    if len(content) > MAX_STEPS:
        raise UsageError(f"the steps {shown} are {len(content)}, more than {MAX_STEPS}")
    return StepsFile([_step(f"entry {i} of {shown}", entry) for i, entry in enumerate(content, 1)])


def _step(where: str, entry: Any) -> tuple[str, dict[str, object]]:
    if isinstance(entry, str):
        entry = {entry: None}
    if not isinstance(entry, dict) or len(entry) != 1:
        raise UsageError(
            f"{where} is not one operator with its arguments", hint="such as: - stack: {g: 2}"
        )
    ((name, given),) = entry.items()
    if not isinstance(name, str) or name not in OPERATORS:
        raise UsageError(
            f"{where}: there is no operator {printable(name)}", hint=nearest_operator(name)
        )
    known = [parameter.name for parameter in OPERATORS[name].parameters]
    if given is None:
        given = {}
    if not isinstance(given, dict):
        raise UsageError(
            f"{where}: the arguments of {name} are {printable(repr(given))}, not a mapping",
            hint=f"such as: - {name}: {{{known[0]}: ...}}" if known else f"such as: - {name}",
        )
    arguments: dict[str, object] = {}
    for key, value in given.items():
        argument = str(key).replace("-", "_")
        if argument not in known:
            raise UsageError(
                f"{where}: {name} has no argument {printable(key)}",
                hint=f"it has {', '.join(known)}" if known else "",
            )
        if argument in arguments:
            raise UsageError(f"{where}: {printable(key)} is given twice")
        if isinstance(value, str) and _SCIENTIFIC.fullmatch(value):
            value = float(value)
        if not is_argument(value):
            raise UsageError(
                f"{where}: {printable(key)} cannot be {printable(repr(value))}",
                hint=f"hfgrow operators {name} says what it takes",
            )
        arguments[argument] = value
    return name, arguments


def nearest_operator(name: object) -> str:
    """Return the hint to the operator that is spelled most like a name."""
    found = difflib.get_close_matches(str(name), OPERATORS, n=1)
    return f"did you mean {found[0]}?" if found else "hfgrow operators lists them"


Step = tuple[str, dict[str, object]]
# A repository's name has at most 96 characters, and the base's name comes first.
_MAX_SUFFIX = 60
_NOT_NAMED = frozenset({Mark.VARIANT, Mark.OUTCOME})


def suffix_of_steps(steps: Sequence[tuple[str, Mapping[str, object]]]) -> str:
    """Return how an output is named after its steps; many of them are named by a hash."""
    suffix = "-".join(suffix_of(operator, arguments) for operator, arguments in steps)
    if len(suffix) <= _MAX_SUFFIX or len(steps) == 1:
        return suffix
    text = json.dumps([[operator, dict(arguments)] for operator, arguments in steps], default=str)
    return f"{len(steps)}-steps-{sha256(text.encode()).hexdigest()[:8]}"


def suffix_of(operator: str, arguments: Mapping[str, object]) -> str:
    """Return how an output is named after one step, such as `stack-g4` or `lemon-hs864`.

    Defaults are left out, and what tells variants of one growth apart, such as seeds and amounts.
    """
    found = ALL_OPERATORS[operator].parameters if operator in ALL_OPERATORS else ()
    known = {parameter.name: parameter for parameter in found}
    named = [key for key, parameter in known.items() if not parameter.marks & _NOT_NAMED]
    parts = [operator]
    for key, value in arguments.items():
        parameter = known.get(key, Parameter(key, object, ""))
        is_default = value == parameter.default and Mark.NAMED not in parameter.marks
        if value is None or is_default or parameter.marks & _NOT_NAMED:
            continue
        text = re.sub(r"[^\w.-]", "", str(value).replace("*", "x").replace(":", "to"))
        if isinstance(value, bool):
            parts.append(key.replace("_", "-") if value else f"no-{key.replace('_', '-')}")
        else:
            parts.append(text if isinstance(value, str) else f"{_label(key, named)}{text}")
    return "-".join(parts)


def _label(key: str, keys: Collection[str]) -> str:
    """Return the initials of an argument's name, or the name if another has the same initials."""
    initials = _initials(key)
    others = [other for other in keys if other != key and _initials(other) == initials]
    return key.replace("_", "") if others else initials


def _initials(key: str) -> str:
    return "".join(word[0] for word in key.split("_") if word)


def apply_step(
    plan: GrowthPlan,
    operator: str,
    arguments: Mapping[str, object],
    maps: Path | None = None,
    *,
    is_draft: bool = False,
) -> GrowthPlan:
    """Apply an operator, its maps opened where it needs them.

    Args:
        plan: The plan to grow.
        operator: A name in the table.
        maps: The folder where the maps of learned growths lie.
        is_draft: Whether a plan will do whose maps are not there yet.

    Raises:
        UsageError: No such operator, or arguments that do not fit; of drafts, that cannot be.
        ModelError: The maps are not there, or not those of this growth.
    """
    if plan.derived is None:
        return apply(plan, operator, arguments, None if is_draft else partial(open_maps, maps))
    try:
        return checked(plan, apply(plan, operator, arguments))
    except UsageError as error:
        raise with_suggestion(plan, error, operator) from error


def arguments_of(step: GrowthStep) -> dict[str, object]:
    """Return the arguments of a step that some hfgrow has recorded, an older one perhaps."""
    row = ALL_OPERATORS.get(step.operator)
    return {**(row.before if row else {}), **step.arguments}


# The operators to apply, in order: a name in the table, and its arguments by name.
Steps = Sequence[tuple[str, Mapping[str, object]]]


def check_steps(steps: Steps) -> None:
    """Refuse what is no list of names with their arguments.

    Raises:
        UsageError: It is none.
    """
    for step in steps:
        fits = isinstance(step, tuple | list) and len(step) == 2
        if not fits or not isinstance(step[0], str) or not isinstance(step[1], Mapping):
            raise UsageError(
                f"the growth step {printable(repr(step), 80)} is no name with arguments",
                hint='steps=[("stack", {"g": 4})]; without arguments ("untie", {})',
            )


def check_candidates(base: GrowthPlan, steps: Sequence[Step]) -> None:
    """Make sure that a model can grow by each of several steps alone.

    Raises:
        UsageError: By one it cannot, or two are the same.
    """
    names = [describe_step(*step) for step in steps]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UsageError(f"{twice} is named twice")
    for step, name in zip(steps, names, strict=True):
        try:
            planned(base, [step])
        except GrowthError as error:
            raise UsageError(f"{name}: {error}", hint=error.hint) from error


def planned(
    base: GrowthPlan,
    steps: Steps,
    dtype: str | None = None,
    maps: Path | None = None,
    *,
    is_draft: bool = False,
    untested: bool = False,
) -> GrowthPlan:
    """Return the plan of the grown model.

    Args:
        steps: The operators to apply, in order.
        dtype: Convert every tensor, as config.json names dtypes.
        maps: The folder with the maps of learned steps.
        is_draft: Whether the plan is only shown, and may lack those.
        untested: Whether a derived family may grow in ways that were not proven.

    Raises:
        UsageError: There is no step, or one of them cannot be.
        ModelError: The family is derived, and was not proven to grow so, or its config is one of
            a newer transformers.
    """
    if not steps:
        raise UsageError("there is no growth step")
    if len(steps) > MAX_STEPS:
        raise UsageError(
            f"{len(steps)} steps are more than the {MAX_STEPS} of one growth",
            hint="grow the result again",
        )
    check_steps(steps)
    plan = with_dtype(base, dtype)
    for i, (operator, arguments) in enumerate(steps, 1):
        for key, value in arguments.items():
            if not is_argument(value):
                raise UsageError(
                    f"{operator}: {key} cannot be {printable(repr(value))}",
                    hint=f"hfgrow operators {operator} says what it takes",
                )
        try:
            plan = apply_step(plan, operator, arguments, maps, is_draft=is_draft)
        except UsageError as error:
            if len(steps) == 1:
                raise
            raise UsageError(
                f"step {i}, {operator}: {error}", hint=error.hint, details={"step": i}
            ) from error
    if base.derived is not None and not untested:
        # What cannot be is refused with its own reason, before what was never tried.
        check_release(base.config)
        check_proven(base.derived, [operator for operator, _ in steps])
    return plan
