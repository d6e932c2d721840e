"""A mixture with more experts, of which a token passes as many as before: by noise on its router.

    python -m benchmarks.expert_copies --folder DIR          # about 5 minutes of CPU

The demo model becomes 4 experts, 2 a token, half of whose neurons begin anew so that they differ,
and is trained on the text of the demo recipe. Then it gets 8 experts, with each amount of noise;
the loss just after is that of all held-out text. Some arms are trained on, on as many tokens, which
cost what they cost the mixture that stays as it is, but for the rows of the router.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import hfgrow
from benchmarks.measure import table
from benchmarks.upcycled import BATCH_TOKENS, SEQUENCE_LENGTH, held_out
from hfgrow.train.recipe.recipe import recipe_of
from hfgrow.train.run import Job, run_recipe

TOKENS_OF_BASE, MAKING = 200_000, {"experts": 4, "top_k": 2, "drop": 0.5}
NOISE = (0.0, 0.01, 0.1, 0.3, 1.0, 3.0, 10.0)
# Arm -> what it grows by before it trains.
TRAINED: dict[str, dict[str, Any] | None] = {
    "4 experts": None,
    **{f"noise {a:g}": {"experts": 8, "top_k": 2, "router_noise": a} for a in (0.0, 0.1, 3.0)},
}


def main() -> None:
    """Print the loss by noise, and what training made of some of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="where the runs lie")
    parser.add_argument("--tokens", type=int, default=40_000, help="of each arm")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    given = parser.parse_args()
    base = given.folder / "base" / "final"
    if not base.is_dir():
        run_recipe(job("demo", given.folder / "base", MAKING, TOKENS_OF_BASE, 1e-3, 0))
    print(table(["noise", "loss just after"], list(after_growth(base, given.folder))), flush=True)
    rows = []
    for arm, step in TRAINED.items():
        for seed in given.seeds:
            output = given.folder / f"{arm.replace(' ', '-')}-{seed}"
            run_recipe(job(str(base), output, step, given.tokens, 4e-4, seed))
            first, *_, last = held_out(output)
            rows.append([arm, str(seed), f"{first:.4f}", f"{last:.4f}"])
            print(json.dumps(rows[-1]), flush=True)
    print(table(["arm", "seed", "loss before growth", "after training"], rows))


def job(
    base: str, output: Path, step: dict[str, Any] | None, tokens: int, rate: float, seed: int
) -> Job:
    """Return a run that upcycles, if it is to, and trains."""
    grow = [] if step is None else [{"grow": {"operator": "upcycle", "seed": seed, **step}}]
    train = {"tokens": tokens, "learning_rate": rate, "warmup": 0.05, "decay": 0.5}
    recipe = {
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
    return Job(recipe=recipe_of(recipe), on_cpu=True, quiet=True)


def after_growth(base: Path, folder: Path) -> list[list[str]]:
    """Return the loss on held-out text by the noise, and that of the base."""
    models = {"the base": base}
    for noise in NOISE:
        out = folder / f"grown-{noise:g}"
        arguments = {"experts": 8, "top_k": 2, "router_noise": noise}
        request = hfgrow.GrowthRequest(
            model=str(base), steps=[("upcycle", arguments)], out=out, overwrite=True
        )
        models[f"{noise:g}"] = hfgrow.grow(request).out
    found = hfgrow.evaluate([str(model) for model in models.values()], "demo")
    losses = (one.texts[0].loss.loss for one in found)
    return [[name, f"{loss:.4f}"] for name, loss in zip(models, losses, strict=True)]


if __name__ == "__main__":
    main()
