"""Expand blocks from 22 to 33 layers: hfgrow zero-depth, cp, LLaMA-Factory's llama_pro.py.

The base has TinyLlama's shape. The commands take turns as `rounds.py` says.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from benchmarks import peers
from benchmarks.measure import clear, hfgrow_program, machine, ratio, table, version_in, write_json
from benchmarks.models import SHAPES, different_tensors, make_llama, make_tokenizer
from benchmarks.rounds import Entry, Rounds, held, loads, ratios, take_turns, times

_SCRIPT = "llama_pro.py"
# What takes longest to import; none of it is needed to copy bytes and to leave holes.
_HEAVY = ("torch", "transformers", "numpy")


def main() -> None:
    """Run the rounds, print the tables and say which targets are missed."""
    arguments = _arguments()
    folder: Path = arguments.folder
    shape = SHAPES[arguments.shape]
    base, reference, out = (folder / name for name in (arguments.shape, "reference", "out"))
    make_llama(base, shape)
    make_tokenizer(base, shape.vocab_size)
    clear(reference, out)
    # This run is not counted: it makes what cp copies, and what llama_pro.py is compared with.
    grow = peers.expand(hfgrow_program(), base, reference, arguments.every)
    imported = _imported(grow)

    def check() -> None:
        wrong = different_tensors(reference, out)
        if wrong:
            sys.exit(f"{_SCRIPT}: {len(wrong)} tensors differ from hfgrow's, such as {wrong[0]}")
        print(f"{_SCRIPT}: every tensor has the bytes of hfgrow zero-depth", file=sys.stderr)

    entries = {
        "zero-depth": Entry(peers.expand(hfgrow_program(), base, out, arguments.every), base),
        "cp": Entry(peers.cp(reference, out), reference),
    }
    script: Path | None = arguments.llama_pro
    if script is not None and script.is_file():
        added = shape.num_hidden_layers // arguments.every
        command = peers.llama_pro(arguments.llama_pro_python, script, base, out, added)
        entries[_SCRIPT] = Entry(command, base, check=check)
    else:
        print(f"{_SCRIPT} is left out: name it with --llama-pro", file=sys.stderr)

    nbytes = sum(path.stat().st_size for path in reference.iterdir())
    blocks = sum(path.stat().st_blocks * 512 for path in reference.iterdir())
    rounds = take_turns(entries, out, arguments.rounds, nbytes)
    clear(reference)
    pairs = [("zero-depth", "cp"), *([(_SCRIPT, "zero-depth")] if _SCRIPT in entries else [])]
    report = [times(rounds), ratios(rounds, pairs), _targets(rounds, imported), loads(rounds)]
    print(*report, f"{nbytes / 1e9:.2f} GB, of which {blocks / 1e9:.2f} GB on the disk", sep="\n\n")
    versions = {name: version_in(None, name) for name in ("torch", "transformers")}
    print(machine(folder), versions)
    write_json(arguments.json, folder, versions=versions, imported=imported, rounds=rounds)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="9 GB are needed")
    parser.add_argument("--shape", choices=SHAPES, default="tinyllama-1.1b")
    parser.add_argument("--every", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--llama-pro", type=Path, metavar="SCRIPT", help="LLaMA-Factory's scripts/llama_pro.py"
    )
    parser.add_argument(
        "--llama-pro-python",
        type=Path,
        default=Path(sys.executable),
        help="it needs `fire` and `accelerate`",
    )
    parser.add_argument("--json", type=Path, help="write every run here")
    return parser.parse_args()


def _imported(command: list[str]) -> list[str]:
    """Run a Python program and return which of the heavy packages it imported."""
    traced = [sys.executable, "-X", "importtime", *command]
    done = subprocess.run(traced, capture_output=True, text=True, check=True)
    modules = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    if "hfgrow" not in modules:
        sys.exit("no import of hfgrow was seen: the check of what it imports is broken")
    return [name for name in _HEAVY if name in modules]


def _targets(rounds: Rounds, imported: list[str]) -> str:
    peak = max(r["zero-depth"].peak_mib for r in rounds) * 1.048576
    rows = [
        ["peak at most 150 MB", f"{peak:.0f} MB", held(peak <= 150)],
        ["neither torch nor numpy imported", ", ".join(imported) or "none", held(not imported)],
    ]
    faster = ratio(rounds, _SCRIPT, "zero-depth", lambda r: r.total_s)
    if faster is not None:
        target = f"at least 4x faster than {_SCRIPT}"
        rows.append([target, f"{faster[0]:.1f}x", held(faster[0] >= 4)])
    return table(["target", "measured", ""], rows)


if __name__ == "__main__":
    main()
