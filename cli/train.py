"""The commands `hfgrow train`, which launches a run by a recipe, and `hfgrow clean`."""

import shlex
import sys
from json import dumps as to_json
from pathlib import Path
from typing import Annotated, Any

import typer

from hfgrow.checkpoint.files import CARD, LOSS_PICTURE, RECIPE, LocalFolder
from hfgrow.console import LOADING, count, duration, load, size
from hfgrow.errors import UsageError, printable, require
from hfgrow.growth.loading import TRAINING
from hfgrow.hub.client import HubClient
from hfgrow.lineage.reading import manifest_of
from hfgrow.lineage.records import Evaluated

from . import options
from .help_pages import OUTPUT
from .terminal import OPTIONS, Console, paragraphs, say_block

_EXAMPLES = """\
hfgrow train demo --cpu
hfgrow recipes demo --copy mine.yaml
hfgrow train mine.yaml --dry-run
hfgrow train mine.yaml --set stages.1.train.tokens=1B --num-processes 8
hfgrow train mine.yaml --resume
hfgrow train --schema > recipe.schema.json   # for an editor
hfgrow train mine.yaml -- --num_machines 2   # goes to accelerate launch"""

_CLEAN_EXAMPLES = """\
hfgrow clean demo-gstack --dry-run
hfgrow clean demo-gstack --keep stages"""


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command(
        "train",
        epilog=_EXAMPLES,
        context_settings={"allow_extra_args": True},
    )(train)
    app.command("clean", epilog=_CLEAN_EXAMPLES)(clean)


def _print_schema(wanted: bool) -> None:
    if wanted:
        require("hfgrow train", "pydantic")
        from hfgrow.train.recipe.schema import recipe_schema

        Console().result(to_json(recipe_schema(), indent=1), {})
        raise typer.Exit


