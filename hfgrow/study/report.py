"""The report of a study: `results.json`, `report.md`, `report.html` and the pictures.

First what stands in it, paragraph by paragraph, then its tables.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hfgrow.checkpoint.staging import replace_bytes, replace_text, translated
from hfgrow.console import count
from hfgrow.errors import printable
from hfgrow.lineage.canvas import has_matplotlib
from hfgrow.study.accounting import ALL_IN, EXACT, MARGINAL, TOKENS
from hfgrow.study.answer import answer
from hfgrow.study.arms import EQUAL_COMPUTE
from hfgrow.study.design import Design
from hfgrow.study.folder import Ran, StudyFolder, text_lines, where_ran, words_of
from hfgrow.study.plots import PICTURES, pictures
from hfgrow.study.report_page import Block, Heading, Paragraph, Picture, Table, html, markdown
from hfgrow.study.results import (
    CONFIDENCE,
    LEAST_FOR_INTERVAL,
    Result,
    by_arm,
    dead_gradients,
    timings,
)
from hfgrow.study.runs import DONE
from hfgrow.study.summary import (
    AT_GROWTH,
    AT_LEAST,
    FALLING,
    SHARES,
    ArmSummary,
    Speedup,
    Spread,
    Summary,
    summary,
)

PLOTS = "plots"
_NONE = "-"
_COLUMNS = {
    ALL_IN: "all-in",
    MARGINAL: "marginal",
    TOKENS: "token ratio",
    EXACT: "all-in, exact FLOPs",
}


def write_report(design: Design, found: Sequence[Result], folder: StudyFolder) -> Summary:
    """Write the report of a study into its folder, and return its numbers.

    Raises:
        OutputError: It cannot be written.
    """
    summed = summary(design, found, dead_gradients(design))
    drawn: list[Picture] = []
    if has_matplotlib():
        drawn = [Picture(*picture) for picture in pictures(by_arm(found), summed)]
    ran = where_ran(design, folder.places())
    content = list(blocks(design, found, summed, drawn, ran, folder.text))
    title = f"Study {design.study.name} ({design.study.size})"
    document = {
        "study": design.study.model_dump(mode="json"),
        "text": folder.text,
        "ran": [one.to_json() for one in ran],
        "summary": summed.to_json(),
        "timings": timings(design, found),
        "runs": [result.to_json() for result in found],
    }
    out = folder.path
    with translated(printable(out, 200)):
        _draw(out / PLOTS, drawn)
        replace_text(out / "results.json", json.dumps(document, indent=1) + "\n")
        replace_text(out / "report.md", markdown(title, content, PLOTS))
        replace_text(out / "report.html", html(title, content))
    return summed


def _draw(folder: Path, drawn: Sequence[Picture]) -> None:
    """Write the pictures, each complete or not at all; one that is not drawn any more goes."""
    folder.mkdir(exist_ok=True)
    names = {picture.name for picture in drawn}
    for name in PICTURES:
        if name not in names:
            (folder / name).unlink(missing_ok=True)
    for picture in drawn:
        replace_bytes(folder / picture.name, picture.png)


def document_of(summed: Summary, out: Path) -> dict[str, Any]:
    """Return what the command prints of a study as JSON."""
    return {
        "folder": str(out),
        "report": str(out / "report.html"),
        "answer": answer(summed),
        "summary": summed.to_json(),
    }


def lines_of(found: Summary) -> Iterator[str]:
    """Yield the outcome of a study in a few lines."""
    yield answer(found)
    for arm in found.arms:
        loss = loss_of(arm.loss)
        more = f", speed-up all-in {speedup_of(arm, ALL_IN)}" if arm.speedups else ""
        yield f"  {arm.arm}: loss {loss}{more}"


def blocks(
    design: Design,
    found: Sequence[Result],
    summed: Summary,
    drawn: Sequence[Picture],
    ran: Sequence[Ran],
    text: dict[str, Any] | None,
) -> Iterator[Block]:
    """Yield what stands in a report.

    Args:
        found: What they measured.
        summed: What that comes to.
        text: What they read, as the folder of the study has it.
    """
    study = design.study
    yield Paragraph(answer(summed), lead=True)
    if study.question:
        # The lines of a question are those of a file.
        yield Paragraph(f"The question: {' '.join(study.question.split())}")
    finished = {result.seed for result in found if result.status == DONE}
    num_seeds = f"{len(finished)} seed{'' if len(finished) == 1 else 's'}"
    batch = design.jobs[0].recipe.batch_tokens
    yield Paragraph(
        f"{num_seeds}; {count(design.arms[0].costs[-1].num_parameters)} parameters; "
        f"{batch:,} tokens a step; every arm has the same text in the same order, the same batch, "
        "schedule and learning rate, unless its recipe says otherwise."
    )
    yield from _left_out(design)
    num_read = max(sum(cost.tokens for cost in job.costs) for job in design.jobs)
    yield from map(Paragraph, text_lines(text, num_read))
    yield from _ran(ran)
    if not drawn:
        why = "matplotlib is missing" if finished else "nothing is finished"
        yield Paragraph(f"There are no pictures: {why}.")
    by_name = {picture.name: picture for picture in drawn}
    yield Heading("Loss and cost")
    yield losses_table(summed)
    for name in ("loss-flops.png", "loss-tokens.png"):
        if name in by_name:
            yield by_name[name]
    if summed.reference is not None:
        yield Heading(f"Speed-up over {summed.reference} at equal loss")
        yield Paragraph(
            f"FLOPs of {summed.reference} divided by those of the arm, less 1, at the lowest loss "
            "that both came down to, for each seed that both finished. All-in counts the base, "
            "marginal does not; the token ratio compares tokens after the base. An arm is counted "
            "from its last growth on, when it has the size of the target. "
            + _said_of_intervals(_most_pairs(summed))
        )
        yield from map(Paragraph, _said_of_outcomes(summed))
        yield speedups_table(design, summed)
        if "speedup.png" in by_name:
            yield by_name["speedup.png"]
        if summed.losses:
            yield Paragraph(
                f"All-in speed-up at the mean losses that {summed.reference} had after "
                f"{', '.join(f'{share:.0%}' for share in SHARES)} of its FLOPs:"
            )
            yield at_losses_table(summed)
    if any(arm.jump for arm in summed.arms):
        yield Heading("What growth did")
        yield Paragraph(
            "A function-preserving growth leaves the loss where it was. Rc is the share of "
            "neighbouring copies of layers that were neighbours in the base. The last column is "
            "the share of the weights of layers whose gradient is exactly zero in the first step."
        )
        yield growth_table(summed)
        if "growth.png" in by_name:
            yield by_name["growth.png"]
    yield Heading("Runs")
    yield runs_table(found)


def _left_out(design: Design) -> Iterator[Block]:
    """Say where an arm has the compute of others that are not here."""
    here = {job.arm for job in design.arms}
    arms = design.study.arms
    absent = sorted(arms.keys() - here)
    equal = [name for name in arms if name in here and arms[name].scratch == EQUAL_COMPUTE]
    if absent and equal:
        yield Paragraph(
            f"{' and '.join(equal)} trained for the compute of the costliest arm of the whole "
            f"study, though {', '.join(absent)} are left out here: it may have more tokens than "
            "any arm beside it. Compare at equal loss, not at the ends."
        )


def _ran(ran: Sequence[Ran]) -> Iterator[Block]:
    """Yield the machines and commands, with the runs of each where they differ."""
    machines: dict[str, list[str]] = {}
    commands: dict[str, list[str]] = {}
    for one in ran:
        for key, known in ((words_of(one.machine), machines), (one.command, commands)):
            known.setdefault(key, []).extend(one.runs)
    if not ran:
        yield Paragraph("Where the runs ran is not recorded.")
    for words, runs in machines.items():
        of = f" of {', '.join(dict.fromkeys(runs))}" if len(machines) > 1 else ""
        yield Paragraph(f"Machine{of}: {words}.")
    for command, runs in commands.items():
        if len(commands) > 1:
            yield Paragraph(f"Command of {', '.join(dict.fromkeys(runs))}:")
        yield Paragraph(command, code=True)


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


def losses_table(summed: Summary) -> Table:
    """Return the losses of all arms, and what they cost."""
    header = ["arm", "seeds", "held-out loss (range)", "bits a byte", "parameters"]
    header += ["tokens after the base", "all-in FLOPs", "of them base"]
    rows = [
        [
            arm.arm,
            str(arm.num_seeds),
            loss_of(arm.loss),
            _NONE if arm.bits_per_byte is None else f"{arm.bits_per_byte.mean:.4f}",
            count(arm.num_parameters),
            f"{arm.tokens_after_base:,}",
            f"{arm.flops:.3g}",
            f"{arm.base_flops / arm.flops:.1%}",
        ]
        for arm in summed.arms
    ]
    return Table(header, rows)


def speedups_table(design: Design, summed: Summary) -> Table:
    """Return the speed-ups over the reference at equal loss."""
    papers = {name: arm.paper for name, arm in design.study.arms.items()}
    header = ["arm", "seeds", *_COLUMNS.values(), "at loss"]
    if any(papers.values()):
        header.append("the paper, at its size")
    rows = []
    for arm in summed.arms:
        pairs = max((gain.num_pairs for gain in arm.speedups.values()), default=0)
        row = [arm.arm, str(pairs) if pairs else _NONE]
        row += [speedup_of(arm, key) for key in _COLUMNS]
        row.append(_NONE if arm.equal_loss is None else f"{arm.equal_loss.mean:.4f}")
        rows.append([*row, papers[arm.arm] or _NONE] if any(papers.values()) else row)
    return Table(header, rows)


def at_losses_table(summed: Summary) -> Table:
    """Return the speed-ups at the losses of the reference on its way."""
    header = ["arm", *(f"loss {loss:.3f}" for loss in summed.losses)]
    nothing = [_NONE] * len(summed.losses)
    rows = [
        [arm.arm, *(map(_percent, arm.at_losses) if arm.at_losses else nothing)]
        for arm in summed.arms
        if arm.arm != summed.reference
    ]
    return Table(header, rows)


def growth_table(summed: Summary) -> Table:
    """Return what growth did to the loss of every arm that grew."""
    header = [
        "arm",
        "before growth",
        "just after",
        "change",
        "next evaluation",
        "after tokens",
        "Rc",
        "without gradient",
    ]
    rows = []
    for arm in summed.arms:
        if arm.jump is None:
            continue
        before, after, following = arm.jump
        rows.append(
            [
                arm.arm,
                f"{before.mean:.4f}",
                f"{after.mean:.4f}",
                f"{after.mean - before.mean:+.4f}",
                _NONE if following is None else f"{following.mean:.4f}",
                _NONE if arm.jump_tokens is None else f"{arm.jump_tokens:,}",
                _NONE if arm.rc is None else f"{arm.rc:.1%}",
                _NONE if arm.dead is None else f"{arm.dead:.1%}",
            ]
        )
    return Table(header, rows)


def runs_table(found: Sequence[Result]) -> Table:
    """Return how every run ended."""
    rows = []
    for result in found:
        final = result.final
        seconds = _NONE if result.seconds is None else f"{result.seconds:,.0f}"
        loss = _NONE if final is None else f"{final.loss:.4f}"
        rows.append([result.arm, str(result.seed), result.status, loss, seconds, result.message])
    header = ["arm", "seed", "status", "held-out loss", "seconds of training", "what was wrong"]
    return Table(header, rows)


def loss_of(spread: Spread | None) -> str:
    """Return a loss over seeds in words."""
    if spread is None:
        return _NONE
    if spread.num_seeds == 1:
        return f"{spread.mean:.4f}"
    return f"{spread.mean:.4f} ({spread.low:.4f} to {spread.high:.4f})"


def speedup_of(arm: ArmSummary, accounting: str) -> str:
    """Return a speed-up over the reference in words."""
    return _percent(arm.speedups[accounting]) if accounting in arm.speedups else _NONE


def _percent(found: Speedup) -> str:
    if found.spread is None:
        return found.outcome
    text = f"{found.spread.mean:+.1%}"
    if found.spread.interval is not None:
        text += f" [{found.spread.interval[0]:+.1%}, {found.spread.interval[1]:+.1%}]"
    elif found.spread.num_seeds > 1:
        text += f" ({found.spread.low:+.1%} to {found.spread.high:+.1%})"
    return f"{AT_LEAST} {text}" if found.outcome == AT_LEAST else text
