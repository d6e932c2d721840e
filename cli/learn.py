"""The command `hfgrow learn`: growth by maps that are learned from text (G_learn)."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from hfgrow.data.sources import named_source
from hfgrow.errors import UsageError
from hfgrow.growth.grow import Growth, GrowthRequest
from hfgrow.growth.loading import require
from hfgrow.plan.operators.learn import LearnArguments

from .grow import MODEL, growing_command
from .options import parameter_of
from .output import Console

_REQUIRED = ("torch", "transformers", "safetensors", "numpy", "tokenizers")
_TEXTS = ("data", "validation", "text_column")
_OWN: dict[str, tuple[Any, Any]] = {
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
    "g": (Annotated[int | None, typer.Option("--g", help="Growth factor of the depth.")], None),
    "layers": (Annotated[int | None, typer.Option("--layers", help="Target depth.")], None),
    "width_g": (
        Annotated[int | None, typer.Option("--width-g", help="Growth factor of every width.")],
        None,
    ),
    "hidden_size": (
        Annotated[int | None, typer.Option("--hidden-size", help="Target hidden_size.")],
        None,
    ),
    "ffn": (Annotated[int | None, typer.Option("--ffn", help="Target intermediate_size.")], None),
    "heads": (
        Annotated[int | None, typer.Option("--heads", help="Target num_attention_heads.")],
        None,
    ),
    "kv_heads": (
        Annotated[int | None, typer.Option("--kv-heads", help="Target num_key_value_heads.")],
        None,
    ),
    "init": (
        Annotated[
            Literal["fp", "stack", "ligo"],
            typer.Option(
                "--init",
                help="What the maps begin as: the same function (fp), the layers repeated (stack), "
                "or as in the paper (ligo).",
            ),
        ],
        "fp",
    ),
    "steps": (
        Annotated[
            int | None, typer.Option("--steps", help="Steps; 0 keeps the init.  [default: 100]")
        ],
        None,
    ),
    "batch_tokens": (
        Annotated[
            int | None,
            typer.Option("--batch-tokens", help="Tokens of a step.  [default: about 16384]"),
        ],
        None,
    ),
    "sequence_length": (
        Annotated[
            int | None,
            typer.Option("--sequence-length", help="Tokens of a sequence.  [default: up to 1024]"),
        ],
        None,
    ),
    "lr": (
        Annotated[
            float | None,
            typer.Option(
                "--lr", help="The peak learning rate.  [default: 0.001; 0.0001 if a width grows]"
            ),
        ],
        None,
    ),
    "seed": (
        Annotated[
            int | None,
            typer.Option("--seed", help="Seeds the order of the text and the maps.  [default: 0]"),
        ],
        None,
    ),
    "maps": (
        Annotated[
            Path | None,
            typer.Option(
                "--maps", metavar="FILE", help="Learn nothing, take these maps of another run."
            ),
        ],
        None,
    ),
}


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    parameters = [MODEL, *(parameter_of(name, *declared) for name, declared in _OWN.items())]
    text = (
        "Grow depth and width by maps that are learned from text (G_learn, LiGO). "
        "Not function preserving, unless the init is kept. See docs/operators.md."
    )
    app.command("learn", help=text, rich_help_panel="Grow by learning", no_args_is_help=True)(
        growing_command(parameters, _work)
    )


def _work(values: Mapping[str, Any], request: GrowthRequest, console: Console) -> Growth:
    given = {name: values[name] for name in _OWN if name not in (*_TEXTS, "maps")}
    arguments = LearnArguments(**given)
    maps: Path | None = values["maps"]
    if maps is not None:
        if values["data"] or values["validation"]:
            raise UsageError("--maps learns nothing, so it takes no text; leave out --data")
        arguments = replace(arguments, maps=maps.name)
        request = replace(request, maps=maps.expanduser().parent)
    elif not values["data"]:
        raise UsageError("there is no text to learn from", hint="add --data demo, or --data FILE")
    column = values["text_column"]
    require("hfgrow learn", *_REQUIRED)
    from hfgrow.train.learn.command import LearnRequest, learn

    return learn(
        LearnRequest(
            growth=request,
            arguments=arguments,
            text=[named_source(word, column) for word in values["data"] or ()],
            validation=[named_source(word, column) for word in values["validation"] or ()],
        ),
        console,
    )
