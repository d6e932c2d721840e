"""What a learned growth is told and records of itself, as arguments of the step `learn`."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from hfgrow.errors import UsageError, printable
from hfgrow.operators.checks import check_seed

LEARN = "learn"
INITS = ("fp", "stack", "ligo")
# Arguments that say what came out; no command takes them.
OUTCOMES = (
    "text",
    "text_sha256",
    "initial_loss",
    "loss",
    "kept_step",
    "exact_flops",
    "seconds",
)
# Of a growth that is not told how long to learn.
DEFAULT_STEPS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnArguments:
    """The arguments of the step; how it was learned is None where that is not known.

    Attributes:
        g: Growth factor of the depth.
        layers: Target depth instead of g.
        width_g: Growth factor of every width.
        hidden_size: Target width of the residual stream.
        ffn: Target intermediate_size.
        heads: Target num_attention_heads.
        kv_heads: Target num_key_value_heads.
        init: What the maps begin as: `fp` keeps the function, `stack` repeats the layers, `ligo` is
            the beginning of the paper.
        steps: Steps of the optimizer.
        batch_tokens: Tokens of a step.
        sequence_length: Tokens of a sequence.
        lr: The peak learning rate.
        seed: Seeds the order of the text, and what is random in the maps.
        maps: The file of the maps, beside the model.
        text: What was learned from, in words.
        text_sha256: The hash of what decides its tokens and their order.
        initial_loss: The held-out loss of the init, nats per token.
        loss: That of the maps that were kept.
        kept_step: After how many steps those stood; 0 is the init.
        exact_flops: What learning cost: the FLOPs of the grown model's matrices and attention,
            forward and backward; the products of the maps themselves are not counted.
        seconds: How long it took, on one device.
    """

    g: int | None = None
    layers: int | None = None
    width_g: int | None = None
    hidden_size: int | None = None
    ffn: int | None = None
    heads: int | None = None
    kv_heads: int | None = None
    init: str = "fp"
    steps: int | None = None
    batch_tokens: int | None = None
    sequence_length: int | None = None
    lr: float | None = None
    seed: int | None = None
    maps: str | None = None
    text: str | None = None
    text_sha256: str | None = None
    initial_loss: float | None = None
    loss: float | None = None
    kept_step: int | None = None
    exact_flops: float | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        if self.init not in INITS:
            raise UsageError(f"--init must be one of {', '.join(INITS)}, not {self.init}")
        if self.width_g is not None and (given := self._other_widths):
            raise UsageError(f"--width-g multiplies every width; leave out --{given[0]}, or it")

    @classmethod
    def of(cls, arguments: Mapping[str, object]) -> "LearnArguments":
        """Return the arguments of a recorded step, each of its own type.

        Raises:
            UsageError: One is unknown, or no value of it.
        """
        kinds: Mapping[str, Any] = {field.name: field.type for field in fields(cls)}
        checked: dict[str, Any] = {}
        for key, value in arguments.items():
            if key not in kinds:
                raise UsageError(f"{LEARN} has no argument {printable(key)}")
            if not _fits(value, kinds[key]):
                raise UsageError(f"{LEARN}: {key} cannot be {printable(repr(value))}")
            checked[key] = value
        return cls(**checked)

    def check(self) -> None:
        """Refuse numbers that nothing can be learned with.

        Raises:
            UsageError: One of them cannot be.
        """
        check_seed(self.seed or 0)
        if self.steps is not None and not 0 <= self.steps <= 1_000_000:
            raise UsageError(f"--steps must be from 0 to 1000000, not {self.steps}")
        if self.lr is not None and not 0 < self.lr <= 1:
            raise UsageError(f"--lr must be above 0 and at most 1, not {self.lr}")
        for option, value in (
            ("batch-tokens", self.batch_tokens),
            ("sequence-length", self.sequence_length),
        ):
            if value is not None and value < 1:
                raise UsageError(f"--{option} must be at least 1, not {value}")

    @property
    def grows_depth(self) -> bool:
        """Whether another depth is asked for."""
        return self.g is not None or self.layers is not None

    @property
    def grows_width(self) -> bool:
        """Whether another width is asked for."""
        return self.width_g is not None or bool(self._other_widths)

    @property
    def recorded(self) -> dict[str, object]:
        """All that is given, by name."""
        return {
            field.name: value
            for field in fields(self)
            if (value := getattr(self, field.name)) is not None
        }

    @property
    def _other_widths(self) -> list[str]:
        widths = {
            "hidden-size": self.hidden_size,
            "ffn": self.ffn,
            "heads": self.heads,
            "kv-heads": self.kv_heads,
        }
        return [name for name, size in widths.items() if size is not None]


@dataclass(frozen=True, slots=True)
class LearningCost:
    """What it cost to learn maps; None is unknown.

    Attributes:
        tokens: What they were learned from, all steps together.
        exact_flops: As `LearnArguments.exact_flops`.
        seconds: As `LearnArguments.seconds`.
    """

    tokens: int | None
    exact_flops: float | None
    seconds: float | None

    @classmethod
    def of(cls, arguments: Mapping[str, object]) -> "LearningCost":
        """Return what the arguments of a recorded step say; what cannot be is unknown."""
        keys = ("steps", "batch_tokens", "exact_flops", "seconds")
        steps, batch, exact_flops, seconds = (_not_negative(arguments.get(key)) for key in keys)
        tokens = None if steps is None or batch is None else int(steps) * int(batch)
        return cls(tokens, exact_flops, seconds)


def _not_negative(value: object) -> float | None:
    if isinstance(value, int | float) and not isinstance(value, bool) and value >= 0:
        return value
    return None


def _fits(value: object, kind: Any) -> bool:
    if isinstance(value, bool):
        return False
    return isinstance(value, kind | int if kind in (float, float | None) else kind)
