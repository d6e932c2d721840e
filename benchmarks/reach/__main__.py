"""Prove growth in depth for every causal language model of the installed transformers.

    python -m benchmarks.reach                    # all types, minutes; writes the table that ships
    python -m benchmarks.reach --only mixtral     # some types, nothing is written
    python -m benchmarks.reach --flags            # turns only the booleans over again; writes them
    python -m benchmarks.reach --peer DIR         # asks mergekit, and writes its column

Each type is built tiny with every tensor perturbed, saved, grown by the program's own code, loaded
as a user would and compared on 16 tokens with two twins in memory: the base's layers run in the
order of the map, and deep copies of them in a longer list. What is refused is written all the same,
unchecked, so that a refusal that was not needed shows. Each type has a process of its own. Where a
layer was made to add nothing, every boolean of the config is turned over and that is tried again.
"""

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

from hfgrow.checkpoint.derived import proven
from hfgrow.plan.families import FAMILIES

from .document import written
from .flags import needs_of
from .peer import ask, mergekit_venv, record, with_peer
from .prove import STEPS, base_of, prove, zero_of

# Models of text and images whose text layers grow inside the checkpoint; one of them is no causal
# language model by itself.
WHOLE = ("gemma3", "gemma4", "llama4", "mistral3", "qwen3_5", "qwen3_5_moe")
_ONLY_WHOLE = ("mistral3",)
PAGE = Path(__file__).resolve().parents[2] / "docs" / "families.md"
SHIPPED = Path(str(proven.__file__)).with_name("proven.json")
_TIMEOUT_S = 1200.0
# From the worst to the best: the cell of a type that was tried in two ways is the worse.
_VERDICTS = (
    "crashed",
    "wrong",
    "not built",
    "open",
    "refused",
    "could",
    "not needed",
    "close",
    "right",
)

Row = dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the proof; the exit code is 1 if a growth was wrong or crashed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reach", description=__doc__)
    parser.add_argument("--only", nargs="+", metavar="TYPE", help="These types; write nothing.")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--rows", type=Path, help="Keep rows here, and take up what is there.")
    parser.add_argument(
        "--flags",
        action="store_true",
        help="Only find out again which flags the rows that ship need; write them.",
    )
    parser.add_argument(
        "--peer",
        type=Path,
        metavar="DIR",
        help="Ask mergekit, in an environment that lies in DIR or is made there.",
    )
    options = parser.parse_args(arguments)
    version, types = _types()
    if options.peer:
        return _ask_peer(version, options.only or types, options.peer)
    if options.flags:
        return _renew_needs(version, options.only)
    rows = _kept(options.rows, version) if options.rows else {}
    wanted = [name for name in options.only or types if name not in rows]
    for model_type, row in _all(wanted, options.processes):
        rows[model_type] = row
        if options.rows:
            with options.rows.open("a", encoding="utf-8") as file:
                file.write(json.dumps([version, model_type, row]) + "\n")
        cells = ", ".join(f"{name} {row[name]}" for name in STEPS)
        print(f"{model_type}: {cells} ({row['seconds']:.0f} s)", flush=True)
        for name, detail in row["details"].items():
            print(f"    {name}: {detail}", flush=True)
    bad = [
        model_type
        for model_type, row in rows.items()
        if any(row[name] in ("wrong", "crashed") for name in STEPS)
    ]
    if bad:
        print(f"wrong or crashed, nothing was written: {', '.join(bad)}", file=sys.stderr)
    elif not options.only:
        _write(version, rows)
    return int(bool(bad))


def _kept(file: Path, version: str) -> dict[str, Row]:
    """Return the rows in a file that were made with this release of transformers."""
    if not file.exists():
        return {}
    kept = map(json.loads, file.read_text(encoding="utf-8").splitlines())
    return {model_type: row for release, model_type, row in kept if release == version}


def _renew_needs(version: str, only: Sequence[str] | None) -> int:
    known = proven.proven()
    rows = {model_type: dict(row) for model_type, row in known[version].items()}
    for model_type in only or rows:
        row = rows[model_type]
        if not row.get("zero"):
            continue
        row["zero"] = _with_needs(model_type, row)
        if needs := row["zero"].get("needs"):
            print(f"{model_type}: {json.dumps(needs)}", flush=True)
    SHIPPED.write_text(as_text({**known, version: rows}), encoding="utf-8")
    return 0


def _with_needs(model_type: str, row: Row) -> dict[str, Any]:
    """Return what a row says of layers that add nothing with the flags that this needs."""
    zero = {key: value for key, value in row["zero"].items() if key != "needs"}
    if row["zero-depth"] not in ("right", "close") or model_type in FAMILIES:
        return zero
    needs = needs_of(model_type, zero, whole=model_type in WHOLE)
    return {**zero, "needs": needs} if needs else zero


