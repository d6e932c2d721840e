"""Stack a checkpoint of TinyLlama's shape four times: hfgrow, cp, mergekit, transformers.

The commands run in turn, in one order and then in the other: each on an empty place after a sync,
with its input in memory, and as much free memory as the output takes just used and given back.
Compare only inside one table: seconds depend on what else the machine does.
"""

import argparse
import os
import sys
from pathlib import Path

from benchmarks import peers
from benchmarks.measure import (
    Run,
    clear,
    hfgrow_program,
    machine,
    measure,
    median,
    ratio,
    table,
    touch_memory,
    version_in,
    warm,
    write_json,
)
from benchmarks.models import SHAPES, make_llama, wrong_tensors


def main() -> None:
    """Run the rounds, print the tables and say which targets are missed."""
    arguments = _arguments()
    folder: Path = arguments.folder
    shape = SHAPES[arguments.shape]
    base, reference, out = (folder / name for name in (arguments.shape, "reference", "out"))
    make_llama(base, shape)
    clear(reference, out)
    stack = peers.hfgrow(hfgrow_program(), base, out, arguments.g)
    # This run is not counted: it makes what cp copies, and what the disk holds of it is fresh.
    measure(peers.hfgrow(hfgrow_program(), base, reference, arguments.g))
    _check("hfgrow", wrong_tensors(base, reference, shape.num_hidden_layers, arguments.g))

    commands = {"hfgrow": stack, "cp": peers.cp(reference, out)}
    program: Path | None = arguments.mergekit
    if program is not None and program.is_file():
        stacked = (program, base, out, arguments.g, shape.num_hidden_layers)
        commands["mergekit"] = peers.mergekit(*stacked)
        commands["mergekit async"] = peers.mergekit(*stacked, peers.MERGEKIT_ASYNC)
    else:
        print("mergekit is left out: name its mergekit-yaml with --mergekit", file=sys.stderr)
    commands["transformers"] = peers.transformers(base, out, arguments.g)

    nbytes = sum(path.stat().st_size for path in reference.iterdir())
    rounds: list[dict[str, Run]] = []
    for i in range(arguments.rounds):
        names = [n for n in commands if n != "transformers" or i < arguments.transformers]
        rounds.append({})
        for name in names if i % 2 == 0 else reversed(names):
            clear(out)
            touch_memory(nbytes)
            warm(reference if name == "cp" else base)
            rounds[-1][name] = measure(commands[name], out)
            if i == 0 and name not in ("hfgrow", "cp"):
                _check(name, wrong_tensors(base, out, shape.num_hidden_layers, arguments.g))
            _tell(i, name, rounds[-1][name])
    clear(reference, out)

    print(_report(rounds, [name for name in commands if any(name in r for r in rounds)]))
    versions = {
        "mergekit": version_in(program.with_name("python"), "mergekit") if program else None,
        "torch": version_in(None, "torch") if arguments.transformers else None,
        "transformers": version_in(None, "transformers") if arguments.transformers else None,
    }
    print(machine(folder), versions)
    write_json(arguments.json, folder, versions=versions, rounds=rounds)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="20 GB are needed")
    parser.add_argument("--shape", choices=SHAPES, default="tinyllama-1.1b")
    parser.add_argument("--g", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--mergekit", type=Path, metavar="MERGEKIT_YAML", help="its program")
    parser.add_argument(
        "--transformers", type=int, default=0, metavar="ROUNDS", help="takes 11 GB of memory"
    )
    parser.add_argument("--json", type=Path, help="write every run here")
    return parser.parse_args()


def _check(name: str, wrong: list[str]) -> None:
    if wrong:
        sys.exit(f"{name}: {len(wrong)} tensors are not those of the base, such as {wrong[0]}")
    print(f"{name}: every tensor equals its source", file=sys.stderr)


def _tell(i: int, name: str, run: Run) -> None:
    text = f"{run.wall_s:.1f} s + {run.fsync_s:.1f} s fsync, {run.peak_mib:.0f} MiB"
    print(f"round {i + 1}: {name}: {text}, load {run.load:.1f}", file=sys.stderr)


def _report(rounds: list[dict[str, Run]], names: list[str]) -> str:
    rows = []
    for name in names:
        runs = [r[name] for r in rounds if name in r]
        totals = [run.total_s for run in runs]
        values = [
            f"{median(rounds, name, lambda r: r.total_s):.1f} ({min(totals):.1f}-{max(totals):.1f})"
        ]
        values += [
            f"{median(rounds, name, lambda r: r.wall_s):.1f}",
            f"{median(rounds, name, lambda r: r.fsync_s):.1f}",
            f"{median(rounds, name, lambda r: r.user_s):.2f}",
            f"{median(rounds, name, lambda r: r.sys_s):.1f}",
            f"{median(rounds, name, lambda r: r.peak_mib):.0f}",
        ]
        rows.append([name, str(len(runs)), *values])
    head = ["tool", "n", "on disk after s (range)", "wall s", "fsync s", "user s", "sys s"]
    parts = [table([*head, "peak MiB"], rows)]

    rows = []
    for one, other in [("hfgrow", "cp"), *((n, "hfgrow") for n in names[2:])]:
        cells = [f"{one} / {other}"]
        for what in (
            lambda r: r.total_s,
            lambda r: r.user_s + r.sys_s,
            lambda r: r.peak_mib,
        ):
            found = ratio(rounds, one, other, what)
            cells.append("{:.2f} ({:.2f}-{:.2f})".format(*found) if found else "")
        rows.append(cells)
    parts.append(table(["ratio within a round", "on disk after", "CPU", "peak memory"], rows))

    parts.append(table(["target", "measured", ""], _targets(rounds, names)))
    loads = [run.load for r in rounds for run in r.values()]
    parts.append(f"Load before a run: {min(loads):.1f} to {max(loads):.1f}; {os.cpu_count()} cores")
    return "\n\n".join(parts)


def _targets(rounds: list[dict[str, Run]], names: list[str]) -> list[list[str]]:
    to_cp = ratio(rounds, "hfgrow", "cp", lambda r: r.total_s)
    assert to_cp is not None
    user_s = median(rounds, "hfgrow", lambda r: r.user_s)
    peak = max(r["hfgrow"].peak_mib for r in rounds)
    rows = [
        ["at most 1.1x cp", f"{to_cp[0]:.2f}x", _held(to_cp[0] <= 1.1)],
        ["user CPU at most 1 s", f"{user_s:.2f} s", _held(user_s <= 1)],
        ["peak at most 150 MB", f"{peak * 1.048576:.0f} MB", _held(peak * 1.048576 <= 150)],
    ]
    if "mergekit" in names:
        wall = ratio(rounds, "mergekit", "hfgrow", lambda r: r.total_s)
        memory = ratio(rounds, "mergekit", "hfgrow", lambda r: r.peak_mib)
        assert wall is not None
        assert memory is not None
        rows += [
            ["at least 2.5x faster than mergekit", f"{wall[0]:.1f}x", _held(wall[0] >= 2.5)],
            ["at least 40x less memory than it", f"{memory[0]:.0f}x", _held(memory[0] >= 40)],
        ]
    return rows


def _held(held: bool) -> str:
    return "held" if held else "MISSED"


if __name__ == "__main__":
    main()
