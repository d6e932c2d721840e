"""What memory each command takes, beside the size of the model: two sizes, so that a slope shows.

A deep and a shallow random Llama of the same width; every command runs on both, in a process of its
own. The peak is that of the process, by the kernel's account. What a command keeps in memory
whatever the size, such as torch, is in both; what grows by more than the model does is a cliff. A
run of all commands writes the table into README.md.
"""

import argparse
import shutil
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from benchmarks.document import put
from benchmarks.environments import ROOT
from benchmarks.loopback import fresh_hub
from benchmarks.measure import clear, hfgrow_program, machine, measure, table, write_json
from benchmarks.models import Shape, make_llama
from benchmarks.peers import verify

_SHAPE = Shape(512, 0, 8, 4, 1536, 2048)
_TOKENS = 64
README, _NAME = ROOT / "benchmarks" / "README.md", "memory"
_RECIPE = """
base: {base}
output: {out}
data:
  train: [{{path: {text}}}]
  validation: [{{path: {held_out}}}]
  sequence_length: {tokens}
batch_tokens: {tokens}
micro_batch_size: 1
precision: fp32
evaluation: {{tokens: 200}}
checkpoint: {{every_tokens: {tokens}, keep: 1}}
stages:
  - train: {{tokens: {twice}, learning_rate: 1e-5}}
"""


@dataclass(frozen=True)
class Place:
    """Where the commands of one size work.

    Attributes:
        base: The model that is grown, trained or measured.
        grown: It stacked twice, for what works on grown models.
        out: What commands write; removed after each.
        text: A text file.
        held_out: A short one, to measure losses on.
    """

    base: Path
    grown: Path
    out: Path
    text: Path
    held_out: Path


def _grow(operator: str, *options: str, place: Place) -> list[str]:
    where = (str(place.base), "--out", str(place.out))
    return [hfgrow_program(), operator, *where, *options, "-q"]


def _learn(place: Place) -> list[str]:
    few = ("--steps", "1", "--batch-tokens", str(_TOKENS), "--sequence-length", str(_TOKENS))
    texts = ("--data", str(place.text), "--validation", str(place.held_out))
    return _grow("learn", *texts, "--g", "2", *few, place=place)


def _eval(place: Place) -> list[str]:
    few = ("--tokens", "200", "--sequence-length", str(_TOKENS))
    return [hfgrow_program(), "eval", str(place.base), "--text", str(place.text), *few, "-q"]


def _compare(place: Place) -> list[str]:
    few = ("--tokens", str(_TOKENS), "--batch-tokens", str(_TOKENS), "--eval-tokens", "200")
    length = ("--sequence-length", str(_TOKENS))
    texts = ("--text", str(place.text), "--validation", str(place.held_out))
    given = ("--ops", "stack,interpolate", "--out", str(place.out))
    return [
        hfgrow_program(),
        "compare",
        str(place.base),
        *texts,
        *given,
        *few,
        *length,
        "--cpu",
        "-q",
    ]


def _train(place: Place) -> list[str]:
    recipe = place.out.with_suffix(".yaml")
    text = _RECIPE.format(
        base=place.base,
        out=place.out,
        text=place.text,
        held_out=place.held_out,
        tokens=_TOKENS,
        twice=2 * _TOKENS,
    )
    recipe.write_text(text, encoding="utf-8")
    return [hfgrow_program(), "train", str(recipe), "--cpu", "-q"]


def _reproduce(place: Place) -> list[str]:
    return [hfgrow_program(), "reproduce", str(place.grown), "-q"]


def _push(place: Place) -> list[str]:
    return [hfgrow_program(), "push", str(place.grown), "grown", "-q"]


_IMPORTS = "import torch; from transformers import LlamaForCausalLM"
_COMMANDS: dict[str, Callable[[Place], list[str]]] = {
    # What every command has that loads a model.
    "import torch, transformers": lambda place: [sys.executable, "-c", _IMPORTS],
    "stack": lambda place: _grow("stack", "--g", "2", place=place),
    "stack --verify": lambda place: _grow("stack", "--g", "2", "--verify", place=place),
    "hyperclone": lambda place: _grow("hyperclone", "--g", "2", place=place),
    "hyperclone-noisy": lambda place: _grow("hyperclone-noisy", "--g", "2", place=place),
    "average": lambda place: _grow("average", place=place),
    "lesa": lambda place: _grow("lesa", place=place),
    "learn": _learn,
    "verify": lambda place: verify(hfgrow_program(), place.grown),
    "reproduce": _reproduce,
    "push": _push,
    "eval": _eval,
    "compare": _compare,
    "train": _train,
}


def main() -> None:
    """Run every command on both sizes and print the table."""
    arguments = _arguments()
    folder: Path = arguments.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    text, held_out = folder / "text.txt", folder / "held-out.txt"
    english = (ROOT / "hfgrow" / "growth" / "probe.txt").read_text(encoding="utf-8")
    text.write_text(english, encoding="utf-8")
    held_out.write_text(english[:600], encoding="utf-8")
    peaks: dict[str, list[float]] = {name: [] for name in arguments.only}
    sizes = []
    for num_layers in sorted(arguments.layers):
        base = folder / f"base-{num_layers}"
        place = Place(base, folder / f"grown-{num_layers}", folder / "out", text, held_out)
        make_llama(base, replace(_SHAPE, num_hidden_layers=num_layers), ROOT / "hfgrow" / "demo")
        sizes.append((base / "model.safetensors").stat().st_size)
        clear(place.grown)
        measure(_grow("stack", "--g", "2", place=replace(place, out=place.grown)))
        try:
            for name in arguments.only:
                within = partial(fresh_hub, folder) if name == "push" else nullcontext
                with within() as environment:
                    run = measure(_COMMANDS[name](place), environment=environment)
                peaks[name].append(run.peak_mib * 1.048576)
                said = f"{name}, {num_layers} layers: {peaks[name][-1]:.0f} MB"
                print(f"{said}, {run.wall_s:.1f} s, load {run.load:.1f}", file=sys.stderr)
                _remove(place.out)
        finally:
            _remove(place.out)
            clear(place.grown, base)
    for path in (text, held_out):
        path.unlink()
    print(_table(peaks, sizes))
    print(machine(folder))
    if len(peaks) == len(_COMMANDS):
        put(README, _NAME, _table(peaks, sizes))
    write_json(arguments.json, folder, sizes=sizes, peaks=peaks)


def _remove(out: Path) -> None:
    shutil.rmtree(out, ignore_errors=True)
    out.with_suffix(".yaml").unlink(missing_ok=True)


def _table(peaks: dict[str, list[float]], sizes: list[int]) -> str:
    small, large = (size / 1e6 for size in sizes)
    head = ["command", *(f"peak MB, base of {size / 1e6:.0f} MB" for size in sizes)]
    rows = []
    for name, (one, other) in peaks.items():
        slope = (other - one) / (large - small)
        rows.append([f"`{name}`", f"{one:.0f}", f"{other:.0f}", f"{round(slope, 2) + 0.0:.2f}"])
    return table([*head, "more a byte of the base"], rows)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="3 GB are needed")
    parser.add_argument("--layers", type=int, nargs=2, default=[12, 36], help="of the two bases")
    parser.add_argument("--only", nargs="+", choices=_COMMANDS, default=list(_COMMANDS))
    parser.add_argument("--json", type=Path, help="write the peaks here")
    return parser.parse_args()


if __name__ == "__main__":
    main()
