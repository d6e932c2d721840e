"""What holds for every operator: bounds of its arguments, promise, record, row in the table."""

from collections.abc import Callable
from pathlib import Path

import pytest

from hfgrow.checkpoint.files import LocalFolder
from hfgrow.checkpoint.read import read
from hfgrow.errors import UsageError
from hfgrow.plan.depth import MAX_LAYERS
from hfgrow.plan.families import FAMILIES
from hfgrow.plan.operators import OPERATORS, apply
from hfgrow.plan.operators.inserting import random_depth, zero_depth
from hfgrow.plan.operators.stacking import append_top, interpolate, midas, stack
from hfgrow.plan.plan import GrowthPlan
from tests.checkpoints import MakeCheckpoint, load, logits
from tests.layer_plans import plan_of
from tests.program import call_hfgrow

BY_DEPTH = [stack, interpolate, zero_depth, random_depth, append_top]


@pytest.mark.parametrize("g", [0, -1, 1, MAX_LAYERS])
@pytest.mark.parametrize("operator", BY_DEPTH)
def test_a_growth_factor_that_cannot_be_is_refused(
    operator: Callable[..., GrowthPlan], g: int
) -> None:
    with pytest.raises(UsageError, match=str(min(g, MAX_LAYERS))):
        operator(plan_of(4), g=g)


@pytest.mark.parametrize("layers", [-1, 0, 3, 4, MAX_LAYERS + 1, 10**30])
@pytest.mark.parametrize("operator", BY_DEPTH)
def test_a_target_depth_that_cannot_be_is_refused(
    operator: Callable[..., GrowthPlan], layers: int
) -> None:
    with pytest.raises(UsageError):
        operator(plan_of(4), layers=layers)


@pytest.mark.parametrize("operator", BY_DEPTH)
@pytest.mark.parametrize("target", [{}, {"g": 2, "layers": 8}], ids=str)
def test_the_target_is_given_in_one_way_only(
    operator: Callable[..., GrowthPlan], target: dict[str, int]
) -> None:
    with pytest.raises(UsageError, match=r"\bg(,| or) layers"):
        operator(plan_of(4), **target)


@pytest.mark.parametrize("every", [0, -1, 4, 7, 12, 10**30])
def test_groups_that_do_not_divide_the_layers_are_refused(every: int) -> None:
    with pytest.raises(UsageError, match=r"6 layers of the base \(1, 2, 3, 6\)"):
        zero_depth(plan_of(6), every=every)
    with pytest.raises(UsageError, match=r"6 layers of the base \(1, 2, 3, 6\)"):
        midas(plan_of(6), block=every)


def test_a_whole_number_is_taken_for_a_fraction_and_a_bool_for_no_number() -> None:
    targets: dict[str, object] = {"g": 2, "mask": 1}
    assert apply(plan_of(2), "random-depth", targets).steps[0].arguments["mask"] == 1.0
    for name, wrong in (("mask", True), ("seed", False), ("g", True), ("seed", 1.0), ("mask", "1")):
        with pytest.raises(UsageError, match=f"{name} cannot be"):
            apply(plan_of(2), "random-depth", {"g": 2, name: wrong})


PRESERVING = [
    ("zero-depth", "--g", "2"),
    ("zero-depth", "--layers", "7"),
    ("zero-depth", "--every", "2"),
    ("random-depth", "--layers", "6"),
    ("random-depth", "--g", "2", "--seed", "7", "--mask", "0"),
]


@pytest.mark.parametrize("model_type", sorted(FAMILIES))
@pytest.mark.parametrize("words", PRESERVING, ids=" ".join)
def test_a_promise_to_preserve_the_function_is_kept_to_the_last_bit(
    words: tuple[str, ...], model_type: str, make_checkpoint: MakeCheckpoint, tmp_path: Path
) -> None:
    base, out = make_checkpoint(model_type, dtype="float64"), tmp_path / "out"
    operator, *options = words
    finished = call_hfgrow(operator, base, *options, "--out", out)
    assert finished.returncode == 0, finished.stderr
    grown, report = load(out)
    assert not any(report[key] for key in report if key.endswith("_keys"))
    assert (logits(grown) - logits(load(base)[0])).abs().max() == 0.0


def test_a_step_survives_the_record(make_checkpoint: MakeCheckpoint) -> None:
    base = read(LocalFolder(make_checkpoint()))
    plan = apply(base, "random-depth", {"g": 2, "mask": 0.25, "seed": 3})
    plan = apply(plan, "branch-scale", {"exponent": 1})
    again = base
    for step in plan.steps:
        again = apply(again, step.operator, step.arguments)
    assert again == plan


@pytest.mark.parametrize("name", OPERATORS)
def test_every_operator_is_described_in_the_table(name: str) -> None:
    row = OPERATORS[name]
    assert row.function.__name__ == name.replace("-", "_")
    assert row.axis in ("depth", "width", "weights")
    assert "https://" in row.paper
    assert row.summary.endswith(".")
    described = " ".join((row.function.__doc__ or "").split())
    assert ("Not function preserving" in described) != row.preserves_function
