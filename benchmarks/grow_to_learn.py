"""Learn a new text in what was added to a model: what it gains there, and what it forgets.

    hfgrow data prepare gcide.txt --tokenizer demo --out tokens
    python -m benchmarks.grow_to_learn --text tokens --folder DIR

Every arm begins with the demo model, which was trained on Python's documentation, and goes on with
a text of another kind: in new neurons, in new blocks, in adapters of PEFT, or in all its weights.
It takes the learning rate that is best for the new text at the first seed, and is then trained
with every seed, on the new text alone and on as much of the old one besides (`--replay`). What was
grown is taken back, and its sha256 compared with that of the base. What DIR has is not run again.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from benchmarks.measure import clear, table, write_json
from hfgrow.checkpoint.files import SINGLE, LocalFolder, hash_file
from hfgrow.checkpoint.read import read
from hfgrow.console import Silent
from hfgrow.data.batches import BatchPlan, micro_batches
from hfgrow.growth.models import locate
from hfgrow.growth.ungrow import ungrow
from hfgrow.hub.client import HubClient
from hfgrow.train.attention import BatchMasks
from hfgrow.train.devices import clip_gradients, world_of
from hfgrow.train.evaluate import evaluate, evaluate_folder
from hfgrow.train.loss import NextTokenLoss
from hfgrow.train.optimizers import make_optimizer, parameter_groups, set_learning_rates
from hfgrow.train.recipe.recipe import Recipe, recipe_of
from hfgrow.train.run import Job, run_recipe
from hfgrow.train.schedules import schedule_of
from hfgrow.train.stage import load_model
from hfgrow.train.text import open_texts


@dataclass(frozen=True)
class Arm:
    """A way to learn.

    Attributes:
        rate: The learning rate that the search begins with.
        grow: The growth whose new weights alone train; None adds nothing.
        rank: The rank of adapters on all matrices of the layers; 0 has none.
    """

    rate: float
    grow: dict[str, Any] | None = None
    rank: int = 0


ARMS = {
    "all weights": Arm(1e-3),
    "neurons that begin at zero": Arm(4e-3, {"operator": "zero-width", "ffn": 640}),
    "copies of all neurons": Arm(4e-3, {"operator": "hyperclone", "ffn": 768}),
    "blocks (LLaMA Pro)": Arm(2e-3, {"operator": "zero-depth", "every": 2}),
    "LoRA": Arm(4e-3, rank=40),
}
SEQUENCE_LENGTH, BATCH_TOKENS = 256, 1024


@dataclass(frozen=True)
class Setting:
    """A run of an arm.

    Attributes:
        arm: Its name.
        rate: The peak of the learning rate.
        seed: Of the order of the text, and of what is random.
        replayed: The share of the text that is old.
    """

    arm: str
    rate: float
    seed: int
    replayed: float


def main() -> None:
    """Search the learning rates, train every arm, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--text", type=Path, required=True, help="the new text, or tokens of it")
    parser.add_argument("--folder", type=Path, required=True, help="where runs and results lie")
    parser.add_argument("--tokens", type=int, default=65_536, help="of the new text")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--replay", type=float, nargs="+", default=[0.0, 0.5], help="shares of old text"
    )
    parser.add_argument("--rate", type=float, help="the learning rate, instead of the search")
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    if any(ARMS[name].rank for name in given.arms) and find_spec("peft") is None:
        sys.exit("LoRA needs peft: pip install peft, or leave it out of --arms")
    given.folder.mkdir(parents=True, exist_ok=True)
    runs = Runs(given)
    before = runs.base()
    rows = []
    rates = {name: given.rate or runs.best_rate(name, given.seeds[0]) for name in given.arms}
    for replayed in given.replay:
        for name, rate in rates.items():
            found = [runs.of(Setting(name, rate, seed, replayed)) for seed in given.seeds]
            rows.append(_row(name, rate, replayed, found, before))
    head = ["what trains", "parameters", "learning rate", "old text in it"]
    head += ["old text, change (range)", "new text, change (range)", "base again", "CPU s"]
    print(table(head, rows))
    write_json(given.json, given.folder, base=before, runs=runs.found)


def _row(
    name: str,
    rate: float,
    replayed: float,
    found: Sequence[dict[str, Any]],
    before: dict[str, float],
) -> list[str]:
    cells = [name, f"{found[0]['parameters']:,}", f"{rate:g}", f"{replayed:.0%}"]
    for text in ("old", "new"):
        changes = [one[text] - before[text] for one in found]
        mean = statistics.mean(changes)
        cells.append(f"{mean:+.3f} ({min(changes):+.3f} to {max(changes):+.3f})")
    cells.append("yes" if all(one["is_base"] for one in found) else "-")
    return [*cells, f"{statistics.mean(one['cpu_s'] for one in found):.0f}"]


