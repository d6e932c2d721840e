"""Whether training tells copies apart: the embedded model, twice as wide, 100 steps of AdamW."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import hfgrow
from hfgrow.checkpoint.compute.moments import Mode

DEMO = Path(hfgrow.__file__).parent / "demo"
STEPS, BATCH, LENGTH, RATE = 100, 2, 64, 1e-3
# Tensors and the axis on which their copies lie.
COPIES = [
    ("embed_tokens", 1),
    ("q_proj", 0),
    ("gate_proj", 0),
    ("gate_proj", 1),
    ("down_proj", 0),
    ("down_proj", 1),
]
NOISY: dict[str, object] = {"g": 2, "noise": 0.1}
LOUD: dict[str, object] = {"g": 2, "noise": 0.5}
# Growth, mode of the moments -> whether copies stay copies.
CASES: list[tuple[str, dict[str, object], Mode, bool]] = [
    ("hyperclone", {"g": 2}, "reset", True),
    ("hyperclone", {"g": 2}, "copy", True),
    ("hyperclone", {"g": 2}, "asym", False),
    ("hyperclone-noisy", NOISY, "reset", False),
    ("hyperclone-noisy", NOISY, "copy", False),
    ("hyperclone-noisy", LOUD, "reset", False),
]


def train(model: Any, optimizer: Any, num_steps: int) -> float:
    """Train on windows of the probe text, the same for every model; return the last loss."""
    tokenizer: Any = AutoTokenizer.from_pretrained(DEMO)
    text = (Path(hfgrow.__file__).parent / "growth" / "probe.txt").read_text(encoding="utf-8")
    tokens = torch.tensor(tokenizer(text)["input_ids"])
    generator = torch.Generator().manual_seed(1)
    loss = 0.0
    for _ in range(num_steps):
        starts = torch.randint(len(tokens) - LENGTH, (BATCH,), generator=generator)
        batch = torch.stack([tokens[i : i + LENGTH] for i in starts.tolist()])
        result = model(batch, labels=batch)
        optimizer.zero_grad()
        result.loss.backward()
        optimizer.step()
        loss = result.loss.item()
    return loss


def adamw(model: Any) -> Any:
    return torch.optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.95))


def parameters_of(model: Any) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def differences(tensors: dict[str, torch.Tensor]) -> list[float]:
    """The relative distance of the two copies of what `COPIES` names, over all layers."""
    found = []
    for name, axis in COPIES:
        halves = [tensor.chunk(2, axis) for key, tensor in tensors.items() if name in key]
        one, other = (torch.cat([half[i].flatten() for half in halves]) for i in (0, 1))
        found.append(float((one - other).norm() / one.norm()))
    return found


@pytest.fixture(scope="module")
def base() -> tuple[Any, dict[str, Any]]:
    """The embedded model in float32, and the state of AdamW after some steps."""
    auto: Any = AutoModelForCausalLM
    model = auto.from_pretrained(DEMO, dtype=torch.float32)
    optimizer = adamw(model)
    train(model, optimizer, 20)
    return model, {name: optimizer.state[p] for name, p in model.named_parameters()}


@pytest.mark.slow
@pytest.mark.parametrize(("operator", "arguments", "mode", "alike"), CASES)
def test_only_what_is_told_apart_grows_apart(
    operator: str,
    arguments: dict[str, object],
    mode: Mode,
    alike: bool,
    base: tuple[Any, dict[str, Any]],
) -> None:
    small, state = base
    steps = [(operator, arguments)]
    weights, config = hfgrow.grow_state_dict(small, steps)
    model = type(small).from_pretrained(
        None, config=type(small.config)(**config), state_dict=weights
    )
    grown_state = hfgrow.grow_optimizer_state(hfgrow.plan_state_dict(small, steps), state, mode)
    optimizer = adamw(model)
    for name, parameter in model.named_parameters():
        if name in grown_state:
            optimizer.state[parameter] = grown_state[name]
    before = parameters_of(model)
    loss = train(model, optimizer, STEPS)
    after = parameters_of(model)
    updates = {name: tensor - before[name] for name, tensor in after.items()}
    rows = zip(COPIES, *map(differences, (before, after, updates)), strict=True)
    print(f"\n{operator} {arguments}, moments {mode}: loss {loss:.4f}; before, after, updates")
    for (name, axis), *values in rows:
        copies = f"{name} {'columns' if axis else 'rows'}"
        print(f"  {copies:22}", *(f"{value:.1e}" for value in values))
    if alike:
        assert max(differences(after)) < 1e-6
    else:
        assert min(differences(updates)) > 5e-3
