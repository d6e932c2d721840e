"""What mergekit makes of every type: its passthrough takes the same tiny models twice over.

It runs in an environment of its own, one process for all models, and says what it refused. What it
wrote is loaded as a user would load it, and compared with the twins of `prove`.
"""

import json
import re
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.environments import MERGEKIT, made

from .prove import base_of, compared_with_stack, loaded
from .tiny import probe
from .twins import run

# Folders of bases as arguments, the output beside each; a line of JSON for each one.
_MERGE = """
import json, os, sys, warnings

os.environ |= {"TRANSFORMERS_VERBOSITY": "error", "HF_HUB_OFFLINE": "1"}
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
warnings.simplefilter("ignore")
from mergekit.config import MergeConfiguration
from mergekit.merge import run_merge
from mergekit.options import MergeOptions

for line in sys.stdin:
    base, num_layers, out = json.loads(line)
    part = {"sources": [{"model": base, "layer_range": [0, num_layers]}]}
    recipe = {"merge_method": "passthrough", "dtype": "float32", "slices": [part, part]}
    try:
        options = MergeOptions(copy_tokenizer=False, clone_tensors=True, quiet=True)
        run_merge(MergeConfiguration.model_validate(recipe), out, options=options)
        said = ""
    except BaseException as error:
        said = f"{type(error).__name__}: {error}"
    print(json.dumps(said[:200]), file=answers, flush=True)
"""
_SHOWN = {"right": "right", "close": "right to 1e-6", "wrong": "wrong", "refused": "refused"}
_ROW = re.compile(r"^\| `([^`]+)` \| (?:written|derived) \|.*$", re.MULTILINE)
_FOUND = Path(__file__).with_name("peer.json")

Verdicts = dict[str, str]


def mergekit_venv(folder: Path, transformers: str) -> Path:
    """Return an environment with mergekit and the transformers that the models are of."""
    name = folder / f"mergekit-{MERGEKIT}-{transformers}"
    return made(name, [f"mergekit=={MERGEKIT}", f"transformers=={transformers}"])


def ask(venv: Path, types: Sequence[str], folder: Path) -> Verdicts:
    """Return the verdict of every type: right, close to rounding, wrong or refused.

    Args:
        venv: The environment with mergekit.
        types: Those that run alone are asked for, the others left out.
        folder: Where models lie meanwhile.
    """
    bases: dict[str, tuple[Path, int]] = {}
    for model_type in types:
        try:
            base = base_of(model_type, folder / model_type)
            run(loaded(base)[0], probe())
            bases[model_type] = (base, num_layers_of(base))
        except Exception as error:  # a type that cannot be built, or run, alone
            print(f"{model_type}: not run, {type(error).__name__}", flush=True)
    asked = [
        json.dumps([str(base), num_layers, str(base.with_suffix(".mergekit"))])
        for base, num_layers in bases.values()
    ]
    done = subprocess.run(
        [str(venv / "bin" / "python"), "-c", _MERGE],
        input="\n".join(asked),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=True,
    )
    found: Verdicts = {}
    for (model_type, (base, num_layers)), line in zip(
        bases.items(), done.stdout.splitlines(), strict=True
    ):
        refused = json.loads(line)
        verdict, detail = (
            ("refused", refused)
            if refused
            else compared_with_stack(base, base.with_suffix(".mergekit"), num_layers)
        )
        found[model_type] = "wrong" if verdict == "open" else verdict
        print(f"{model_type}: {found[model_type]} {' '.join(detail.split())}".rstrip(), flush=True)
    return found


def num_layers_of(base: Path) -> int:
    """Return how many layers a model has, as it is loaded."""
    from hfgrow.checkpoint.derived.skeleton import layers_of

    return len(layers_of(loaded(base)[0]))


def record(version: str, found: Mapping[str, str]) -> None:
    """Keep verdicts beside this file, those of other types among them."""
    kept = _kept()
    known = kept.get("types", {}) if kept.get("transformers") == version else {}
    content = {
        "mergekit": MERGEKIT,
        "transformers": version,
        "types": dict(sorted({**known, **found}.items())),
    }
    _FOUND.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _kept() -> dict[str, Any]:
    if not _FOUND.is_file():
        return {}
    content: dict[str, Any] = json.loads(_FOUND.read_text(encoding="utf-8"))
    return content


def with_peer(page: str) -> str:
    """Return the page of families with the column of the peer, and a paragraph on it."""
    kept = _kept()
    if not kept:
        return page
    found: Verdicts = kept["types"]
    page = _ROW.sub(lambda row: f"{_cells(row[0])} {_SHOWN.get(found.get(row[1], ''), '')} |", page)
    page = page.replace(f"{_HEAD}\n{_RULE}", f"{_HEAD} mergekit |\n{_RULE} --- |", 1)
    counts = Counter(found.values())
    told = ", ".join(f"{counts[key]} {text}" for key, text in _SHOWN.items() if counts[key])
    paragraph = (
        f"The last column is what mergekit {kept['mergekit']} makes of the same tiny models, its "
        f"passthrough of all layers twice, beside `stack`, against the same twins "
        f"(`python -m benchmarks.reach --peer DIR`, transformers {kept['transformers']}): {told} "
        f"of {len(found)}. Wrong is a model that was written without a word and does not load "
        "whole, or computes something else."
    )
    page = re.sub(r"^The last column is what mergekit .*\n\n", "", page, flags=re.MULTILINE)
    return page.replace(f"\n{_HEAD}", f"\n{paragraph}\n\n{_HEAD}", 1)


_HEAD = "| type | family | stack | interpolate | partial | zero-depth |"
_RULE = "| --- | --- | --- | --- | --- | --- |"
_NUM_CELLS = 6


def _cells(row: str) -> str:
    """Return a row without the cell of the peer, if it has one."""
    return "|".join(row.split("|")[: _NUM_CELLS + 1]) + "|"
