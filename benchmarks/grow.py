"""The whole job beside its peers and beside an older hfgrow: grow, prove, push, verify.

Every row is a job that somebody runs: `stack`, the same with --verify and with --push to a Hub on
loopback, `verify`, growth in width, each now and, with @ behind it, at an earlier commit; cp of the
output; mergekit, a look with transformers and `hf upload`; but `stack-sha256`, which is the writer
alone, with the hash that it takes for a proof or a push. The jobs run in turn, in one order and
then in the other, as `rounds.py` says. Compare only inside one table: seconds depend on what else
the machine does.
"""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from benchmarks import peers
from benchmarks.environments import ROOT, hfgrow_venv, mergekit_venv
from benchmarks.loopback import fresh_hub
from benchmarks.measure import (
    Run,
    clear,
    hfgrow_program,
    machine,
    measure,
    ratio,
    table,
    version_in,
    write_json,
)
from benchmarks.models import SHAPES, different_tensors, make_llama, wrong_tensors
from benchmarks.rounds import Entry, Rounds, held, loads, ratios, speed, take_turns, times

# Before direct writing, one pass and the proof with a layer in memory.
BEFORE = "0e9aef6"
_PUSHED = "alice/grown"
_PROBE_TOKENS = 128
_STACKED, _WIDENED = "cp", "cp-wide"
_JOB = "mergekit-load-upload"
_NOW = ("stack", "stack-verify", "stack-push", "verify", "hyperclone", "hyperclone-noisy")
_HASHED = "stack-sha256"
_USUAL = (_STACKED, _HASHED, *_NOW[:4], _JOB, _WIDENED, *_NOW[4:])
_OTHERS = ("upload", "mergekit", "transformers", "ml-hypercloning")
_ROWS = (*_USUAL, *(f"{name}@{BEFORE}" for name in _NOW), *_OTHERS)
_DEFAULT = (*_USUAL, *(f"{name}@{BEFORE}" for name in _NOW[:4]))


@dataclass(frozen=True)
class Aim:
    """What a row is to reach, by itself or beside another.

    Attributes:
        row: The row.
        what: What of it, a key of `_MEASURES`.
        limit: The number to reach: by the median of the ratios within a round, or by every run.
        other: The row that it is a ratio to; None for the number itself.
        at_least: Whether more is better.
    """

    row: str
    what: str
    limit: float
    other: str | None = None
    at_least: bool = False

    def cells(self, rounds: Rounds) -> list[str] | None:
        """Return the row of the table, None where not all of it was measured."""
        of = _MEASURES[self.what]
        if self.other is None:
            value = max((of(r[self.row]) for r in rounds if self.row in r), default=None)
        else:
            found = ratio(rounds, self.row, self.other, of)
            value = found[0] if found else None
        if value is None:
            return None
        kept = value >= self.limit if self.at_least else value <= self.limit
        bound = f"at {'least' if self.at_least else 'most'} {self.limit:g}"
        unit = f"x {self.other}" if self.other else ""
        return [f"`{self.row}`: {self.what} {bound}{unit}", f"{value:.3g}", held(kept)]


_MEASURES: dict[str, Callable[[Run], float]] = {
    "time": lambda run: run.total_s,
    "user s": lambda run: run.user_s,
    "peak MB": lambda run: run.peak_mib * 1.048576,
    "bytes/s": speed,
}
_AIMS = (
    Aim("stack", "time", 0.5, _STACKED),
    Aim(_HASHED, "time", 0.7, _STACKED),
    Aim("stack", "user s", 1),
    Aim("stack", "peak MB", 150),
    Aim("hyperclone", "bytes/s", 1.2, _WIDENED, at_least=True),
    Aim("hyperclone-noisy", "bytes/s", 1, _WIDENED, at_least=True),
    Aim("hyperclone", "peak MB", 400),
    Aim("hyperclone-noisy", "peak MB", 400),
    Aim("stack-push", "time", 0.4, f"stack-push@{BEFORE}"),
    Aim("stack-push", "peak MB", 1000),
    Aim("verify", "time", 0.5, f"verify@{BEFORE}"),
    Aim("verify", "peak MB", 1000),
    Aim(_JOB, "time", 3, "stack-push", at_least=True),
    Aim(_JOB, "peak MB", 10, "stack-push", at_least=True),
)
# What else is held against each other, where both ran.
_PAIRS = (
    ("stack", _STACKED),
    (_HASHED, _STACKED),
    *((name, f"{name}@{BEFORE}") for name in _NOW),
    ("stack-push", "upload"),
    (_JOB, "stack-push"),
    ("mergekit", "stack"),
    ("transformers", "stack"),
    ("hyperclone", _WIDENED),
    ("hyperclone-noisy", _WIDENED),
    ("ml-hypercloning", "hyperclone"),
)


