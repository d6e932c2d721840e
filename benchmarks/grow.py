"""Stack a checkpoint of TinyLlama's shape four times: hfgrow, cp, mergekit, transformers.

The commands run in turn, in one order and then in the other: each on an empty place after a sync,
with its input in memory, and as much free memory as the output takes just used and given back.
Compare only inside one table: seconds depend on what else the machine does.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks import peers
from benchmarks.measure import (
    clear,
    hfgrow_program,
    machine,
    measure,
    median,
    ratio,
    table,
    version_in,
    write_json,
)
from benchmarks.models import SHAPES, make_llama, wrong_tensors
from benchmarks.rounds import Entry, Rounds, held, loads, ratios, take_turns, times


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

    def checked(name: str) -> Callable[[], None]:
        return lambda: _check(name, wrong_tensors(base, out, shape.num_hidden_layers, arguments.g))

    entries = {"hfgrow": Entry(stack, base), "cp": Entry(peers.cp(reference, out), reference)}
    program: Path | None = arguments.mergekit
    if program is not None and program.is_file():
        stacked = (program, base, out, arguments.g, shape.num_hidden_layers)
        for name, extra in (("mergekit", ()), ("mergekit async", peers.MERGEKIT_ASYNC)):
            entries[name] = Entry(peers.mergekit(*stacked, extra), base, check=checked(name))
    else:
        print("mergekit is left out: name its mergekit-yaml with --mergekit", file=sys.stderr)
    script = peers.transformers(base, out, arguments.g)
    entries["transformers"] = Entry(script, base, arguments.transformers, checked("transformers"))

    nbytes = sum(path.stat().st_size for path in reference.iterdir())
    rounds = take_turns(entries, out, arguments.rounds, nbytes)
    clear(reference)
    names = [name for name in entries if any(name in r for r in rounds)]
    pairs = [("hfgrow", "cp"), *((name, "hfgrow") for name in names[2:])]
    print(times(rounds), ratios(rounds, pairs), _targets(rounds), loads(rounds), sep="\n\n")
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


def _targets(rounds: Rounds) -> str:
    to_cp = ratio(rounds, "hfgrow", "cp", lambda r: r.total_s)
    assert to_cp is not None
    user_s = median(rounds, "hfgrow", lambda r: r.user_s)
    peak = max(r["hfgrow"].peak_mib for r in rounds)
    rows = [
        ["at most 1.1x cp", f"{to_cp[0]:.2f}x", held(to_cp[0] <= 1.1)],
        ["user CPU at most 1 s", f"{user_s:.2f} s", held(user_s <= 1)],
        ["peak at most 150 MB", f"{peak * 1.048576:.0f} MB", held(peak * 1.048576 <= 150)],
    ]
    wall = ratio(rounds, "mergekit", "hfgrow", lambda r: r.total_s)
    memory = ratio(rounds, "mergekit", "hfgrow", lambda r: r.peak_mib)
    if wall is not None and memory is not None:
        rows += [
            ["at least 2.5x faster than mergekit", f"{wall[0]:.1f}x", held(wall[0] >= 2.5)],
            ["at least 40x less memory than it", f"{memory[0]:.0f}x", held(memory[0] >= 40)],
        ]
    return table(["target", "measured", ""], rows)


if __name__ == "__main__":
    main()
