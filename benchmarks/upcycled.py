"""A mixture that a dense model became against that model, trained on for the same FLOPs.

    python -m benchmarks.upcycled --folder DIR          # about 2 minutes of CPU

Every arm begins with the demo model and goes on with its pretraining, on the text of the demo
recipe; a mixture is upcycled first, and trains on fewer tokens where one costs more. FLOPs are the
exact ones of `hfgrow.train.flops`, of the experts that a token passes. Each seed has an order of
the text, and fresh routers, of its own.
"""

import argparse
import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.measure import table
from hfgrow.checkpoint.files import LocalFolder
from hfgrow.checkpoint.read import read
from hfgrow.console import Silent
from hfgrow.growth.loading import filled_config
from hfgrow.hub.client import HubClient
from hfgrow.train.flops import arithmetic
from hfgrow.train.planned_stages import plan_recipe
from hfgrow.train.recipe.recipe import recipe_of
from hfgrow.train.run import Job, run_recipe

ARMS: dict[str, dict[str, Any]] = {
    "dense": {},
    "4 copies, 2 a token": {"experts": 4, "top_k": 2},
    "8 halves, 2 a token": {"experts": 8, "shards": 2},
}
SEQUENCE_LENGTH, BATCH_TOKENS = 256, 1024


def main() -> None:
    """Train every arm for every seed and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="where the runs lie")
    parser.add_argument("--tokens", type=int, default=80_000, help="of the dense model")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    given = parser.parse_args()
    budget = given.tokens * flops_of("dense", 0, given.folder)
    rows = []
    for arm in ARMS:
        for seed in given.seeds:
            rows.append(trained(arm, seed, budget, given.folder))
            print(json.dumps(rows[-1]), flush=True)
    print(table(list(rows[0]), [list(map(str, row.values())) for row in rows]))


def recipe_for(arm: str, seed: int, tokens: int, folder: Path) -> dict[str, Any]:
    """Return the recipe of an arm."""
    output = folder / f"{arm.replace(', ', '-').replace(' ', '-')}-{seed}"
    return upcycling("demo", output, ARMS[arm], tokens, seed)


def upcycling(
    base: str,
    output: Path,
    step: Mapping[str, object],
    tokens: int,
    seed: int,
    learning_rate: float = 4e-4,
) -> dict[str, Any]:
    """Return a recipe that upcycles, if the step says anything, and trains on the demo's text."""
    grow = [{"grow": {"operator": "upcycle", "seed": seed, **step}}] if step else []
    train = {"tokens": tokens, "learning_rate": learning_rate, "warmup": 0.05, "decay": 0.5}
    return {
        "base": base,
        "output": str(output),
        "seed": seed,
        "data": {
            "train": [{"dataset": "demo", "split": "train"}],
            "validation": [{"dataset": "demo", "split": "validation"}],
            "sequence_length": SEQUENCE_LENGTH,
        },
        "batch_tokens": BATCH_TOKENS,
        "micro_batch_size": BATCH_TOKENS // SEQUENCE_LENGTH,
        "precision": "fp32",
        "stages": [*grow, {"train": train}],
    }


def flops_of(arm: str, seed: int, folder: Path) -> float:
    """Return the exact FLOPs of a token of an arm."""
    recipe = recipe_of(recipe_for(arm, seed, BATCH_TOKENS, folder))
    last = plan_recipe(recipe, HubClient(), Silent())[-1].plan
    return arithmetic(filled_config(last.config), SEQUENCE_LENGTH).exact_flops


def trained(arm: str, seed: int, budget: float, folder: Path) -> dict[str, Any]:
    """Train an arm for as many FLOPs, and return what came of it."""
    flops = flops_of(arm, seed, folder)
    tokens = round(budget / flops / BATCH_TOKENS) * BATCH_TOKENS
    recipe = recipe_for(arm, seed, tokens, folder)
    started = time.process_time()
    out = Path(run_recipe(Job(recipe=recipe_of(recipe), on_cpu=True, quiet=True))["folder"])
    first, *_, last = held_out(Path(recipe["output"]))
    return {
        "arm": arm,
        "seed": seed,
        "parameters": f"{read(LocalFolder(out)).num_parameters:,}",
        "tokens": f"{tokens:,}",
        "FLOPs": f"{tokens * flops:.3g}",
        "loss before": f"{first:.4f}",
        "loss after": f"{last:.4f}",
        "CPU s": f"{time.process_time() - started:.0f}",
    }


def held_out(run: Path) -> Iterator[float]:
    """Yield the held-out losses of a run, in order."""
    for line in (run / "metrics.jsonl").read_text().splitlines():
        for text in json.loads(line).get("validation", {}).values():
            yield float(text["loss"])


if __name__ == "__main__":
    main()
