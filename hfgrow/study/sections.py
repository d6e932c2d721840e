"""What stands in the report of a study: its paragraphs, tables and pictures, in order."""

from collections.abc import Iterator, Sequence
from typing import Any

from hfgrow.console import count
from hfgrow.study import page
from hfgrow.study.accounting import ALL_IN
from hfgrow.study.child import DONE
from hfgrow.study.design import Design
from hfgrow.study.machine import words_of
from hfgrow.study.ran import Ran
from hfgrow.study.results import Result
from hfgrow.study.speedup import CONFIDENCE, LEAST_FOR_INTERVAL
from hfgrow.study.summary import AT_GROWTH, AT_LEAST, FALLING, SHARES, Summary
from hfgrow.study.tables import (
    at_losses_table,
    growth_table,
    loss_of,
    losses_table,
    runs_table,
    speedup_of,
    speedups_table,
)
from hfgrow.study.text import text_lines


def blocks(
    design: Design,
    found: Sequence[Result],
    summed: Summary,
    drawn: Sequence[page.Picture],
    ran: Sequence[Ran],
    text: dict[str, Any] | None,
) -> Iterator[page.Block]:
    """Yield what stands in a report.

    Args:
        design: The runs.
        found: What they measured.
        summed: What that comes to.
        drawn: The pictures.
        ran: Where the runs ran.
        text: What they read, as the folder of the study has it.
    """
    study = design.study
    if study.question:
        # The lines of a question are those of a file.
        yield page.Paragraph(" ".join(study.question.split()))
    finished = {result.seed for result in found if result.status == DONE}
    num_seeds = f"{len(finished)} seed{'' if len(finished) == 1 else 's'}"
    batch = design.jobs[0].recipe.batch_tokens
    yield page.Paragraph(
        f"{num_seeds}; {count(design.arms[0].costs[-1].num_parameters)} parameters; "
        f"{batch:,} tokens a step; every arm has the same text in the same order, the same batch, "
        "schedule and learning rate, unless its recipe says otherwise."
    )
    num_read = max(sum(cost.tokens for cost in job.costs) for job in design.jobs)
    yield from map(page.Paragraph, text_lines(text, num_read))
    yield from _ran(ran)
    if not drawn:
        why = "matplotlib is missing" if finished else "nothing is finished"
        yield page.Paragraph(f"There are no pictures: {why}.")
    by_name = {picture.name: picture for picture in drawn}
    yield page.Heading("Loss and cost")
    yield losses_table(design, summed)
    for name in ("loss-flops.png", "loss-tokens.png"):
        if name in by_name:
            yield by_name[name]
    if summed.reference is not None:
        yield page.Heading(f"Speed-up over {summed.reference} at equal loss")
        yield page.Paragraph(
            f"FLOPs of {summed.reference} divided by those of the arm, less 1, at the lowest loss "
            "that both came down to, for each seed that both finished. All-in counts the base, "
            "marginal does not; the token ratio compares tokens after the base. An arm is counted "
            "from its last growth on, when it has the size of the target. "
            + _said_of_intervals(_most_pairs(summed))
        )
        yield from map(page.Paragraph, _said_of_outcomes(summed))
        yield speedups_table(design, summed)
        if "speedup.png" in by_name:
            yield by_name["speedup.png"]
        if summed.losses:
            yield page.Paragraph(
                f"All-in speed-up at the mean losses that {summed.reference} had after "
                f"{', '.join(f'{share:.0%}' for share in SHARES)} of its FLOPs:"
            )
            yield at_losses_table(summed)
    if any(arm.jump for arm in summed.arms):
        yield page.Heading("What growth did")
        yield page.Paragraph(
            "A function-preserving growth leaves the loss where it was. Rc is the share of "
            "neighbouring copies of layers that were neighbours in the base. The last column is "
            "the share of the weights of layers whose gradient is exactly zero in the first step."
        )
        yield growth_table(summed)
        if "growth.png" in by_name:
            yield by_name["growth.png"]
    yield page.Heading("Runs")
    yield runs_table(found)


def _ran(ran: Sequence[Ran]) -> Iterator[page.Block]:
    """Yield the machines and commands, with the runs of each where they differ."""
    machines: dict[str, list[str]] = {}
    commands: dict[str, list[str]] = {}
    for one in ran:
        for key, known in ((words_of(one.machine), machines), (one.command, commands)):
            known.setdefault(key, []).extend(one.runs)
    if not ran:
        yield page.Paragraph("Where the runs ran is not recorded.")
    for words, runs in machines.items():
        of = f" of {', '.join(dict.fromkeys(runs))}" if len(machines) > 1 else ""
        yield page.Paragraph(f"Machine{of}: {words}.")
    for command, runs in commands.items():
        if len(commands) > 1:
            yield page.Paragraph(f"Command of {', '.join(dict.fromkeys(runs))}:")
        yield page.Paragraph(command, code=True)


def _most_pairs(summed: Summary) -> int:
    pairs = (gain.num_pairs for arm in summed.arms for gain in arm.all_speedups)
    return max(pairs, default=0)


def _said_of_intervals(num_pairs: int) -> str:
    if num_pairs < 2:
        return "With one seed there is no interval."
    if num_pairs < LEAST_FOR_INTERVAL:
        return "In parentheses, the lowest and the highest of the seeds."
    said = f"In brackets, the {CONFIDENCE:.0%} bootstrap interval of the mean over these seeds"
    few = "; of so few it is too narrow" if num_pairs < 10 else ""
    return f"{said}{few}."


def _said_of_outcomes(summed: Summary) -> Iterator[str]:
    """Yield what it means where a speed-up is no plain number."""
    found = {gain.outcome for arm in summed.arms for gain in arm.all_speedups}
    if found & {AT_LEAST, AT_GROWTH}:
        yield (
            f'"{AT_LEAST}" and "{AT_GROWTH}": the arm was down at the loss as soon as it had '
            "grown. What it had cost by then is the most that the loss can have cost; where that "
            "is nothing, there is no number."
        )
    if FALLING in found:
        yield (
            f'"{FALLING}": the learning rate of the arm, or of what it is compared with, falls, so '
            "that losses before the end are not finished ones. Compare the losses where the runs "
            "end, above."
        )


def lines_of(found: Summary) -> Iterator[str]:
    """Yield the outcome of a study in a few lines."""
    for arm in found.arms:
        loss = loss_of(arm.loss)
        more = f", speed-up all-in {speedup_of(arm, ALL_IN)}" if arm.speedups else ""
        yield f"  {arm.arm}: loss {loss}{more}"