class Jobs:
    """The rows of the table, made from what was asked for.

    Attributes:
        base: The model that is grown.
        out: Where every job writes.
        entries: What runs.
    """

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._arguments = arguments
        self._folder: Path = arguments.folder.absolute()
        self._venvs = self._folder / "venvs"
        self._shape = SHAPES[arguments.shape]
        if arguments.layers is not None:
            self._shape = replace(self._shape, num_hidden_layers=arguments.layers)
        name = f"{arguments.shape}-{self._shape.num_hidden_layers}-layers"
        self.base, self.out = self._folder / name, self._folder / "out"
        self._stacked, self._widened = self._folder / "stacked", self._folder / "widened"
        self.entries = {name: self._entry(name) for name in arguments.only}

    def prepare(self) -> int:
        """Make the base, and what cp copies and `verify` looks at; return the output's size."""
        make_llama(self.base, self._shape, tokenizer=ROOT / "hfgrow" / "demo")
        clear(self._stacked, self._widened, self.out)
        names = self.entries.keys()
        commands = {}
        if any(name in (_STACKED, "upload") or name.startswith("verify") for name in names):
            # What the earlier commit wrote is read by both.
            earlier = f"verify@{BEFORE}" in names
            program = str(self._before("hfgrow")) if earlier else hfgrow_program()
            grow = peers.hfgrow(program, self.base, self._stacked, self._arguments.g)
            commands[self._stacked] = grow
        if any(name in (_WIDENED, "ml-hypercloning") for name in names):
            g = self._arguments.width_g
            grow = peers.widen(hfgrow_program(), "hyperclone", self.base, self._widened, g)
            commands[self._widened] = grow
        for folder, command in commands.items():
            measure(command, folder)
        if self._stacked in commands:
            self._check_stack("stack", self._stacked)
        sizes: list[int] = [self._arguments.g * _nbytes(self.base), *map(_nbytes, commands)]
        return max(sizes)

    def remove(self) -> None:
        """Remove what is large and can be made again; the base and the environments stay."""
        clear(self._stacked, self._widened, self.out)
        self.out.with_suffix(".yaml").unlink(missing_ok=True)
        if not self._arguments.keep_base:
            clear(self.base)

    def versions(self) -> dict[str, str | None]:
        """Return the versions of what took part."""
        found = {name: version_in(None, name) for name in ("torch", "transformers")}
        if any(name in self.entries for name in (_JOB, "mergekit")):
            python = self._mergekit("python")
            theirs = ("mergekit", "transformers", "huggingface_hub")
            found |= {f"{name} of the peers": version_in(python, name) for name in theirs}
        return found

    def _entry(self, row: str) -> Entry:
        name, _, commit = row.partition("@")
        program = str(self._before("hfgrow")) if commit else hfgrow_program()
        stack = partial(peers.hfgrow, program, self.base, self.out, self._arguments.g)
        check = partial(self._check_stack, row, self.out)
        hub = partial(fresh_hub, self._folder)
        match name:
            case "cp":
                return Entry(peers.cp(self._stacked, self.out), self._stacked)
            case "cp-wide":
                return Entry(peers.cp(self._widened, self.out), self._widened)
            case "stack":
                return Entry(stack(), self.base, check=check)
            case "stack-sha256":
                script = peers.with_sha256(self.base, self.out, self._arguments.g)
                return Entry(script, self.base, check=check)
            case "stack-verify":
                return Entry(stack("--verify"), self.base, check=check)
            case "stack-push":
                push = stack("--push", "--repo", _PUSHED)
                return Entry(push, self.base, check=check, within=hub)
            case "verify":
                return Entry(peers.verify(program, self._stacked), self._stacked)
            case "upload":
                command = peers.upload(self._beside("hf"), self._stacked, _PUSHED)
                return Entry(command, self._stacked, within=hub)
            case "mergekit":
                return Entry(self._passthrough(), self.base, check=check)
            case "mergekit-load-upload":
                load = peers.load(self._mergekit("python"), self.out, _PROBE_TOKENS)
                upload = peers.upload(self._mergekit("hf"), self.out, _PUSHED)
                command = self._passthrough()
                return Entry(command, self.base, check=check, then=(load, upload), within=hub)
            case "transformers":
                script = peers.transformers(self.base, self.out, self._arguments.g)
                return Entry(script, self.base, self._arguments.once, check)
            case "ml-hypercloning":
                command = peers.ml_hypercloning(
                    self._arguments.ml_hypercloning, self.base, self.out, self._arguments.width_g
                )
                return Entry(command, self.base, self._arguments.once, self._check_apple)
        g = self._arguments.width_g
        return Entry(peers.widen(program, name, self.base, self.out, g), self.base)

    def _passthrough(self) -> list[str]:
        layers = self._shape.num_hidden_layers
        places = (self._mergekit("mergekit-yaml"), self.base, self.out)
        return peers.mergekit(*places, self._arguments.g, layers, peers.MERGEKIT_ASYNC)

    def _mergekit(self, program: str) -> Path:
        return mergekit_venv(self._venvs, self._arguments.mergekit_venv) / "bin" / program

    def _before(self, program: str) -> Path:
        return hfgrow_venv(self._venvs, BEFORE, self._arguments.base_venv) / "bin" / program

    def _beside(self, program: str) -> Path:
        return Path(sys.executable).with_name(program)

    def _check_stack(self, row: str, out: Path) -> None:
        layers = self._shape.num_hidden_layers
        _refuse(row, wrong_tensors(self.base, out, layers, self._arguments.g))
        print(f"{row}: every tensor equals its source{_hashes(out)}", file=sys.stderr)

    def _check_apple(self) -> None:
        _refuse("ml-hypercloning", different_tensors(self._widened, self.out))
        print("ml-hypercloning: every tensor has the bytes of `hyperclone`", file=sys.stderr)


