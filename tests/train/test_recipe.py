"""A recipe: read strictly, refused in one line, written back, and every shipped one parsed."""

import re
import typing
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from hfgrow.errors import UsageError
from hfgrow.operators import OPERATORS
from hfgrow.train.overrides import with_overrides
from hfgrow.train.recipe import Recipe, load_recipe, recipe_of
from hfgrow.train.recipe_files import shipped_recipes
from hfgrow.train.recipe_parts import AdamW, FreshModel, Muon, ScheduleFreeAdamW

SHIPPED = shipped_recipes()
MINIMAL = """\
base: demo
output: out
data:
  train: [{dataset: demo}]
  sequence_length: 256
batch_tokens: 8192
micro_batch_size: 8
stages:
- train: {tokens: 2M, learning_rate: 3e-4}
"""
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
    "optimizer=adamw": ("optimizer is 'adamw'", "a mapping"),
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
    "stages.0.train.tokens=99999T": ("tokens is '99999T'", "from 1"),
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
    "stages.1.grow.operator=stak": ("stages.1.grow.operator is 'stak'", "such as stack"),
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
    "stages.0.train.mask_ramp=0.1": ("mask_ramp is 0.1", "random-depth"),
    "base={config: {model_type: gpt2}}": ("base.config.model_type is 'gpt2'", "llama"),
    "base={config: {model_type: llama, rope_theta: .inf}}": ("rope_theta is inf", "finite"),
    "base={config: {model_type: llama}}": ("tokenizer is null", "base is a config"),
}


@pytest.fixture
def minimal(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(MINIMAL)
    return path


def loaded(text: str, *overrides: str) -> Recipe:
    return recipe_of(with_overrides(yaml.safe_load(text), overrides))


def message_of(path: Path, *overrides: str) -> str:
    with pytest.raises(UsageError) as caught:
        load_recipe(path, overrides)
    return str(caught.value)


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
    recipe = loaded(MINIMAL, f"stages.0.train.tokens={written}")
    assert recipe.stages[0].train is not None
    assert recipe.stages[0].train.tokens == tokens


def test_spans_are_shares_below_one_and_tokens_above() -> None:
    train = "{tokens: 1M, learning_rate: 1e-3, warmup: 0.05, decay: 300K}"
    (stage,) = loaded(MINIMAL, f"stages.0.train={train}").stages
    assert stage.train is not None
    assert (stage.train.warmup_tokens, stage.train.decay_tokens) == (50_000, 300_000)


def test_the_strategy_and_whole_batches_follow_from_the_batch() -> None:
    recipe = loaded(MINIMAL, "world={processes: 2}", "stages.0.train.tokens=8193")
    assert recipe.world.strategy == "ddp"
    assert recipe.tokens == 2 * 8192


def test_a_schedule_free_optimizer_has_the_constant_schedule_and_takes_no_other() -> None:
    free = "optimizer.name=schedule_free_adamw"
    recipe = loaded(MINIMAL, free)
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
            loaded(MINIMAL, free, f"stages.0.train.{fault}")


def test_the_optimizer_state_survives_a_growth_only_where_there_is_one_to_grow() -> None:
    grow = "stages.1={grow: {operator: stack, g: 2, optimizer_state: copy-v}}"
    recipe = loaded(MINIMAL, grow)
    assert recipe.stages[1].grow is not None
    assert recipe.stages[1].grow.optimizer_state == "copy-v"
    assert isinstance(loaded(MINIMAL, "optimizer.name=muon").optimizer, Muon)
    with pytest.raises(UsageError, match="the momentum of muon begins anew"):
        loaded(MINIMAL, grow, "optimizer.name=muon")
    first = (
        "stages=[{grow: {operator: untie, optimizer_state: copy}}, "
        "{train: {tokens: 1M, learning_rate: 1e-3}}]"
    )
    with pytest.raises(UsageError, match="nothing was trained before"):
        loaded(MINIMAL, first)


def test_a_growth_may_come_first_and_keeps_its_arguments() -> None:
    stages = (
        "stages=[{grow: {operator: random-width, hidden_size: 256, seed: 1}}, "
        "{train: {tokens: 1M, learning_rate: 1e-3}}]"
    )
    first, second = loaded(MINIMAL, stages).stages
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
    recipe = loaded(MINIMAL, f"base={{config: {config}}}", "tokenizer=demo")
    assert isinstance(recipe.base, FreshModel)
    assert recipe.base.config["rms_norm_eps"] == 1e-5
    with pytest.raises(UsageError, match="at most max_position_embeddings"):
        loaded(
            MINIMAL,
            f"base={{config: {config}}}",
            "tokenizer=demo",
            "data.sequence_length=1024",
            "micro_batch_size=1",
        )


def test_no_clipping_can_be_said_and_is_written_back() -> None:
    recipe = loaded(MINIMAL, "stages.0.train.gradient_clipping=null")
    again = recipe_of(yaml.safe_load(recipe.to_yaml()))
    assert again.stages[0].train is not None
    assert again.stages[0].train.gradient_clipping is None


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("seed", "is no path=value"),
        ("=1", "is no path=value"),
        ("a..b=1", "is no path=value"),
        ("seed=[1", "not YAML"),
        ("seed=*a", "anchor"),
        ("base.x=1", "base is demo, which has no x"),
        ("batch_tokens.0=1", "batch_tokens is 8192, which has no 0"),
        ("stages.7.train.tokens=1M", "stages is a list of 1; 7 is no index"),
        ("stages.-1.train.tokens=1M", "-1 is no index"),
        ("stages.first.train.tokens=1M", "first is no index"),
    ],
)
def test_an_override_that_cannot_be_put_is_refused(
    minimal: Path, override: str, words: str
) -> None:
    message = message_of(minimal, override)
    assert words.replace("is demo", "is 'demo'") in message
    assert "--set" in message


