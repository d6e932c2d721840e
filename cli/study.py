"""The command `hfgrow study`: several ways to grow and several seeds, compared at equal loss."""

import shlex
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from hfgrow.errors import UsageError
from hfgrow.growth.loading import TRAINING, require

from . import options
from .output import Console


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command("study", rich_help_panel="Train")(study)


def study(
    recipe: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE",
            help="A YAML file, or the name of a study of hfgrow's: paper-main, growth-factor, "
            "growth-timing, partial-stacking, function-preservation, gradual-or-one-hop, width, "
            "optimizer-state, schedules.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", metavar="DIR", help="Folder of the study.  [default: ./study-NAME-SIZE]"
        ),
    ] = None,
    size: Annotated[
        str | None, typer.Option("--size", help="A size of the study.  [default: its first]")
    ] = None,
    arms: Annotated[
        str | None, typer.Option("--arms", metavar="A,B", help="Only these arms.")
    ] = None,
    seeds: Annotated[
        str | None, typer.Option("--seeds", metavar="0,1", help="These seeds instead.")
    ] = None,
    jobs: Annotated[
        int, typer.Option("--jobs", metavar="N", min=1, max=1024, help="Runs at a time.")
    ] = 1,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="A.B=C", help="Put a value into the study; repeatable."),
    ] = None,
    cpu: Annotated[bool, typer.Option("--cpu", help="Leave accelerators alone.")] = False,
    report_only: Annotated[
        bool, typer.Option("--report-only", help="Train nothing; report what is there.")
    ] = False,
    dry_run: options.DryRunOption = False,
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Train every arm of a study for every seed, and report what reaches a loss for least.

    Run it again to go on with what was stopped; what is finished is not done again.
    """
    require("hfgrow study", "pydantic", *TRAINING)
    if dry_run and report_only:
        raise UsageError("--dry-run and --report-only: one of the two")
    from hfgrow.study.child import DONE, Outcome
    from hfgrow.study.design import begun, design, selected
    from hfgrow.study.estimate import estimate
    from hfgrow.study.folder import StudyFolder
    from hfgrow.study.machine import Machine
    from hfgrow.study.recipe import load_study
    from hfgrow.study.report import document_of, write_report
    from hfgrow.study.results import results
    from hfgrow.study.run import run_study
    from hfgrow.study.sections import lines_of

    console = Console(as_json=json, quiet=quiet)
    asked = load_study(recipe, set_ or (), size=size)
    wanted = asked.seeds if seeds is None else _seeds(seeds)
    folder = StudyFolder(out or Path(f"study-{asked.name}-{asked.size}"))
    chosen = None if arms is None else frozenset(filter(None, map(str.strip, arms.split(","))))
    if report_only:
        folder.check_is_study()
    # All that lies in the folder is reported; what is chosen only says what is run.
    known = sorted({*asked.seeds, *wanted, *folder.seeds(asked.arms)})
    loaded = load_study(recipe, [*(set_ or ()), f"seeds={known}"], size=size)
    whole = design(loaded, folder.path)
    plan = selected(whole, chosen, frozenset(wanted))
    folder.check_unchanged(whole.jobs)
    if dry_run:
        estimated = estimate(plan, num_parallel=jobs, on_cpu=cpu)
        console.result("\n".join(estimated.lines()), estimated.to_json())
        return
    outcomes: dict[str, Outcome] = {}
    with nullcontext() if report_only else folder.taken_up():
        folder.check_unchanged(whole.jobs)
        if not report_only:
            typed = shlex.join(["hfgrow", *sys.argv[1:]])
            place = {"command": typed, "machine": Machine.here(on_cpu=cpu).to_json()}
            outcomes = run_study(
                plan, folder, place, num_parallel=jobs, on_cpu=cpu, progress=console
            )
        reported = begun(whole, outcomes)
        summed = write_report(reported, results(reported, outcomes), folder)
    for line in lines_of(summed):
        console.say(line)
    console.result(str(folder.path / "report.html"), document_of(summed, folder.path))
    if any(outcome.status != DONE for outcome in outcomes.values()):
        raise typer.Exit(8)


def _seeds(text: str) -> list[int]:
    try:
        return [int(word) for word in text.split(",")]
    except ValueError:
        raise UsageError(f"--seeds {text} is no list of numbers", hint="such as 0,1,2") from None
