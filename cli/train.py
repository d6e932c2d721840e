"""The command `hfgrow train`: `accelerate launch` of the bundled script with a recipe."""

import shlex
import sys
from typing import Annotated

import typer

from hfgrow.errors import UsageError, printable
from hfgrow.growth.loading import TRAINING, require
from hfgrow.hub.client import HubClient

from . import options
from .output import Console


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command("train", rich_help_panel="Train", context_settings={"allow_extra_args": True})(
        train
    )


def train(
    context: typer.Context,
    recipe: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE",
            help="A YAML file, or a recipe of hfgrow's, such as demo or schedule-free.",
        ),
    ],
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="A.B=C", help="Put a value into the recipe; repeatable."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last checkpoint in the output.")
    ] = False,
    cpu: Annotated[bool, typer.Option("--cpu", help="Leave accelerators alone.")] = False,
    num_processes: Annotated[
        int | None,
        typer.Option("--num-processes", metavar="N", min=1, help="world.processes of the recipe."),
    ] = None,
    allow_world_size_change: Annotated[
        bool,
        typer.Option("--allow-world-size-change", help="Resume with another number of processes."),
    ] = False,
    dry_run: options.DryRunOption = False,
    token: options.TokenOption = None,
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Grow and train a model as a recipe says; print its folder.

    What stands behind -- goes to accelerate launch, such as -- --num_machines 2.
    """
    require("hfgrow train", "pydantic", *TRAINING)
    from hfgrow.train.dry_run import recipe_lines, rehearse
    from hfgrow.train.processes import check_launch_options, launch
    from hfgrow.train.recipe.hints import in_keys
    from hfgrow.train.recipe.recipe import load_recipe

    console = Console(as_json=json, quiet=quiet)
    extra = _behind_dashes(context.args)
    check_launch_options(extra)
    overrides = list(set_ or ())
    if num_processes is not None:
        overrides.append(f"world.processes={num_processes}")
    loaded = load_recipe(recipe, overrides)
    if dry_run:
        with in_keys():
            for line in rehearse(loaded, HubClient(token=token), console, resume=resume):
                console.say(line)
        console.result(loaded.to_yaml().rstrip(), {"recipe": loaded.model_dump(mode="json")})
        return
    for line in recipe_lines(loaded):
        console.say(line)
    arguments = [recipe]
    for override in overrides:
        arguments += ["--set", override]
    flags = {
        "--resume": resume,
        "--cpu": cpu,
        "--allow-world-size-change": allow_world_size_change,
        "--quiet": console.quiet,
    }
    arguments += [flag for flag, wanted in flags.items() if wanted]
    outcome = launch(
        arguments,
        num_processes=loaded.world.processes,
        on_cpu=cpu,
        extra=extra,
        token=token,
    )
    if "stopped" in outcome:
        words = ["hfgrow", "train", recipe, *(["--cpu"] if cpu else [])]
        for override in overrides:
            words += ["--set", override]
        again = shlex.join([*words, "--resume", *(["--", *extra] if extra else [])])
        if json:
            console.result("", {**outcome, "resume": again})
        console.stop(f"{outcome['message']}. Go on with: {again}", int(outcome["stopped"]))
    result = outcome["result"]
    console.result(str(result["folder"]), result)


def _behind_dashes(words: list[str]) -> list[str]:
    """Return what goes to accelerate launch: what the parser left over, all of it behind `--`.

    Raises:
        UsageError: Something stands before it, which accelerate would take for the script.
    """
    behind = sys.argv[sys.argv.index("--") + 1 :] if "--" in sys.argv else []
    stray = words[: max(0, len(words) - len(behind))] or [
        word for word in words[:1] if not word.startswith("-")
    ]
    if stray:
        raise UsageError(
            f"{printable(stray[0])} is one word too many; expected a single RECIPE, and behind -- "
            "options of accelerate launch",
            hint="hfgrow train --help",
        )
    return words
