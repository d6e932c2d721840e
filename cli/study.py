"""The commands `hfgrow study`, arms and seeds at equal loss, and `hfgrow compare`, by a probe."""

import shlex
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hfgrow.checkpoint.files import LocalFolder
from hfgrow.checkpoint.read import read
from hfgrow.console import amount, count, load
from hfgrow.data.sources import named_source
from hfgrow.errors import UsageError, printable, require
from hfgrow.growth.loading import TRAINING
from hfgrow.growth.models import base_name, local_folder, locate
from hfgrow.growth.steps import Step, check_candidates
from hfgrow.hub.client import HubClient
from hfgrow.lineage.tables import text_table
from hfgrow.plan.operators import OPERATORS
from hfgrow.train.recipe.speech import in_keys

from . import options
from .completion import listed_operators
from .terminal import OPTIONS, Console, broken, say_block
from .typed_steps import typed_step

_STUDY_EXAMPLES = """\
hfgrow study paper-main --cpu --jobs 2 --dry-run
hfgrow study paper-main --cpu --jobs 2 --seeds 0
hfgrow study paper-main --report-only"""
_COMPARE_EXAMPLES = """\
hfgrow compare demo --text demo --ops stack,zero-depth --tokens 20K
hfgrow compare demo --text demo --op 'stack --g 2' --op 'solar --overlap 1'"""
if TYPE_CHECKING:
    from hfgrow.study.compare import Probe


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    app.command("study", epilog=_STUDY_EXAMPLES)(study)
    app.command("compare", epilog=_COMPARE_EXAMPLES)(compare)


