"""A recipe: everything that one continued pretraining was asked for, in one YAML file.

Unknown keys are refused, numbers of tokens may be written 2_000_000, 2e6 or 2M, and what is read
is what is written back: `Recipe.to_yaml` goes into the model card, every default spelt out.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BeforeValidator, Discriminator, Field, Tag, ValidationError, model_validator

from hfgrow.errors import printable
from hfgrow.plan.operators.learn import DEFAULT_STEPS, LearnArguments
from hfgrow.plan.operators.operator import MAX_SEED
from hfgrow.train.recipe.fields import (
    Count,
    Location,
    Part,
    Text,
    Tokens,
    Whole,
    expected,
    refusal,
    refused,
)
from hfgrow.train.recipe.files import read_recipe, with_overrides
from hfgrow.train.recipe.parts import (
    SCHEDULE_FREE,
    AdamW,
    Checkpoint,
    Data,
    Evaluation,
    FreshModel,
    Optimizer,
    Push,
    ScheduleFreeAdamW,
    World,
)
from hfgrow.train.recipe.stages import Grow, Stage, Train, stages_with_defaults

# What a run can be resumed with although it differs: where the result goes, and who is told.
_FREE = ("output", "trackers", "push", "base_tokens", "dtype", "checkpoint")
_TRACKERS = Literal["tensorboard", "trackio", "wandb"]


def _kind_of_base(value: Any) -> str:
    return "a mapping" if isinstance(value, dict | FreshModel) else "a name"


def _precision(value: Any) -> Any:
    if value not in ("bf16", "fp32"):
        raise expected("bf16 or fp32; the weights are float32 in both, bf16 is computed in")
    return value


class Recipe(Part):
    """A recipe, checked.

    Attributes:
        base: The model to begin with: folder, alias, org/name, hf:// or Hub URL, or a config.
        tokenizer: The model whose tokenizer is used; by default the base's own.
        base_tokens: Tokens that the base was trained on, as its authors say; for the ledger only.
        dtype: What the finished model is written in; by default what the base is in.
        output: The folder of the run; checkpoints lie in it, and the model in `final`.
        seed: Of the order of the data and of what is random.
        data: The text.
        batch_tokens: Tokens of an optimizer step, over all processes.
        micro_batch_size: Sequences that a process computes at once.
        optimizer: Which, and its constants.
        precision: What is computed in; weights and moments are float32 in both.
        checkpoint: When the state is saved.
        evaluation: When the validation text is measured.
        stages: Training and growth, in order.
        trackers: Who is told the metrics, beside `metrics.jsonl`.
        push: Where the result goes on the Hub, if at all.
        activation_checkpointing: Whether activations are computed again instead of kept.
        compile: Whether the layers are compiled.
        world: What it runs on.
    """

    base: Annotated[
        Annotated[Text, Tag("a name")] | Annotated[FreshModel, Tag("a mapping")],
        Discriminator(_kind_of_base),
    ]
    tokenizer: Text | None = None
    base_tokens: Tokens | None = None
    dtype: Literal["bfloat16", "float16", "float32"] | None = None
    output: Text
    seed: Annotated[Whole, Field(ge=0, le=MAX_SEED)] = 0
    data: Data
    batch_tokens: Tokens
    micro_batch_size: Count
    optimizer: Optimizer = AdamW()
    precision: Annotated[Literal["bf16", "fp32"], BeforeValidator(_precision)] = "bf16"
    checkpoint: Checkpoint = Checkpoint()
    evaluation: Evaluation = Evaluation()
    stages: Annotated[tuple[Stage, ...], Field(strict=False, min_length=1, max_length=1000)]
    trackers: Annotated[tuple[_TRACKERS, ...], Field(strict=False)] = ()
    push: Push | None = None
    activation_checkpointing: bool = False
    compile: bool = False
    world: World = World()

    @model_validator(mode="before")
    @classmethod
    def _with_defaults(cls, content: Any) -> Any:
        if not isinstance(content, dict):
            return content
        optimizer, stages = content.get("optimizer", {}), content.get("stages")
        free = False
        if isinstance(optimizer, dict):
            optimizer = {"name": "adamw"} | optimizer
            content, free = content | {"optimizer": optimizer}, optimizer["name"] == SCHEDULE_FREE
        if isinstance(stages, list):
            stages = stages_with_defaults(stages, is_schedule_free=free)
            content = content | {"stages": stages}
        return content

    @model_validator(mode="after")
    def _fits_together(self) -> "Recipe":
        if faults := list(faults_of(self)):
            raise refusal(faults)
        return self

    @property
    def tokens(self) -> int:
        """Tokens of all stages, or the most, each rounded up to whole batches."""
        trains = (stage.train for stage in self.stages)
        steps = sum(train.num_steps(self.batch_tokens) for train in trains if train)
        return steps * self.batch_tokens

    @property
    def may_end_early(self) -> bool:
        """Whether a stage may end before its tokens are spent."""
        return any(stage.train and stage.train.until for stage in self.stages)

    @property
    def fingerprint(self) -> str:
        """The sha256 of what a run must share with the one that it resumes."""
        return sha256(json.dumps(self.identity(), sort_keys=True).encode()).hexdigest()

    def identity(self) -> dict[str, object]:
        """Return what a run must share with the one that it resumes: key path -> value."""
        content = self.model_dump(mode="json")
        return dict(_leaves({key: content[key] for key in content if key not in _FREE}))

    def to_yaml(self) -> str:
        """Return the recipe as YAML, every default spelt out."""
        content = self.model_dump(mode="json")
        return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=96)


def load_recipe(recipe: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe.

    Args:
        recipe: A file, or the name of a recipe that travels with hfgrow.
        overrides: Values put in, each `path=value`: `stages.0.train.tokens=2M`.

    Raises:
        UsageError: There is none, it is no YAML, or says what cannot be.
    """
    content = with_overrides(read_recipe(recipe), overrides)
    return recipe_of(content, f"the recipe {printable(recipe, 200)}")


