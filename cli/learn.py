"""The command `hfgrow learn`: growth by maps that are learned from text (G_learn)."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from hfgrow.console import load
from hfgrow.data.sources import named_source
from hfgrow.errors import UsageError, require
from hfgrow.growth.request import Growth, GrowthRequest
from hfgrow.plan.operators.learn import LearnArguments, learn
from hfgrow.plan.operators.operator import Mark, Parameter

from .grow import MODEL, growing_command
from .options import NameOption, own_parameters, parameter_of
from .terminal import Console

_EXAMPLES = """\
hfgrow learn demo --g 2 --data demo --steps 20
hfgrow learn ./base --width-g 2 --data text/*.jsonl --out ./wider"""
_REQUIRED = ("torch", "transformers", "safetensors", "numpy", "tokenizers")
_TEXTS: dict[str, tuple[Any, Any]] = {
    "data": (
        Annotated[
            list[str] | None,
            typer.Option(
                "--data",
                metavar="SOURCE",
                help="Text to learn from, as `hfgrow data prepare` takes it, or prepared tokens; "
                "can be given several times.",
            ),
        ],
        None,
    ),
    "validation": (
        Annotated[
            list[str] | None,
            typer.Option(
                "--validation",
                metavar="SOURCE",
                help="Text that decides which maps are kept.  [default: a part of --data]",
            ),
        ],
        None,
    ),
    "text_column": (
        Annotated[str, typer.Option("--text-column", help="The column of the text.")],
        "text",
    ),
    "name": (NameOption, None),
}
_MAPS = Annotated[
    Path | None,
    typer.Option("--maps", metavar="FILE", help="Learn nothing, take these maps of another run."),
]
# What is taken where nothing is given, in words.
_USUAL = {
    "steps": "100",
    "batch_tokens": "about 16384",
    "sequence_length": "up to 1024",
    "lr": "0.001; 0.0001 if a width grows",
    "seed": "0",
}


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    texts = (parameter_of(name, *declared) for name, declared in _TEXTS.items())
    maps = parameter_of("maps", _MAPS, None)
    parameters = [MODEL, *texts, *own_parameters(_asked()).values(), maps]
    text = (
        "Grow depth and width by maps that are learned from text (G_learn, LiGO). "
        "Not function preserving, unless the init is kept. More: hfgrow docs operators"
    )
    app.command("learn", help=text, epilog=_EXAMPLES)(growing_command(parameters, _work))


def _asked() -> list[Parameter]:
    """Return the arguments that are typed, with what is usual in their help."""
    return [
        replace(one, help=f"{one.help}  [default: {_USUAL[one.name]}]")
        if one.name in _USUAL
        else one
        for one in learn.parameters
        if one.name != "maps" and Mark.OUTCOME not in one.marks
    ]


def _work(values: Mapping[str, Any], request: GrowthRequest, console: Console) -> Growth:
    arguments = LearnArguments(**{parameter.name: values[parameter.name] for parameter in _asked()})
    maps: Path | None = values["maps"]
    if maps is not None:
        if values["data"] or values["validation"]:
            raise UsageError("--maps learns nothing, so it takes no text; leave out --data")
        arguments = replace(arguments, maps=maps.name)
        request = replace(request, maps=maps.expanduser().parent)
    elif not values["data"]:
        raise UsageError("there is no text to learn from", hint="add --data demo, or --data FILE")
    column, name = values["text_column"], values["name"]
    require("hfgrow learn", *_REQUIRED)
    load(console)
    from hfgrow.train.learn.command import LearnRequest
    from hfgrow.train.learn.command import learn as learned

    return learned(
        LearnRequest(
            growth=request,
            arguments=arguments,
            text=[named_source(word, column, name=name) for word in values["data"] or ()],
            validation=[
                named_source(word, column, name=name) for word in values["validation"] or ()
            ],
        ),
        console,
    )
