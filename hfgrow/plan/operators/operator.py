"""An operator: one function with a decorator, which says all that anybody asks about it.

    @operator(
        "stack",
        axis="depth",
        preserves_function=False,
        formula="o[i] = i mod l",
        paper="Du et al. 2024, Stacking Your Transformers, https://arxiv.org/abs/2405.15319",
        tags=("depth-upscaling", "stacking"),
    )
    def stack(own: Operator[...], base: GrowthPlan, *, g: int | None = None) -> GrowthPlan:
        ...

The signature and the `Args` section of the docstring are read once, here; the
subcommand and its help, the table of operators, files of steps and recipes are made from
`Operator.parameters`. Arguments before the `*` are typed without their names. Below are the
arguments that operators share, with their checks.
"""

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field, replace
from enum import Enum
from types import UnionType
from typing import (
    Annotated,
    Any,
    Concatenate,
    Generic,
    Literal,
    ParamSpec,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from hfgrow.errors import UsageError, argument, command, growth, printable
from hfgrow.plan.depth import check_num_layers
from hfgrow.plan.plan import GrowthPlan, GrowthStep
from hfgrow.plan.width_maps import Widths

P = ParamSpec("P")
# What several operators come from.
STACKING_PAPER = "Du et al. 2024, Stacking Your Transformers, https://arxiv.org/abs/2405.15319"


class Mark(Enum):
    """What is special about a parameter; it stands in its `Annotated` type."""

    VARIANT = "tells variants of one growth apart, so outputs are not named after it"
    NAMED = "outputs are named after it, be it the default"
    OUTCOME = "says what came out; nobody asks for it"
    BY_RUN = "a training run decides it"


@dataclass(frozen=True, slots=True)
class Parameter:
    """An argument of an operator.

    Attributes:
        name: Its name, as in Python.
        type: Its type, bare of `Annotated`.
        help: What it is, on one line.
        default: None if it is required.
        is_required: Whether it has to be given.
        is_positional: Whether it is typed without its name.
        marks: What is special about it.
    """

    name: str
    type: Any
    help: str
    default: Any = None
    is_required: bool = False
    is_positional: bool = False
    marks: frozenset[Mark] = frozenset()

    @property
    def types(self) -> tuple[Any, ...]:
        """The types that a value can have, one by one."""
        is_union = get_origin(self.type) in (Union, UnionType)
        return get_args(self.type) if is_union else (self.type,)

    def fits(self, value: object) -> bool:
        """Say whether a value is one; a whole number is a float too, a bool is only a bool."""
        return any(_fits(value, kind) for kind in self.types)


def _fits(value: object, kind: Any) -> bool:
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, int | float if kind is float else kind)


@dataclass(frozen=True, slots=True)
class LearningCost:
    """What a step cost that learned something; None is unknown.

    Attributes:
        tokens: What was learned from, all steps of the optimizer together.
        exact_flops: The FLOPs of matrices and attention, forward and backward.
        seconds: How long it took, on one device.
    """

    tokens: int | None
    exact_flops: float | None
    seconds: float | None


