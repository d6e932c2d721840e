"""Count the new weights that get no gradient at all in the first step, on the embedded model.

A new weight is one without a source in the base. Its gradient is exactly zero where what it reads
is zero, or where whatever reads it has a zero in that place; it moves as soon as that one does.
"""

import argparse
import os

os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

from pathlib import Path
from typing import Any

import hfgrow
from benchmarks.document import OPERATORS, put
from benchmarks.measure import table
from benchmarks.proof import Steps, command
from hfgrow.checkpoint.compute.state_dict import evaluated
from hfgrow.plan.plan import TensorPlan
from hfgrow.plan.tensors import linear

DEMO = Path(hfgrow.__file__).parent / "demo"
GROWTHS: tuple[Steps, ...] = (
    [("zero-width", {"g": 2})],
    [("zero-width", {"g": 2, "style": "paper"})],
    [("random-width", {"g": 2})],
    [("random-width", {"g": 2, "mask": 0.01})],
    [("head-dim", {"factor": 2})],
    [("zero-depth", {"g": 2})],
    [("random-depth", {"g": 2})],
)


def dead(steps: Steps) -> tuple[int, float]:
    """Return how many weights are new, and the share of them without a gradient."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    auto: Any = AutoModelForCausalLM
    tokenizer: Any = AutoTokenizer.from_pretrained(DEMO)
    base = auto.from_pretrained(DEMO, dtype=torch.float32)
    text = (DEMO / "probe.txt").read_text(encoding="utf-8")
    tokens = tokenizer(text, return_tensors="pt").input_ids[:, :128]
    state, config = hfgrow.grow_state_dict(base, steps)
    model = type(base).from_pretrained(
        None, config=type(base.config)(**config), state_dict=state, dtype=torch.float32
    )
    model(tokens, labels=tokens).loss.backward()
    plan = hfgrow.plan_state_dict(base, steps)
    ones = {name: torch.ones_like(parameter) for name, parameter in base.state_dict().items()}
    recipes = {name: TensorPlan("F32", linear(t.recipe)) for name, t in plan.tensors.items()}
    sourced = evaluated(recipes, ones)
    inserted = {i for i, source in enumerate(plan.layer_map) if source.mode != "copy"}
    num_new = num_dead = 0
    for name, parameter in model.named_parameters():
        new = sourced[name] == 0
        if name.startswith("model.layers.") and int(name.split(".")[2]) in inserted:
            new = torch.ones_like(new)
        num_new += int(new.sum())
        num_dead += int((new & (parameter.grad == 0)).sum())
    return num_new, num_dead / num_new


def main() -> None:
    """Measure, print the table, and write it into docs/operators.md."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    lines = []
    for steps in GROWTHS:
        num_new, share = dead(steps)
        lines.append((command(steps), f"{num_new:,}", f"{100 * share:.0f} %"))
    found = table(("growth of `demo`", "new weights", "no gradient in the first step"), lines)
    print(found)
    put(OPERATORS, "dead gradients", found)


if __name__ == "__main__":
    main()
