"""Grow a tiny model of one type by the program's own code, and compare with its twins."""

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from hfgrow.checkpoint.derived.skeleton import skeleton_of
from hfgrow.checkpoint.files import LocalFolder
from hfgrow.checkpoint.layout import lay_out
from hfgrow.checkpoint.read import read
from hfgrow.checkpoint.write import write
from hfgrow.errors import GrowthError
from hfgrow.growth.grow import grow
from hfgrow.growth.request import GrowthRequest
from hfgrow.plan.operators import apply

from .ends import branch_ends, on_disk, patterns
from .tiny import probe, tiny_config, tiny_model
from .twins import NoTwinError, composed_logits, copied_logits, run

STEPS: Mapping[str, tuple[str, Mapping[str, object]]] = {
    "stack": ("stack", {"g": 2}),
    "interpolate": ("interpolate", {"g": 2}),
    "partial": ("partial", {}),
    "zero-depth": ("zero-depth", {"g": 2}),
}
CLOSE = 1e-6
_COPIED = "copied modules"


@dataclass(frozen=True)
class Outcome:
    """What came of one growth, and why.

    The verdict is right, close (to rounding), open (only equal to copied modules), refused
    (rightly), could (refused, though it would have been right), not built (or not run, by
    transformers itself), wrong or crashed.
    """

    verdict: str
    detail: str = ""


def base_of(model_type: str, folder: Path, *, whole: bool = False) -> Path:
    """Write the tiny model of a type; the whole of it sees too, if the type does."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = tiny_model(tiny_config(model_type), whole=whole)
        model.save_pretrained(folder)
    return folder


def prove(base: Path, out: Path, name: str) -> Outcome:
    """Grow a base by one operator, load it as a user would, and compare."""
    try:
        read(LocalFolder(base))
    except GrowthError as error:
        return Outcome("refused", str(error))
    try:
        run(_base(base), probe())
    except Exception as error:  # one that transformers itself does not run on text alone
        return Outcome("not built", f"the base does not run: {type(error).__name__}: {error}"[:200])
    if name != "partial":
        return prove_step(base, out, name, STEPS[name])
    # The one end that is not repeated is the first layer, or the last.
    depth = len(skeleton_of(_config(base)).layers)
    first = prove_step(base, out, name, ("partial", {"pattern": f"[1]-[2:{depth}]*2"}))
    if first.verdict != "refused":
        return first
    out = out.with_name(f"{out.name}-last")
    return prove_step(base, out, name, ("partial", {"pattern": f"[1:{depth - 1}]*2-[{depth}]"}))


def _config(base: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((base / "config.json").read_text(encoding="utf-8"))
    return found


def prove_step(base: Path, out: Path, name: str, step: tuple[str, Mapping[str, object]]) -> Outcome:
    """Grow a base by a step, and compare: `name` is zero-depth where it is to add nothing."""
    try:
        growth = grow(GrowthRequest(model=str(base), steps=[step], out=out, untested=True))
    except GrowthError as error:
        return Outcome(_refusal(base, out, name, step), str(error))
    except Exception as error:  # what the table has to show
        return Outcome("crashed", f"{type(error).__name__}: {error}"[:200])
    try:
        return _compared(base, out, [source.layer for source in growth.plan.layer_map], name)
    except Exception as error:
        return Outcome("wrong", f"{type(error).__name__}: {error}"[:200])


def compared_with_stack(base: Path, out: Path, num_layers: int) -> tuple[str, str]:
    """Return the verdict on a model that is said to be a base stacked twice, and why."""
    try:
        found = _compared(base, out, [*range(num_layers)] * 2, "stack")
    except Exception as error:  # it does not load, does not run, or has other layers
        return "wrong", f"{type(error).__name__}: {error}"[:200]
    return found.verdict, found.detail


def _refusal(base: Path, out: Path, name: str, step: tuple[str, Mapping[str, object]]) -> str:
    """Say whether a growth was refused rightly: it is written all the same, unchecked."""
    out = out.with_name(f"{out.name}-unchecked")
    out.mkdir()
    try:
        plan = apply(read(LocalFolder(base)), step[0], step[1])
        write(plan, lay_out(plan), out)
        found = _compared(base, out, [source.layer for source in plan.layer_map], name)
    except Exception:  # it cannot be, or does not load, or does not run
        return "refused"
    return "could" if found.verdict in ("right", "close") else "refused"


def _compared(base: Path, out: Path, layer_map: list[int], name: str) -> Outcome:
    grown, report = loaded(out)
    if faults := {key: sorted(map(str, value))[:2] for key, value in report.items() if value}:
        return Outcome("wrong", f"loading says {faults}")
    model = _base(base)
    tokens = probe()
    found = run(grown, tokens)
    if not found.isfinite().all():
        return Outcome("wrong", "logits that are not finite")
    if name == "zero-depth":
        return _verdict({"base": float((found - run(model, tokens)).abs().max())})
    stack = skeleton_of(_config(base)).stack
    errors = {}
    try:
        expected = composed_logits(model, stack, layer_map, tokens)
        errors["layers in a row"] = float((found - expected).abs().max())
    except NoTwinError:
        pass
    expected = copied_logits(model, grown, stack, layer_map, tokens)
    errors[_COPIED] = float((found - expected).abs().max())
    return _verdict(errors)


def _verdict(errors: Mapping[str, float]) -> Outcome:
    worst, best = max(errors.values()), min(errors.values())
    detail = ", ".join(f"{key} {value:.2g}" for key, value in errors.items())
    kind = "wrong" if not worst <= CLOSE else "right" if best == 0 else "close"
    if kind == "wrong" and errors.get(_COPIED, 1.0) <= CLOSE:
        kind = "open"
    return Outcome(kind, detail)


@lru_cache(maxsize=1)
def _base(folder: Path) -> Any:
    return loaded(folder)[0]


def zero_of(base: Path) -> dict[str, Any]:
    """Return what has to be zero in a layer of a base, as the table has it; empty if nothing is."""
    model = _base(base)
    skeleton = skeleton_of(_config(base))
    ends = branch_ends(model, skeleton.stack, probe())
    if not ends:
        return {}
    found = on_disk(model, skeleton.stack, ends)
    seen: set[str] = set()
    for form in skeleton.forms:
        seen |= patterns(form.shapes, [form.stack])
    return {
        "ends": {name: found[name] for name in sorted(found.keys() & seen)},
        "seen": sorted(seen),
    }


def loaded(folder: Path) -> tuple[Any, dict[str, Any]]:
    """Load a model as a user would, by the class that it names, and what transformers says."""
    import torch
    import transformers

    named = _config(folder)["architectures"][0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model, report = getattr(transformers, named).from_pretrained(
            folder,
            dtype=torch.float32,
            attn_implementation="eager",
            local_files_only=True,
            output_loading_info=True,
        )
    keys = ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs")
    return model.eval(), {key: report.get(key) for key in keys}
