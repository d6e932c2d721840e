"""The growing commands, one for each operator and one for a file of steps."""

import inspect
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from hfgrow.checkpoint.layout import parse_nbytes
from hfgrow.errors import GrowthError, Speech, UsageError, printable
from hfgrow.growth.grow import grow
from hfgrow.growth.mergekit import Passthrough
from hfgrow.growth.request import Growth, GrowthRequest
from hfgrow.growth.steps import read_steps
from hfgrow.lineage.describe import describe_step
from hfgrow.plan.operators import OPERATORS
from hfgrow.plan.operators.operator import Operator

from . import options
from .completion import growths
from .growth_text import growth_block, growth_document, plan_text
from .operator_pages import example_of
from .options import Step, extra_parameters, own_parameters, parameter_of, with_extra_steps
from .terminal import OPTIONS, Console, broken, say_block

_SHARED: dict[str, tuple[Any, Any]] = {
    "out": (options.OutOption, None),
    "overwrite": (options.OverwriteOption, False),
    "dry_run": (options.DryRunOption, False),
    "revision": (options.RevisionOption, None),
    "dtype": (options.DtypeOption, None),
    "allow_nonfinite": (options.AllowNonfiniteOption, False),
    "untested": (options.UntestedOption, False),
    "max_shard_size": (options.MaxShardOption, "50GB"),
    "verify": (options.VerifyOption, None),
    "push": (options.PushOption, False),
    "repo": (options.RepoOption, None),
    "private": (options.PrivateOption, None),
    "create_pr": (options.CreatePrOption, False),
    "exist_ok": (options.ExistOkOption, False),
    "token": (options.TokenOption, None),
    "json": (options.JsonOption, False),
    "quiet": (options.QuietOption, False),
}
_APPLY_EXAMPLES = """\
hfgrow apply TinyLlama steps.yaml       # such as: [zero-depth: {g: 2}, untie]
hfgrow apply TinyLlama mergekit.yaml    # passthrough slices of mergekit
hfgrow apply Qwen/Qwen3-4B-Base openseek-mid   # a growth that hfgrow knows
hfgrow apply TinyLlama steps.yaml --dry-run"""
MODEL = parameter_of("model", options.ModelArgument, inspect.Parameter.empty)
# From the values of all parameters, the request without its steps, and who is told.
Work = Callable[[Mapping[str, Any], GrowthRequest, Console], Growth]
_StepsArgument = Annotated[
    str,
    typer.Argument(
        metavar="STEPS",
        help="A YAML list, such as: - stack: {g: 2}; a passthrough recipe of mergekit; or a growth "
        "of hfgrow's: `hfgrow recipes` lists them.",
        autocompletion=growths,
    ),
]


def register(app: typer.Typer) -> None:
    """Add the subcommand of every operator to the program, and that of a file of steps."""
    for operator in OPERATORS.values():
        shown = example_of(operator.name)
        _register(app, operator.name, _operator_command(operator), _help(operator), shown)
    text = "Apply a list of operators in one pass, or a passthrough recipe of mergekit."
    _register(app, "apply", _apply_command(), text, _APPLY_EXAMPLES)


def _register(app: typer.Typer, name: str, run: Callable[..., None], text: str, shown: str) -> None:
    app.command(name, help=text, epilog=shown)(run)


def _operator_command(operator: Operator[...]) -> Callable[..., None]:
    return growing_command(
        [MODEL, *parameters_of(operator)], _by(lambda values: steps_of(operator, values))
    )


def parameters_of(operator: Operator[...]) -> list[inspect.Parameter]:
    """Return what the command of an operator takes besides what all growing commands do."""
    own = own_parameters(operator.parameters)
    return [*own.values(), *extra_parameters(operator, own).values()]


def steps_of(operator: Operator[...], values: Mapping[str, Any]) -> list[Step]:
    """Return the steps that values of an operator's parameters stand for, None being no value.

    Raises:
        UsageError: There is a seed, and nothing that it seeds.
    """
    names = (parameter.name for parameter in operator.parameters)
    arguments = {name: values[name] for name in names if values[name] is not None}
    return with_extra_steps(operator, arguments, values)


