"""A trained model as a plain model folder, with its lineage: what from_pretrained loads."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from hfgrow.checkpoint.files import CONFIG, LOCAL_BASE, LocalFolder, side_files_of
from hfgrow.checkpoint.read import read
from hfgrow.checkpoint.staging import staged
from hfgrow.checkpoint.write import config_with
from hfgrow.errors import TrainingError, printable
from hfgrow.train.flops import Arithmetic
from hfgrow.train.loop import Run
from hfgrow.train.optimizers import averaged
from hfgrow.train.record import lineage_files
from hfgrow.train.saved import model_tensors
from hfgrow.train.stage import Stage
from hfgrow.train.weights import write_weights


@dataclass(frozen=True, kw_only=True)
class Target:
    """Where a trained model goes, and what it is.

    Attributes:
        folder: The folder to make.
        name: What the model is called in its lineage.
        dtype: What the weights are written in, as config.json names dtypes.
        base: The model that the stage began with.
        base_record: Its `name`, and `repo_id` and `revision` if it comes from the Hub.
        run_folder: The folder of the run.
    """

    folder: Path
    name: str
    dtype: str
    base: Path
    base_record: Mapping[str, Any]
    run_folder: Path


def export(run: Run, stage: Stage, target: Target, costs: Arithmetic, flops: float) -> None:
    """Write the model of a stage, as it is to be used: with Schedule-Free the mean of its iterates.

    Args:
        run: The run, at the end of the stage.
        stage: The stage.
        target: Where to, and what it is.
        costs: What a token of the model costs.
        flops: What a token of the stage cost, where not everything trained.

    Raises:
        OutputError: It cannot be written.
        TrainingError: A weight is not finite, or does not fit the dtype.
    """
    with averaged(stage.optimizer):
        # On a CPU these are the parameters themselves, which hold the mean no longer than this.
        tensors = model_tensors(stage.model, keep=run.devices.is_main)
        run.devices.on_main(lambda: _write(run, stage, tensors, target, costs, flops))


def _write(
    run: Run,
    stage: Stage,
    tensors: dict[str, torch.Tensor],
    target: Target,
    costs: Arithmetic,
    flops: float,
) -> None:
    plan = read(LocalFolder(target.base))
    converted = {key: _converted(key, tensor, target.dtype) for key, tensor in tensors.items()}
    with staged(target.folder) as staging:
        names = write_weights(staging, converted)
        for side_file in side_files_of(target.base):
            shutil.copyfile(target.base / side_file, staging / side_file)
        link, texts, pictures = lineage_files(
            run,
            stage.train,
            plan,
            staging,
            names,
            base=target.base_record,
            costs=costs,
            flops=flops,
            folder=target.run_folder,
            name=target.name,
        )
        config = config_with(dict(plan.config) | {"dtype": target.dtype}, link)
        config.pop("torch_dtype", None)
        texts |= {CONFIG: json.dumps(config, indent=2, ensure_ascii=False) + "\n"}
        texts |= {LOCAL_BASE: f"{target.base.absolute()}\n"}
        for name, text in texts.items():
            (staging / name).write_text(text, encoding="utf-8", errors="surrogateescape")
        for name, content in pictures.items():
            (staging / name).write_bytes(content)
        # What was written must be a model that hfgrow itself would read.
        read(LocalFolder(staging))


def _converted(name: str, tensor: torch.Tensor, dtype: str) -> torch.Tensor:
    result = tensor.to(getattr(torch, dtype)).contiguous()
    if not bool(torch.isfinite(result).all()):
        raise TrainingError(
            f"{printable(name)} holds numbers that are not finite in {dtype}",
            hint="go on from an earlier checkpoint, or add --set dtype=float32",
        )
    return result
