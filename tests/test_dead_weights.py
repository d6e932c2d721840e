"""What is new can learn: within a few steps of training every new weight moves."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.checkpoints import MakeCheckpoint, load
from tests.program import call_hfgrow

GROWTHS = {
    "zero-width": ("zero-width", "--g", "2"),
    "lemon with a remainder": ("lemon", "--hidden-size", "40", "--ffn", "60"),
    "head-dim": ("head-dim", "--factor", "2"),
    "hyperclone-noisy": ("hyperclone-noisy", "--hidden-size", "48", "--ffn", "60"),
    "random-width": ("random-width", "--g", "2", "--mask", "0.1"),
    "zero-depth": ("zero-depth", "--g", "2"),
    "random-depth": ("random-depth", "--g", "2"),
}


def trained(model: Any, num_steps: int) -> Any:
    """Train on random tokens that hold the whole vocabulary."""
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.0)
    tokens = torch.randperm(64, generator=torch.Generator().manual_seed(3)).view(2, 32)
    for _ in range(num_steps):
        optimizer.zero_grad()
        loss: Any = model(tokens, labels=tokens).loss
        loss.backward()
        optimizer.step()
    return model


@pytest.mark.parametrize("growth", GROWTHS)
def test_every_matrix_moves_in_every_place(
    growth: str, make_checkpoint: MakeCheckpoint, tmp_path: Path
) -> None:
    operator, *arguments = GROWTHS[growth]
    base = make_checkpoint(traits=False)
    finished = call_hfgrow(operator, base, *arguments, "--out", tmp_path / "out")
    assert finished.returncode == 0, finished.stderr
    model = load(tmp_path / "out")[0]
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    trained(model, 4)
    for name, parameter in model.named_parameters():
        if parameter.dim() == 2 and "embed" not in name:
            still = float((parameter == before[name]).float().mean())
            assert still < 0.01, f"{still:.0%} of {name} never moves"
