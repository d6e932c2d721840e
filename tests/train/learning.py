"""Bases, maps and losses for the tests of learned growth."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from hfgrow.checkpoint.files import LocalFolder
from hfgrow.checkpoint.learned_maps import write_maps
from hfgrow.checkpoint.read import read
from hfgrow.data.batches import MicroBatch
from hfgrow.growth.grow import grow
from hfgrow.growth.request import Growth, GrowthRequest
from hfgrow.plan.operators.learn import LEARN, LearnArguments, learned_growth, learned_plan
from hfgrow.train.learn.fit import initial_maps
from hfgrow.train.learn.model import LearnedModel
from tests.checkpoints import load, probe

# Fractions on every axis of the tiny bases, whose heads come in pairs.
WIDER: dict[str, Any] = {"hidden_size": 48, "ffn": 64, "heads": 6, "kv_heads": 3}
CPU = torch.device("cpu")


def batch() -> MicroBatch:
    """Return the probe as a batch; the last token of a row has no target."""
    tokens = probe()
    targets = torch.cat((tokens[:, 1:], torch.full((len(tokens), 1), -100)), 1)
    return MicroBatch(
        input_ids=tokens,
        targets=targets,
        segment_ids=None,
        num_targets=int((targets >= 0).sum()),
        samples=range(len(tokens)),
    )


def model_of(folder: Path, **arguments: Any) -> tuple[LearnedModel, dict[str, Tensor]]:
    """Return a grown model as a function of maps, and what those begin as."""
    base, told = read(LocalFolder(folder)), LearnArguments(**arguments)
    plan = learned_plan(base, told, None)
    model = LearnedModel(base, plan, sequence_length=probe().shape[1], device=CPU)
    return model, initial_maps(base, learned_growth(base, told), told)


def lean_loss(model: LearnedModel, maps: dict[str, Tensor]) -> float:
    """Return the loss of the probe as the maps make it, nats per token."""
    with torch.no_grad():
        total, count = model.loss(batch(), maps)
    return float(total) / count


def written(folder: Path, maps: dict[str, Tensor], out: Path, **arguments: Any) -> Growth:
    """Write the model that maps make of a base."""
    out.parent.mkdir(parents=True, exist_ok=True)
    arguments["maps"] = write_maps(maps, out.parent)
    steps = [(LEARN, LearnArguments(**arguments).recorded)]
    return grow(GrowthRequest(model=str(folder), steps=steps, out=out, maps=out.parent))


def loss_of(folder: Path) -> float:
    """Return the loss of the probe as transformers computes it of a folder."""
    model, report = load(folder)
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    tokens = probe()
    with torch.no_grad():
        logits = model(tokens).logits[:, :-1].flatten(0, 1)
    return float(functional.cross_entropy(logits.float(), tokens[:, 1:].flatten()))


def shaken(maps: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return maps with noise everywhere, as learning would leave them."""
    generator = torch.Generator().manual_seed(11)
    return {
        name: tensor + 0.05 * torch.randn(tensor.shape, generator=generator)
        for name, tensor in maps.items()
    }
