"""The stages of a recipe: training, and growth by an operator with what it can be told."""

import difflib
from collections.abc import Sequence
from functools import cache
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    create_model,
    model_validator,
)

from hfgrow.checkpoint.compute.moments import Mode
from hfgrow.plan.operators import ALL_OPERATORS
from hfgrow.plan.operators.operator import Mark, is_argument
from hfgrow.train.recipe.fields import (
    Count,
    NotNegative,
    Part,
    Rate,
    Span,
    Text,
    Tokens,
    check_one,
    expected,
    number,
    refusal,
    refuse_unknown,
    span_tokens,
    whole,
)

# What no stage is told: the run decides it, or it says what came out.
NOT_ASKED = frozenset({Mark.BY_RUN, Mark.OUTCOME})


def known_operator(value: str) -> str:
    """Return the name of an operator; refuse what is none, naming the nearest."""
    if value not in ALL_OPERATORS:
        near = difflib.get_close_matches(value, ALL_OPERATORS, n=1)
        told = f"; did you mean {near[0]}?" if near else f", such as {', '.join(ALL_OPERATORS)}"
        raise expected(f"an operator{told}")
    return value


def as_kind(value: Any, kind: Any) -> Any:
    """Return the number that a text such as 3e-4 or 1e3 means to an argument of some kind."""
    kinds = (kind, *get_args(kind))
    return whole(value) if int in kinds and float not in kinds else number(value)


def takes_seed(operator: object) -> bool:
    """Say whether this is the name of an operator that draws something at random."""
    return _takes(operator, "seed")


def hides(operator: object) -> bool:
    """Say whether this is the name of an operator with a mask that training opens."""
    return _takes(operator, "mask")


def _takes(operator: object, argument: str) -> bool:
    row = ALL_OPERATORS.get(operator) if isinstance(operator, str) else None
    return row is not None and row.parameter(argument) is not None


@cache
def arguments_of(operator: str) -> type[BaseModel]:
    """Return the arguments that a stage can give an operator."""
    fields: dict[str, Any] = {
        parameter.name: (parameter.type, ... if parameter.is_required else parameter.default)
        for parameter in ALL_OPERATORS[operator].parameters
        if not parameter.marks & NOT_ASKED
    }
    return create_model(operator, __base__=Part, **fields)


TRAINABLE = ("all", "new", "new+embeddings")
_DEFAULT_DECAY = 0.2
_DEFAULT_MASK_RAMP = 0.1


def _trainable(value: Any) -> Any:
    if value in TRAINABLE:
        return value
    if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
        return tuple(value)
    raise expected(f"{', '.join(TRAINABLE)} or a list of patterns of tensor names")


class Until(Part):
    """What ends a stage before its tokens are spent: a plateau of the held-out loss.

    Attributes:
        plateau: The stage ends where the loss has improved by less than this, in nats a token.
        evaluations: Over how many evaluations: their best loss is compared with the best before.
    """

    plateau: NotNegative
    evaluations: Count = 3

    def is_reached(self, losses: Sequence[float]) -> bool:
        """Say whether losses have stopped falling.

        Args:
            losses: The held-out loss at each evaluation of the stage so far, in nats a token.
        """
        before, last = losses[: -self.evaluations], losses[-self.evaluations :]
        return bool(before) and min(before) - min(last) < self.plateau


