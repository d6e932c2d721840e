"""The options of commands: those that many share, those of an operator, and those that add a step.

They are declared once, so that they read the same everywhere.
"""

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import typer

from hfgrow.errors import UsageError
from hfgrow.lineage.describe import is_positional
from hfgrow.plan.operators import OPERATORS
from hfgrow.plan.operators.operator import Operator

MODEL_HELP = "Folder, alias, org/name, hf://org/name@rev or Hub URL."

ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help=MODEL_HELP)]
FolderArgument = Annotated[Path, typer.Argument(metavar="FOLDER", help="A model grown by hfgrow.")]
RevisionOption = Annotated[
    str | None, typer.Option("--revision", help="Branch, tag or commit of the model.")
]
TokenOption = Annotated[
    str | None,
    typer.Option(
        "--token",
        help="Hub token; HF_TOKEN or `hf auth login` keep it out of the shell's history.",
    ),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="One JSON document on stdout, also on error.")
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Only the result on stdout.")]
OutOption = Annotated[
    Path | None,
    typer.Option(
        "--out", "-o", metavar="DIR", help="Output folder.  [default: ./BASE-OPERATOR-...]"
    ),
]
OverwriteOption = Annotated[
    bool,
    typer.Option("--overwrite", help="Replace an existing output, once the new one is complete."),
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Print the plan; write and download nothing.")
]
DtypeOption = Annotated[
    str | None,
    typer.Option(
        "--dtype",
        help="Convert all tensors: bfloat16, float16, float32, float64.  [default: none]",
    ),
]
AllowNonfiniteOption = Annotated[
    bool, typer.Option("--allow-nonfinite", help="Grow weights that hold NaN or infinity too.")
]
MaxShardOption = Annotated[
    str, typer.Option("--max-shard-size", metavar="SIZE", help="Most tensor bytes in one file.")
]
VerifyOption = Annotated[
    bool | None,
    typer.Option(
        "--verify/--no-verify",
        help="Load with transformers, hash, measure logits.  [default: with --push]",
        show_default=False,
    ),
]
PushOption = Annotated[bool, typer.Option("--push", help="Push the grown model to the Hub.")]
RepoOption = Annotated[
    str | None,
    typer.Option("--repo", metavar="NAME", help="Target.  [default: YOU/BASE-OPERATOR-...]"),
]
PrivateOption = Annotated[
    bool | None,
    typer.Option(
        "--private/--public",
        help="Visibility of a new repository.  [default: as the base]",
        show_default=False,
    ),
]
CreatePrOption = Annotated[bool, typer.Option("--create-pr", help="Push as a pull request.")]
ExistOkOption = Annotated[
    bool, typer.Option("--exist-ok", help="Push into a repository that hfgrow did not make.")
]


def own_parameters(operator: Operator) -> dict[str, inspect.Parameter]:
    """Return the operator's arguments, the plan excepted, as command-line parameters."""
    helps = argument_helps(operator.function)
    hints = get_type_hints(operator.function)
    found = {}
    for parameter in list(inspect.signature(operator.function).parameters.values())[1:]:
        name, text, hint = parameter.name, helps[parameter.name], hints[parameter.name]
        option = name.replace("_", "-")
        if is_positional(operator.name, name):
            declared: Any = typer.Argument(metavar=name.upper(), help=text)
        elif bool in (hint, *get_args(hint)):
            declared = typer.Option(f"--{option}/--no-{option}", help=text)
        else:
            declared = typer.Option(f"--{option}", help=text)
        found[name] = parameter_of(name, annotated(hint, declared), parameter.default)
    return found


def argument_helps(function: Callable[..., object]) -> dict[str, str]:
    """Return the help of each argument, the plan excepted.

    It stands in the `Args` section of a Google docstring, or, where operators share an argument,
    in its annotation.
    """
    section = re.search(
        r"^Args:\n(.*?)(?=^\S|\Z)", inspect.getdoc(function) or "", re.DOTALL | re.MULTILINE
    )
    entries = re.findall(
        r"^    (\w+): (.*?)(?=^    \w+: |\Z)",
        section[1] if section else "",
        re.DOTALL | re.MULTILINE,
    )
    told = {name: " ".join(text.split()) for name, text in entries}
    helps = {}
    hints = get_type_hints(function, include_extras=True)
    for name in list(inspect.signature(function).parameters)[1:]:
        shared = get_args(hints[name])[1] if get_origin(hints[name]) is Annotated else ""
        helps[name] = told.get(name) or str(shared)
    return helps


