"""What the parts of `h200.sh` have found so far, as one JSON document and one page.

    python -m benchmarks.h200 SCRATCH OUT

Of each part SCRATCH has NAME.ended, its exit code and seconds, NAME.said, what it printed, and
NAME.log, what it said besides; of a training NAME.json.
"""

import json
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmarks.measure import machine, table

_LAST_LINES = 5
# What `timeout` ends with, by SIGTERM or by SIGKILL.
_STOPPED = (124, 137)


def main() -> None:
    """Write results.json and results.md."""
    scratch, out = map(Path, sys.argv[1:])
    ended = sorted(scratch.glob("*.ended"), key=lambda path: path.stat().st_mtime_ns)
    parts = {path.stem: _part(scratch, path.stem) for path in ended}
    here = {**machine(scratch), **_accelerator()}
    content = {"machine": here, "parts": parts}
    (out / "results.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    rows = [[name, str(part["exit_code"]), str(part["seconds"])] for name, part in parts.items()]
    page = [
        "# hfgrow on one device",
        ", ".join(f"{key} {value}" for key, value in here.items()),
        table(["part", "exit code", "s"], rows),
    ]
    for name, part in parts.items():
        with suppress(LookupError):
            page.append(_words(name, part["found"]))
        if part["exit_code"]:
            why = "was stopped at its time limit" if part["exit_code"] in _STOPPED else "failed"
            said = [*part["log"], *_error(part.get("found"))]
            page.append(f"{name} {why}" + (":\n\n" + _quoted(said) if said else ""))
    (out / "results.md").write_text("\n\n".join(page) + "\n", encoding="utf-8")


def _part(scratch: Path, name: str) -> dict[str, Any]:
    code, seconds = (scratch / f"{name}.ended").read_text().split()
    part: dict[str, Any] = {"exit_code": int(code), "seconds": int(seconds)}
    log = (scratch / f"{name}.log").read_text(errors="replace").splitlines()
    part["log"] = log[-_LAST_LINES:]
    measured = scratch / f"{name}.json"
    if not measured.exists():
        measured = scratch / f"{name}.said"
    with suppress(OSError, ValueError):
        part["found"] = json.loads(measured.read_text())
    return part


def _error(found: Any) -> Iterator[str]:
    """Yield what a command said of its failure, which with --json is a part of its result."""
    with suppress(LookupError, TypeError):
        error = found["error"]
        yield error["message"]
        yield error["hint"]


def _words(name: str, found: dict[str, Any]) -> str:
    """Return what a part has found, in words or as a table."""
    if name == "study":
        return _arms(found)
    if name.startswith("train-"):
        return _rates(found["results"])
    if name == "learn":
        of = found["steps"][0]["arguments"]
        rate = of["exact_flops"] / of["seconds"]
        return (
            f"learn: held-out loss {of['initial_loss']:.4f} at the start, {of['loss']:.4f} after "
            f"{of['steps']} steps of {of['batch_tokens']:,} tokens, {of['seconds']:.1f} s, "
            f"{rate:.3g} FLOP/s"
        )
    return f"text: {found['num_tokens']:,} tokens in {found['num_documents']:,} documents"


def _rates(results: dict[str, list[dict[str, Any]]]) -> str:
    rows = []
    for entry, (one, *_) in results.items():
        peer = results.get(entry.replace("hfgrow", "Trainer"), [{}])[0].get("tokens_per_s")
        rows.append(
            [
                entry,
                f"{one['tokens_per_s']:,.0f}",
                "unknown" if one["mfu"] is None else f"{one['mfu']:.1%}",
                "" if peer is None else f"{one['tokens_per_s'] / peer:.2f}",
                "" if one["peak_gib"] is None else f"{one['peak_gib']:.1f}",
                f"{one['losses'][-1]:.4f}",
            ]
        )
    head = ["trainer", "tokens/s", "MFU", "beside its Trainer", "peak GiB", "last loss"]
    return table(head, rows)


def _arms(found: dict[str, Any]) -> str:
    rows = []
    for arm in found["summary"]["arms"]:
        gain = arm["speedups"].get("all-in", {}).get("spread")
        rows.append(
            [
                arm["arm"],
                f"{arm['num_parameters']:,}",
                f"{arm['tokens_after_base']:,}",
                f"{arm['flops']:.3g}",
                f"{arm['loss']['mean']:.4f}" if arm["loss"] else "",
                f"{gain['mean']:+.0%}" if gain else "",
            ]
        )
    head = ["arm", "parameters", "tokens after the base", "FLOPs, base included"]
    return table([*head, "held-out loss", "speed-up all-in"], rows)


def _accelerator() -> dict[str, object]:
    import torch
    import transformers

    name = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return {"GPU": name, "torch": torch.__version__, "transformers": transformers.__version__}


def _quoted(lines: list[str]) -> str:
    return "\n".join(f"    {line}" for line in lines)


if __name__ == "__main__":
    main()