@dataclass(frozen=True, slots=True)
class Operator(Generic[P]):
    """A growth operator: called with a plan and its arguments, it returns the grown plan.

    Attributes:
        name: Its name, on the command line and in lineage.
        function: What the decorator stands on; it is given the operator itself first.
        parameters: The arguments that a step has.
        axis: `depth`, `width`, `experts`, `depth and width`, or `weights` if no size changes.
        preserves_function: Whether the grown model computes what the base does, with the default
            options; what an applied step promises stands in its `GrowthStep`.
        formula: In depth the layer map, 0-based, `l` layers to `L`; in width the maps of the axes,
            `d` units to `D`, `n` copies of a unit.
        paper: The work it comes from, with its address.
        tags: What the model card says of it.
        summary: What it does, in one sentence.
        after: The operator that it is listed behind; the last of its axis if empty.
        needs_maps: Whether it grows by learned maps, which `apply` hands it.
        has_command: Whether it has a command of its own, because a step alone does not say all that
            it needs; there is none made from its parameters then.
        cost: From the arguments of a recorded step, what it cost to learn; None costs nothing.
        before: What a record of an older hfgrow means that lacks these arguments.
        starts_from_none: Whether it can grow a model without layers.
        adds_silent_layers: Whether its new layers add nothing, or what a mask lets through; a
            family that is derived has a proof of those, and one of copies.
        unties: Whether the head gets weights of its own.
    """

    name: str
    function: Callable[Concatenate["Operator[...]", GrowthPlan, P], GrowthPlan]
    parameters: tuple[Parameter, ...]
    _: KW_ONLY
    axis: str
    preserves_function: bool
    formula: str
    paper: str
    tags: tuple[str, ...]
    summary: str
    after: str = ""
    needs_maps: bool = False
    has_command: bool = False
    cost: Callable[[Mapping[str, object]], LearningCost] | None = None
    before: Mapping[str, object] = field(default_factory=dict)
    starts_from_none: bool = False
    adds_silent_layers: bool = False
    unties: bool = False
    _defaults: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"Operator({self.name}: {self.summary})"

    def __call__(self, base: GrowthPlan, *args: P.args, **arguments: P.kwargs) -> GrowthPlan:
        """Return the grown plan.

        Raises:
            UsageError: The base cannot grow so.
        """
        if not base.num_hidden_layers and not self.starts_from_none:
            raise UsageError(
                f"{self.name} goes on from layers, and the base has none",
                hint=f"fresh ones first: {growth('progressive', layers=12)}",
            )
        for key, value in self._defaults.items():
            arguments.setdefault(key, value)
        return self.function(self, base, *args, **arguments)

    def parameter(self, name: str) -> Parameter | None:
        """Return a parameter by name."""
        return next((found for found in self.parameters if found.name == name), None)

    def check(self, arguments: Mapping[str, object]) -> None:
        """Refuse arguments that are not the operator's.

        Raises:
            UsageError: One is unknown, missing, or no value of it.
        """
        told = command(self.name, help="") if self.has_command else f"hfgrow operators {self.name}"
        for key, value in arguments.items():
            parameter = self.parameter(key)
            if parameter is None:
                raise UsageError(f"{self.name} has no argument {printable(key)}")
            if not parameter.fits(value):
                raise UsageError(
                    f"{self.name}: {key} cannot be {printable(repr(value))}",
                    hint=f"{told} says what it takes",
                )
        for parameter in self.parameters:
            if parameter.is_required and parameter.name not in arguments:
                raise UsageError(
                    f"{self.name} needs the argument {parameter.name}",
                    hint=f"{told} says what it takes",
                )

    def step(
        self, arguments: Mapping[str, object], *, preserves_function: bool | None = None
    ) -> GrowthStep:
        """Return the record of a step, to which the engine adds the layer map.

        Args:
            arguments: What was asked for, every default spelt out.
            preserves_function: The promise, where it depends on the arguments.
        """
        promise = self.preserves_function if preserves_function is None else preserves_function
        return GrowthStep(self.name, dict(arguments), (), promise)

    def variant(
        self, name: str, *, formula: str, paper: str, summary: str, **defaults: Any
    ) -> "Operator[P]":
        """Return the same function as another operator, with other defaults."""
        parameters = (
            replace(one, default=defaults[one.name]) if one.name in defaults else one
            for one in self.parameters
        )
        return replace(
            self,
            name=name,
            parameters=tuple(parameters),
            formula=formula,
            paper=paper,
            summary=summary,
            _defaults={**self._defaults, **defaults},
        )