def _apply_command() -> Callable[..., None]:
    steps_argument = parameter_of("steps", _StepsArgument, inspect.Parameter.empty)

    def work(values: Mapping[str, Any], request: GrowthRequest, console: Console) -> Growth:
        from hfgrow.train.recipe.files import find_recipe, shipped_recipes

        model, name = values["model"], values["steps"]
        if _is_file_of_steps(model) and not Path(name).is_file():
            # The order of earlier versions.
            model, name = name, model
        try:
            file = find_recipe(name, "growths")
        except UsageError as error:
            known = shipped_recipes("growths")
            if model.removesuffix(".yaml") in known:
                words = shlex.join(["hfgrow", "apply", name, model])
                error.hint = f"the model comes first: {words}"
            elif not error.hint.startswith("did you mean"):
                names = ", ".join(known)
                error.hint = f"a file that holds such as [stack: {{g: 2}}], or one of {names}"
            raise
        found = read_steps(file)
        request = replace(request, model=model, steps=found.steps)
        if found.passthrough:
            request = _as_mergekit_says(found.passthrough, request, name, console)
        try:
            return grow(request, console)
        except GrowthError as error:
            error.speak(_IN_STEPS)
            if "step" in error.details and file != Path(name).expanduser():
                error.hint = (
                    f"{name} is for a model of another shape: hfgrow recipes {name} --copy "
                    "mine.yaml, and change the step there"
                )
            raise

    return growing_command([MODEL, steps_argument], work)


def _as_mergekit_says(
    found: Passthrough, request: GrowthRequest, name: str, console: Console
) -> GrowthRequest:
    """Return a request with what a recipe of mergekit asks for besides its slices."""
    if found.unread:
        unread = printable(", ".join(found.unread), 200)
        console.say(f"Note: {printable(name, 200)} has {unread}, which hfgrow does not read")
    converted = f" --dtype {found.dtype}" if found.dtype and not request.dtype else ""
    typed = [describe_step(*step) for step in found.steps[1:]]
    first = f"hfgrow {describe_typed(found.steps[0], request.model)}{converted}"
    console.say(f"That is: {', then '.join([first, *typed])}")
    return replace(
        request, dtype=request.dtype or found.dtype, num_base_layers=found.num_base_layers
    )


def _key(name: str, value: str) -> str | None:
    """Return an argument as a file of steps has it, and an option as it is typed."""
    if not any(operator.parameter(name) for operator in OPERATORS.values()):
        return OPTIONS.argument(name, value)
    return f"{name}: {value}" if value else name


def _entry(operator: str, given: Mapping[str, str]) -> str:
    row = OPERATORS.get(operator)
    if row is None or not all(map(row.parameter, given)):
        return OPTIONS.growth(operator, given)
    return f"[{operator}: {{{', '.join(f'{key}: {value}' for key, value in given.items())}}}]"


_IN_STEPS = Speech(_key, _entry)


def _is_file_of_steps(name: str) -> bool:
    return Path(name).suffix in (".yaml", ".yml") and Path(name).is_file()


def describe_typed(step: Step, model: str) -> str:
    """Return a step as it is typed behind `hfgrow`."""
    operator, *words = describe_step(*step).split()
    return shlex.join([operator, model, *words])


def _by(steps: Callable[[Mapping[str, Any]], list[Step]]) -> Work:
    """Return the work of a command that grows by steps."""

    def work(values: Mapping[str, Any], request: GrowthRequest, console: Console) -> Growth:
        return grow(replace(request, steps=steps(values)), console)

    return work


def growing_command(own: Sequence[inspect.Parameter], work: Work) -> Callable[..., None]:
    """Return a command with its own parameters and the shared ones.

    Args:
        own: Its own parameters.
        work: Grows, given the values of all parameters and the request without its steps.
    """

    def run(**values: Any) -> None:
        console = Console(as_json=values["json"], quiet=values["quiet"])
        request = _request(values)
        _print(work(values, request, console), request, console)

    parameters = [*own, *(parameter_of(name, *shared) for name, shared in _SHARED.items())]
    parameters.sort(key=lambda parameter: parameter.default is not inspect.Parameter.empty)
    # typer reads the options off the signature, which a function type does not declare.
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # as above
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def _request(values: Mapping[str, Any]) -> GrowthRequest:
    if not values["push"]:
        for name in ("repo", "private", "create_pr", "exist_ok"):
            if values[name] != _SHARED[name][1]:
                option = "public" if values[name] is False else name.replace("_", "-")
                raise UsageError(f"--{option} says how to push", hint="add --push")
    return GrowthRequest(
        model=values["model"],
        steps=(),
        max_shard_nbytes=parse_nbytes(values["max_shard_size"]),
        **{
            name: values[name]
            for name in _SHARED
            if name not in ("max_shard_size", "json", "quiet")
        },
    )


def _print(growth: Growth, request: GrowthRequest, console: Console) -> None:
    if request.dry_run:
        if console.as_json:
            console.result("", growth_document(growth, dry_run=True))
            return
        lines = broken(plan_text(growth).splitlines(), console.width, behind=16)
        console.result("\n".join(lines), {})
        return
    say_block(console, *growth_block(growth))
    for note in growth.pushed.notes if growth.pushed else ():
        console.say(f"Note: {note}")
    console.result(str(growth.out), growth_document(growth, dry_run=False))


def _help(operator: Operator[...]) -> str:
    promise = "Function preserving." if operator.preserves_function else "Not function preserving."
    return f"{operator.summary} {promise} See: hfgrow operators {operator.name}"