class Runs:
    """The runs of a folder, each of which is run once."""

    def __init__(self, given: argparse.Namespace) -> None:
        self._given = given
        self._base = locate("demo", None, HubClient(), Silent()).path or Path()
        self._path: Path = given.folder / "runs.jsonl"
        lines = self._path.read_text().splitlines() if self._path.exists() else []
        self.found: list[dict[str, Any]] = [json.loads(line) for line in lines]

    def best_rate(self, name: str, seed: int) -> float:
        """Return the best learning rate for the new text: twice and half of it are worse."""
        best = ARMS[name].rate

        def loss(rate: float) -> float:
            return float(self.of(Setting(name, rate, seed, 0.0))["new"])

        for factor in (2.0, 0.5):
            while loss(best * factor) < loss(best):
                best *= factor
        return best

    def base(self) -> dict[str, float]:
        """Return the held-out losses of the base."""
        recipe = recipe_of(self._recipe(Setting("all weights", 1e-3, 0, 0.0)))
        with world_of(recipe, on_cpu=True) as devices:
            corpus, _ = self._texts(recipe, devices)
            return _losses(
                loss.loss
                for loss in evaluate_folder(self._base, corpus.validation, devices, recipe)
            )

    def of(self, setting: Setting) -> dict[str, Any]:
        """Return what came of a run."""
        wanted = {**asdict(setting), "new_tokens": self._given.tokens}
        for one in self.found:
            if wanted.items() <= one.items():
                return one
        started = time.process_time()
        recipe = recipe_of(self._recipe(setting))
        rank = ARMS[setting.arm].rank
        found = self._adapted(recipe, rank) if rank else self._trained(recipe, setting)
        self.found.append({**wanted, **found, "cpu_s": time.process_time() - started})
        with self._path.open("a") as file:
            file.write(json.dumps(self.found[-1]) + "\n")
        print(self.found[-1], flush=True)
        return self.found[-1]

    def _recipe(self, setting: Setting) -> dict[str, Any]:
        new, grow = str(self._given.text), ARMS[setting.arm].grow
        train = [{"path": new, "split": "train[:99%]", "weight": 1 - setting.replayed}]
        if setting.replayed:
            train += [{"dataset": "demo", "split": "train", "weight": setting.replayed}]
        stage = {
            "tokens": round(self._given.tokens / (1 - setting.replayed)),
            "learning_rate": setting.rate,
            "warmup": 0.05,
            "decay": 0.5,
            "trainable": "new" if grow else "all",
        }
        return {
            "base": "demo",
            "output": str(self._given.folder / "run"),
            "seed": setting.seed,
            "data": {
                "train": train,
                "validation": [
                    {"dataset": "demo", "split": "validation"},
                    {"path": new, "split": "train[99%:]"},
                ],
                "sequence_length": SEQUENCE_LENGTH,
            },
            "batch_tokens": BATCH_TOKENS,
            "micro_batch_size": BATCH_TOKENS // SEQUENCE_LENGTH,
            "precision": "fp32",
            "evaluation": {"tokens": 16_384},
            "stages": [*([{"grow": grow}] if grow else []), {"train": stage}],
        }

    def _trained(self, recipe: Recipe, setting: Setting) -> dict[str, Any]:
        """Run a recipe, and take back what grew."""
        out = self._given.folder / "run"
        clear(out)
        final = Path(run_recipe(Job(recipe=recipe, on_cpu=True, quiet=True))["folder"])
        *_, last = _held_out(out)
        plan, is_base = read(LocalFolder(final)), False
        parameters = plan.num_parameters
        if ARMS[setting.arm].grow:
            parameters -= read(LocalFolder(self._base)).num_parameters
            back = ungrow(final, out / "back", Silent())
            is_base = back.sha256 == hash_file(self._base / SINGLE)
        return {**last, "parameters": parameters, "is_base": is_base}

    def _adapted(self, recipe: Recipe, rank: int) -> dict[str, Any]:
        """Train adapters on the samples of the recipe, in its order, by its optimizer."""
        peft: Any = import_module("peft")
        train = recipe.stages[-1].train
        assert train is not None
        length, size = recipe.data.sequence_length, recipe.micro_batch_size
        with world_of(recipe, on_cpu=True) as devices:
            corpus, order = self._texts(recipe, devices)
            model = load_model(self._base)
            torch.manual_seed(recipe.seed)
            matrices = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
            settings = peft.LoraConfig(r=rank, lora_alpha=rank, target_modules=matrices)
            peft.inject_adapter_in_model(settings, model)
            groups = parameter_groups(
                model, learning_rate=train.learning_rate, trainable=["*.lora_*"]
            )
            optimizer = make_optimizer(recipe.optimizer, groups)
            parameters = [parameter for group in groups for parameter in group.parameters]
            module: Any = devices.distribute(NextTokenLoss(model))
            masks = BatchMasks(model.config, length, devices.device)
            schedule = schedule_of(train, recipe.batch_tokens)
            plan = BatchPlan.of_tokens(
                recipe.batch_tokens, sequence_length=length, micro_batch_size=size, world_size=1
            )
            batches = micro_batches(
                order, plan, rank=0, first_sample=0, document_mask=False, pin_memory=False
            )
            num_steps = train.num_steps(recipe.batch_tokens)
            for step, (batch,) in enumerate(islice(batches, num_steps)):
                factor = schedule.of_step(step * recipe.batch_tokens, recipe.batch_tokens)
                set_learning_rates(optimizer, factor, factor)
                loss, count = module(batch.input_ids, batch.targets, masks.of(batch))
                (loss / count).backward()
                clip_gradients(parameters, train.gradient_clipping)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            losses = evaluate(
                module,
                corpus.validation,
                devices,
                masks,
                sequence_length=length,
                micro_batch_size=size,
                max_tokens=recipe.evaluation.tokens,
                document_mask=False,
            )
        found = _losses(loss.loss for loss in losses)
        return {**found, "parameters": sum(p.numel() for p in parameters), "is_base": False}

    def _texts(self, recipe: Recipe, devices: Any) -> Any:
        tokens = self._given.folder / "tokens"
        return open_texts(recipe, self._base, self._base, tokens, devices, HubClient(), Silent())


def _held_out(run: Path) -> Iterator[dict[str, float]]:
    """Yield the held-out losses of a run, in order."""
    for line in (run / "metrics.jsonl").read_text().splitlines():
        if texts := json.loads(line).get("validation"):
            yield _losses(text["loss"] for text in texts.values())


def _losses(found: Iterable[float]) -> dict[str, float]:
    old, new = found
    return {"old": old, "new": new}


if __name__ == "__main__":
    main()
