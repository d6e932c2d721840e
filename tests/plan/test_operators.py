"""What holds for every operator: what its function declares, bounds, promise, record."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import pytest

from hfgrow.checkpoint.files import LocalFolder
from hfgrow.checkpoint.read import read
from hfgrow.errors import UsageError
from hfgrow.plan.depth import MAX_LAYERS
from hfgrow.plan.operators import ALL_OPERATORS, OPERATORS, apply
from hfgrow.plan.operators.copying import bert2bert_fpi
from hfgrow.plan.operators.inserting import random_depth, zero_depth
from hfgrow.plan.operators.operator import Mark, Operator, Parameter, Seed, operator
from hfgrow.plan.operators.stacking import append_top, interpolate, midas, stack
from hfgrow.plan.plan import GrowthPlan, in_place
from tests.checkpoints import MakeCheckpoint, load, logits
from tests.families import EVERY_FAMILY
from tests.layer_plans import plan_of
from tests.program import call_hfgrow
from tests.sampling import sampled

BY_DEPTH: list[Operator[...]] = [stack, interpolate, zero_depth, random_depth, append_top]
NAMES = [row.name for row in BY_DEPTH]


@pytest.mark.parametrize("g", [0, -1, 1, MAX_LAYERS])
@pytest.mark.parametrize("operator", BY_DEPTH, ids=NAMES)
def test_a_growth_factor_that_cannot_be_is_refused(
    operator: Callable[..., GrowthPlan], g: int
) -> None:
    with pytest.raises(UsageError, match=str(min(g, MAX_LAYERS))):
        operator(plan_of(4), g=g)


@pytest.mark.parametrize("layers", [-1, 0, 3, 4, MAX_LAYERS + 1, 10**30])
@pytest.mark.parametrize("operator", BY_DEPTH, ids=NAMES)
def test_a_target_depth_that_cannot_be_is_refused(
    operator: Callable[..., GrowthPlan], layers: int
) -> None:
    with pytest.raises(UsageError):
        operator(plan_of(4), layers=layers)


@pytest.mark.parametrize("operator", BY_DEPTH, ids=NAMES)
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


@pytest.mark.parametrize(("words", "model_type"), sampled(PRESERVING, EVERY_FAMILY), ids=str)
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
    assert row.axis in ("depth", "width", "experts", "weights")
    assert "https://" in row.paper
    assert row.summary.endswith(".")
    described = " ".join((row.function.__doc__ or "").split())
    assert ("Not function preserving" in described) != row.preserves_function


@operator("toy", axis="weights", preserves_function=True, formula="W' = W", paper="nobody")
def toy(
    own: Operator[...],
    base: GrowthPlan,
    place: str,
    *,
    size: int,
    side: Literal["left", "right"] = "left",
    seed: Seed = 0,
    loss: Annotated[float | None, Mark.OUTCOME, "What came out."] = None,
) -> GrowthPlan:
    """Record what it is told.

    Args:
        own: The operator, for the record.
        base: The plan.
        place: Where,
            in words.
        size: How large.
        side: Which one.
        seed: Seeds the place.
        loss: What came out, told anew.

    Raises:
        UsageError: Never.
    """
    step = own.step({"place": place, "size": size}, preserves_function=None if size else False)
    return replace(base, steps=(*base.steps, in_place(base, step)))


def test_a_function_says_all_about_its_parameters() -> None:
    place, size, side, seed, loss = toy.parameters
    assert place == Parameter("place", str, "Where, in words.", None, True, True)
    assert size == Parameter("size", int, "How large.", is_required=True)
    assert side == Parameter("side", Literal["left", "right"], "Which one.", "left")
    assert seed == Parameter("seed", int, "Seeds the place.", 0, marks=frozenset({Mark.VARIANT}))
    assert (loss.type, loss.help) == (float | None, "What came out, told anew.")
    assert loss.marks == frozenset({Mark.OUTCOME})
    assert toy.summary == "Record what it is told."


def test_arguments_that_operators_share_bring_their_help_with_them() -> None:
    seed = bert2bert_fpi.parameter("seed")
    assert seed is not None
    assert seed.help == "Seeds what is random; the same seed gives the same bytes."


def test_an_operator_refuses_what_is_none_of_its_arguments() -> None:
    toy.check({"place": "here", "size": 1, "side": "right", "loss": 2})
    for wrong, said in (
        ({"size": 1}, "toy needs the argument place"),
        ({"place": "here", "size": 1.5}, "toy: size cannot be 1.5"),
        ({"place": "here", "size": 1, "side": "top"}, "toy: side cannot be 'top'"),
        ({"place": "here", "size": 1, "base": 2}, "toy has no argument base"),
    ):
        with pytest.raises(UsageError, match=said):
            toy.check(wrong)


@pytest.mark.parametrize("size", [0, 1])
def test_a_step_has_the_name_and_the_promise_of_its_operator(size: int) -> None:
    (step,) = toy(plan_of(2), "here", size=size).steps
    assert (step.operator, step.preserves_function) == ("toy", size == 1)


def test_a_variant_records_its_own_name_and_default(make_checkpoint: MakeCheckpoint) -> None:
    base = read(LocalFolder(make_checkpoint()))
    (step,) = bert2bert_fpi(base, g=2).steps
    assert (step.operator, step.arguments["noise"]) == ("bert2bert-fpi", 0.0)
    (noisy,) = bert2bert_fpi(base, g=2, noise=0.5).steps
    assert noisy.arguments["noise"] == 0.5


def test_operators_are_listed_axis_by_axis_those_with_their_own_command_apart() -> None:
    axes = [row.axis for row in ALL_OPERATORS.values()]
    assert list(dict.fromkeys(axes)) == ["depth", "width", "experts", "weights", "depth and width"]
    assert axes == sorted(axes, key=list(dict.fromkeys(axes)).index)
    assert ALL_OPERATORS.keys() - OPERATORS.keys() == {"learn"}
    names = list(OPERATORS)
    assert names[names.index("split") + 1 :][:2] == ["zero-width", "random-width"]


def test_an_optional_choice_is_a_type_of_a_parameter() -> None:
    parameter = Parameter("init", Literal["stack", "zero"] | None, "How it begins.")
    assert [parameter.fits(value) for value in ("stack", None, "other")] == [True, True, False]


def test_an_operator_that_is_none_names_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"^there is no operator stak; did you mean stack\?$"):
        apply(plan_of(2), "stak", {"g": 2})