def main() -> None:
    """Run the rounds, print the tables and say which aims are missed."""
    arguments = _arguments()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    jobs = Jobs(arguments)
    try:
        nbytes = jobs.prepare()
        rounds = take_turns(jobs.entries, jobs.out, arguments.rounds, nbytes)
    finally:
        jobs.remove()
    aims = [cells for aim in _AIMS if (cells := aim.cells(rounds))]
    pairs = [pair for pair in _PAIRS if all(name in jobs.entries for name in pair)]
    report = [times(rounds), ratios(rounds, pairs), table(["aim", "measured", ""], aims)]
    print(*report, loads(rounds), sep="\n\n")
    print(machine(arguments.folder), jobs.versions())
    write_json(arguments.json, arguments.folder, versions=jobs.versions(), rounds=rounds)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--folder",
        type=Path,
        required=True,
        help="its disk is measured; bytes of the base x (1 + 3 g) are needed, 30 GB as it is",
    )
    parser.add_argument("--shape", choices=SHAPES, default="tinyllama-1.1b")
    parser.add_argument("--layers", type=int, metavar="N", help="another depth of that shape")
    parser.add_argument("--g", type=int, default=4, help="of the rows in depth")
    parser.add_argument("--width-g", type=int, default=2, help="of the rows in width")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=_ROWS, default=_DEFAULT, metavar="ROW")
    parser.add_argument("--base-venv", type=Path, help=f"with hfgrow at {BEFORE}; else one is made")
    parser.add_argument("--mergekit-venv", type=Path, help="with mergekit; else one is made")
    parser.add_argument("--ml-hypercloning", type=Path, metavar="CHECKOUT", help="its repository")
    parser.add_argument("--once", type=int, default=1, help="rounds of what takes 11 GB of memory")
    parser.add_argument("--keep-base", action="store_true", help="for the next time")
    parser.add_argument("--json", type=Path, help="write every run here")
    found = parser.parse_args()
    if "ml-hypercloning" in found.only and found.ml_hypercloning is None:
        parser.error("the row ml-hypercloning needs --ml-hypercloning CHECKOUT")
    return found


def _refuse(row: str, wrong: list[str]) -> None:
    if wrong:
        sys.exit(f"{row}: {len(wrong)} tensors are not what they should be, such as {wrong[0]}")


def _nbytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def _hashes(out: Path) -> str:
    """Say whether hfgrow.json of an output tells the sha256 of its files."""
    if not (out / "hfgrow.json").is_file():
        return ""
    document = json.loads((out / "hfgrow.json").read_text(encoding="utf-8"))
    files = document["chain"][-1]["result"]["files"]
    known = all(file.get("sha256") for file in files.values())
    return ", sha256 recorded" if known else ", no sha256 recorded"


if __name__ == "__main__":
    main()
