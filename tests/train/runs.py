"""Runs in this process or in processes of their own, on a model that is small and fresh."""

import json
import os
import subprocess
import sys
import time
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import yaml

from hfgrow.train.recipe.recipe import recipe_of
from hfgrow.train.run import Job, run_recipe
from tests.program import program

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "recipes" / "continue_pretraining.py"
TIMEOUT_S = 120
# The stages of a run that grows in the middle.
GROWN: list[dict[str, Any]] = [
    {"train": {"tokens": 1024, "learning_rate": 1e-2}},
    {"grow": {"operator": "zero-depth", "g": 2}},
    {"train": {"tokens": 1024, "learning_rate": 1e-2}},
]

# A run whose first stage ends after three of twelve steps: no loss falls by 9 nats a token.
PLATEAU: dict[str, Any] = {
    "evaluation": {"every_tokens": 256, "tokens": 512},
    "stages": [
        {
            "train": {
                "tokens": 3072,
                "learning_rate": 1e-2,
                "warmup": 0,
                "until": {"plateau": 9.0, "evaluations": 2},
            }
        },
        {"grow": {"operator": "zero-depth", "g": 2, "optimizer_state": "copy"}},
        {"train": {"tokens": 512, "learning_rate": 1e-2}},
    ],
}


def recipe(folder: Path, **changes: Any) -> dict[str, Any]:
    """Return a recipe of a run of 12 steps in `folder`/run; `stages` and others may be changed."""
    text = folder / "text.txt"
    if not text.exists():
        words = [f"word{i * i % 97} and {i % 13}" for i in range(3000)]
        text.write_text("\n\n\n".join(" ".join(words[i : i + 30]) for i in range(0, 3000, 30)))
    return {
        "base": {
            "config": {
                "model_type": "llama",
                "vocab_size": 2048,
                "hidden_size": 16,
                "intermediate_size": 32,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "num_key_value_heads": 1,
                "max_position_embeddings": 64,
                "tie_word_embeddings": True,
            }
        },
        "tokenizer": "demo",
        "output": str(folder / "run"),
        "seed": 3,
        "data": {
            "train": [{"path": str(text), "split": "train[:90%]"}],
            "validation": [{"path": str(text), "split": "train[90%:]"}],
            "sequence_length": 32,
        },
        "batch_tokens": 256,
        "micro_batch_size": 4,
        "precision": "fp32",
        "checkpoint": {"every_tokens": 512, "keep": 2},
        "evaluation": {"every_tokens": 1024, "tokens": 512},
        "stages": [{"train": {"tokens": 3072, "learning_rate": 1e-2}}],
        **changes,
    }


def command(
    recipe: dict[str, Any], folder: Path, *flags: str, by_program: bool = False
) -> tuple[list[str], dict[str, str]]:
    """Return the command that runs a recipe, by `accelerate` or `hfgrow`, and its environment."""
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    num_processes = recipe.get("world", {}).get("processes", 1)
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    if by_program:
        return [program(), "train", str(path), "--cpu", *flags], environment
    words = [sys.executable]
    if num_processes > 1:
        words += ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_machines", "1"]
        words += ["--num_processes", str(num_processes), "--mixed_precision", "no"]
        words += ["--dynamo_backend", "no", "--main_process_port", "0"]
    return [*words, str(SCRIPT), str(path), "--cpu", *flags], environment


def run(recipe: dict[str, Any], folder: Path, *flags: str) -> "subprocess.CompletedProcess[str]":
    """Run a recipe to its end."""
    return finish(*command(recipe, folder, *flags))


def finish(words: list[str], environment: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    """Run a command to its end."""
    return subprocess.run(
        words, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )


def stop_at(
    recipe: dict[str, Any],
    folder: Path,
    step: int,
    number: int,
    *,
    whom: str = "all",
    by_program: bool = False,
) -> "subprocess.CompletedProcess[str]":
    """Run a recipe, and send a signal to processes of it once a step is recorded."""
    words, environment = command(recipe, folder, by_program=by_program)
    process = subprocess.Popen(
        words,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + TIMEOUT_S
    while process.poll() is None and time.monotonic() < deadline:
        if len(losses(recipe)) >= step:
            family = _family(process.pid)
            for pid in {"all": family, "first": family[:1], "last": family[-1:]}[whom]:
                os.kill(pid, number)
            break
        time.sleep(0.002)
    out, err = process.communicate(timeout=TIMEOUT_S)
    return subprocess.CompletedProcess(words, process.returncode, out, err)


def _family(pid: int) -> list[int]:
    """Return a process and all below it; torch starts each worker in a group of its own."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(found for child in children for found in _family(int(child)))]


def lines(recipe: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the complete lines of metrics.jsonl."""
    path = Path(recipe["output"], "metrics.jsonl")
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines(True) if line[-1] == "\n"]


def losses(recipe: dict[str, Any]) -> list[float]:
    """Return the training loss of every step."""
    return [line["loss"] for line in lines(recipe) if "loss" in line]


def weights(recipe: dict[str, Any]) -> str:
    """Return the sha256 of the finished model's weights."""
    return sha256(Path(recipe["output"], "final", "model.safetensors").read_bytes()).hexdigest()


def growing(optimizer_state: str, **grow: Any) -> list[dict[str, Any]]:
    """Return `GROWN` with another mode of growth for the optimizer's state, or another growth."""
    grown = {**GROWN[1]["grow"], **grow, "optimizer_state": optimizer_state}
    return [GROWN[0], {"grow": grown}, GROWN[2]]


def carry(recipe: dict[str, Any], *, draws: bool = False, **flags: Any) -> Path:
    """Run a recipe in this process; return the folder of its model.

    Its curve is drawn only if asked for: drawing takes longer than so small a run.
    """
    flags = {"quiet": True, **flags}
    with pytest.MonkeyPatch.context() as patch:
        if not draws:
            # As where nobody installed it.
            patch.setitem(sys.modules, "matplotlib", None)
        result = run_recipe(Job(recipe=recipe_of(recipe), on_cpu=True, **flags))
    return Path(result["folder"])


def last_checkpoint(recipe: dict[str, Any]) -> Path:
    """Return the folder of the newest checkpoint."""
    return max(Path(recipe["output"], "checkpoints").iterdir(), key=lambda path: path.name)


def stop_after(monkeypatch: pytest.MonkeyPatch, recipe: dict[str, Any], step: int) -> None:
    """Run a recipe up to a step, as if the power had failed right after it."""
    from hfgrow.train import loop

    class PowerFailureError(Exception):
        pass

    taken = loop.take_step

    def failing(run: Any, *arguments: Any) -> loop.Step:
        if run.position.step == step:
            raise PowerFailureError
        return taken(run, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "take_step", failing)
        with pytest.raises(PowerFailureError):
            carry(recipe)
