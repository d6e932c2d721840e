"""A mixture with more experts, of which a token passes as many as before: by noise on its router.

    python -m benchmarks.expert_copies --folder DIR          # about 5 minutes of CPU

The demo model becomes 4 experts, 2 a token, half of whose neurons begin anew so that they differ,
and is trained on the text of the demo recipe. Then it gets 8 experts, with each amount of noise;
the loss just after is that of all held-out text. Some arms are trained on, on as many tokens, which
cost what they cost the mixture that stays as it is, but for the rows of the router.
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path

import hfgrow
from benchmarks.measure import table
from benchmarks.upcycled import held_out, upcycling
from hfgrow.train.recipe.recipe import recipe_of
from hfgrow.train.run import Job, run_recipe

TOKENS_OF_BASE, MAKING = 200_000, {"experts": 4, "top_k": 2, "drop": 0.5}
NOISE = (0.0, 0.01, 0.1, 0.3, 1.0, 3.0, 10.0)
# Arm -> what it grows by before it trains.
TRAINED: dict[str, dict[str, object]] = {
    "4 experts": {},
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
        trained("demo", given.folder / "base", MAKING, TOKENS_OF_BASE, 0, learning_rate=1e-3)
    print(table(["noise", "loss just after"], list(after_growth(base, given.folder))), flush=True)
    rows = []
    for arm, step in TRAINED.items():
        for seed in given.seeds:
            output = given.folder / f"{arm.replace(' ', '-')}-{seed}"
            first, *_, last = held_out(trained(str(base), output, step, given.tokens, seed))
            rows.append([arm, str(seed), f"{first:.4f}", f"{last:.4f}"])
            print(json.dumps(rows[-1]), flush=True)
    print(table(["arm", "seed", "loss before growth", "after training"], rows))


def trained(
    base: str,
    output: Path,
    step: Mapping[str, object],
    tokens: int,
    seed: int,
    learning_rate: float = 4e-4,
) -> Path:
    """Upcycle, if the step says anything, and train; return the folder of the run."""
    recipe = recipe_of(upcycling(base, output, step, tokens, seed, learning_rate))
    run_recipe(Job(recipe=recipe, on_cpu=True, quiet=True))
    return output


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
