"""What stands in the report of a study: its paragraphs, tables and pictures, in order."""

from collections.abc import Iterator, Sequence

from hfgrow.numbers import count
from hfgrow.study import page
from hfgrow.study.accounting import ALL_IN, EXACT, MARGINAL, TOKENS
from hfgrow.study.design import Design
from hfgrow.study.jobs import DONE
from hfgrow.study.machine import Machine
from hfgrow.study.results import Result
from hfgrow.study.speedup import CONFIDENCE
from hfgrow.study.summary import SHARES, ArmSummary, Spread, Summary

_NONE = "-"
_NOT_REACHED = "not reached"
_COLUMNS = {
    ALL_IN: "all-in",
    MARGINAL: "marginal",
    TOKENS: "token ratio",
    EXACT: "all-in, exact FLOPs",
}


def blocks(
    design: Design,
    found: Sequence[Result],
    summed: Summary,
    drawn: Sequence[page.Picture],
    command: str,
    machine: Machine,
) -> Iterator[page.Block]:
    """Yield what stands in a report.

    Args:
        design: The runs.
        found: What they measured.
        summed: What that comes to.
        drawn: The pictures.
        command: What was typed.
        machine: What it ran on.
    """
    study = design.study
    if study.question:
        yield page.Paragraph(study.question)
    finished = {result.seed for result in found if result.status == DONE}
    num_seeds = f"{len(finished)} seed{'' if len(finished) == 1 else 's'}"
    batch = design.jobs[0].recipe.batch_tokens
    yield page.Paragraph(
        f"{num_seeds}; {count(design.arms[0].costs[-1].num_parameters)} parameters; "
        f"{batch:,} tokens a step; every arm has the same text in the same order, the same batch, "
        f"schedule and learning rate, unless its recipe says otherwise. Machine: {machine.words}."
    )
    yield page.Paragraph(command, code=True)
    if not drawn:
        yield page.Paragraph(
            "There are no pictures: nothing is finished, or matplotlib is missing."
        )
    by_name = {picture.name: picture for picture in drawn}
    yield page.Heading("Loss and cost")
    yield _losses(design, summed)
    for name in ("loss-flops.png", "loss-tokens.png"):
        if name in by_name:
            yield by_name[name]
    if summed.reference is not None:
        yield page.Heading(f"Speed-up over {summed.reference} at equal loss")
        yield page.Paragraph(
            f"FLOPs of {summed.reference} divided by those of the arm, less 1, at the lowest loss "
            "that both came down to, for each seed. All-in counts the base, marginal does not; the "
            "token ratio compares tokens after the base. " + _said_of_intervals(len(finished))
        )
        yield _speedups(design, summed)
        if "speedup.png" in by_name:
            yield by_name["speedup.png"]
        if summed.losses:
            yield page.Paragraph(
                f"All-in speed-up at the mean losses that {summed.reference} had after "
                f"{', '.join(f'{share:.0%}' for share in SHARES)} of its FLOPs:"
            )
            yield _at_losses(summed)
    if any(arm.jump for arm in summed.arms):
        yield page.Heading("What growth did")
        yield page.Paragraph(
            "A function-preserving growth leaves the loss where it was. Rc is the share of "
            "neighbouring copies of layers that were neighbours in the base. The last column is "
            "the share of the weights of layers whose gradient is exactly zero in the first step."
        )
        yield _growth(summed)
        if "growth.png" in by_name:
            yield by_name["growth.png"]
    yield page.Heading("Runs")
    yield _runs(found)


def _losses(design: Design, summed: Summary) -> page.Table:
    header = ["arm", "seeds", "held-out loss (range)", "bits a byte", "parameters"]
    header += ["tokens after the base", "all-in FLOPs", "of them base"]
    rows = [
        [
            arm.arm,
            str(arm.num_seeds),
            _loss(arm.loss),
            _NONE if arm.bits_per_byte is None else f"{arm.bits_per_byte.mean:.4f}",
            count(arm.num_parameters),
            f"{arm.tokens_after_base:,}",
            f"{arm.flops:.3g}",
            f"{arm.base_flops / arm.flops:.1%}",
        ]
        for arm in summed.arms
    ]
    return page.Table(header, rows)


def _speedups(design: Design, summed: Summary) -> page.Table:
    papers = {name: arm.paper for name, arm in design.study.arms.items()}
    header = ["arm", *_COLUMNS.values(), "at loss"]
    if any(papers.values()):
        header.append("the paper, at its size")
    rows = []
    for arm in summed.arms:
        row = [arm.arm]
        row += [_speedup(arm, key) for key in _COLUMNS]
        row.append(_NONE if arm.equal_loss is None else f"{arm.equal_loss.mean:.4f}")
        rows.append([*row, papers[arm.arm] or _NONE] if any(papers.values()) else row)
    return page.Table(header, rows)


def _at_losses(summed: Summary) -> page.Table:
    header = ["arm", *(f"loss {loss:.3f}" for loss in summed.losses)]
    nothing = [_NONE] * len(summed.losses)
    rows = [
        [arm.arm, *(map(_percent, arm.at_losses) if arm.at_losses else nothing)]
        for arm in summed.arms
        if arm.arm != summed.reference
    ]
    return page.Table(header, rows)


def _growth(summed: Summary) -> page.Table:
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
    return page.Table(header, rows)


def _runs(found: Sequence[Result]) -> page.Table:
    rows = []
    for result in found:
        final = result.final
        seconds = _NONE if result.seconds is None else f"{result.seconds:,.0f}"
        loss = _NONE if final is None else f"{final.loss:.4f}"
        rows.append([result.arm, str(result.seed), result.status, loss, seconds, result.message])
    header = ["arm", "seed", "status", "held-out loss", "seconds of training", "what was wrong"]
    return page.Table(header, rows)


def _said_of_intervals(num_seeds: int) -> str:
    if num_seeds < 2:
        return "With one seed there is no interval."
    said = f"In brackets, the {CONFIDENCE:.0%} bootstrap interval of the mean over seeds"
    few = "; of so few seeds it is too narrow" if num_seeds < 10 else ""
    return f"{said}{few}."


def _loss(spread: Spread | None) -> str:
    if spread is None:
        return _NONE
    if spread.num_seeds == 1:
        return f"{spread.mean:.4f}"
    return f"{spread.mean:.4f} ({spread.low:.4f} to {spread.high:.4f})"


def _speedup(arm: ArmSummary, accounting: str) -> str:
    return _percent(arm.speedups[accounting]) if accounting in arm.speedups else _NONE


def _percent(spread: Spread | None) -> str:
    if spread is None:
        return _NOT_REACHED
    text = f"{spread.mean:+.1%}"
    if spread.interval is not None:
        text += f" [{spread.interval[0]:+.1%}, {spread.interval[1]:+.1%}]"
    return text


def lines_of(found: Summary) -> Iterator[str]:
    """Yield the outcome of a study in a few lines."""
    for arm in found.arms:
        loss = _loss(arm.loss)
        more = f", speed-up all-in {_speedup(arm, ALL_IN)}" if arm.speedups else ""
        yield f"  {arm.arm}: loss {loss}{more}"
