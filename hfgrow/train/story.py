"""What a stage did to the held-out loss: before growth, after it, after training."""

from collections.abc import Sequence
from typing import Any

from hfgrow.lineage.records import Evaluated


def stories(
    evaluations: Sequence[dict[str, Any]], stage: int, *, has_grown: bool
) -> tuple[Evaluated, ...]:
    """Return what a stage did to every held-out text.

    Args:
        evaluations: All of the run, in order, as `Position` keeps them.
        stage: The stage, from 0.
        has_grown: Whether the stage follows growth.
    """
    earlier = [line for line in evaluations if line["stage"] < stage or line["when"] == "base"]
    own = [line for line in evaluations if line["stage"] == stage and line["when"] != "base"]
    if not own:
        return ()
    found = []
    for label, first in own[0]["validation"].items():
        last = own[-1]["validation"][label]
        known = [
            line["validation"][label]["loss"] for line in earlier if label in line["validation"]
        ]
        before_growth = known[-1] if known and has_grown else None
        found.append(
            Evaluated(
                label=label,
                num_tokens=last["num_tokens"],
                before_growth=before_growth,
                before=first["loss"],
                after=last["loss"],
                bits_per_byte_before=first["bits_per_byte"],
                bits_per_byte_after=last["bits_per_byte"],
                recovered_tokens=None
                if before_growth is None
                else _recovered(own, label, before_growth),
            )
        )
    return tuple(found)


def told(story: Evaluated) -> str:
    """Return a story as a line."""
    line = f"  {story.label}: "
    if story.before_growth is not None:
        line += f"{story.before_growth:.4f} before growth, {story.before:.4f} just after, "
    else:
        line += f"{story.before:.4f} before, "
    line += f"{story.after:.4f} after training"
    if story.before_growth is None:
        raised = story.after - story.before
        return f"{line}; training raised it by {raised:.4f}" if raised > 0 else line
    match story.recovered_tokens:
        case None:
            line += "; not yet back where it was before growth"
        case 0:
            line += "; growth did not raise it"
        case tokens:
            line += f"; back where it was before growth after {tokens:,} tokens"
    above = story.after - story.before_growth
    if story.recovered_tokens is not None and above > 0:
        line += f", but in the end {above:.4f} above that"
    return line


def _recovered(own: Sequence[dict[str, Any]], label: str, before: float) -> int | None:
    first: int = own[0]["tokens"]
    for line in own:
        if line["validation"][label]["loss"] <= before:
            return int(line["tokens"]) - first
    return None