def annotated(hint: Any, declared: Any) -> Any:
    """Return `Annotated[hint, declared]` for a type that is known only when this runs."""
    subscript: Any = Annotated
    return subscript[hint, declared]


def parameter_of(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    """Return a parameter for a signature that is made when this runs."""
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
    )


Step = tuple[str, dict[str, object]]


@dataclass(frozen=True, slots=True)
class ExtraStep:
    """An option that stands for a step.

    Attributes:
        option: Its name, as in Python.
        annotation: Its type and help.
        operator: The step.
        argument: The step's argument that the option's value is; empty for a flag.
        axes: The operators that have the option, by their axis.
        first: Whether the step comes before the growth, not behind it.
        has_seed: Whether `--seed` goes with it.
    """

    option: str
    annotation: Any
    operator: str
    argument: str
    axes: tuple[str, ...]
    first: bool = False
    has_seed: bool = False


EXTRA_STEPS = (
    ExtraStep(
        "untie",
        Annotated[
            bool, typer.Option("--untie", help="First give tied embeddings a head of their own.")
        ],
        operator="untie",
        argument="",
        axes=("width",),
        first=True,
    ),
    ExtraStep(
        "branch_scale",
        Annotated[
            float | None,
            typer.Option("--branch-scale", metavar="A", help="Then scale branches by (l / L)^A."),
        ],
        operator="branch-scale",
        argument="exponent",
        axes=("depth",),
    ),
    ExtraStep(
        "noise_paper",
        Annotated[
            float | None,
            typer.Option(
                "--noise-paper", metavar="A", help="Then W <- (1 - A) W + A eps, drawn by --seed."
            ),
        ],
        operator="paper-noise",
        argument="amount",
        axes=("depth", "width"),
        has_seed=True,
    ),
)
_SEED = Annotated[int | None, typer.Option("--seed", help="Seeds --noise-paper.  [default: 0]")]


def extra_parameters(
    operator: Operator, own: Mapping[str, inspect.Parameter]
) -> dict[str, inspect.Parameter]:
    """Return the options of the extra steps that go with an operator."""
    found = {}
    for extra in _offered(operator):
        default = None if extra.argument else False
        found[extra.option] = parameter_of(extra.option, extra.annotation, default)
        if extra.has_seed and "seed" not in own:
            found["seed"] = parameter_of("seed", _SEED, None)
    return found


def with_extra_steps(
    operator: Operator, arguments: dict[str, object], values: Mapping[str, Any]
) -> list[Step]:
    """Return the steps of a growth, the extra ones in their places.

    Raises:
        UsageError: There is a seed, and nothing that it seeds.
    """
    before: list[Step] = []
    after: list[Step] = []
    seed = values.get("seed")
    for extra in _offered(operator):
        value = values[extra.option]
        if value is None or value is False:
            continue
        step: dict[str, object] = {extra.argument: value} if extra.argument else {}
        if extra.has_seed and seed is not None:
            step["seed"] = seed
        (before if extra.first else after).append((extra.operator, step))
    seeded = "seed" in arguments or any("seed" in step for _, step in after)
    if seed is not None and not seeded:
        raise UsageError("--seed is for --noise-paper", hint="add --noise-paper 0.2")
    return [*before, (operator.name, arguments), *after]


def _offered(operator: Operator) -> list[ExtraStep]:
    """Return the extra steps that exist and go with an operator, which is none of them itself."""
    if operator.name in {extra.operator for extra in EXTRA_STEPS}:
        return []
    return [
        extra
        for extra in EXTRA_STEPS
        if extra.operator in OPERATORS and operator.axis in extra.axes
    ]