class Train(Part):
    """A stage of training.

    A span is a share of the stage's tokens if below 1, else a number of tokens.

    Attributes:
        tokens: Tokens to train on, rounded up to whole batches; the most where there is `until`.
        until: What ends the stage before; with it the schedule is `constant`.
        learning_rate: The peak.
        schedule: `wsd` warms up, holds and decays; `cosine` falls from the peak; `constant` holds.
            By default `wsd`, with `until` `constant`.
        warmup: Span of the linear rise to the peak.
        decay: Span of the fall at the end; `wsd` only.
        min_learning_rate: Where `wsd` and `cosine` end.
        trainable: What learns: everything, what the last growth inserted, that and the embeddings,
            or the tensors whose names match one of the patterns.
        new_learning_rate: The peak of what the last growth inserted; by default the stage's.
        new_warmup: Span of the linear rise of what the last growth added; by default `warmup`.
        embedding_learning_rate: The peak of embeddings and head; by default the stage's.
        mask_ramp: Span over which the mask of a random-* growth just before opens.
        parametrization: `mup` takes learning rates, weight decay and eps for those of the width
            that the run begins with, and scales them to the width that trains: a matrix that
            reads n times as many inputs has learning_rate / n and weight_decay * n.
        gradient_clipping: The largest norm of the gradient; null does not clip.
    """

    meant_nulls = frozenset({"gradient_clipping"})

    tokens: Tokens
    until: Until | None = None
    learning_rate: Rate
    schedule: Literal["wsd", "cosine", "constant"] = "wsd"
    warmup: Span = 0.01
    decay: Span | None = None
    min_learning_rate: NotNegative | None = None
    trainable: Annotated[str | tuple[Text, ...], BeforeValidator(_trainable)] = "all"
    new_learning_rate: Rate | None = None
    new_warmup: Span | None = None
    embedding_learning_rate: Rate | None = None
    mask_ramp: Span | None = None
    parametrization: Literal["mup"] | None = None
    gradient_clipping: Rate | None = 1.0

    @model_validator(mode="before")
    @classmethod
    def _ends_by_default(cls, content: Any) -> Any:
        if not isinstance(content, dict):
            return content
        ends: dict[str, Any] = {}
        schedule = content.get("schedule") or ("constant" if content.get("until") else "wsd")
        ends["schedule"] = schedule
        if schedule == "wsd":
            ends["decay"] = _DEFAULT_DECAY
        if schedule in ("wsd", "cosine"):
            ends["min_learning_rate"] = 0.0
        return content | {key: end for key, end in ends.items() if content.get(key) is None}

    @model_validator(mode="after")
    def _fits_together(self) -> "Train":
        faults: list[tuple[tuple[int | str, ...], Any, str]] = []
        if self.decay is not None and self.schedule != "wsd":
            faults.append((("decay",), self.decay, f"none: schedule {self.schedule} has none"))
        if self.until is not None and self.schedule != "constant":
            what = "constant: with until nobody knows where a fall would have to begin"
            faults.append((("schedule",), self.schedule, what))
        if self.min_learning_rate is not None:
            if self.schedule == "constant":
                what = "none: schedule constant keeps the peak"
                faults.append((("min_learning_rate",), self.min_learning_rate, what))
            elif self.min_learning_rate > self.learning_rate:
                what = f"at most the peak, learning_rate {self.learning_rate:g}"
                faults.append((("min_learning_rate",), self.min_learning_rate, what))
        if self.warmup_tokens + self.decay_tokens > self.tokens:
            spans = "warmup and decay" if self.decay_tokens else "warmup"
            what = f"{spans} of no more than the stage's {self.tokens} tokens together"
            faults.append((("warmup",), self.warmup, what))
        if not self.warmup_tokens <= self.new_warmup_tokens <= self.tokens - self.decay_tokens:
            what = "no less than warmup, and with decay no more than the stage's tokens"
            faults.append((("new_warmup",), self.new_warmup, what))
        if self.mask_ramp_tokens > self.tokens:
            # What is still hidden at the end would be in the model as if it had been trained.
            what = f"no more than the stage's {self.tokens} tokens"
            faults.append((("mask_ramp",), self.mask_ramp, what))
        if faults:
            raise refusal(faults)
        return self

    @property
    def warmup_tokens(self) -> int:
        """Tokens of the rise to the peak."""
        return span_tokens(self.warmup, self.tokens)

    @property
    def new_warmup_tokens(self) -> int:
        """Tokens of the rise of what the last growth added."""
        return span_tokens(self.warmup if self.new_warmup is None else self.new_warmup, self.tokens)

    @property
    def looks_at_growth(self) -> bool:
        """Whether what the last growth added is treated in another way than the rest."""
        return self.trainable in ("new", "new+embeddings") or not (
            self.new_warmup is None and self.new_learning_rate is None
        )

    @property
    def decay_tokens(self) -> int:
        """Tokens of the fall at the end; 0 where the schedule has none."""
        return span_tokens(self.decay, self.tokens)

    @property
    def mask_ramp_tokens(self) -> int:
        """Tokens over which a mask opens; 0 where there is none."""
        return span_tokens(self.mask_ramp, self.tokens)

    @property
    def rising_tokens(self) -> int:
        """Tokens until everything trains at its peak and no mask is left."""
        return max(self.warmup_tokens, self.new_warmup_tokens, self.mask_ramp_tokens)

    def num_steps(self, batch_tokens: int) -> int:
        """Return the optimizer steps of the stage, or the most, the last one included."""
        return -(-self.tokens // batch_tokens)


class Grow(Part):
    """A stage of growth: an operator, its arguments beside it.

    Attributes:
        operator: Its name, as `hfgrow operators` lists it, or `learn`.
        optimizer_state: What becomes of the optimizer's state.
    """

    model_config = ConfigDict(extra="allow")

    operator: Annotated[str, AfterValidator(known_operator)]
    optimizer_state: Mode = "reset"

    @model_validator(mode="before")
    @classmethod
    def _of_known_keys(cls, content: Any) -> Any:
        operator = content.get("operator") if isinstance(content, dict) else None
        if not isinstance(operator, str) or operator not in ALL_OPERATORS:
            return content
        model = arguments_of(operator)
        given = {key: value for key, value in content.items() if key not in cls.model_fields}
        refuse_unknown(given, [*model.model_fields, *cls.model_fields])
        arguments = {
            key: as_kind(value, model.model_fields[key].annotation) for key, value in given.items()
        }
        model.model_validate(arguments)
        for key, value in arguments.items():
            if not is_argument(value):
                raise refusal([((key,), value, "a finite number, true, false or a short text")])
        return content | arguments

    @property
    def arguments(self) -> dict[str, object]:
        """The arguments of the operator."""
        return dict(self.model_extra or {})

    @property
    def step(self) -> tuple[str, dict[str, object]]:
        """The growth as a step."""
        return self.operator, self.arguments

    @property
    def needs_maps(self) -> bool:
        """Whether maps have to be learned before it can grow."""
        return ALL_OPERATORS[self.operator].needs_maps

    @property
    def is_masked(self) -> bool:
        """Whether the operator hides what is new behind a mask that training opens."""
        return hides(self.operator)


class Stage(Part):
    """A stage: either of the two.

    Attributes:
        train: Training.
        grow: Growth.
    """

    train: Train | None = None
    grow: Grow | None = None

    @model_validator(mode="after")
    def _is_one_thing(self) -> "Stage":
        check_one(self, "train", "grow")
        return self


def stages_with_defaults(stages: list[Any], *, is_schedule_free: bool) -> list[Any]:
    """Return stages as they were read, with the defaults that depend on what stands around them."""
    result: list[Any] = []
    masked = False
    for stage in stages:
        if isinstance(stage, dict):
            train, grow = stage.get("train"), stage.get("grow")
            if isinstance(grow, dict):
                masked = hides(grow.get("operator"))
            if isinstance(train, dict):
                if is_schedule_free and train.get("schedule") is None:
                    train = train | {"schedule": "constant"}
                if masked and train.get("mask_ramp") is None:
                    train = train | {"mask_ramp": _DEFAULT_MASK_RAMP}
                stage, masked = stage | {"train": train}, False
        result.append(stage)
    return result
