"""The tables of a report of a study."""

from collections.abc import Sequence

from hfgrow.console import count
from hfgrow.study import page
from hfgrow.study.accounting import ALL_IN, EXACT, MARGINAL, TOKENS
from hfgrow.study.design import Design
from hfgrow.study.results import Result
from hfgrow.study.summary import AT_LEAST, ArmSummary, Speedup, Spread, Summary

_NONE = "-"
_COLUMNS = {
    ALL_IN: "all-in",
    MARGINAL: "marginal",
    TOKENS: "token ratio",
    EXACT: "all-in, exact FLOPs",
}


def losses_table(design: Design, summed: Summary) -> page.Table:
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
    return page.Table(header, rows)


def speedups_table(design: Design, summed: Summary) -> page.Table:
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
    return page.Table(header, rows)


def at_losses_table(summed: Summary) -> page.Table:
    """Return the speed-ups at the losses of the reference on its way."""
    header = ["arm", *(f"loss {loss:.3f}" for loss in summed.losses)]
    nothing = [_NONE] * len(summed.losses)
    rows = [
        [arm.arm, *(map(_percent, arm.at_losses) if arm.at_losses else nothing)]
        for arm in summed.arms
        if arm.arm != summed.reference
    ]
    return page.Table(header, rows)


def growth_table(summed: Summary) -> page.Table:
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
    return page.Table(header, rows)


def runs_table(found: Sequence[Result]) -> page.Table:
    """Return how every run ended."""
    rows = []
    for result in found:
        final = result.final
        seconds = _NONE if result.seconds is None else f"{result.seconds:,.0f}"
        loss = _NONE if final is None else f"{final.loss:.4f}"
        rows.append([result.arm, str(result.seed), result.status, loss, seconds, result.message])
    header = ["arm", "seed", "status", "held-out loss", "seconds of training", "what was wrong"]
    return page.Table(header, rows)


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
