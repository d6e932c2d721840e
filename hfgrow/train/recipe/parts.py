"""The parts of a recipe beside its stages: base, data, optimizer, checkpoints, world, push."""

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    JsonValue,
    WithJsonSchema,
    model_validator,
)

from hfgrow.checkpoint.files import REPO_NAME
from hfgrow.data.sources import TextSource
from hfgrow.plan.families import FAMILIES
from hfgrow.train.recipe.fields import (
    A_NUMBER,
    Count,
    NotNegative,
    Number,
    Part,
    Rate,
    Text,
    Tokens,
    Whole,
    expected,
    numbers_in,
    refusal,
)

SCHEDULE_FREE = "schedule_free_adamw"


def _repository(value: str) -> str:
    if not REPO_NAME.fullmatch(value):
        raise expected("a name on the Hub, org/name or name")
    return value


Repository = Annotated[str, AfterValidator(_repository)]
Beta = Annotated[
    Number,
    Field(ge=0, lt=1),
    WithJsonSchema({**A_NUMBER, "minimum": 0, "exclusiveMaximum": 1}),
]
Betas = Annotated[tuple[Beta, Beta], Field(strict=False)]


class FreshModel(Part):
    """A model that does not exist yet.

    Attributes:
        config: What its config.json says; `model_type` is one that hfgrow can grow.
    """

    config: Annotated[dict[str, JsonValue], BeforeValidator(numbers_in)]

    @model_validator(mode="after")
    def _can_grow(self) -> "FreshModel":
        model_type = self.config.get("model_type")
        if not isinstance(model_type, str) or model_type not in FAMILIES:
            families = ", ".join(FAMILIES)
            raise refusal([(("config", "model_type"), model_type, f"one of {families}")])
        return self


class Source(Part):
    """Text to evaluate on.

    Attributes:
        path: A file of text, JSON, CSV, parquet or arrow, or of tokens, Megatron's .idx or
            datatrove's .ds; a folder of these, or a pattern with `*`.
        dataset: A dataset on the Hub instead, org/name; `demo` is the documentation that Python
            carries.
        name: The configuration of the dataset.
        split: The split, or a part of it by per cent of its tokens, such as `train[:99%]`.
        text_column: The column that holds the text, or lists of tokens.
    """

    path: Text | None = None
    dataset: Repository | None = None
    name: Text | None = None
    split: Text = "train"
    text_column: Text = "text"

    @model_validator(mode="after")
    def _is_one_thing(self) -> "Source":
        if (self.path is None) == (self.dataset is None):
            raise refusal([(("path",), self.path, "exactly one of path and dataset")])
        if self.path is not None and self.name is not None:
            raise refusal([(("name",), self.name, "none: a path has no configurations")])
        return self


class TrainSource(Source):
    """Text to train on.

    Attributes:
        weight: Its share of the tokens, relative to the other sources'.
    """

    weight: Rate = 1.0


def text_source(source: Source) -> TextSource:
    """Return a source of a recipe as the data layer takes it."""
    return TextSource(
        path=source.path,
        dataset=source.dataset,
        name=source.name,
        split=source.split,
        text_column=source.text_column,
    )


class Data(Part):
    """The text.

    Attributes:
        train: What is trained on.
        validation: What is held out, each source measured on its own.
        sequence_length: Tokens of a sequence.
        document_mask: Whether the documents packed into a sequence do not see each other.
        bos: What begins with the beginning-of-text token: each `sequence`, or a `document` where
            the tokenizer puts it. Left out, what the family was trained with.
    """

    train: Annotated[tuple[TrainSource, ...], Field(strict=False, min_length=1, max_length=1000)]
    validation: Annotated[tuple[Source, ...], Field(strict=False, max_length=100)] = ()
    sequence_length: Annotated[Whole, Field(ge=2, le=1 << 20)]
    document_mask: bool = False
    bos: Literal["sequence", "document"] | None = None


