"""Commands that take turns, and the tables that a series of such rounds gives."""

import os
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import (
    Run,
    available_nbytes,
    clear,
    measure,
    median,
    one_after_another,
    ratio,
    table,
    touch_memory,
    warm,
)

Rounds = list[dict[str, Run]]


# Of the memory that is free; the rest is left for what else the machine does.
_SHARE = 0.7


@dataclass(frozen=True)
class Entry:
    """A job that takes part.

    Attributes:
        command: The program and its arguments; it writes the one output folder, or none.
        reads: The folder it reads, which is put in memory first.
        rounds: In how many rounds it takes part; None for all.
        check: Called once, with its first output in place.
        then: The commands that belong to the same job, one after the other.
        within: What is there while it runs, such as a server, and what it is told of it.
    """

    command: list[str]
    reads: Path
    rounds: int | None = None
    check: Callable[[], None] | None = None
    then: Sequence[list[str]] = ()
    within: Callable[[], AbstractContextManager[Mapping[str, str] | None]] = nullcontext


def take_turns(entries: Mapping[str, Entry], out: Path, num_rounds: int, nbytes: int) -> Rounds:
    """Run every entry once a round, in one order and then in the other.

    Args:
        entries: Name -> what to run.
        out: The folder each of them writes; removed after each.
        num_rounds: How many rounds.
        nbytes: The size of the output: so much memory is touched before each run, if it is free.
    """
    rounds: Rounds = []
    for i in range(num_rounds):
        names = [
            name for name, entry in entries.items() if entry.rounds is None or i < entry.rounds
        ]
        rounds.append({})
        for name in names if i % 2 == 0 else reversed(names):
            entry = entries[name]
            clear(out)
            touch_memory(min(nbytes, int(_SHARE * available_nbytes())))
            warm(entry.reads)
            run = rounds[-1][name] = _run(entry, out)
            text = f"{run.wall_s:.1f} s + {run.fsync_s:.1f} s fsync, {run.peak_mib:.0f} MiB"
            print(f"round {i + 1}: {name}: {text}, load {run.load:.1f}", file=sys.stderr)
            if i == 0 and entry.check is not None:
                entry.check()
    clear(out)
    return rounds


def _run(entry: Entry, out: Path) -> Run:
    with entry.within() as environment:
        runs = [
            measure(command, out, environment=environment)
            for command in (entry.command, *entry.then)
        ]
    return one_after_another(runs)


def times(rounds: Rounds) -> str:
    """Return the table of what each tool took, at the median."""
    rows = []
    for name in _names(rounds):
        runs = [r[name] for r in rounds if name in r]
        totals = [run.total_s for run in runs]
        middle = statistics.median(totals)
        rows.append(
            [
                name,
                str(len(runs)),
                f"{middle:.1f} ({min(totals):.1f}-{max(totals):.1f})",
                f"{median(rounds, name, lambda r: r.fsync_s):.1f}",
                f"{median(rounds, name, lambda r: r.user_s):.2f}",
                f"{median(rounds, name, lambda r: r.sys_s):.1f}",
                f"{median(rounds, name, speed) / 1e9:.2f}",
                f"{max(run.peak_mib for run in runs):.0f}",
            ]
        )
    head = ["tool", "n", "on disk after s (range)", "fsync s", "user s", "sys s", "GB/s"]
    return table([*head, "peak MiB"], rows)


def ratios(rounds: Rounds, pairs: Sequence[tuple[str, str]]) -> str:
    """Return the table of ratios of one tool to another, each taken within a round."""
    rows = []
    for one, other in pairs:
        cells = [f"{one} / {other}"]
        for what in (lambda r: r.total_s, lambda r: r.user_s + r.sys_s, lambda r: r.peak_mib):
            found = ratio(rounds, one, other, what)
            cells.append("{:.2f} ({:.2f}-{:.2f})".format(*found) if found else "")
        rows.append(cells)
    head = ["ratio within a round, median (range)", "on disk after", "CPU", "peak memory"]
    return table(head, rows)


def speed(run: Run) -> float:
    """Return the bytes of its output that a run brought to the disk in a second."""
    return run.output_nbytes / run.total_s


def held(held: bool) -> str:
    """Say whether a target is held."""
    return "held" if held else "MISSED"


def loads(rounds: Rounds) -> str:
    """Say what else ran."""
    found = [run.load for r in rounds for run in r.values()]
    return f"Load before a run: {min(found):.1f} to {max(found):.1f}; {os.cpu_count()} cores"


def _names(rounds: Rounds) -> list[str]:
    return list(dict.fromkeys(name for r in rounds for name in r))
