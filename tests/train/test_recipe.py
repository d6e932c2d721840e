"""What a recipe says: tokens, batches, schedules, growths, and its fingerprint.

A recipe that is wrong is refused in one line.
"""

from pathlib import Path

import pytest
import yaml

from cli.operator_pages import example_arguments
from hfgrow.errors import UsageError
from hfgrow.plan.operators import OPERATORS
from hfgrow.train.recipe.fields import ELSEWHERE, Part
from hfgrow.train.recipe.files import shipped_recipes
from hfgrow.train.recipe.parts import Data, FreshModel, Muon, ScheduleFreeAdamW
from hfgrow.train.recipe.recipe import Recipe, load_recipe, recipe_of
from hfgrow.train.recipe.stages import Until
from tests.train.recipes import MINIMAL, loaded, message_of


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


PLATEAU = (
    "evaluation.every_tokens=100K",
    "stages.0.train={tokens: 1M, learning_rate: 1e-3, until: {plateau: 0.01}}",
)


def test_a_stage_that_waits_for_a_plateau_holds_its_rate() -> None:
    train = loaded(*PLATEAU).stages[0].train
    assert train is not None
    assert train.until == Until(plateau=0.01, evaluations=3)
    assert (train.schedule, train.decay_tokens) == ("constant", 0)
    with pytest.raises(
        UsageError,
        match=r"^the recipe: stages\.0\.train\.schedule is 'cosine'; expected constant: with until "
        "nobody knows where a fall would have to begin$",
    ):
        loaded(*PLATEAU, "stages.0.train.schedule=cosine")


def test_a_plateau_is_seen_by_evaluations_of_which_enough_have_to_fit() -> None:
    with pytest.raises(
        UsageError,
        match=r"^the recipe: stages\.0\.train\.until is \{'plateau': 0\.01, 'evaluations': 3\}; "
        r"expected evaluation\.every_tokens beside it, which says when the loss is looked at$",
    ):
        loaded(PLATEAU[1])
    assert loaded(*PLATEAU, "stages.0.train.until.evaluations=8").may_end_early
    with pytest.raises(
        UsageError,
        match=r"^the recipe: stages\.0\.train\.until\.evaluations is 9; expected at most 8: of "
        "1000000 tokens, less warmup and mask_ramp, one evaluation more has to fit, each after "
        r"evaluation\.every_tokens 100000$",
    ):
        loaded(*PLATEAU, "stages.0.train.until.evaluations=9")


@pytest.mark.parametrize(
    ("losses", "is_reached"),
    [
        ([], False),
        ([3.0, 2.9], False),
        ([3.0, 2.95, 2.9], False),
        ([3.0, 2.95, 2.91], True),
        ([3.0, 2.89, 3.1], False),
        ([2.0, 3.0, 3.0], True),
        ([3.0, 2.0, 2.0, 1.95], True),
        ([float("inf"), float("inf"), 2.0], False),
        ([2.0, float("inf"), float("inf")], True),
    ],
)
def test_a_plateau_is_where_the_best_of_the_last_is_hardly_better_than_the_best_before(
    losses: list[float], is_reached: bool
) -> None:
    assert Until(plateau=0.1, evaluations=2).is_reached(losses) == is_reached


def test_the_optimizer_state_survives_a_growth_only_where_there_is_one_to_grow() -> None:
    grow = "stages.1={grow: {operator: stack, g: 2, optimizer_state: copy-v}}"
    recipe = loaded(grow)
    assert recipe.stages[1].grow is not None
    assert recipe.stages[1].grow.optimizer_state == "copy-v"
    assert isinstance(loaded("optimizer.name=muon").optimizer, Muon)
    assert loaded(grow, "optimizer.name=muon").stages == recipe.stages
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
    for operator in OPERATORS:
        content = yaml.safe_load(MINIMAL)
        content["stages"].insert(0, {"grow": {"operator": operator, **example_arguments(operator)}})
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