def train(
    context: typer.Context,
    recipe: options.RecipeArgument,
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
    yaml: Annotated[
        bool,
        typer.Option(
            "--yaml",
            help="Of a dry run: print the recipe, every default spelt out.",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
    schema: Annotated[
        bool,
        typer.Option(
            "--schema",
            is_eager=True,
            callback=_print_schema,
            help="Print the JSON schema of recipes, for editors, and end.",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
    token: options.TokenOption = None,
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Grow and train a model as a recipe says; print its folder.

    What stands behind -- goes to accelerate launch, such as -- --num_machines 2.
    """
    require("hfgrow train", "pydantic", *TRAINING)
    # Nothing here imports torch: what is refused is refused at once.
    from hfgrow.train.again import recipe_file
    from hfgrow.train.beforehand import check_beforehand, check_inputs, recipe_lines
    from hfgrow.train.processes import check_launch_options, launch
    from hfgrow.train.recipe.recipe import load_recipe
    from hfgrow.train.recipe.speech import in_keys

    console = Console(as_json=json, quiet=quiet)
    if yaml and not dry_run:
        raise UsageError("--yaml is of a dry run", hint="add --dry-run")
    extra = _behind_dashes(context.args)
    check_launch_options(extra)
    overrides = list(set_ or ())
    if num_processes is not None:
        overrides.append(f"world.processes={num_processes}")
    client = HubClient(token=token)
    with recipe_file(recipe, client, console) as file:
        loaded = load_recipe(file, overrides)
        if dry_run:
            with in_keys(OPTIONS):
                check_inputs(loaded, client)
                _print_dry_run(loaded, client, console, resume=resume, on_cpu=cpu, as_yaml=yaml)
            return
        if not extra:
            # Of several machines, another one may have begun the run by now.
            with in_keys(OPTIONS):
                check_beforehand(loaded, client, resume=resume)
        for line in recipe_lines(loaded):
            console.say(line)
        # In the process that is launched: here torch is never imported.
        console.say(LOADING)
        arguments = [file]
        for override in overrides:
            arguments += ["--set", override]
        flags = {
            "--resume": resume,
            "--cpu": cpu,
            "--allow-world-size-change": allow_world_size_change,
            "--quiet": console.quiet,
        }
        arguments += [flag for flag, wanted in flags.items() if wanted]
        words = ["hfgrow", "train", recipe, *(["--cpu"] if cpu else [])]
        for override in overrides:
            words += ["--set", override]
        again = shlex.join([*words, "--resume", *(["--", *extra] if extra else [])])
        outcome = launch(
            arguments,
            num_processes=loaded.world.processes,
            on_cpu=cpu,
            extra=extra,
            token=token,
            again=again,
        )
    if "stopped" in outcome:
        if json:
            console.result("", {**outcome, "resume": again})
        console.stop(f"{outcome['message']}. Go on with: {again}", int(outcome["stopped"]))
    result = outcome["result"]
    document = _close(Path(result["folder"]), result, console, resumed=resume)
    console.result(str(result["folder"]), document)


def _print_dry_run(
    recipe: Any, client: HubClient, console: Console, *, resume: bool, on_cpu: bool, as_yaml: bool
) -> None:
    load(console)
    from hfgrow.train.dry_run import dry_run

    found = dry_run(recipe, client, console, resume=resume, on_cpu=on_cpu)
    lines = paragraphs(found.rows(), console.width)
    for note in found.notes:
        console.say(f"Note: {note}")
    if as_yaml:
        for line in lines:
            console.say(line)
        lines = [recipe.to_yaml().rstrip()]
    console.result("\n".join(lines), found.to_json())


def _close(
    folder: Path, result: dict[str, Any], console: Console, *, resumed: bool
) -> dict[str, Any]:
    """Say what a run has made, and return it as JSON has it."""
    from hfgrow.train.clean import removable
    from hfgrow.train.run_folder import RunFolder
    from hfgrow.train.trained import trained

    made = trained(folder, result.get("url"))
    weights = manifest_of(LocalFolder(folder)).link.result.files.values()
    shown = shlex.quote(printable(folder, 200))
    run = RunFolder(folder.parent)
    spare = removable(run)
    # How long this command took stands below.
    sessions = ", those of earlier sessions too" if resumed else ""
    rows = [
        ("what", f"{made.num_hidden_layers} layers, {count(made.num_parameters)} parameters"),
        ("trained", f"{count(made.tokens)} tokens in {duration(made.seconds)} of steps{sessions}"),
        *(("loss", evaluated_line(one)) for one in made.losses),
        ("where", f"{shown}, {size(sum(file.nbytes for file in weights))}"),
    ]
    beside = [name for name in (CARD, LOSS_PICTURE, RECIPE) if (folder / name).is_file()]
    rows.append(("beside", ", ".join(beside)))
    if spare:
        kinds = ", ".join(spare)
        clean_up = f"hfgrow clean {shlex.quote(printable(run.path, 200))}"
        rows.append(("may go", f"{size(sum(spare.values()))} of {kinds}: {clean_up}"))
    if made.url:
        rows.append(("Hub", f"{made.url} ({'private' if result['private'] else 'public'})"))
    following = f"hfgrow {'lineage' if made.url else 'push'} {shown}"
    say_block(console, f"Finished: {printable(made.name)}", rows, following)
    return {
        **result,
        "num_hidden_layers": made.num_hidden_layers,
        "num_parameters": made.num_parameters,
        "tokens": made.tokens,
        "seconds": made.seconds,
        "losses": {
            one.label: {
                "before_growth": one.before_growth,
                "before": one.before,
                "after": one.after,
                "bits_per_byte": one.bits_per_byte_after,
                "num_tokens": one.num_tokens,
            }
            for one in made.losses
        },
        "removable_nbytes": spare,
    }


def evaluated_line(one: Evaluated) -> str:
    """Return what training made of the loss on a text."""
    if one.before_growth is None:
        return f"{one.before:.4f} before and {one.after:.4f} after training, on {one.label}"
    return (
        f"{one.before_growth:.4f} before growth, {one.before:.4f} just after it and "
        f"{one.after:.4f} after training, on {one.label}"
    )


def clean(
    folder: Annotated[
        Path, typer.Argument(metavar="RUN", help="The folder of a finished run, or any other.")
    ],
    keep: Annotated[
        list[str] | None,
        typer.Option(
            "--keep",
            metavar="KIND",
            help="What stays: checkpoints, stages (the models between stages) or tokens; "
            "repeatable.",
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go.")] = False,
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Remove what a finished run has no more use for; its model, record and recipe stay.

    Of a folder that is no run, what killed commands left hidden in it is removed.
    """
    require("hfgrow clean", "pydantic")
    from hfgrow.train.clean import KINDS
    from hfgrow.train.clean import clean as clean_folder

    console = Console(as_json=json, quiet=quiet)
    for kind in keep or ():
        if kind not in KINDS:
            raise UsageError(
                f"--keep {printable(kind)} is nothing that clean removes",
                hint=f"one of {', '.join(KINDS)}",
            )
    done = clean_folder(folder.expanduser(), keep=frozenset(keep or ()), dry_run=dry_run)
    rows = [(kind, f"{size(n)}, {KINDS[kind]}") for kind, n in done.kinds.items()]
    rows += [(printable(path.name), "left by a command that was killed") for path in done.leftovers]
    said = "would be removed" if dry_run else "removed"
    lines = paragraphs(rows, console.width)
    lines.append(f"{size(done.nbytes)} {said}" if rows else "there is nothing to remove")
    console.result(
        "\n".join(lines),
        {
            "folder": str(folder),
            "dry_run": dry_run,
            "nbytes": dict(done.kinds),
            "leftovers": [str(path) for path in done.leftovers],
        },
    )


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
