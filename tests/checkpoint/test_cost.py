"""What a dry run says of memory and time is what computing takes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from hfgrow.checkpoint.compute.cost import Cost, cost_of
from hfgrow.checkpoint.compute.state_dict import evaluated
from hfgrow.growth.memory import plan_state_dict
from hfgrow.growth.steps import Steps
from tests.program import run_hfgrow


@pytest.fixture(name="model", scope="module")
def make_model() -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    sizes: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 24, "vocab_size": 32}
    return LlamaForCausalLM(
        LlamaConfig(**sizes, num_hidden_layers=4, num_attention_heads=2, num_key_value_heads=1)
    )


@pytest.mark.parametrize(
    "steps", [[("stack", {"g": 2})], [("average", {})], [("hyperclone-noisy", {"g": 2})]]
)
def test_what_is_made_chunk_by_chunk_costs_nothing_more(model: Any, steps: Steps) -> None:
    assert cost_of(plan_state_dict(model, steps)) == Cost()


def test_the_steps_of_predictors_are_those_that_are_taken(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_state_dict(model, [("lesa", {})])
    taken = 0
    step: Callable[..., Any] = torch.optim.AdamW.step

    def counted(*arguments: Any, **options: Any) -> Any:
        nonlocal taken
        taken += 1
        return step(*arguments, **options)

    monkeypatch.setattr(torch.optim.AdamW, "step", counted)
    # A thread that is late may find a predictor gone, and train it again.
    in_turn: Callable[..., Any] = lambda work: (compute() for compute in work)  # noqa: E731
    monkeypatch.setattr("hfgrow.checkpoint.compute.state_dict.in_threads", in_turn)
    evaluated(plan.tensors, dict(model.state_dict()))
    found = cost_of(plan)
    assert found.num_predictors == 7
    assert found.num_steps == taken


def test_plans_of_aligned_layers_are_counted_by_matrix(model: Any) -> None:
    found = cost_of(plan_state_dict(model, [("opt-deus", {})]))
    assert found.num_alignments == 2 * 5
    # Five matrices of 24 x 16 and a plan of 24 x 24, in float64.
    assert found.nbytes == 8 * (5 * 24 * 16 + 24 * 24)


def test_a_dry_run_says_what_predictors_take_and_nothing_of_copies(tmp_path: Path) -> None:
    lesa = run_hfgrow("lesa", "demo", "--dry-run", cwd=tmp_path)
    assert lesa.returncode == 0, lesa.stderr
    lines = {line.split("  ")[0]: line for line in lesa.stdout.splitlines()}
    assert "for whole matrices" in lines["memory"]
    assert lines["predictors"].split()[1] == "7"
    stack = run_hfgrow("stack", "demo", "--g", "2", "--dry-run", cwd=tmp_path)
    assert "memory" not in stack.stdout