def _ask_peer(version: str, types: Sequence[str], folder: Path) -> int:
    venv = mergekit_venv(folder.absolute(), version)
    with tempfile.TemporaryDirectory(prefix="hfgrow-reach-") as name:
        record(version, ask(venv, [one for one in types if one not in _ONLY_WHOLE], Path(name)))
    PAGE.write_text(with_peer(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


def _types() -> tuple[str, list[str]]:
    import torch
    import transformers
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    from transformers.utils import logging

    torch.set_num_threads(1)
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # it has no annotations
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # nor has it
    return transformers.__version__, sorted({*MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, *WHOLE})


def _all(types: Sequence[str], most: int) -> Iterator[tuple[str, Row]]:
    """Yield the row of every type, several processes at a time."""
    context = multiprocessing.get_context("fork")
    waiting, running = list(types), dict[str, tuple[Any, Any, float]]()
    while waiting or running:
        while waiting and len(running) < most:
            model_type = waiting.pop(0)
            here, there = context.Pipe(duplex=False)
            process = context.Process(target=_told, args=(model_type, there))
            process.start()
            there.close()
            running[model_type] = (process, here, time.monotonic())
        time.sleep(0.05)
        for model_type, (process, here, started) in list(running.items()):
            is_late = time.monotonic() - started > _TIMEOUT_S
            if not (here.poll() or not process.is_alive() or is_late):
                continue
            row = _row("crashed", "it took too long" if is_late else "the process ended")
            with suppress(EOFError):
                row = here.recv() if here.poll() else row
            process.terminate()
            process.join()
            row["seconds"] = time.monotonic() - started
            del running[model_type]
            yield model_type, row


def _told(model_type: str, there: Any) -> None:
    warnings.simplefilter("ignore")
    there.send(row_of(model_type))
    there.close()


def row_of(model_type: str) -> Row:
    """Return what comes of every growth of a type."""
    ways = [False, True] if model_type in WHOLE else [False]
    if model_type in _ONLY_WHOLE:
        ways = [True]
    rows = [_row_of(model_type, whole) for whole in ways]
    worst = {name: min((row[name] for row in rows), key=_VERDICTS.index) for name in STEPS}
    details = {k: v for row in rows for k, v in row["details"].items()}
    found = {**rows[0], **worst, "details": details}
    return {**found, "zero": _with_needs(model_type, found) if found["zero"] else {}}


def _row_of(model_type: str, whole: bool) -> Row:
    with tempfile.TemporaryDirectory(prefix="hfgrow-reach-") as name:
        folder = Path(name)
        try:
            base = base_of(model_type, folder / "base", whole=whole)
        except Exception as error:  # a type that cannot be built alone
            return _row("not built", f"{type(error).__name__}: {error}"[:200])
        row: Row = {"details": {}, "zero": {}}
        try:
            row["zero"] = zero_of(base)
        except Exception as error:
            row["details"]["zero"] = f"{type(error).__name__}: {error}"[:200]
        _believe(json.loads((base / "config.json").read_text())["model_type"], row["zero"])
        for operator in STEPS:
            if operator == "partial" and "right" == row["stack"] == row["interpolate"]:
                row[operator] = "not needed"
                continue
            outcome = prove(base, folder / operator, operator)
            row[operator] = outcome.verdict
            if outcome.verdict != "right":
                row["details"][operator] = outcome.detail
        return row


def _row(verdict: str, detail: str) -> Row:
    return {**dict.fromkeys(STEPS, verdict), "zero": {}, "details": {"stack": detail}}


def _believe(model_type: str, zero: dict[str, Any]) -> None:
    """Let the program know what was just found out, as it will from the table that ships."""
    import transformers

    known: Any = proven.proven()
    known.setdefault(transformers.__version__, {}).setdefault(model_type, {})["zero"] = zero


def _write(version: str, rows: dict[str, Row]) -> None:
    shipped = {
        model_type: {
            **{name: "right" if row[name] == "close" else row[name] for name in STEPS},
            **({"zero": row["zero"]} if row["zero"] else {}),
        }
        for model_type, row in sorted(rows.items())
    }
    # What was proven with other releases stays.
    known = {**proven.proven(), version: shipped}
    SHIPPED.write_text(as_text(known), encoding="utf-8")
    PAGE.write_text(with_peer(written(version, known, rows)), encoding="utf-8")


def as_text(known: Mapping[str, Mapping[str, Row]]) -> str:
    """Return the table with a line a type, so that what changes shows, and equal rows once."""
    releases = list(known)
    parts = []
    for i, (release, found) in enumerate(known.items()):
        lines = []
        for model_type, row in found.items():
            same = (one for one in releases[:i] if known[one].get(model_type) == row)
            lines.append(f"  {json.dumps(model_type)}: {json.dumps(next(same, row))}")
        body = ",\n".join(lines)
        parts.append(f"{json.dumps(release)}: {{\n{body}\n}}")
    return "{" + ",\n".join(parts) + "}\n"


if __name__ == "__main__":
    sys.exit(main())
