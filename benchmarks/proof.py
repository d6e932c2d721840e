"""Measure every operator on the weights of a trained model, and write the table of the docs.

Each growth is written to a temporary folder, measured by the library as `hfgrow verify` does, and
removed. Growth that promises the same function is measured in every dtype; other widths of the same
operators, and growth that promises nothing, in the first.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.document import OPERATORS, put
from benchmarks.measure import table
from hfgrow import GrowthRequest, LocalFolder, grow, read
from hfgrow.checkpoint.layout import lay_out
from hfgrow.checkpoint.staging import staged
from hfgrow.checkpoint.write import write
from hfgrow.console import Silent
from hfgrow.growth.behaviour import measure
from hfgrow.plan.plan import with_dtype
from hfgrow.plan.promise import Measured

Steps = list[tuple[str, Mapping[str, object]]]
Rows = Iterator["Row"]

# For 30 layers, hidden_size 576, intermediate_size 1536, 9 query and 3 key-value heads.
WIDER = {"hidden_size": 864, "ffn": 2304, "heads": 12, "kv_heads": 4}
PRESERVING: tuple[Steps, ...] = (
    [("zero-depth", {"g": 2})],
    [("zero-depth", {"every": 5})],
    [("random-depth", {"g": 2})],
    [("hyperclone", {"g": 2})],
    [("hyperclone-noisy", {"g": 2, "noise": 0.03})],
    [("hyperclone-noisy", {"g": 2})],
    [("hyperclone-noisy", WIDER)],
    [("split", {"g": 2})],
    [("zero-width", {"g": 2})],
    [("zero-width", WIDER)],
    [("random-width", {"g": 2})],
    [("lemon", {"g": 2})],
    [("net2net", {"g": 2})],
    [("bert2bert-fpi", {"g": 2})],
    [("staged", {"g": 2})],
    [("head-dim", {"factor": 2})],
    [("untie", {})],
    [("untie", {}), ("hyperclone-noisy", {"g": 2})],
    [("zero-depth", {"g": 2}), ("hyperclone-noisy", WIDER)],
)
VARIANTS: tuple[Steps, ...] = (
    [("split", WIDER)],
    [("zero-width", {"g": 2, "style": "paper"})],
    [("lemon", {"hidden_size": 1440, "ffn": 2304})],
    [("net2net", WIDER)],
)
CHANGING: tuple[Steps, ...] = (
    [("stack", {"g": 2})],
    [("stack", {"g": 2}), ("branch-scale", {"exponent": 0.5})],
    [("interpolate", {"g": 2})],
    [("average", {})],
    [("partial", {"pattern": "[1:10]-[11:20]*2-[21:30]"})],
    [("solar", {"overlap": 8})],
    [("append-top", {"layers": 36})],
    [("midas", {"block": 3})],
    [("midas", {"block": 5})],
    [("lidas", {"block": 3})],
    [("lidas", {"block": 5})],
    [("random-depth", {"layers": 36, "mask": 1.0})],
    [("bert2bert-aki", {"g": 2})],
    [("snp", {"g": 2})],
    [("paper-noise", {"amount": 0.2})],
    [("random-width", {"g": 2, "mask": 1.0})],
)
_NAME = "real weights"
_HEAD = (
    "growth",
    "layers x hidden",
    "dtype",
    "max abs dlogit",
    "relative",
    "mean KL",
    "argmax the same",
    "loss before",
    "after",
)


@dataclass(frozen=True)
class Row:
    """One growth in one dtype: its command, what came out, and what was measured."""

    command: str
    dtype: str
    num_hidden_layers: int
    hidden_size: int
    preserves_function: bool
    measured: Measured

    def cells(self) -> tuple[str, ...]:
        """Return the row of the table."""
        found = self.measured
        relative = found.max_abs_dlogit / (found.max_abs_logit or 1)
        return (
            self.command,
            f"{self.num_hidden_layers} x {self.hidden_size}",
            self.dtype,
            f"{found.max_abs_dlogit:.1e}" if found.max_abs_dlogit else "0",
            f"{relative:.1e}" if relative else "0",
            f"{found.mean_kl:.1e}" if found.mean_kl else "0",
            f"{100 * found.argmax_agreement:.1f} %",
            f"{found.base_loss:.4f}",
            f"{found.grown_loss:.4f}",
        )


def command(steps: Steps) -> str:
    """Return steps as the command line spells them."""
    words = []
    for operator, arguments in steps:
        options = [
            str(value) if key == "pattern" else f"--{key.replace('_', '-')} {value}"
            for key, value in arguments.items()
        ]
        words.append(f"`{' '.join([operator, *options])}`")
    return " then ".join(words) or "none: the base beside itself in the first dtype"


def convert(model: Path, dtype: str, folder: Path) -> Path:
    """Write a model in another dtype and return its folder."""
    plan = with_dtype(read(LocalFolder(model)), dtype)
    with staged(folder) as staging:
        write(plan, lay_out(plan), staging)
    return folder


def growths(dtypes: list[str]) -> list[tuple[Steps, str]]:
    """Return what is measured, in which dtype; no steps for what the dtype costs by itself."""
    first = dtypes[0]
    return [
        *((steps, first) for steps in (*PRESERVING, *VARIANTS, *CHANGING)),
        *((steps, dtype) for dtype in dtypes[1:] for steps in ([], *PRESERVING)),
    ]


def measured(bases: Mapping[str, Path], steps: Steps, dtype: str, text: str | None) -> Row:
    """Grow, measure and remove what was grown; without steps, compare the bases of two dtypes."""
    first, base = next(iter(bases.values())), bases[dtype]
    plan = read(LocalFolder(base))
    with tempfile.TemporaryDirectory(dir=base.parent) as temporary:
        if steps:
            request = GrowthRequest(model=str(base), steps=steps, out=Path(temporary, "grown"))
            growth = grow(request)
            plan = growth.plan
            found = measure(base, growth.out, Silent(), text)
        else:
            found = measure(first, base, Silent(), text)
    sizes = (plan.num_hidden_layers, plan.config["hidden_size"])
    return Row(command(steps), dtype, *sizes, plan.preserves_function, found)


def rows(model: Path, dtypes: list[str], folder: Path, text: str | None, done: list[Row]) -> Rows:
    """Measure every growth that is not among those done."""
    known = {(row.command, row.dtype) for row in done}
    bases = {dtype: convert(model, dtype, folder / dtype) for dtype in dtypes}
    for steps, dtype in growths(dtypes):
        if (command(steps), dtype) not in known:
            yield measured(bases, steps, dtype, text)


def written(found: list[Row]) -> str:
    """Return the table, in the order of the lists above, and what it was measured on."""
    order = [command(steps) for steps in ([], *PRESERVING, *VARIANTS, *CHANGING)]
    ordered = sorted(found, key=lambda row: order.index(row.command))
    tokens = found[0].measured.num_tokens
    lines = [
        f"{tokens} tokens of {found[0].measured.text}, {len(os.sched_getaffinity(0))} cores, CPU.",
        "",
        table(_HEAD, (row.cells() for row in ordered)),
    ]
    return "\n".join(lines)


def kept(path: Path | None) -> list[Row]:
    """Return the rows that an earlier run wrote."""
    if path is None or not path.is_file():
        return []
    content = json.loads(path.read_text(encoding="utf-8"))
    return [Row(**{**row, "measured": Measured(**row["measured"])}) for row in content]


def multiply_in_float32() -> None:
    """Let linear maps of a half precision compute in float32 and round the result.

    That is what units for the half precisions do; a CPU without them takes four times as long to
    do it in its own way.
    """
    from torch.nn import functional

    linear = functional.linear

    def rounded(hidden: Any, weight: Any, bias: Any = None) -> Any:
        if bias is not None:
            bias = bias.float()
        return linear(hidden.float(), weight.float(), bias).to(hidden.dtype)

    # Not as an attribute, which mypy and pyright know as a builtin.
    setattr(functional, "linear", rounded)  # noqa: B010  # as above


def main() -> None:
    """Measure, print the table, and write it into docs/operators.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="a Llama of 30 layers")
    parser.add_argument("--dtype", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--text", type=Path, help="its first 512 tokens; default: hfgrow/probe.txt")
    parser.add_argument("--folder", type=Path, help="for what is grown; 4 GB are free there")
    parser.add_argument("--json", type=Path, help="keep rows here; what it has is not done again")
    parser.add_argument(
        "--float32-products", action="store_true", help="faster where the CPU has no half precision"
    )
    arguments = parser.parse_args()
    if arguments.float32_products:
        multiply_in_float32()
    text = arguments.text.read_text(encoding="utf-8")[:8192] if arguments.text else None
    found = kept(arguments.json)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as temporary:
        for row in rows(arguments.model, arguments.dtype, Path(temporary), text, found[:]):
            found.append(row)
            print("| " + " | ".join(row.cells()) + " |", file=sys.stderr, flush=True)
            if arguments.json:
                content = json.dumps([asdict(row) for row in found], indent=1)
                arguments.json.write_text(content, encoding="utf-8")
    print(written(found))
    put(OPERATORS, _NAME, written(found))


if __name__ == "__main__":
    main()
