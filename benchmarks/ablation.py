"""What each part of the training loop brings: tokens a second, MFU, memory.

    python -m benchmarks.ablation                          # 2 cores: 10M and 18M
    python -m benchmarks.ablation --device cuda            # 0.13B, 0.36B and 1.1B

Every row adds one thing to the row above. All rows train the same fresh model on the same random
tokens with the same fused AdamW; each is a process of its own, and rounds go up and down the rows.
The first steps, which compile, do not count.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from benchmarks.measure import table, write_json
from benchmarks.train import LEARNING_RATE, SIZES, WARM_STEPS, Size
from hfgrow.data.batches import NO_TARGET
from hfgrow.growth.loading import filled_config
from hfgrow.train.attention import preferred_kernels, use_causal_attention
from hfgrow.train.cpu_products import use_fast_products
from hfgrow.train.flops import arithmetic, peak_flops, utilization
from hfgrow.train.loss import NextTokenLoss

ROWS = (
    "eager attention",
    "SDPA of transformers",
    "own attention",
    "cuDNN first",
    "products of oneDNN",
    "layers compiled",
    "loss in chunks",
    "larger micro-batch",
)


def main() -> None:
    """Take turns, print the tables; or, with --row, measure one and print its JSON."""
    given = _arguments()
    if given.row is not None:
        print(json.dumps(_measured(SIZES[given.sizes[0]], given.row, given)))
        return
    names = given.sizes or (["10M", "18M"] if given.device == "cpu" else ["0.13B", "0.36B", "1.1B"])
    results: dict[str, list[dict[str, Any]]] = {}
    for name in names:
        rows = _rows(SIZES[name], given.device)
        for i in range(given.rounds):
            for row in rows if i % 2 == 0 else reversed(rows):
                words = [sys.executable, "-m", "benchmarks.ablation", "--row", str(row)]
                words += ["--sizes", name, "--device", given.device, "--steps", str(given.steps)]
                done = subprocess.run(words, capture_output=True, text=True, check=False)
                if done.returncode:
                    # Eager attention may not fit where the others do, which is a result too.
                    print(f"{name} {ROWS[row]}: {done.stderr.strip()[-300:]}", file=sys.stderr)
                    continue
                found = json.loads(done.stdout.splitlines()[-1])
                results.setdefault(f"{name} {ROWS[row]}", []).append(found)
                rate = found["tokens_per_s"]
                print(f"round {i + 1}: {name} {ROWS[row]}: {rate:,.0f}", file=sys.stderr)
        print(_table(name, results, given.device))
    write_json(given.json, Path.cwd(), results=results)


def _rows(size: Size, device: str) -> list[int]:
    """Return the rows that can differ from the one above."""
    absent = "cuDNN" if device == "cpu" else "oneDNN"
    rows = [i for i, name in enumerate(ROWS) if absent not in name]
    return rows if size.accumulation % 2 == 0 else rows[:-1]


def _measured(size: Size, row: int, given: argparse.Namespace) -> dict[str, Any]:
    from transformers import AutoConfig, AutoModelForCausalLM

    device = torch.device(given.device)
    torch.set_float32_matmul_precision("high")
    torch.manual_seed(0)
    settings = dict(size.config)
    any_config: Any = AutoConfig
    any_model: Any = AutoModelForCausalLM
    config = any_config.for_model(settings.pop("model_type"), **settings)
    attention = "eager" if row == 0 else "sdpa"
    model = any_model.from_config(config, attn_implementation=attention).to(device).train()
    if row >= 2:
        use_causal_attention(model)
    if row >= 4:
        use_fast_products(model)
    if row >= 5:
        for layer in model.model.layers:
            layer.compile(dynamic=False)
    own = NextTokenLoss(model, is_compiled=True) if row >= 6 else None
    factor = 2 if row >= 7 and size.accumulation % 2 == 0 else 1
    micro, accumulation = size.micro_batch_size * factor, size.accumulation // factor
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, fused=True)
    autocast = torch.autocast("cuda", torch.bfloat16) if device.type == "cuda" else nullcontext()
    kernels = preferred_kernels(device) if row >= 3 else nullcontext()
    shape = (micro, size.sequence_length)
    seconds, losses = [], []
    with kernels:
        for _ in range(WARM_STEPS + given.steps):
            _settle(device)
            started = time.perf_counter()
            total = torch.zeros((), device=device)
            for _ in range(accumulation):
                tokens = torch.randint(size.config["vocab_size"], shape).to(device)
                with autocast:
                    loss = _loss(model, own, tokens) / accumulation
                loss.backward()
                total += loss.detach()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            _settle(device)
            seconds.append(time.perf_counter() - started)
            losses.append(float(total))
    peak = torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else None
    median = statistics.median(seconds[WARM_STEPS:])
    return {"tokens_per_s": size.batch_tokens / median, "loss": losses[-1], "peak_gib": peak}


def _loss(model: Any, own: NextTokenLoss | None, tokens: torch.Tensor) -> Any:
    if own is None:
        return model(tokens, labels=tokens, use_cache=False).loss
    total, count = own(tokens, torch.nn.functional.pad(tokens[:, 1:], (0, 1), value=NO_TARGET))
    return total / count


def _settle(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def _table(name: str, results: dict[str, list[dict[str, Any]]], device: str) -> str:
    size = SIZES[name]
    flops = arithmetic(filled_config(size.config), size.sequence_length).exact_flops
    peak = peak_flops(torch.device(device))
    rows: list[list[str]] = []
    first = 0.0
    for row in ROWS:
        found = results.get(f"{name} {row}")
        if not found:
            continue
        rate = statistics.median(one["tokens_per_s"] for one in found)
        first = first or rate
        gib = found[0]["peak_gib"]
        rows.append(
            [
                row if not rows else f"+ {row}",
                f"{rate:,.0f}",
                f"{utilization(rate, flops, peak):.0%}" if peak else "unknown",
                f"{rate / first:.2f}",
                "" if gib is None else f"{gib:.1f}",
                f"{found[0]['loss']:.4f}",
            ]
        )
    return table([name, "tokens/s", "MFU", "beside the first", "peak GiB", "last loss"], rows)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--sizes", nargs="*", choices=list(SIZES))
    parser.add_argument("--steps", type=int, default=20, help="counted steps of each run")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--row", type=int, choices=range(len(ROWS)), help="measure this one here")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