def operator(
    name: str,
    *,
    axis: str,
    preserves_function: bool,
    formula: str,
    paper: str,
    tags: tuple[str, ...] = (),
    after: str = "",
    arguments: type | None = None,
    needs_maps: bool = False,
    has_command: bool = False,
    cost: Callable[[Mapping[str, object]], LearningCost] | None = None,
    before: Mapping[str, object] | None = None,
    starts_from_none: bool = False,
    adds_silent_layers: bool = False,
    unties: bool = False,
) -> Callable[[Callable[Concatenate[Operator[...], GrowthPlan, P], GrowthPlan]], Operator[P]]:
    """Make an operator of the function below; `Operator` says what each word means.

    Many arguments are declared by a dataclass, `arguments`; the function takes any then.
    """

    def made(
        function: Callable[Concatenate[Operator[...], GrowthPlan, P], GrowthPlan],
    ) -> Operator[P]:
        return Operator(
            name,
            function,
            tuple(_parameters(arguments or function, 0 if arguments else 2)),
            axis=axis,
            preserves_function=preserves_function,
            formula=formula,
            paper=paper,
            tags=tags,
            summary=(function.__doc__ or "").partition("\n")[0],
            after=after,
            needs_maps=needs_maps,
            has_command=has_command,
            cost=cost,
            before=before or {},
            starts_from_none=starts_from_none,
            adds_silent_layers=adds_silent_layers,
            unties=unties,
        )

    return made


def _parameters(declared: Any, num_handed: int) -> list[Parameter]:
    """Read the parameters of a function or dataclass, without the first ones."""
    helps = _helps(inspect.getdoc(declared) or "")
    hints = get_type_hints(declared, include_extras=True)
    found = []
    for one in list(inspect.signature(declared).parameters.values())[num_handed:]:
        hint = hints[one.name]
        kind, *told = get_args(hint) if get_origin(hint) is Annotated else (hint,)
        shared = next((text for text in told if isinstance(text, str)), "")
        is_required = one.default is inspect.Parameter.empty
        found.append(
            Parameter(
                one.name,
                kind,
                helps.get(one.name) or shared,
                default=None if is_required else one.default,
                is_required=is_required,
                is_positional=one.kind is not inspect.Parameter.KEYWORD_ONLY,
                marks=frozenset(mark for mark in told if isinstance(mark, Mark)),
            )
        )
    return found


def _helps(docstring: str) -> dict[str, str]:
    """Read what a Google docstring says of each argument or attribute."""
    section = re.search(
        r"^(?:Args|Attributes):\n(.*?)(?=^\S|\Z)", docstring, re.DOTALL | re.MULTILINE
    )
    entries = re.findall(
        r"^    (\w+): (.*?)(?=^    \w+: |\Z)",
        section[1] if section else "",
        re.DOTALL | re.MULTILINE,
    )
    return {name: " ".join(text.split()) for name, text in entries}


MAX_SEED = (1 << 32) - 1


def check_amount(name: str, value: float) -> None:
    """Refuse an amount that is no number from 0 to 1.

    Raises:
        UsageError: It is not.
    """
    if not 0 <= value <= 1:
        raise UsageError(f"{argument(name)} must be from 0 to 1, not {printable(value, 40)}")


def check_seed(seed: int) -> None:
    """Refuse a seed that other programs could not read back.

    Raises:
        UsageError: It is negative or takes more than 32 bits.
    """
    if not 0 <= seed <= MAX_SEED:
        raise UsageError(
            f"{argument('seed')} must be from 0 to {MAX_SEED}, not {printable(seed, 40)}"
        )


def target_layers(base: GrowthPlan, g: int | None, layers: int | None) -> int:
    """Return the number of layers asked for by a growth factor or a target depth.

    Raises:
        UsageError: Both or neither were given, or the target is not deeper than the base.
    """
    num_layers = base.num_hidden_layers
    if (g is None) == (layers is None):
        given = "both were given" if g is not None else "neither was given"
        raise UsageError(
            f"the target depth is either a growth factor {argument('g')} or "
            f"{argument('layers')}; {given}",
            hint=f"try {argument('g', 4)}",
        )
    if g is not None:
        if not num_layers:
            raise UsageError(
                f"the base has no layers to multiply by {argument('g', g)}",
                hint=f"try {argument('layers', 12)}",
            )
        if g < 2:
            raise UsageError(
                f"growth factor g must be at least 2, not {g}", hint=f"try {argument('g', 2)}"
            )
        layers = g * num_layers
    assert layers is not None
    if layers <= num_layers:
        raise UsageError(
            f"{argument('layers', layers)} is not deeper than the base, which has {num_layers} "
            f"layers",
            hint=f"try {argument('layers', 2 * num_layers)}",
        )
    check_num_layers(layers)
    return layers


