"""What a recipe says: tokens, batches, schedules, growths, and its fingerprint."""

import pytest
import yaml

from hfgrow.errors import UsageError
from hfgrow.plan.operators import OPERATORS
from hfgrow.train.recipe.parts import FreshModel, Muon, ScheduleFreeAdamW
from hfgrow.train.recipe.recipe import recipe_of
from tests.train.recipes import MINIMAL, loaded


@pytest.mark.parametrize(
    ("written", "tokens"),
    [
        ("2_000_000", 2_000_000),
        ("2e6", 2_000_000),
        ("2.5e+6", 2_500_000),
        ("2M", 2_000_000),
        ("1.5B", 1_500_000_000),
        ("0.1b", 100_000_000),
        ("300k", 300_000),
        ("'97.5B'", 97_500_000_000),
        ("3T", 3_000_000_000_000),
    ],
)
def test_numbers_of_tokens_are_exact_in_every_notation(written: str, tokens: int) -> None:
    recipe = loaded(f"stages.0.train.tokens={written}")
    assert recipe.stages[0].train is not None
    assert recipe.stages[0].train.tokens == tokens


def test_whole_numbers_are_taken_in_every_notation() -> None:
    grow = "{operator: random-depth, layers: 12.0, seed: 1e3}"
    recipe = loaded(
        "seed=1e3", "data.sequence_length=2.56e2", "micro_batch_size=8.0", f"stages.1.grow={grow}"
    )
    grown = recipe.stages[1].grow
    assert grown is not None
    own = (recipe.seed, recipe.data.sequence_length, recipe.micro_batch_size)
    found = (*own, *(grown.arguments[key] for key in ("layers", "seed")))
    assert found == (1000, 256, 8, 12, 1000)
    assert {type(number) for number in found} == {int}


def test_spans_are_shares_below_one_and_tokens_above() -> None:
    train = "{tokens: 1M, learning_rate: 1e-3, warmup: 0.05, decay: 300K}"
    (stage,) = loaded(f"stages.0.train={train}").stages
    assert stage.train is not None
    assert (stage.train.warmup_tokens, stage.train.decay_tokens) == (50_000, 300_000)


def test_the_strategy_and_whole_batches_follow_from_the_batch() -> None:
    recipe = loaded("world={processes: 2}", "stages.0.train.tokens=8193")
    assert recipe.world.strategy == "ddp"
    assert recipe.tokens == 2 * 8192


def test_a_schedule_free_optimizer_has_the_constant_schedule_and_takes_no_other() -> None:
    free = "optimizer.name=schedule_free_adamw"
    recipe = loaded(free)
    train = recipe.stages[0].train
    assert isinstance(recipe.optimizer, ScheduleFreeAdamW)
    assert train is not None
    assert (train.schedule, train.decay_tokens, train.min_learning_rate) == ("constant", 0, None)
    for fault, words in {
        "schedule=wsd": "expected constant, the only schedule of schedule_free_adamw",
        "decay=0.1": "expected none: schedule constant has none",
        "min_learning_rate=1e-5": "expected none: schedule constant keeps the peak",
    }.items():
        with pytest.raises(UsageError, match=words):
            loaded(free, f"stages.0.train.{fault}")


def test_the_optimizer_state_survives_a_growth_only_where_there_is_one_to_grow() -> None:
    grow = "stages.1={grow: {operator: stack, g: 2, optimizer_state: copy-v}}"
    recipe = loaded(grow)
    assert recipe.stages[1].grow is not None
    assert recipe.stages[1].grow.optimizer_state == "copy-v"
    assert isinstance(loaded("optimizer.name=muon").optimizer, Muon)
    with pytest.raises(UsageError, match="the momentum of muon begins anew"):
        loaded(grow, "optimizer.name=muon")
    first = (
        "stages=[{grow: {operator: untie, optimizer_state: copy}}, "
        "{train: {tokens: 1M, learning_rate: 1e-3}}]"
    )
    with pytest.raises(UsageError, match="nothing was trained before"):
        loaded(first)


def test_a_growth_may_come_first_and_keeps_its_arguments() -> None:
    stages = (
        "stages=[{grow: {operator: random-width, hidden_size: 256, seed: 1}}, "
        "{train: {tokens: 1M, learning_rate: 1e-3}}]"
    )
    first, second = loaded(stages).stages
    assert first.grow is not None
    assert second.train is not None
    assert first.grow.arguments == {"hidden_size": 256, "seed": 1}
    assert second.train.mask_ramp_tokens == 100_000


def test_every_operator_can_be_a_stage() -> None:
    needed: dict[str, dict[str, object]] = {
        "partial": {"pattern": "1-6"},
        "staged": {"g": 2},
        "head-dim": {"factor": 2},
    }
    needed |= {"paper-noise": {"amount": "1e-2"}}
    for operator in OPERATORS:
        content = yaml.safe_load(MINIMAL)
        content["stages"].insert(0, {"grow": {"operator": operator, **needed.get(operator, {})}})
        grow = recipe_of(content).stages[0].grow
        assert grow is not None
        assert grow.operator == operator


def test_a_fresh_base_is_the_config_with_its_numbers() -> None:
    config = "{model_type: llama, rms_norm_eps: 1e-5, max_position_embeddings: 512}"
    recipe = loaded(f"base={{config: {config}}}", "tokenizer=demo")
    assert isinstance(recipe.base, FreshModel)
    assert recipe.base.config["rms_norm_eps"] == 1e-5
    with pytest.raises(UsageError, match="at most max_position_embeddings"):
        loaded(
            f"base={{config: {config}}}",
            "tokenizer=demo",
            "data.sequence_length=1024",
            "micro_batch_size=1",
        )


def test_no_clipping_can_be_said_and_is_written_back() -> None:
    recipe = loaded("stages.0.train.gradient_clipping=null")
    again = recipe_of(yaml.safe_load(recipe.to_yaml()))
    assert again.stages[0].train is not None
    assert again.stages[0].train.gradient_clipping is None


def test_the_fingerprint_ignores_where_the_result_goes_and_sees_everything_else() -> None:
    fingerprint = loaded().fingerprint
    for free in ("output=elsewhere", "trackers=[wandb]", "push={repo: a/b}"):
        assert loaded(free).fingerprint == fingerprint
    for other in ("seed=1", "data.train.0.split=x", "stages.0.train.decay=0.1", "compile=true"):
        assert loaded(other).fingerprint != fingerprint
    spelt_out = ("stages.0.train.decay=0.2", "optimizer.name=adamw", "batch_tokens=8_192")
    assert loaded(*spelt_out).fingerprint == fingerprint


def test_the_identities_of_two_recipes_tell_the_keys_that_differ() -> None:
    one = loaded().identity()
    two = loaded("data.train.0.weight=2", "seed=1").identity()
    assert {path for path in one if one[path] != two[path]} == {"data.train.0.weight", "seed"}


@pytest.mark.parametrize(
    "key",
    [
        "data.validation",
        "trackers",
        "optimizer",
        "world",
        "evaluation",
        "checkpoint",
        "seed",
        "stages.0.train.warmup",
        "data.train.0.weight",
    ],
)
def test_null_stands_for_the_default(key: str) -> None:
    assert loaded(f"{key}=null") == loaded()
