"""A recipe that is wrong is refused in one line."""

from pathlib import Path

import pytest

from hfgrow.errors import UsageError
from hfgrow.train.recipe.fields import Part
from hfgrow.train.recipe.parts import Data
from hfgrow.train.recipe.recipe import Recipe, load_recipe
from tests.train.recipes import message_of

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


@pytest.mark.parametrize("part", [Recipe, Data])
def test_every_mapping_and_list_has_an_example(minimal: Path, part: type[Part]) -> None:
    paths = [key if part is Recipe else f"data.{key}" for key in part.model_fields]
    # No key takes a number below 0.
    told = [message_of(minimal, f"{path}=-1") for path in paths]
    wanting = [line for line in told if "expected a mapping" in line or "expected a list" in line]
    assert wanting
    assert all(", such as " in line for line in wanting)
