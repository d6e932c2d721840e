"""The options of commands: those that many share, those of an operator, and those that add a step.

They are declared once, so that they read the same everywhere.
"""

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

from hfgrow.errors import UsageError
from hfgrow.plan.operators import OPERATORS
from hfgrow.plan.operators.operator import Operator, Parameter

from .completion import aliases, dtypes, operators, recipes, studies
from .help_pages import ALWAYS, HUB, OUTPUT

# As other tools call them.
_SHORT_DTYPES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32", "fp64": "float64"}
MODEL_HELP = "Folder, alias, org/name, hf://org/name@rev or Hub URL."

ModelArgument = Annotated[
    str, typer.Argument(metavar="MODEL", help=MODEL_HELP, autocompletion=aliases)
]
RecipeArgument = Annotated[
    str,
    typer.Argument(
        metavar="RECIPE",
        help="A YAML file, or a recipe of hfgrow's: `hfgrow recipes` lists them, and "
        "`hfgrow recipes reference` has every key.",
        autocompletion=recipes,
    ),
]
StudyArgument = Annotated[
    str,
    typer.Argument(
        metavar="STUDY",
        help="A YAML file, or a study of hfgrow's: `hfgrow recipes` lists them.",
        autocompletion=studies,
    ),
]
OperatorArgument = Annotated[
    str | None,
    typer.Argument(metavar="NAME", help="One operator.", autocompletion=operators),
]
FolderArgument = Annotated[Path, typer.Argument(metavar="FOLDER", help="A model grown by hfgrow.")]
RevisionOption = Annotated[
    str | None,
    typer.Option("--revision", help="Branch, tag or commit of the model.", rich_help_panel=HUB),
]
TokenOption = Annotated[
    str | None,
    typer.Option(
        "--token",
        help="Hub token; HF_TOKEN or `hf auth login` keep it out of the shell's history.",
        rich_help_panel=HUB,
    ),
]
NameOption = Annotated[
    str | None, typer.Option("--name", help="Configuration of a dataset of the Hub.")
]
JsonOption = Annotated[
    bool,
    typer.Option(
        "--json", help="One JSON document on stdout, also on error.", rich_help_panel=ALWAYS
    ),
]
QuietOption = Annotated[
    bool, typer.Option("--quiet", "-q", help="Only the result on stdout.", rich_help_panel=ALWAYS)
]


def out_option(help: str) -> Any:
    """Return the option of a folder that a command makes."""
    return typer.Option("--out", "-o", metavar="DIR", help=help, rich_help_panel=OUTPUT)


OutOption = Annotated[Path | None, out_option("Output folder.  [default: ./BASE-OPERATOR-...]")]
OverwriteOption = Annotated[
    bool,
    typer.Option(
        "--overwrite",
        help="Replace an existing output, once the new one is complete.",
        rich_help_panel=OUTPUT,
    ),
]
DryRunOption = Annotated[
    bool,
    typer.Option(
        "--dry-run", help="Print the plan; write and download nothing.", rich_help_panel=OUTPUT
    ),
]
DtypeOption = Annotated[
    str | None,
    typer.Option(
        "--dtype",
        metavar="DTYPE",
        help="Convert all tensors: bfloat16, float16, float32, float64.  [default: none]",
        autocompletion=dtypes,
        callback=lambda name: _SHORT_DTYPES.get(name, name),
        rich_help_panel=OUTPUT,
    ),
]
AllowNonfiniteOption = Annotated[
    bool,
    typer.Option(
        "--allow-nonfinite",
        help="Grow weights that hold NaN or infinity too.",
        rich_help_panel=OUTPUT,
    ),
]
UntestedOption = Annotated[
    bool,
    typer.Option("--untested", help="Grow a type that was not proven with this transformers too."),
]
MaxShardOption = Annotated[
    str,
    typer.Option(
        "--max-shard-size",
        metavar="SIZE",
        help="Most tensor bytes in one file.",
        rich_help_panel=OUTPUT,
    ),
]
VerifyOption = Annotated[
    bool | None,
    typer.Option(
        "--verify/--no-verify",
        help="Load with transformers, hash, measure logits.  [default: with --push]",
        show_default=False,
        rich_help_panel=OUTPUT,
    ),
]
PushOption = Annotated[
    bool, typer.Option("--push", help="Push the grown model to the Hub.", rich_help_panel=HUB)
]
RepoOption = Annotated[
    str | None,
    typer.Option(
        "--repo",
        metavar="NAME",
        help="Target.  [default: YOU/BASE-OPERATOR-...]",
        rich_help_panel=HUB,
    ),
]
PrivateOption = Annotated[
    bool | None,
    typer.Option(
        "--private/--public",
        help="Visibility of a new repository.  [default: as the base]",
        show_default=False,
        rich_help_panel=HUB,
    ),
]
CreatePrOption = Annotated[
    bool, typer.Option("--create-pr", help="Push as a pull request.", rich_help_panel=HUB)
]
ExistOkOption = Annotated[
    bool,
    typer.Option(
        "--exist-ok",
        help="Push into a repository that hfgrow did not make.",
        rich_help_panel=HUB,
    ),
]


def own_parameters(parameters: Iterable[Parameter]) -> dict[str, inspect.Parameter]:
    """Return an operator's arguments as command-line parameters."""
    return {parameter.name: _declared(parameter) for parameter in parameters}


def _declared(parameter: Parameter) -> inspect.Parameter:
    name, option = parameter.name, typed(parameter)
    if parameter.is_positional:
        declared: Any = typer.Argument(metavar=option, help=parameter.help)
    elif bool in parameter.types:
        declared = typer.Option(f"{option}/--no-{option[2:]}", help=parameter.help)
    else:
        declared = typer.Option(option, help=parameter.help)
    default = inspect.Parameter.empty if parameter.is_required else parameter.default
    return parameter_of(name, annotated(parameter.type, declared), default)


def typed(parameter: Parameter) -> str:
    """Return how an argument is typed: `PATTERN` or `--hidden-size`."""
    if parameter.is_positional:
        return parameter.name.upper()
    return f"--{parameter.name.replace('_', '-')}"


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
        more: Arguments of the step that the option fixes.
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
    more: Mapping[str, object] = field(default_factory=dict)


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
        "damp_repeats",
        Annotated[
            float | None,
            typer.Option(
                "--damp-repeats", metavar="A", help="Then scale what stands r times by r^-A."
            ),
        ],
        operator="branch-scale",
        argument="exponent",
        more={"repeats": True},
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
    operator: Operator[...], own: Mapping[str, inspect.Parameter]
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
    operator: Operator[...], arguments: dict[str, object], values: Mapping[str, Any]
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
        step.update(extra.more)
        if extra.has_seed and seed is not None:
            step["seed"] = seed
        (before if extra.first else after).append((extra.operator, step))
    seeded = "seed" in arguments or any("seed" in step for _, step in after)
    if seed is not None and not seeded:
        raise UsageError("--seed is for --noise-paper", hint="add --noise-paper 0.2")
    return [*before, (operator.name, arguments), *after]


def _offered(operator: Operator[...]) -> list[ExtraStep]:
    """Return the extra steps that exist and go with an operator, which is none of them itself."""
    if operator.name in {extra.operator for extra in EXTRA_STEPS}:
        return []
    return [
        extra
        for extra in EXTRA_STEPS
        if extra.operator in OPERATORS and operator.axis in extra.axes
    ]