def target_arguments(g: int | None, layers: int | None) -> dict[str, object]:
    """Return the arguments of `target_layers` as they are recorded."""
    return {"g": g} if g is not None else {"layers": layers}


def check_divides(base: GrowthPlan, name: str, size: int | None) -> int:
    """Return the size of the groups that the layers fall into.

    Raises:
        UsageError: It is not given, or does not divide the number of layers.
    """
    num_layers = base.num_hidden_layers
    if size is None or size < 1 or num_layers % size:
        fitting = [k for k in range(1, num_layers + 1) if num_layers % k == 0]
        wrong = "is not given" if size is None else f"{size} does not divide them"
        # Not all of them as one, where nobody asked for that.
        wanted = max(num_layers // 2, 1) if size is None else size
        nearest = min(fitting, key=lambda k: abs(k - wanted))
        raise UsageError(
            f"{argument(name)} must divide the {num_layers} layers of the base "
            f"({', '.join(map(str, fitting))}), but {wrong}",
            hint=f"try {argument(name, nearest)}",
        )
    return size


GrowthFactor = Annotated[
    int | None,
    "Growth factor of every width: hidden_size, intermediate_size and both kinds of heads.",
]
HiddenSize = Annotated[int | None, "Target hidden_size, the width of the residual stream."]
IntermediateSize = Annotated[int | None, "Target intermediate_size, the neurons of each MLP."]
Heads = Annotated[
    int | None,
    "Target num_attention_heads, the query heads; without grouped queries key-value heads follow.",
]
KeyValueHeads = Annotated[int | None, "Target num_key_value_heads."]
# A number that tells variants of one growth apart.
Amount = Annotated[float, Mark.VARIANT]
NoiseAmount = Annotated[
    Amount,
    "Noise on the copies, relative to the rows it is added to, which cancels in what they compute; "
    "0 leaves copies that training cannot tell apart.",
]
Seed = Annotated[int, Mark.VARIANT, "Seeds what is random; the same seed gives the same bytes."]

_TARGETS = {"hidden": "hidden_size", "ffn": "ffn", "heads": "heads", "kv_heads": "kv_heads"}


def width_arguments(widths: Widths, g: int | None, **more: object) -> dict[str, object]:
    """Return the record of a width operator's arguments, every default spelt out."""
    if g is not None:
        return {"g": g, **more}
    targets = {key: widths.after[axis] for axis, key in _TARGETS.items() if widths.grows(axis)}
    return {**targets, **more}


def check_multiples(operator: str, widths: Widths) -> None:
    """Refuse widths that are no multiples of the base's.

    Raises:
        UsageError: One is not.
    """
    for axis, key in _TARGETS.items():
        if widths.after[axis] % widths.before[axis]:
            raise UsageError(
                f"{operator} copies whole multiples; {key} {widths.after[axis]} is none of "
                f"{widths.before[axis]}",
                hint="hyperclone-noisy takes any width",
            )


# Any reader of JSON has the integers below exactly.
_MAX_ARGUMENT = 1 << 53
_ARGUMENT = re.compile(r"[\w.,+:*\[\]-]{1,4000}", re.ASCII)


def is_argument(value: object) -> bool:
    """Say whether a value can be recorded as an argument of an operator: finite and bounded."""
    match value:
        case bool():
            return True
        case int() | float():
            return abs(value) < _MAX_ARGUMENT
        case str():
            return bool(_ARGUMENT.fullmatch(value))
    return False