class Adaptive(Part):
    """What the optimizers have alike; matrices decay, norms and biases do not.

    Attributes:
        betas: Decay rates of the two moments.
        eps: Added to the root of the second moment.
        weight_decay: Relative to the learning rate.
    """

    betas: Betas = (0.9, 0.95)
    eps: Rate = 1e-8
    weight_decay: NotNegative = 0.1


class AdamW(Adaptive):
    """AdamW with decoupled weight decay.

    Attributes:
        name: Which optimizer it is.
    """

    name: Literal["adamw"] = "adamw"


class ScheduleFreeAdamW(Adaptive):
    """AdamW that averages its iterates instead of decaying the learning rate.

    Source: Defazio et al. 2024, "The Road Less Scheduled", https://arxiv.org/abs/2405.15682

    Attributes:
        name: Which optimizer it is.
        r: Power of the step number in the weight of an iterate; above 0 forgets early ones.
        weight_lr_power: Power of the largest learning rate so far in that weight.
    """

    name: Literal["schedule_free_adamw"] = "schedule_free_adamw"
    r: NotNegative = 0.0
    weight_lr_power: NotNegative = 2.0

    @model_validator(mode="after")
    def _averages(self) -> "ScheduleFreeAdamW":
        if self.betas[0] == 0:
            raise refusal([(("betas", 0), 0.0, "more than 0: the share of the average")])
        return self


class Muon(Adaptive):
    """Orthogonalised momentum for the matrices of the layers, AdamW for everything else.

    Attributes:
        name: Which optimizer it is.
        momentum: Decay rate of the momentum.
        nesterov: Whether the momentum looks ahead.
        ns_steps: Newton-Schulz iterations.
        adjust_lr: `match_rms_adamw` makes updates as large as AdamW's, so that its learning rates
            serve; `original` scales with the shape of the matrix.
    """

    name: Literal["muon"] = "muon"
    momentum: Beta = 0.95
    nesterov: bool = True
    ns_steps: Annotated[Whole, Field(ge=1, le=20)] = 5
    adjust_lr: Literal["match_rms_adamw", "original"] = "match_rms_adamw"


Optimizer = Annotated[AdamW | ScheduleFreeAdamW | Muon, Field(discriminator="name")]


class Checkpoint(Part):
    """When the state is saved, beside the end of each stage.

    Where neither span is given, a checkpoint is saved after each twentieth of a stage, no sooner
    than a minute after the last and ten times what that took, and each half hour in longer ones.

    Attributes:
        every_tokens: Trained tokens between two checkpoints.
        every_minutes: Minutes between two checkpoints.
        keep: How many are kept.
    """

    every_tokens: Tokens | None = None
    every_minutes: Rate | None = None
    keep: Count = 2


class Evaluation(Part):
    """When the validation text is measured, beside the start and end of each stage.

    Attributes:
        every_tokens: Trained tokens between two evaluations.
        tokens: The most tokens measured of each source.
    """

    every_tokens: Tokens | None = None
    tokens: Tokens = 1_000_000


class Push(Part):
    """Where the result goes on the Hub.

    Attributes:
        repo: The repository; by default <you>/<name of the output>.
        private: The visibility of a new repository; by default that of the base.
    """

    repo: Repository | None = None
    private: bool | None = None


class World(Part):
    """What the training runs on.

    Attributes:
        processes: Processes on all machines together, one for each device.
        strategy: What they share: `ddp` copies the model, `fsdp2` shards it, `none` is one process.
    """

    processes: Count = 1
    strategy: Literal["none", "ddp", "fsdp2"] = "none"

    @model_validator(mode="before")
    @classmethod
    def _share_by_default(cls, content: Any) -> Any:
        if isinstance(content, dict) and content.get("strategy") is None:
            several = isinstance(content.get("processes"), int) and content["processes"] > 1
            return {**content, "strategy": "ddp" if several else "none"}
        return content

    @model_validator(mode="after")
    def _agree(self) -> "World":
        if self.processes > 1 and self.strategy == "none":
            raise refusal([(("strategy",), "none", f"ddp or fsdp2 for {self.processes} processes")])
        if self.processes == 1 and self.strategy == "ddp":
            raise refusal([(("strategy",), "ddp", "none or fsdp2 for 1 process")])
        return self
