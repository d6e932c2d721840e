"""What changes weights and no size: weaker branches, noise, factors by name, a head of its own."""

import pytest

from hfgrow.checkpoint.files import LocalFolder
from hfgrow.checkpoint.read import read
from hfgrow.errors import UsageError
from hfgrow.plan.operators.inserting import average, random_depth, zero_depth
from hfgrow.plan.operators.stacking import partial, progressive, stack
from hfgrow.plan.operators.weights import branch_scale, paper_noise, tensor_scale, untie
from hfgrow.plan.plan import LayerSource
from hfgrow.plan.tensors import Blend, Fill
from tests.checkpoints import MakeCheckpoint
from tests.layer_plans import NORM, OUT, QUERY, plan_of, recipe, stored


def test_branch_scale_multiplies_what_branches_add_and_nothing_else() -> None:
    grown = stack(plan_of(2), g=2)
    scaled = branch_scale(grown, exponent=1)
    assert scaled.layer_map == grown.layer_map
    for i in range(4):
        assert recipe(scaled, i, OUT) == Blend(((0.5, stored(i % 2, OUT)),))
        assert recipe(scaled, i, QUERY) == recipe(grown, i, QUERY)
    assert [step.operator for step in scaled.steps] == ["stack", "branch-scale"]
    assert scaled.steps[1].layer_map == tuple(LayerSource(i) for i in range(4))
    assert scaled.steps[1].arguments == {"exponent": 1.0}
    assert not branch_scale(zero_depth(plan_of(2), g=2)).preserves_function


def test_branch_scale_leaves_zeros_zero() -> None:
    scaled = branch_scale(zero_depth(plan_of(2), g=2))
    assert recipe(scaled, 1, OUT) == Fill((8, 8), 0.0)


def test_branch_scale_counts_the_layers_of_the_root() -> None:
    twice = stack(stack(plan_of(2), g=2), g=2)
    assert recipe(branch_scale(twice, exponent=0.5), 7, OUT) == Blend(((0.5, stored(1, OUT)),))


def test_branch_scale_of_repeats_leaves_what_stands_once() -> None:
    grown = partial(plan_of(3), "1-2*4-3")
    scaled = branch_scale(grown, exponent=0.5, repeats=True)
    assert recipe(scaled, 0, OUT) == stored(0, OUT)
    assert recipe(scaled, 5, OUT) == stored(2, OUT)
    assert all(recipe(scaled, i, OUT) == Blend(((0.5, stored(1, OUT)),)) for i in (1, 2, 3, 4))
    assert scaled.steps[1].arguments == {"exponent": 0.5, "repeats": True}


def test_branch_scale_of_repeats_tells_a_mean_from_the_layer_below_it() -> None:
    means = average(plan_of(3), layers=5)
    scaled = branch_scale(partial(means, "1*2-2-3-4*2-5"), exponent=1, repeats=True)
    found = [recipe(scaled, i, OUT) for i in range(7)]
    once = [recipe(means, i, OUT) for i in range(5)]
    assert found[2:4] + found[6:] == [once[1], once[2], once[4]]
    assert found[:2] == [Blend(((0.5, once[0]),))] * 2
    assert found[4:6] == [Blend(((0.5, once[3]),))] * 2


def test_branch_scale_of_repeats_leaves_fresh_layers() -> None:
    fresh = random_depth(partial(plan_of(2), "1-2*2"), layers=5, mask=1)
    scaled = branch_scale(fresh, exponent=1, repeats=True)
    assert [recipe(scaled, i, OUT) for i in (3, 4)] == [recipe(fresh, i, OUT) for i in (3, 4)]


@pytest.mark.parametrize("exponent", [float("nan"), float("inf"), 0, -1.0, 1.01, 10**400])
def test_an_exponent_out_of_range_is_refused(exponent: float) -> None:
    with pytest.raises(UsageError, match="exponent must be"):
        branch_scale(stack(plan_of(2), g=2), exponent=exponent)


