"""Tokens a second of `hfgrow train` beside transformers' Trainer.

    python -m benchmarks.train --folder DIR                      # 2 cores: 10M and 18M
    python -m benchmarks.train --folder DIR --device cuda        # 0.13B, 0.36B and 1.1B

Both train the same fresh model on the same samples in the same order with the same batch, learning
rate and AdamW, each in a process of its own, in turn. A step lasts from the end of one to the end
of the next; the first ones, which compile, do not count.
"""

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from benchmarks.measure import clear, hfgrow_program, table, write_json
from hfgrow.growth.loading import filled_config
from hfgrow.train.flops import arithmetic, peak_flops, utilization


@dataclass(frozen=True)
class Size:
    """A model and how it is trained."""

    config: dict[str, Any]
    sequence_length: int
    micro_batch_size: int
    accumulation: int

    @property
    def batch_tokens(self) -> int:
        """Tokens of an optimizer step."""
        return self.sequence_length * self.micro_batch_size * self.accumulation


def _llama(
    hidden: int, layers: int, ffn: int, heads: int, kv_heads: int, vocab: int, **more: Any
) -> dict[str, Any]:
    return {
        "model_type": "llama",
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "intermediate_size": ffn,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "vocab_size": vocab,
        "max_position_embeddings": 2048,
        **more,
    }


SIZES = {
    # Whether everything fits together, and no more.
    "toy": Size(_llama(64, 2, 176, 2, 1, 2048, tie_word_embeddings=True), 64, 4, 1),
    "10M": Size(_llama(320, 8, 864, 5, 5, 8192, tie_word_embeddings=True), 256, 8, 1),
    "18M": Size(_llama(320, 8, 864, 5, 5, 32000, tie_word_embeddings=True), 512, 4, 1),
    "0.13B": Size(_llama(576, 30, 1536, 9, 3, 49152, tie_word_embeddings=True), 2048, 16, 2),
    "0.36B": Size(_llama(960, 32, 2560, 15, 5, 49152, tie_word_embeddings=True), 2048, 8, 4),
    "1.1B": Size(_llama(2048, 22, 5632, 32, 4, 32000, tie_word_embeddings=False), 2048, 8, 4),
}
LEARNING_RATE = 1e-3
WARM_STEPS = 5


def main() -> None:
    """Take turns, print the tables."""
    given = _arguments()
    folder: Path = given.folder
    folder.mkdir(parents=True, exist_ok=True)
    tokens = folder / "tokens"
    if not tokens.exists():
        program = [hfgrow_program(), "data", "prepare", "demo", "--tokenizer", "demo", "-q"]
        subprocess.run([*program, "--out", str(tokens)], check=True, stdout=subprocess.DEVNULL)
    names = given.sizes or (["10M", "18M"] if given.device == "cpu" else ["0.13B", "0.36B", "1.1B"])
    results: dict[str, list[dict[str, Any]]] = {}
    peak = peak_flops(torch.device(given.device))
    for name in names:
        size = SIZES[name]
        flops = arithmetic(filled_config(size.config), size.sequence_length).exact_flops
        for i in range(given.rounds):
            # The peer trains the model that hfgrow has made.
            for entry in given.entries if i % 2 == 0 else reversed(given.entries):
                train, compiled = ENTRIES[entry]
                try:
                    found = train(size, given, tokens, compiled=compiled)
                except subprocess.CalledProcessError as error:
                    # One that does not fit, say, leaves the others their turn.
                    said = str(error.stderr or "")[-1000:]
                    print(f"round {i + 1}: {name} {entry}: {error} {said}", file=sys.stderr)
                    continue
                rate = found["tokens_per_s"]
                found["mfu"] = utilization(rate, flops, peak) if peak else None
                results.setdefault(f"{name} {entry}", []).append(found)
                print(f"round {i + 1}: {name} {entry}: {rate:,.0f}", file=sys.stderr)
                # What was measured stays if the next run fails.
                write_json(given.json, folder, results=results)
        ran = [entry for entry in given.entries if f"{name} {entry}" in results]
        if ran:
            print(_table(name, results, ran))
    if any(f"{name} {entry}" not in results for name in names for entry in given.entries):
        sys.exit(1)


