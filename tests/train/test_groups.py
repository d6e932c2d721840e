"""What trains, and how fast: decided by the layer map of the last growth."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from hfgrow.checkpoint.files import LocalFolder
from hfgrow.checkpoint.read import read
from hfgrow.errors import UsageError
from hfgrow.plan.families import FAMILIES
from hfgrow.plan.operators import apply
from hfgrow.plan.plan import LayerSource
from hfgrow.train.optimizers import ParameterGroup, new_layers, parameter_groups
from tests.checkpoints import MakeCheckpoint, load
from tests.train import runs

RATE = 1e-3
# Four layers of the tiny model: the second and the fourth inserted, as LLaMA-Pro does.
INTERLEAVED = (
    LayerSource(0),
    LayerSource(0, "zero"),
    LayerSource(1),
    LayerSource(1, "zero"),
)


def names_of(groups: Iterable[ParameterGroup]) -> set[str]:
    return {name for group in groups for name in group.names}


def layers_of(groups: Iterable[ParameterGroup]) -> set[int]:
    return {int(n.split(".")[2]) for n in names_of(groups) if n.startswith("model.layers.")}


@pytest.fixture
def model(make_checkpoint: MakeCheckpoint) -> Any:
    return load(make_checkpoint())[0]


@pytest.mark.parametrize("tied", [False, True], ids=["", "tied"])
@pytest.mark.parametrize("model_type", FAMILIES)
def test_every_parameter_is_in_one_group_and_matrices_decay(
    model_type: str, tied: bool, make_checkpoint: MakeCheckpoint
) -> None:
    model, _ = load(make_checkpoint(model_type, tied=tied))
    groups = parameter_groups(model, learning_rate=RATE)
    named = dict(model.named_parameters())
    assert sorted(name for group in groups for name in group.names) == sorted(named)
    for group in groups:
        for name, parameter in zip(group.names, group.parameters, strict=True):
            assert parameter is named[name]
            assert group.decays == name.endswith(".weight") * ("norm" not in name)
            assert group.is_inside == (group.decays and ".layers." in name)
            assert group.learning_rate == RATE


@pytest.mark.parametrize(
    ("operator", "arguments", "new"),
    [
        ("zero-depth", {"layers": 6}, [1, 4]),
        ("stack", {"g": 2}, [4, 5, 6, 7]),
        ("interpolate", {"g": 2}, [1, 3, 5, 7]),
        ("partial", {"pattern": "1-23*2-4"}, [3, 4]),
        ("random-depth", {"layers": 6}, [4, 5]),
        ("hyperclone", {"g": 2}, []),
    ],
)
def test_what_an_operator_adds_is_new(
    operator: str, arguments: dict[str, object], new: list[int], make_checkpoint: MakeCheckpoint
) -> None:
    plan = apply(read(LocalFolder(make_checkpoint())), operator, arguments)
    assert new_layers(plan.layer_map) == new


def test_only_the_inserted_blocks_train(model: Any) -> None:
    """Not the last two: LLaMA-Pro's are interleaved."""
    groups = parameter_groups(model, learning_rate=RATE, trainable="new", layer_map=INTERLEAVED)
    assert layers_of(groups) == {1, 3}
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained == names_of(groups)


def test_embeddings_and_head_train_with_what_is_new(model: Any) -> None:
    groups = parameter_groups(
        model, learning_rate=RATE, trainable="new+embeddings", layer_map=INTERLEAVED
    )
    outside = {n for n in names_of(groups) if not n.startswith("model.layers.")}
    assert outside == {"model.embed_tokens.weight", "lm_head.weight"}
    assert layers_of(groups) == {1, 3}


def test_patterns_choose_by_tensor_name(model: Any) -> None:
    groups = parameter_groups(
        model, learning_rate=RATE, trainable=["model.layers.[01].*", "*o_proj.weight"]
    )
    assert layers_of(groups) == {0, 1, 2, 3}
    late = {n for n in names_of(groups) if n.startswith(("model.layers.2.", "model.layers.3."))}
    assert late == {f"model.layers.{i}.self_attn.o_proj.weight" for i in (2, 3)}


def test_the_next_stage_can_thaw_what_this_one_froze(model: Any) -> None:
    parameter_groups(model, learning_rate=RATE, trainable="new", layer_map=INTERLEAVED)
    parameter_groups(model, learning_rate=RATE)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_learning_rates_go_by_where_a_parameter_stands(model: Any) -> None:
    groups = parameter_groups(
        model,
        learning_rate=RATE,
        layer_map=INTERLEAVED,
        new_learning_rate=5e-3,
        embedding_learning_rate=2e-4,
    )
    rates = {name: group.learning_rate for group in groups for name in group.names}
    assert rates["model.layers.1.mlp.up_proj.weight"] == 5e-3
    assert rates["model.layers.2.mlp.up_proj.weight"] == RATE
    assert rates["model.layers.3.input_layernorm.weight"] == 5e-3
    assert rates["model.norm.weight"] == RATE
    assert rates["lm_head.weight"] == rates["model.embed_tokens.weight"] == 2e-4


def test_patterns_that_match_nothing_are_listed(model: Any) -> None:
    with pytest.raises(UsageError) as error:
        parameter_groups(
            model, learning_rate=RATE, trainable=["*.mlp.*", "layers.0.*", "*.qproj.*"]
        )
    assert str(error.value) == "trainable: no tensor name matches layers.0.*, *.qproj.*"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"trainable": "new"}, "trainable new matches nothing: nothing has grown"),
        (
            {"trainable": "new+embeddings", "layer_map": [LayerSource(i) for i in range(4)]},
            "the last growth added no layers",
        ),
        ({"trainable": "last"}, "trainable last is not one of all, new, new"),
        ({"trainable": []}, "no tensor name matches an empty list"),
        ({"new_learning_rate": 1e-2}, "new_learning_rate 0.01 matches nothing that trains"),
        (
            {"trainable": ["*.mlp.*"], "embedding_learning_rate": 1e-2},
            "embedding_learning_rate 0.01 matches nothing that trains",
        ),
        ({"layer_map": [LayerSource(0)]}, "layer map of the last growth has 1 layers, the model 4"),
    ],
)
def test_what_matches_nothing_is_an_error(
    options: dict[str, Any], message: str, model: Any
) -> None:
    with pytest.raises(UsageError) as error:
        parameter_groups(model, learning_rate=RATE, **options)
    assert message in str(error.value)


def test_the_rates_that_are_told_are_those_of_what_trains(tmp_path: Path) -> None:
    train = {"tokens": 1024, "learning_rate": 1e-3, "warmup": 0, "schedule": "constant"}
    own = {**train, "trainable": "new", "new_learning_rate": 1e-2}
    both = {**train, "new_learning_rate": 1e-2}
    grow = {"grow": {"operator": "zero-depth", "g": 2}}
    recipe = runs.recipe(tmp_path, stages=[grow, {"train": own}, {"train": both}])
    runs.carry(recipe)
    steps = [line for line in runs.lines(recipe) if "loss" in line]
    assert [(line["learning_rate"], line.get("learning_rates")) for line in steps[::4]] == [
        (1e-2, None),
        (1e-2, [1e-3, 1e-2]),
    ]
