"""Double every width of a checkpoint of TinyLlama's shape: hfgrow, cp, Apple's ml-hypercloning.

Two rows are hfgrow's: hyperclone, which gives the bytes that ml-hypercloning gives, and
hyperclone-noisy, which adds noise that cancels. The commands take turns as `rounds.py` says.
"""

import argparse
import sys
from pathlib import Path

from benchmarks import peers
from benchmarks.measure import (
    clear,
    hfgrow_program,
    machine,
    measure,
    ratio,
    table,
    version_in,
    write_json,
)
from benchmarks.models import SHAPES, different_tensors, make_llama
from benchmarks.rounds import Entry, Rounds, held, loads, ratios, take_turns, times

_APPLE = "ml-hypercloning"


def main() -> None:
    """Run the rounds, print the tables and say which targets are missed."""
    arguments = _arguments()
    folder: Path = arguments.folder
    base, reference, out = (folder / name for name in (arguments.shape, "reference", "out"))
    make_llama(base, SHAPES[arguments.shape])
    clear(reference, out)
    # This run is not counted: it makes what cp copies, and what ml-hypercloning is compared with.
    measure(peers.widen(hfgrow_program(), "hyperclone", base, reference, arguments.g))

    def check() -> None:
        wrong = different_tensors(reference, out)
        if wrong:
            sys.exit(f"{_APPLE}: {len(wrong)} tensors differ from hfgrow's, such as {wrong[0]}")
        print(f"{_APPLE}: every tensor has the bytes of hfgrow hyperclone", file=sys.stderr)

    entries = {
        name: Entry(peers.widen(hfgrow_program(), name, base, out, arguments.g), base)
        for name in ("hyperclone", "hyperclone-noisy")
    }
    entries["cp"] = Entry(peers.cp(reference, out), reference)
    checkout: Path | None = arguments.ml_hypercloning
    if checkout is not None and (checkout / "hypercloning").is_dir():
        command = peers.ml_hypercloning(checkout, base, out, arguments.g)
        entries[_APPLE] = Entry(command, base, arguments.ml_hypercloning_rounds, check)
    else:
        print(f"{_APPLE} is left out: name its checkout with --{_APPLE}", file=sys.stderr)

    nbytes = sum(path.stat().st_size for path in reference.iterdir())
    rounds = take_turns(entries, out, arguments.rounds, nbytes)
    clear(reference)
    pairs = [("hyperclone", "cp"), ("hyperclone-noisy", "cp")]
    if _APPLE in entries:
        pairs += [(_APPLE, "hyperclone"), (_APPLE, "hyperclone-noisy")]
    print(times(rounds), ratios(rounds, pairs), _targets(rounds), loads(rounds), sep="\n\n")
    versions = {name: version_in(None, name) for name in ("torch", "transformers", "numpy")}
    print(machine(folder), versions)
    write_json(arguments.json, folder, versions=versions, rounds=rounds)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="20 GB are needed")
    parser.add_argument("--shape", choices=SHAPES, default="tinyllama-1.1b")
    parser.add_argument("--g", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument(
        f"--{_APPLE}", type=Path, metavar="CHECKOUT", help="its repository; takes 11 GB of memory"
    )
    parser.add_argument(f"--{_APPLE}-rounds", type=int, default=1, metavar="ROUNDS")
    parser.add_argument("--json", type=Path, help="write every run here")
    return parser.parse_args()


def _targets(rounds: Rounds) -> str:
    rows = []
    for name in ("hyperclone", "hyperclone-noisy"):
        speed = ratio(rounds, name, "cp", lambda r: r.output_nbytes / r.total_s)
        assert speed is not None
        share = f"{100 * speed[0]:.0f} %"
        rows.append([f"{name}: at least 70 % of cp's bytes a second", share, held(speed[0] >= 0.7)])
        peak = max(r[name].peak_mib for r in rounds) * 1.048576
        rows.append([f"{name}: peak at most 400 MB", f"{peak:.0f} MB", held(peak <= 400)])
        faster = ratio(rounds, _APPLE, name, lambda r: r.total_s)
        if faster is not None:
            target = f"{name}: at least 3x faster than {_APPLE}"
            rows.append([target, f"{faster[0]:.1f}x", held(faster[0] >= 3)])
    return table(["target", "measured", ""], rows)


if __name__ == "__main__":
    main()