def test_overrides_replace_append_and_make_what_they_lead_through(minimal: Path) -> None:
    recipe = load_recipe(
        minimal,
        [
            "stages.0.train.tokens=4M",
            "data.train.1.path=notes.txt",
            "data.validation.0.path=held-out.txt",
            "checkpoint.keep=5",
            "optimizer.weight_decay=0",
            "tokenizer=",
        ],
    )
    assert recipe.stages[0].train is not None
    assert recipe.stages[0].train.tokens == 4_000_000
    assert [source.dataset or source.path for source in recipe.data.train] == ["demo", "notes.txt"]
    assert [source.path for source in recipe.data.validation] == ["held-out.txt"]
    assert recipe.checkpoint.keep == 5
    assert recipe.optimizer == AdamW(weight_decay=0.0)
    assert recipe.tokenizer is None


def test_overrides_leave_what_was_read_as_it_is() -> None:
    content = yaml.safe_load(MINIMAL)
    with_overrides(content, ["stages.0.train.tokens=4M", "seed=3"])
    assert content == yaml.safe_load(MINIMAL)


@pytest.mark.case("D13")
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "holds nothing"),
        ("- train", "holds a list"),
        ("base: demo\nbase: demo", "base stands 2 times"),
        ("base: &a demo\noutput: *a", "anchor"),
        ("base: !!python/object/apply:os.system [id]", "has a tag"),
        ("# " + "x" * (1 << 16), "more than 65536 bytes"),
    ],
)
def test_a_file_that_is_no_plain_mapping_is_refused(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    assert words in message_of(path)


def test_a_recipe_that_is_nowhere_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no recipe dem") as caught:
        load_recipe("dem")
    assert caught.value.hint == "did you mean demo?"
    assert "cannot read" in message_of(tmp_path)


def test_a_file_wins_over_a_shipped_recipe_of_that_name(
    minimal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(minimal.parent)
    assert load_recipe("demo").output == "demo-trained"
    minimal.rename("demo.yaml")
    assert load_recipe("demo.yaml").output == "out"


def test_the_fingerprint_ignores_where_the_result_goes_and_sees_everything_else() -> None:
    fingerprint = loaded(MINIMAL).fingerprint
    for free in ("output=elsewhere", "trackers=[wandb]", "push={repo: a/b}"):
        assert loaded(MINIMAL, free).fingerprint == fingerprint
    for other in ("seed=1", "data.train.0.split=x", "stages.0.train.decay=0.1", "compile=true"):
        assert loaded(MINIMAL, other).fingerprint != fingerprint
    spelt_out = ("stages.0.train.decay=0.2", "optimizer.name=adamw", "batch_tokens=8_192")
    assert loaded(MINIMAL, *spelt_out).fingerprint == fingerprint


def test_the_identities_of_two_recipes_tell_the_keys_that_differ() -> None:
    one = loaded(MINIMAL).identity()
    two = loaded(MINIMAL, "data.train.0.weight=2", "seed=1").identity()
    assert {path for path in one if one[path] != two[path]} == {"data.train.0.weight", "seed"}


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_recipe_parses_and_is_written_back_the_same(
    tmp_path: Path, name: str
) -> None:
    recipe = load_recipe(name)
    written = tmp_path / "written.yaml"
    written.write_text(recipe.to_yaml())
    again = load_recipe(written)
    assert again == recipe
    assert again.to_yaml() == recipe.to_yaml()
    assert again.fingerprint == recipe.fingerprint


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_recipe_says_what_it_is_and_comments_each_key(name: str) -> None:
    text = SHIPPED[name].read_text(encoding="utf-8")
    for word in ("Paper:", "Hardware:", "Expected:", "Run:"):
        assert f"# {word}" in text.split("\n\nbase:")[0]
    assert f"hfgrow train {name}" in text or name == "reference"
    assert max(map(len, text.splitlines())) <= 100
    keys = dict(commented_keys(text))
    assert not [path for path, is_commented in keys.items() if not is_commented]


def test_the_reference_has_every_key_of_the_schema() -> None:
    shown, free = (
        dict(commented_keys(SHIPPED[name].read_text(encoding="utf-8")))
        for name in ("reference", "schedule-free")
    )
    # A recipe has one optimizer, so what only the other has stands in its own recipe.
    missing = set(schema_keys(Recipe)) - set(shown)
    assert missing == {"optimizer.r", "optimizer.weight_lr_power"}
    assert missing <= set(free)


def commented_keys(text: str) -> Iterator[tuple[str, bool]]:
    """Yield the key paths of a file without indices, and whether a comment is at one of them.

    A comment stands on the key's line or above it; a key that only holds others needs none.
    """
    lines = text.splitlines()
    found: dict[str, bool] = {}

    def walk(node: yaml.Node, path: str) -> None:
        if isinstance(node, yaml.SequenceNode):
            for item in node.value:
                walk(item, path)
        elif isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                inner, i = f"{path}{key.value}", key.start_mark.line
                above = i > 0 and lines[i - 1].lstrip().startswith("#")
                is_commented = bool(re.search(r" # \w", lines[i])) or above
                holds = not isinstance(value, yaml.ScalarNode) and not value.flow_style
                found[inner] = found.get(inner, False) or is_commented or holds
                walk(value, f"{inner}.")

    node = yaml.compose(text)
    assert node is not None
    walk(node, "")
    yield from found.items()


def schema_keys(model: type[BaseModel], path: str = "") -> Iterator[str]:
    """Yield the key paths of a model, of all alternatives, without indices."""
    for name, field in model.model_fields.items():
        yield f"{path}{name}"
        for inner in models_in(field.annotation):
            if inner is not FreshModel:
                yield from schema_keys(inner, f"{path}{name}.")


def models_in(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in typing.get_args(annotation):
        yield from models_in(argument)
