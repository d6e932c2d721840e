"""Grow a tiny model of one type by the program's own code, and compare with its twins."""

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hfgrow.checkpoint.derived.skeleton import skeleton_of
from hfgrow.errors import GrowthError
from hfgrow.growth.grow import GrowthRequest, grow

from .tiny import probe, tiny_config, tiny_model
from .twins import NoTwinError, composed_logits, copied_logits, run

STEPS: Mapping[str, tuple[str, Mapping[str, object]]] = {
    "stack": ("stack", {"g": 2}),
    "interpolate": ("interpolate", {"g": 2}),
    "partial": ("partial", {}),
    "zero-depth": ("zero-depth", {"g": 2}),
}
CLOSE = 1e-6


@dataclass(frozen=True)
class Outcome:
    """What came of one growth: right, close, refused, wrong or crashed, and why."""

    verdict: str
    detail: str = ""


def base_of(model_type: str, folder: Path) -> Path:
    """Write the tiny model of a type."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = tiny_model(tiny_config(model_type))
        model.save_pretrained(folder)
    return folder


def prove(base: Path, out: Path, name: str) -> Outcome:
    """Grow a base by one operator, load it as a user would, and compare."""
    if name != "partial":
        return _prove(base, out, name, STEPS[name])
    # The one end that is not repeated is the first layer, or the last.
    depth = len(skeleton_of(_config(base)).layers)
    first = _prove(base, out, name, ("partial", {"pattern": f"[1]-[2:{depth}]*2"}))
    if first.verdict != "refused":
        return first
    return _prove(base, out, name, ("partial", {"pattern": f"[1:{depth - 1}]*2-[{depth}]"}))


def _config(base: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((base / "config.json").read_text(encoding="utf-8"))
    return found


def _prove(base: Path, out: Path, name: str, step: tuple[str, Mapping[str, object]]) -> Outcome:
    try:
        growth = grow(GrowthRequest(model=str(base), steps=[step], out=out, untested=True))
    except GrowthError as error:
        return Outcome("refused", str(error))
    except Exception as error:  # what the table has to show
        return Outcome("crashed", f"{type(error).__name__}: {error}"[:200])
    try:
        return _compared(base, out, [source.layer for source in growth.plan.layer_map], name)
    except Exception as error:
        return Outcome("wrong", f"{type(error).__name__}: {error}"[:200])


def _compared(base: Path, out: Path, layer_map: list[int], name: str) -> Outcome:
    grown, report = loaded(out)
    if faults := {key: sorted(map(str, value))[:2] for key, value in report.items() if value}:
        return Outcome("wrong", f"loading says {faults}")
    model, _ = loaded(base)
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
    errors["copied modules"] = float((found - expected).abs().max())
    return _verdict(errors)


def _verdict(errors: Mapping[str, float]) -> Outcome:
    worst, best = max(errors.values()), min(errors.values())
    detail = ", ".join(f"{key} {value:.2g}" for key, value in errors.items())
    kind = "wrong" if not worst <= CLOSE else "right" if best == 0 else "close"
    return Outcome(kind, detail)


def loaded(folder: Path) -> tuple[Any, dict[str, Any]]:
    """Load a model as a user would, and what transformers says about it."""
    import torch
    from transformers import AutoModelForCausalLM

    any_model: Any = AutoModelForCausalLM
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model, report = any_model.from_pretrained(
            folder,
            dtype=torch.float32,
            attn_implementation="eager",
            local_files_only=True,
            output_loading_info=True,
        )
    keys = ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs")
    return model.eval(), {key: report.get(key) for key in keys}
