"""The growing commands: one for each operator, and one for a file of steps."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from hfgrow.checkpoint.layout import parse_nbytes
from hfgrow.errors import UsageError
from hfgrow.growth.grow import Growth, GrowthRequest, grow
from hfgrow.growth.steps import read_steps
from hfgrow.plan.operators import OPERATORS
from hfgrow.plan.operators.operator import Operator

from . import options
from .extra import Step, extra_parameters, with_extra_steps
from .output import Console
from .report import growth_document, growth_text, plan_text
from .signature import own_parameters, parameter_of

_SHARED: dict[str, tuple[Any, Any]] = {
    "out": (options.OutOption, None),
    "overwrite": (options.OverwriteOption, False),
    "dry_run": (options.DryRunOption, False),
    "revision": (options.RevisionOption, None),
    "dtype": (options.DtypeOption, None),
    "allow_nonfinite": (options.AllowNonfiniteOption, False),
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
_AXES = ("depth", "width")
_STEPS_PANEL = "Steps of a growth"
MODEL = parameter_of("model", options.ModelArgument, inspect.Parameter.empty)
# From the values of all parameters, the request without its steps, and who is told.
Work = Callable[[Mapping[str, Any], GrowthRequest, Console], Growth]
_StepsArgument = Annotated[
    Path, typer.Argument(metavar="STEPS.yaml", help="A YAML list, such as: - stack: {g: 2}")
]


def register(app: typer.Typer) -> None:
    """Add the subcommand of every operator to the program, and that of a file of steps."""
    for operator in OPERATORS.values():
        panel = f"Grow in {operator.axis}" if operator.axis in _AXES else _STEPS_PANEL
        _register(app, operator.name, _operator_command(operator), _help(operator), panel)
    text = "Apply a list of operators in one pass."
    _register(app, "apply", _apply_command(), text, _STEPS_PANEL)


def _register(app: typer.Typer, name: str, run: Callable[..., None], text: str, panel: str) -> None:
    app.command(name, help=text, rich_help_panel=panel, no_args_is_help=True)(run)


def _operator_command(operator: Operator) -> Callable[..., None]:
    own = own_parameters(operator)
    extra = extra_parameters(operator, own)

    def steps(values: Mapping[str, Any]) -> list[Step]:
        arguments = {name: values[name] for name in own if values[name] is not None}
        return with_extra_steps(operator, arguments, values)

    return growing_command([MODEL, *own.values(), *extra.values()], _by(steps))


def _apply_command() -> Callable[..., None]:
    file = parameter_of("steps", _StepsArgument, inspect.Parameter.empty)
    return growing_command([file, MODEL], _by(lambda values: read_steps(values["steps"])))


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
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
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
        console.result(plan_text(growth), growth_document(growth, dry_run=request.dry_run))
        return
    for line in growth_text(growth):
        console.say(line)
    for note in growth.pushed.notes if growth.pushed else ():
        console.say(f"Note: {note}")
    console.result(str(growth.out), growth_document(growth, dry_run=request.dry_run))


def _help(operator: Operator) -> str:
    promise = "Function preserving." if operator.preserves_function else "Not function preserving."
    return f"{operator.summary} {promise} See: hfgrow operators {operator.name}"