def _hfgrow(
    size: Size, given: argparse.Namespace, tokens: Path, *, compiled: bool = False
) -> dict[str, Any]:
    out = given.folder / "run"
    clear(out)
    steps = given.steps + WARM_STEPS
    recipe = {
        "base": {"config": size.config},
        "tokenizer": "demo",
        "output": str(out),
        "data": {
            "train": [{"path": str(tokens)}],
            "validation": [{"path": str(tokens), "split": "train[99%:]"}],
            "sequence_length": size.sequence_length,
        },
        "batch_tokens": size.batch_tokens,
        "micro_batch_size": size.micro_batch_size,
        "precision": "fp32" if given.device == "cpu" else "bf16",
        "compile": compiled,
        "evaluation": {"tokens": size.sequence_length * size.micro_batch_size},
        "stages": [
            {
                "train": {
                    "tokens": steps * size.batch_tokens,
                    "learning_rate": LEARNING_RATE,
                    "schedule": "constant",
                    "warmup": 0,
                }
            }
        ],
    }
    path = given.folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    words = [hfgrow_program(), "train", str(path), "-q"]
    words += ["--cpu"] if given.device == "cpu" else []
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    own = [line for line in lines if "loss" in line]
    seconds = [size.batch_tokens / line["tokens_per_s"] for line in own]
    # The model that the peer begins with: the same after every run, compiled or not.
    base = given.folder / "base"
    clear(base)
    (out / "stages" / "base").rename(base)
    return _summary(size, seconds, [line["loss"] for line in own], own[-1].get("peak_gib"))


def _trainer(
    size: Size, given: argparse.Namespace, tokens: Path, *, compiled: bool = False
) -> dict[str, Any]:
    out = given.folder / "trainer"
    clear(out)
    words = [sys.executable, "-m", "benchmarks.hf_trainer", "--model", str(given.folder / "base")]
    words += ["--tokens", str(tokens), "--out", str(out), "--steps", str(given.steps + WARM_STEPS)]
    words += ["--sequence-length", str(size.sequence_length)]
    words += ["--micro-batch-size", str(size.micro_batch_size)]
    words += ["--accumulation", str(size.accumulation), "--learning-rate", str(LEARNING_RATE)]
    words += ["--cpu"] if given.device == "cpu" else ["--bf16"]
    words += ["--compile"] if compiled else []
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    found = json.loads(done.stdout.splitlines()[-1])
    return _summary(size, found["seconds"], found["losses"], found["peak_gib"])


ENTRIES: dict[str, tuple[Callable[..., dict[str, Any]], bool]] = {
    "hfgrow": (_hfgrow, False),
    "hfgrow, compiled": (_hfgrow, True),
    "Trainer": (_trainer, False),
    "Trainer, compiled": (_trainer, True),
}


def _summary(
    size: Size, seconds: list[float], losses: list[float], peak: float | None
) -> dict[str, Any]:
    median = statistics.median(seconds[WARM_STEPS:])
    return {"tokens_per_s": size.batch_tokens / median, "losses": losses, "peak_gib": peak}


def _table(name: str, results: dict[str, list[dict[str, Any]]], entries: Sequence[str]) -> str:
    """Return the rates of a size; the peer is the first entry that is a Trainer."""
    peer = next((entry for entry in entries if entry.startswith("Trainer")), entries[0])
    stock = results[f"{name} {peer}"]
    rows = []
    for entry in entries:
        found = results[f"{name} {entry}"]
        rates = [one["tokens_per_s"] for one in found]
        ratios = [
            one["tokens_per_s"] / other["tokens_per_s"]
            for one, other in zip(found, stock, strict=False)
        ]
        used = [one["mfu"] for one in found if one["mfu"] is not None]
        pairs = zip(found[0]["losses"], stock[0]["losses"], strict=False)
        apart = max(abs(one - other) for one, other in pairs)
        rows.append(
            [
                f"{name} {entry}",
                f"{statistics.median(rates):,.0f} ({min(rates):,.0f}-{max(rates):,.0f})",
                f"{statistics.median(used):.0%}" if used else "unknown",
                f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})",
                f"{found[0]['losses'][-1]:.4f}",
                f"{apart:.4f}",
            ]
        )
    head = ["trainer", "tokens/s (range)", "MFU", f"beside {peer}", "last loss", "losses apart"]
    return table(head, rows)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="scratch space, 20 GB for 1.1B")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--sizes", nargs="*", choices=list(SIZES))
    parser.add_argument("--entries", nargs="*", choices=list(ENTRIES), default=list(ENTRIES))
    parser.add_argument("--steps", type=int, default=20, help="counted steps of each run")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