# What is set -> words of the refusal: the key path, the value, what was expected.
FAULTS: dict[str, tuple[str, ...]] = {
    # Keys.
    "outpt=x": ("there is no key outpt", "did you mean output?"),
    "optimizer.beta=[0.9, 0.99]": ("optimizer.beta ", "did you mean betas?"),
    "stages.0.train.learning_rat=1": ("stages.0.train.learning_rat ", "learning_rate?"),
    "optimizer.momentum=0.9": ("optimizer.momentum ", "the keys here are betas"),
    "$(id)=x": ("there is no key $(id)",),
    "data.sequence_length=": ("data.sequence_length is null", "a whole number"),
    # Kinds.
    "base=5": ("base is 5", "text"),
    "seed=true": ("seed is True", "a whole number"),
    "seed=-1": ("seed is -1", "at least 0"),
    "compile=1": ("compile is 1", "true or false"),
    "optimizer=muon": ("optimizer is 'muon'", "a mapping, such as {name: muon}"),
    "optimizer=5": ("optimizer is 5", "a mapping, such as {name: adamw}"),
    "trackers=tensorboard": ("trackers is 'tensorboard'", "a list, such as [tensorboard]"),
    "data.validation=text/v.jsonl": ("a list, such as [{path: text/v.jsonl}]",),
    "data.train.0=text/v.jsonl": ("a mapping, such as {path: text/v.jsonl}",),
    "push=true": ("push is True", "a mapping, such as {repo: you/name}"),
    "stages.0.train=1M": ("a mapping, such as {tokens: 1M, learning_rate",),
    "stages=5": ("stages is 5", "a list"),
    "stages=[]": ("stages has 0 entries", "at least 1"),
    "stages.0=train": ("stages.0 is 'train'", "a mapping"),
    'output="a\\u202eb"': ("output is", "printable"),
    'output="a\\nb"': ("output is", "printable"),
    # Numbers of tokens and spans.
    "stages.0.train.tokens=2X": ("stages.0.train.tokens is '2X'", "2_000_000, 2e6 or 2M"),
    "stages.0.train.tokens=0": ("tokens is 0", "from 1"),
    "stages.0.train.tokens=1.5": ("tokens is 1.5", "from 1"),
    "stages.0.train.tokens=.inf": ("tokens is inf", "from 1"),
    "stages.0.train.tokens=99999T": ("tokens is '99999T'", "from 1 to 9e15"),
    "stages.0.train.tokens=1e30": ("tokens is '1e30'", "from 1 to 9e15"),
    "seed=1.5e0": ("seed is '1.5e0'", "a whole number"),
    "stages.0.train.tokens=100": ("tokens is 100", "one batch", "8192"),
    "stages.0.train.warmup=1": ("warmup is 1", "a share from 0 to below 1"),
    "stages.0.train.warmup=-0.1": ("warmup is -0.1", "a share from 0 to below 1"),
    "stages.0.train.warmup=1.9M": ("warmup is 1900000", "warmup and decay", "2000000"),
    # Values.
    "precision=bf16-true": ("precision is 'bf16-true'", "the weights are float32 in both"),
    "optimizer.name=adam": ("optimizer.name is 'adam'", "'schedule_free_adamw'"),
    "optimizer.name=[adamw]": ("optimizer.name is",),
    "optimizer.betas=[0.9]": ("optimizer.betas.1 is missing",),
    "optimizer.betas=[0.9, 1]": ("optimizer.betas.1 is 1", "less than 1"),
    "optimizer={name: schedule_free_adamw, betas: [0, 0.9]}": ("optimizer.betas.0 is 0", "more"),
    "stages.0.train.schedule=linear": ("schedule is 'linear'", "'wsd', 'cosine' or 'constant'"),
    "stages.0.train.learning_rate=0": ("learning_rate is 0", "more than 0"),
    "stages.0.train.learning_rate=.nan": ("learning_rate is nan", "a finite number"),
    "stages.0.train.trainable=some": ("trainable is 'some'", "all, new, new+embeddings"),
    "stages.0.train.min_learning_rate=1": ("min_learning_rate is 1.0", "learning_rate 0.0003"),
    "trackers=[wandb, mlflow]": ("trackers.1 is 'mlflow'", "'tensorboard'"),
    "push.repo=a b": ("push.repo is 'a b'", "org/name"),
    # Text.
    "data.train=[]": ("data.train has 0 entries", "at least 1"),
    "data.train.0.weight=0": ("data.train.0.weight is 0", "more than 0"),
    "data.train.0.path=x": ("data.train.0.path is 'x'", "exactly one of path and dataset"),
    "data.train.0={path: x, name: y}": ("data.train.0.name is 'y'", "no configurations"),
    "data.sequence_length=0": ("data.sequence_length is 0", "at least 2"),
    # Growth.
    "stages.1.grow.operator=stak": ("stages.1.grow.operator is 'stak'", "did you mean stack?"),
    "stages.1.grow.operator=[stack]": ("stages.1.grow.operator is ['stack']", "text"),
    "stages.1.grow.g=2": ("stages.1.grow.operator is missing",),
    "stages.1.grow={operator: stack, gg: 2}": ("there is no key stages.1.grow.gg", "mean g?"),
    "stages.1.grow={operator: stack, base: 2}": ("there is no key stages.1.grow.base",),
    "stages.1.grow={operator: stack, g: two}": ("stages.1.grow.g is 'two'", "a whole number"),
    "stages.1.grow={operator: stack, g: true}": ("stages.1.grow.g is True", "a whole number"),
    "stages.1.grow={operator: stack, g: null}": ("stages.1.grow.g is null", "a finite number"),
    "stages.1.grow={operator: paper-noise, amount: .nan}": ("grow.amount is nan", "finite"),
    "stages.1.grow={operator: partial}": ("stages.1.grow.pattern is missing",),
    "stages.1.grow={operator: partial, pattern: '; id'}": ("grow.pattern is '; id'", "text"),
    "stages.1.grow={operator: untie, optimizer_state: half}": ("is 'half'", "'copy-v'"),
    "stages.1={grow: {operator: untie}, train: {tokens: 1M, learning_rate: 1}}": (
        "stages.1 is",
        "exactly one of train and grow",
    ),
    # What does not go together.
    "batch_tokens=8000": ("batch_tokens is 8000", "2048 = micro_batch_size 8", "6144 or 8192"),
    "batch_tokens=100": ("batch_tokens is 100", "such as 2048"),
    "world.processes=3": ("batch_tokens is 8192", "world.processes 3", "6144 or 12288"),
    "world={processes: 2, strategy: none}": ("world.strategy is 'none'", "ddp or fsdp2"),
    "world.strategy=ddp": ("world.strategy is 'ddp'", "none or fsdp2"),
    "stages.0={grow: {operator: untie}}": ("stages is ['grow']", "a train stage"),
    "stages=[{grow: {operator: random-depth, g: 2}}, {grow: {operator: untie}}, "
    "{train: {tokens: 1M, learning_rate: 1, mask_ramp: 0.5}}]": (
        "stages.2.train.mask_ramp is 0.5",
        "stands just before; try the order untie, random-depth",
    ),
    "stages.0.train.mask_ramp=0.1": ("mask_ramp is 0.1", "random-depth"),
    "base={config: {model_type: gpt2}}": ("base.config.model_type is 'gpt2'", "llama"),
    "base={config: {model_type: llama, rope_theta: .inf}}": ("rope_theta is inf", "finite"),
    "base={config: {model_type: llama}}": ("tokenizer is null", "base is a config"),
}


