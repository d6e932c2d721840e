"""One subcommand for each operator: its own arguments, and the options all of them share."""

import inspect
import re
from collections.abc import Callable
from typing import Annotated, Any, get_type_hints

import typer

from hfgrow.checkpoint.layout import parse_nbytes
from hfgrow.errors import UsageError
from hfgrow.job import grow
from hfgrow.operators import OPERATORS, Operator
from hfgrow.request import Growth, GrowthRequest

from . import options
from .output import Console
from .report import growth_document, growth_text, plan_text

_SHARED: dict[str, tuple[Any, Any]] = {
    "out": (options.OutOption, None),
    "overwrite": (options.OverwriteOption, False),
    "dry_run": (options.DryRunOption, False),
    "revision": (options.RevisionOption, None),
    "dtype": (options.DtypeOption, None),
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


def register(app: typer.Typer) -> None:
    """Add the subcommand of every operator to the program."""
    for operator in OPERATORS.values():
        app.command(
            operator.name,
            help=_help(operator),
            rich_help_panel=f"Grow in {operator.axis}",
            no_args_is_help=True,
        )(_command(operator))


def _command(operator: Operator) -> Callable[..., None]:
    own = _own_parameters(operator)

    def run(**values: Any) -> None:
        console = Console(as_json=values["json"], quiet=values["quiet"])
        arguments = {name: values[name] for name in own if values[name] is not None}
        request = _request(operator, arguments, values)
        _print(grow(request, console), request, console)

    parameters = [_parameter("model", options.ModelArgument, inspect.Parameter.empty)]
    parameters += own.values()
    parameters += [_parameter(name, *declared) for name, declared in _SHARED.items()]
    parameters.sort(key=lambda parameter: parameter.default is not inspect.Parameter.empty)
    # typer reads the options off the signature, which a function type does not declare.
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def _request(
    operator: Operator, arguments: dict[str, object], values: dict[str, Any]
) -> GrowthRequest:
    if not values["push"]:
        for name in ("repo", "private", "create_pr", "exist_ok"):
            if values[name] != _SHARED[name][1]:
                option = "public" if values[name] is False else name.replace("_", "-")
                raise UsageError(f"--{option} says how to push", hint="add --push")
    return GrowthRequest(
        model=values["model"],
        steps=[(operator.name, arguments)],
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


def _own_parameters(operator: Operator) -> dict[str, inspect.Parameter]:
    """Turn the operator's arguments, the plan excepted, into command-line parameters."""
    helps = argument_helps(operator.function)
    hints = get_type_hints(operator.function)
    found = {}
    for parameter in list(inspect.signature(operator.function).parameters.values())[1:]:
        text = helps[parameter.name]
        if parameter.default is inspect.Parameter.empty:
            declared: Any = typer.Argument(metavar=parameter.name.upper(), help=text)
        else:
            declared = typer.Option(f"--{parameter.name.replace('_', '-')}", help=text)
        annotation = annotated(hints[parameter.name], declared)
        found[parameter.name] = _parameter(parameter.name, annotation, parameter.default)
    return found


def argument_helps(function: Callable[..., object]) -> dict[str, str]:
    """Return the text of each argument in the `Args` section of a Google docstring."""
    section = re.search(
        r"^Args:\n(.*?)(?=^\S|\Z)", inspect.getdoc(function) or "", re.DOTALL | re.MULTILINE
    )
    entries = re.findall(
        r"^    (\w+): (.*?)(?=^    \w+: |\Z)",
        section[1] if section else "",
        re.DOTALL | re.MULTILINE,
    )
    return {name: " ".join(text.split()) for name, text in entries}


def annotated(hint: Any, declared: Any) -> Any:
    """Return `Annotated[hint, declared]` for a type that is known only when this runs."""
    subscript: Any = Annotated
    return subscript[hint, declared]


def _parameter(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
    )


def _help(operator: Operator) -> str:
    promise = "Function preserving." if operator.preserves_function else "Not function preserving."
    return f"{operator.summary} {promise} See: hfgrow operators {operator.name}"