def recipe_of(content: Mapping[Any, Any], where: str = "the recipe") -> Recipe:
    """Return the recipe that a mapping says, such as one out of a checkpoint.

    Args:
        content: Its keys.

    Raises:
        UsageError: It says what cannot be.
    """
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        raise refused(error, content, where) from None


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, object]]:
    """Yield every value that is neither a mapping nor a list with its key path."""
    inside = dict(enumerate(value)) if isinstance(value, list) else value
    if not isinstance(inside, dict) or not inside:
        yield path, value
        return
    for key, item in inside.items():
        yield from _leaves(item, f"{path}.{key}" if path else str(key))


# Where it stands, what it is, what was expected.
Fault = tuple[Location, object, str]


def faults_of(recipe: "Recipe") -> Iterator[Fault]:
    """Yield what does not go together."""
    yield from _batch_faults(recipe)
    yield from _base_faults(recipe)
    yield from _stage_faults(recipe)


def _tokens_at_once(recipe: "Recipe") -> int:
    """Return the tokens of one micro-batch of every process."""
    micro_batch = recipe.micro_batch_size * recipe.data.sequence_length
    return micro_batch * recipe.world.processes


def _batch_faults(recipe: "Recipe") -> Iterator[Fault]:
    unit, tokens = _tokens_at_once(recipe), recipe.batch_tokens
    if tokens % unit:
        below = tokens // unit * unit
        nearest = f"{below} or {below + unit}" if below else str(unit)
        what = (
            f"a multiple of {unit} = micro_batch_size {recipe.micro_batch_size} x "
            f"data.sequence_length {recipe.data.sequence_length} x "
            f"world.processes {recipe.world.processes}, such as {nearest}"
        )
        yield ("batch_tokens",), tokens, what
    for i, stage in enumerate(recipe.stages):
        if stage.train and stage.train.tokens < tokens:
            what = f"at least one batch, batch_tokens {tokens}"
            yield ("stages", i, "train", "tokens"), stage.train.tokens, what