@pytest.mark.case("D13")
@pytest.mark.parametrize("override", FAULTS)
def test_a_fault_is_refused_in_one_line_that_names_key_value_and_what_was_expected(
    minimal: Path, override: str
) -> None:
    message = message_of(minimal, override)
    for words in FAULTS[override]:
        assert words in message
    assert message.isprintable()
    assert len(message) < 700


def test_several_faults_are_one_refusal_whose_hint_names_the_others(minimal: Path) -> None:
    with pytest.raises(UsageError, match=r"seed is -1") as caught:
        load_recipe(minimal, ["seed=-1", "data.train.0.weight=0", "stages.0.train.tokens=x"])
    assert caught.value.hint == "wrong too: data.train.0.weight, stages.0.train.tokens"


def test_keys_of_other_trainers_are_told_where_they_stand_here(minimal: Path) -> None:
    others = ["base_model=org/name", "output_dir=out", "sequence_len=512", "strict=false"]
    told = r"there is no key base_model \(= 'org/name'\); did you mean base\?$"
    with pytest.raises(UsageError, match=told) as caught:
        load_recipe(minimal, others)
    assert caught.value.hint == (
        "hfgrow recipes demo --copy mine.yaml begins a recipe of hfgrow's; wrong too: "
        "output_dir (output), sequence_len (data.sequence_length), strict"
    )


@pytest.mark.parametrize("path", sorted(set(ELSEWHERE.values())))
def test_what_other_trainers_keys_are_said_to_be_are_keys(path: str) -> None:
    found = yaml.safe_load(shipped_recipes()["reference"].read_text())
    *parents, last = path.split(".")
    for key in parents:
        # The last training of the reference has every key.
        found = [one for one in found if "train" in one][-1] if key == "N" else found[key]
    assert last in found


@pytest.mark.parametrize("part", [Recipe, Data])
def test_every_mapping_and_list_has_an_example(minimal: Path, part: type[Part]) -> None:
    paths = [key if part is Recipe else f"data.{key}" for key in part.model_fields]
    # No key takes a number below 0.
    told = [message_of(minimal, f"{path}=-1") for path in paths]
    wanting = [line for line in told if "expected a mapping" in line or "expected a list" in line]
    assert wanting
    assert all(", such as " in line for line in wanting)
