"""The peer of `hfgrow train`: transformers' Trainer on the same model, text, order and batch.

Run by `benchmarks.train` in a process of its own; prints one JSON document.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, Trainer, TrainerCallback, TrainingArguments

from hfgrow.data.order import BlockOrder
from hfgrow.data.token_folder import TokenFiles
from hfgrow.data.views import TokenView


class Blocks(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
    """The samples of a run in their order; the labels are the inputs, which the model shifts."""

    def __init__(self, order: BlockOrder, num_samples: int) -> None:
        self._order, self._num_samples = order, num_samples

    def __len__(self) -> int:
        return self._num_samples

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        # One token more than hfgrow's inputs, so that as many tokens are predicted.
        tokens = torch.from_numpy(self._order.block(index).tokens)
        return {"input_ids": tokens, "labels": tokens}


class _Clock(TrainerCallback):
    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.losses: list[float] = []
        self._start = 0.0

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self._start = time.perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        now = time.perf_counter()
        self.seconds.append(now - self._start)
        self._start = now

    def on_log(self, *_: Any, logs: dict[str, float] | None = None, **__: Any) -> None:
        if logs and "loss" in logs:
            self.losses.append(logs["loss"])


class _InOrder(Trainer):
    def _get_train_sampler(self, *_: Any, **__: Any) -> Any:
        # A Trainer may have none; this one has.
        return torch.utils.data.SequentialSampler(self.train_dataset)  # type: ignore[arg-type]  # as above


def main() -> None:
    """Train, and print the seconds and losses of every step."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("--model", "--tokens", "--out"):
        parser.add_argument(name, type=Path, required=True)
    for name in ("--steps", "--sequence-length", "--micro-batch-size", "--accumulation"):
        parser.add_argument(name, type=int, required=True)
    parser.add_argument("--learning-rate", type=float, required=True)
    parser.add_argument("--seed", type=int, default=0)
    for name in ("--bf16", "--compile", "--cpu"):
        parser.add_argument(name, action="store_true")
    given = parser.parse_args()
    view = TokenView.of(TokenFiles(given.tokens))
    length = given.sequence_length
    order = BlockOrder([view], [1.0], sequence_length=length, seed=given.seed)
    auto_model: Any = AutoModelForCausalLM
    model = auto_model.from_pretrained(given.model, dtype=torch.float32)
    clock = _Clock()
    arguments = TrainingArguments(
        output_dir=str(given.out),
        max_steps=given.steps,
        per_device_train_batch_size=given.micro_batch_size,
        gradient_accumulation_steps=given.accumulation,
        learning_rate=given.learning_rate,
        lr_scheduler_type="constant",
        adam_beta2=0.95,
        weight_decay=0.1,
        max_grad_norm=1.0,
        bf16=given.bf16,
        torch_compile=given.compile,
        use_cpu=given.cpu,
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        dataloader_num_workers=0,
    )
    num_samples = given.steps * given.micro_batch_size * given.accumulation
    trainer = _InOrder(
        model=model, args=arguments, train_dataset=Blocks(order, num_samples), callbacks=[clock]
    )
    trainer.train()
    peak = torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else None
    print(json.dumps({"seconds": clock.seconds, "losses": clock.losses, "peak_gib": peak}))


if __name__ == "__main__":
    main()
