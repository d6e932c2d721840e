"""Measure how long the whole process takes where there is next to nothing to do."""

import argparse
import os
import statistics
import sys
from pathlib import Path

from benchmarks import peers
from benchmarks.measure import Run, clear, hfgrow_program, machine, measure, table, write_json
from benchmarks.models import SHAPES, make_llama

_TARGETS = {"hfgrow --help": 0.3, "hfgrow stack, tiny model": 0.5}


def main() -> None:
    """Run each command several times in turn and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--mergekit", type=Path, metavar="MERGEKIT_YAML", help="its program")
    parser.add_argument("--json", type=Path, help="write every run here")
    arguments = parser.parse_args()

    base, out = arguments.folder / "tiny", arguments.folder / "out"
    make_llama(base, SHAPES["tiny"])
    commands = {
        # What any Python program pays.
        "python -c pass": [sys.executable, "-c", "pass"],
        "hfgrow --help": [hfgrow_program(), "--help"],
        "hfgrow stack, tiny model": peers.hfgrow(hfgrow_program(), base, out, 2),
    }
    program: Path | None = arguments.mergekit
    if program is not None:
        commands["mergekit-yaml --help"] = [str(program), "--help"]
        commands["mergekit-yaml, tiny model"] = peers.mergekit(program, base, out, 2, 2)

    runs: dict[str, list[Run]] = {name: [] for name in commands}
    for i in range(arguments.rounds + 1):
        for name, command in commands.items():
            clear(out)
            run = measure(command)
            # The first round fills the page cache and the byte code.
            if i:
                runs[name].append(run)
    clear(out)
    rows = []
    for name, taken in runs.items():
        wall = [run.wall_s for run in taken]
        target = _TARGETS.get(name)
        middle = statistics.median(wall)
        rows.append(
            [
                f"`{name}`" if "," not in name else name,
                f"{middle:.2f} ({min(wall):.2f}-{max(wall):.2f})",
                f"{statistics.median(run.user_s + run.sys_s for run in taken):.2f}",
                f"{max(run.peak_mib for run in taken):.0f}",
                f"{target} s: {'held' if middle <= target else 'MISSED'}" if target else "",
            ]
        )
    print(table(["command", "wall s (range)", "CPU s", "peak MiB", "target"], rows))
    print(machine(arguments.folder), f"n {arguments.rounds}, load {os.getloadavg()[0]:.1f}")
    write_json(arguments.json, arguments.folder, runs=runs)


if __name__ == "__main__":
    main()