def _base_faults(recipe: "Recipe") -> Iterator[Fault]:
    if not isinstance(recipe.base, FreshModel):
        return
    if recipe.tokenizer is None:
        yield ("tokenizer",), None, "a model that has one, since base is a config"
    positions = recipe.base.config.get("max_position_embeddings")
    if isinstance(positions, int) and positions < recipe.data.sequence_length:
        what = f"at most max_position_embeddings of base.config, {positions}"
        yield ("data", "sequence_length"), recipe.data.sequence_length, what


def _stage_faults(recipe: "Recipe") -> Iterator[Fault]:
    trained = False
    grown: list[Grow] = []
    for i, stage in enumerate(recipe.stages):
        if stage.train:
            yield from _train_faults(recipe, stage.train, i, grown)
            trained, grown = True, []
        elif stage.grow:
            yield from _grow_faults(recipe, stage.grow, i, trained=trained)
            grown.append(stage.grow)
    if not trained:
        yield ("stages",), ["grow"] * len(recipe.stages), "a train stage among them"


def _train_faults(recipe: "Recipe", train: Train, i: int, grown: Sequence[Grow]) -> Iterator[Fault]:
    if isinstance(recipe.optimizer, ScheduleFreeAdamW) and train.schedule != "constant":
        what = f"constant, the only schedule of {recipe.optimizer.name}"
        yield ("stages", i, "train", "schedule"), train.schedule, what
    if isinstance(recipe.optimizer, ScheduleFreeAdamW) and train.new_warmup is not None:
        what = f"none: {recipe.optimizer.name} weighs its average by one learning rate for all"
        yield ("stages", i, "train", "new_warmup"), train.new_warmup, what
    if train.parametrization is not None and not isinstance(recipe.optimizer, AdamW):
        what = f"none: the rule is of adamw, not of {recipe.optimizer.name}"
        yield ("stages", i, "train", "parametrization"), train.parametrization, what
    if train.until is not None:
        yield from _until_faults(recipe, train, i)
    if train.mask_ramp is not None and not (grown and grown[-1].is_masked):
        what = "none: no growth with a mask (random-depth, random-width) stands just before"
        if masked := [growth.operator for growth in grown if growth.is_masked]:
            others = [growth.operator for growth in grown if not growth.is_masked]
            what += f"; try the order {', '.join([*others, *masked])}"
        yield ("stages", i, "train", "mask_ramp"), train.mask_ramp, what


def _until_faults(recipe: Recipe, train: Train, i: int) -> Iterator[Fault]:
    assert train.until is not None
    every = recipe.evaluation.every_tokens
    if every is None:
        what = "evaluation.every_tokens beside it, which says when the loss is looked at"
        yield ("stages", i, "train", "until"), train.until.model_dump(), what
        return
    most = (train.tokens - train.rising_tokens) // max(every, recipe.batch_tokens) - 1
    if train.until.evaluations > most:
        what = (
            f"at most {most}: of {train.tokens} tokens, less warmup and mask_ramp, one evaluation "
            f"more has to fit, each after evaluation.every_tokens {every}"
        )
        yield ("stages", i, "train", "until", "evaluations"), train.until.evaluations, what


def _grow_faults(recipe: "Recipe", grow: Grow, i: int, *, trained: bool) -> Iterator[Fault]:
    location: Location = ("stages", i, "grow", "optimizer_state")
    if grow.optimizer_state != "reset" and not trained:
        yield location, grow.optimizer_state, "reset: nothing was trained before this growth"


def learning_of(grow: Grow, recipe: Recipe) -> LearnArguments:
    """Return the arguments of a stage; what it does not say is as in the rest of the run."""
    asked = LearnArguments.of(grow.arguments)
    return replace(
        asked,
        steps=DEFAULT_STEPS if asked.steps is None else asked.steps,
        sequence_length=recipe.data.sequence_length,
        batch_tokens=asked.batch_tokens or recipe.batch_tokens,
        seed=recipe.seed if asked.seed is None else asked.seed,
    )