def test_branch_scale_is_refused_where_it_would_do_nothing_or_too_much() -> None:
    with pytest.raises(UsageError, match="none is repeated"):
        branch_scale(plan_of(4))
    with pytest.raises(UsageError, match="stands once"):
        branch_scale(branch_scale(stack(plan_of(2), g=2)))


def test_branch_scale_is_refused_where_the_root_has_no_layers(
    make_checkpoint: MakeCheckpoint,
) -> None:
    fresh = progressive(read(LocalFolder(make_checkpoint(num_hidden_layers=0))), layers=3)
    said = r"^branch-scale counts the layers of the root, and here that had none$"
    with pytest.raises(UsageError, match=said):
        branch_scale(fresh)


def test_a_head_that_is_there_is_not_made_again(make_checkpoint: MakeCheckpoint) -> None:
    untied = untie(read(LocalFolder(make_checkpoint(tied=True))))
    with pytest.raises(UsageError, match=r"not tied: there is a lm_head\.weight already"):
        untie(untied)


def test_noise_of_one_seed_is_added_once() -> None:
    noisy = paper_noise(plan_of(2), amount=0.1, seed=3)
    with pytest.raises(UsageError, match="noise of the seed 3 was added before") as caught:
        paper_noise(noisy, amount=0.1, seed=3)
    assert caught.value.hint == "give another seed"


def test_tensor_scale_multiplies_what_the_first_part_fits() -> None:
    scaled = tensor_scale(stack(plan_of(2), g=2), "o_proj:0.5,self_attn:0", layers="[2]-[4]")
    for i in (1, 3):
        assert recipe(scaled, i, OUT) == Blend(((0.5, stored(1, OUT)),))
        assert recipe(scaled, i, QUERY) == Fill((8, 8), 0.0)
        assert recipe(scaled, i, NORM) == stored(1, NORM)
    assert recipe(scaled, 2, OUT) == stored(0, OUT)
    assert scaled.steps[1].arguments == {"factors": "o_proj:0.5,self_attn:0", "layers": "[2]-[4]"}


def test_tensor_scale_counts_embeddings_before_the_layers_and_the_head_behind(
    make_checkpoint: MakeCheckpoint,
) -> None:
    base = read(LocalFolder(make_checkpoint()))

    def changed(layers: str | None) -> set[str]:
        scaled = tensor_scale(base, "*:2", layers=layers)
        return {name for name in base.tensors if scaled.tensors[name] != base.tensors[name]}

    assert changed("[0]") == {"model.embed_tokens.weight"}
    assert changed("[5]") == {"model.norm.weight", "lm_head.weight"}
    assert changed("[0:5]") == changed(None) == set(base.tensors)


@pytest.mark.parametrize(
    ("factors", "layers", "said"),
    [
        ("o_proj", None, "'o_proj' is no part of a name with a number"),
        (":0.5", None, "':0.5' is no part of a name with a number"),
        ("o_proj:0.5,", None, "'' is no part of a name with a number"),
        ("o_proj:nan", None, "'o_proj:nan' is no part of a name with a number"),
        ("o_proj:1e999", None, "'o_proj:1e999' is no part of a name with a number"),
        ("o_prj:0.5", None, "no tensor is left there whose name has 'o_prj' in it"),
        ("self:0.5,o_proj:2", None, "no tensor is left there whose name has 'o_proj' in"),
        ("o_proj:0.5", "[3:4]-[0]*2", r"'\[0\]\*2' in layers is no run of neighbouring layers"),
        ("o_proj:0.5", "2", "'2' in layers is no run of neighbouring layers"),
        ("o_proj:0.5", "12", "'12' in layers is no run of neighbouring layers"),
        ("o_proj:0.5", "[1]-3", "'3' in layers is no run of neighbouring layers"),
        ("o_proj:0.5", "", "'' in layers is no run of neighbouring layers"),
        ("o_proj:0.5", "[4:6]", r"'\[4:6\]' in layers leaves the 4 layers"),
        ("o_proj:1", None, "all factors are 1, which changes nothing"),
    ],
)
def test_factors_that_fit_nothing_are_refused(factors: str, layers: str | None, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        tensor_scale(plan_of(4), factors, layers=layers)