def study(
    recipe: options.StudyArgument,
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
    from hfgrow.study.arms import EQUAL_COMPUTE, check_arms, load_study

    console = Console(as_json=json, quiet=quiet)
    asked = load_study(recipe, set_ or (), size=size)
    wanted = asked.seeds if seeds is None else _seeds(seeds)
    chosen = None if arms is None else frozenset(filter(None, map(str.strip, arms.split(","))))
    check_arms(asked, chosen)
    # Behind what can be refused at once: these import torch.
    load(console)
    from hfgrow.study.design import begun, design, selected
    from hfgrow.study.folder import Machine, StudyFolder
    from hfgrow.study.report import document_of, lines_of, write_report
    from hfgrow.study.results import results
    from hfgrow.study.runs import DONE, Outcome, run_study
    from hfgrow.study.study_estimate import estimate

    folder = StudyFolder(out or Path(f"study-{asked.name}-{asked.size}"))
    if report_only:
        folder.check_is_study()
    # All that lies in the folder is reported; what is chosen only says what is run.
    known = sorted({*asked.seeds, *wanted, *folder.seeds(asked.arms)})
    loaded = load_study(recipe, [*(set_ or ()), f"seeds={known}"], size=size)
    with in_keys(OPTIONS):
        whole = design(loaded, folder.path)
    plan = selected(whole, chosen, frozenset(wanted))
    left_out = sorted(asked.arms.keys() - (chosen or asked.arms.keys()))
    equal = [arm for arm in chosen or () if asked.arms[arm].scratch == EQUAL_COMPUTE]
    if left_out and equal:
        console.say(
            f"Note: {', '.join(sorted(equal))} trains for the compute of the costliest arm of the "
            f"whole study, {', '.join(left_out)} among them, which are left out here"
        )
    folder.check_unchanged(whole.jobs)
    if dry_run:
        estimated = estimate(plan, console, num_parallel=jobs, on_cpu=cpu)
        lines = broken(estimated.lines(), console.width, behind=6)
        console.result("\n".join(lines), estimated.to_json())
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
    page = printable(folder.path / "report.html", 200)
    say_block(console, "Reported", [("where", page)], f"open {page} in a browser")
    console.result(str(folder.path / "report.html"), document_of(summed, folder.path))
    if any(outcome.status != DONE for outcome in outcomes.values()):
        raise typer.Exit(8)


def _seeds(text: str) -> list[int]:
    try:
        return [int(word) for word in text.split(",")]
    except ValueError:
        raise UsageError(f"--seeds {text} is no list of numbers", hint="such as 0,1,2") from None


_STEPS = 200
_COLUMNS = ("rank", "operator", "parameters", "before", "just after", "rank then", "after probe")


def compare(
    model: options.ModelArgument,
    text: Annotated[
        list[str],
        typer.Option(
            "--text",
            metavar="SOURCE",
            help="Text to train on, as `hfgrow data prepare` takes it. Can be given several times.",
        ),
    ],
    ops: Annotated[
        str | None,
        typer.Option(
            "--ops",
            metavar="A,B,...",
            help="Operators; where they have a factor, --g is it.",
            autocompletion=listed_operators,
        ),
    ] = None,
    op: Annotated[
        list[str] | None,
        typer.Option("--op", metavar="'A --g 2'", help="One with its own options; repeatable."),
    ] = None,
    g: Annotated[int, typer.Option("--g", help="Growth factor of --ops.")] = 2,
    validation: Annotated[
        list[str] | None,
        typer.Option(
            "--validation", metavar="SOURCE", help="Held-out text.  [default: a part of --text]"
        ),
    ] = None,
    tokens: Annotated[
        str | None,
        typer.Option("--tokens", metavar="T", help="Of each training.  [default: 200 steps]"),
    ] = None,
    eval_tokens: Annotated[
        str, typer.Option("--eval-tokens", metavar="N", help="The most tokens held out.")
    ] = "200K",
    learning_rate: Annotated[float, typer.Option("--learning-rate", "--lr", help="Peak.")] = 3e-4,
    batch_tokens: Annotated[
        str | None,
        typer.Option("--batch-tokens", metavar="N", help="Of a step.  [default: 8 sequences]"),
    ] = None,
    sequence_length: Annotated[
        int | None,
        typer.Option(
            "--sequence-length", min=2, help="Tokens seen together.  [default: up to 1024]"
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the order of the text.")] = 0,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="DIR", help="Folder.  [default: ./BASE-comparison]"),
    ] = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep the winner, trained, in DIR/winner.")
    ] = False,
    cpu: Annotated[bool, typer.Option("--cpu", help="Leave accelerators alone.")] = False,
    text_column: Annotated[
        str, typer.Option("--text-column", help="The column of the text.")
    ] = "text",
    name: options.NameOption = None,
    token: options.TokenOption = None,
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Grow by each of several operators, train each for a little, and rank them by the loss.

    The loss just after growth says little of how a grown model ends; a short training says most of
    it (Karp et al. 2024, arXiv 2406.02469). The same command goes on where it was stopped.
    """
    require("hfgrow compare", "pydantic", *TRAINING)
    steps = _steps(ops, op or (), g)
    console = Console(as_json=json, quiet=quiet)
    client = HubClient(token=token)
    ref = locate(model, None, client, console)
    folder = local_folder(ref, client, console)
    check_candidates(read(LocalFolder(folder), console), steps)
    # Behind what can be refused at once: this imports torch.
    load(console)
    from hfgrow.study.compare import (
        WINNER,
        Comparison,
        Reading,
        begun,
        held_out_text,
        probes,
        shared_settings,
        tokenised,
    )
    from hfgrow.train.processes import StoppedError

    given = (out or Path(f"{base_name(ref)}-comparison")).expanduser()
    place = given.absolute()
    shared, length = shared_settings(
        folder,
        sequence_length=sequence_length,
        batch_tokens=None if batch_tokens is None else int(amount(batch_tokens, "--batch-tokens")),
        on_cpu=cpu,
    )
    evaluated = int(amount(eval_tokens, "--eval-tokens"))
    batch = shared["batch_tokens"]
    wanted = batch * _STEPS if tokens is None else int(amount(tokens, "--tokens"))
    # Whole batches, as a run trains on.
    trained = -(-wanted // batch) * batch
    sources = [named_source(word, text_column, name=name) for word in text]
    held_out = [named_source(word, text_column, name=name) for word in validation or ()]
    with begun(place):
        texts = tokenised(
            folder,
            place,
            sources,
            held_out or held_out_text(sources),
            client,
            console,
            plan=Reading(tokens=trained, sequence_length=length, seed=seed),
        )
        comparison = Comparison(
            model=model,
            name=base_name(ref),
            folder=folder,
            out=place,
            settings={**shared, "evaluation": {"tokens": evaluated}, "seed": seed},
            train={
                "tokens": trained,
                "learning_rate": learning_rate,
                "schedule": "constant",
                "warmup": 0.1,
            },
            texts=texts,
            sequence_length=length,
            on_cpu=cpu,
            quiet=console.quiet,
        )
        try:
            found = list(probes(comparison, steps, console, keep=keep))
        except StoppedError as stop:
            console.stop(f"{stop}. The same command goes on from there", stop.number)
    order = sorted(found, key=lambda probe: probe.after)
    at_first = sorted(found, key=lambda probe: probe.just_after)
    lines = _table(order, at_first, console.width)
    document = {
        "out": str(place),
        "winner": order[0].operator,
        "kept": str(place / WINNER) if keep else None,
        "trained_tokens": trained,
        "settings": comparison.to_json(),
        "notes": texts.notes,
        "probes": [
            {**asdict(probe), "rank": i + 1, "rank_just_after": at_first.index(probe) + 1}
            for i, probe in enumerate(order)
        ],
    }
    lines.append(f"best after {trained:,} tokens: {order[0].operator}")
    lines.append("of one seed: differences of a few thousandths are noise")
    if len({probe.num_parameters for probe in found}) > 1:
        lines.append("the grown models differ in size: equal tokens are not equal compute")
    lines += texts.notes
    if keep:
        lines.append(f"kept: {printable(given / WINNER, 200)}")
    console.result("\n".join(lines), document)
    follow = f"push {shlex.quote(str(given / WINNER))}" if keep else _grown_by(order[0], model)
    say_block(
        console,
        f"Compared {len(found)} growths of {printable(base_name(ref))}",
        [("where", printable(given, 200))],
        f"hfgrow {printable(follow, 300)}",
    )


def _grown_by(best: "Probe", model: str) -> str:
    """Return the command of the growth that won."""
    operator, _, options = best.operator.partition(" ")
    return f"{operator} {shlex.quote(model)} {options}".rstrip()


def _steps(ops: str | None, op: Sequence[str], g: int) -> list[Step]:
    """Return the candidates in the order of the command line, those of --ops first."""
    found = []
    for text in (part.strip() for part in (ops or "").split(",")):
        if text:
            name, arguments = typed_step(text)
            if not arguments and OPERATORS[name].parameter("g"):
                arguments = {"g": g}
            found.append((name, arguments))
    found += [typed_step(text) for text in op]
    if len(found) < 2:
        raise UsageError(
            "a comparison takes two operators or more",
            hint="--ops stack,interpolate, or --op 'stack --g 2' --op 'solar --overlap 2'",
        )
    return found


def _table(order: Sequence["Probe"], at_first: Sequence["Probe"], width: int | None) -> list[str]:
    rows: list[tuple[str, ...]] = [_COLUMNS]
    for i, probe in enumerate(order):
        rows.append(
            (
                str(i + 1),
                printable(probe.operator, 60),
                count(probe.num_parameters),
                f"{probe.before:.4f}",
                f"{probe.just_after:.4f}",
                str(at_first.index(probe) + 1),
                f"{probe.after:.4f}",
            )
        )
    return text_table(rows, left=[1], width=width)
