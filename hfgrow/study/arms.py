"""The arms of a study: ways from a base to the target, and what they grow from.

Settings that every training recipe has are passed on as they stand, and checked where the recipe of
a run is made.
"""

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, JsonValue, model_validator

from hfgrow.train.recipe.fields import Part, Text, expected, number, refusal
from hfgrow.train.recipe.parts import NotNegative

_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{0,39}", re.ASCII)
_SHARE = "share"
_A_SHARE = "a share of the study's tokens, above 0 and below 1"


def _name(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise expected("a name of up to 40 of a-z, 0-9, - and .")
    return value


Name = Annotated[str, AfterValidator(_name)]
Settings = dict[str, JsonValue]
NOTHING: Settings = {}


class Base(Part):
    """A small model that arms grow from, trained once for each seed.

    Attributes:
        config: What its config says otherwise than the target's.
        factor: The tokens that it is trained on, in units of `base_tokens`; with 0 it stays random.
        train: What its training has otherwise than `base_train`.
        optimizer: Its optimizer, and that of the arms that grow from it, instead of the study's.
    """

    config: Settings = NOTHING
    factor: NotNegative = 1.0
    train: Settings = NOTHING
    optimizer: Settings | None = None


NO_BASES: dict[str, Base] = {}


class ArmStage(Part):
    """A stage of an arm: either of the two.

    Attributes:
        train: What a training has otherwise than the study's; `share`, or `tokens`, of the study's
            tokens, or all that is left of them.
        grow: A growth as a recipe has it.
    """

    train: Settings | None = None
    grow: Settings | None = None

    @model_validator(mode="after")
    def _is_one_thing(self) -> "ArmStage":
        if (self.train is None) == (self.grow is None):
            raise refusal([((), self.model_dump(), "exactly one of train and grow")])
        if self.train is not None and _SHARE in self.train:
            if not 0 < _number(given := self.train[_SHARE]) < 1:
                raise refusal([(("train", _SHARE), given, _A_SHARE)])
            if "tokens" in self.train:
                raise refusal([(("train", "tokens"), self.train["tokens"], "none beside a share")])
        return self

    @property
    def share(self) -> float | None:
        """The share of the study's tokens; None if it takes no share."""
        given = (self.train or {}).get(_SHARE)
        return None if given is None else _number(given)

    @property
    def settings(self) -> Settings:
        """What the training has otherwise than the study's, as a recipe has it."""
        return {key: value for key, value in (self.train or {}).items() if key != _SHARE}


class Arm(Part):
    """One way to the target.

    Attributes:
        base: What it grows from; may be left out where there is one base.
        grow: A growth as a recipe has it, or several in one hop; then it trains to the end.
        stages: Growth and training in turn instead.
        scratch: No growth: the target from random weights, trained on as many tokens as the grown
            arms (`target`), or on as many as cost what the dearest of them does (`equal-compute`).
        train: What its training has otherwise than the study's.
        optimizer: Of an arm from scratch, instead of the study's.
        paper: What the paper says of it, for the report.
    """

    base: Name | None = None
    grow: Settings | Annotated[tuple[Settings, ...], Field(strict=False)] | None = None
    stages: Annotated[tuple[ArmStage, ...], Field(strict=False, max_length=100)] | None = None
    scratch: Literal["target", "equal-compute"] | None = None
    train: Settings = NOTHING
    optimizer: Settings | None = None
    paper: Text | None = None

    @model_validator(mode="after")
    def _is_one_thing(self) -> "Arm":
        given = [key for key in ("grow", "stages", "scratch") if getattr(self, key) is not None]
        if len(given) != 1:
            what = "exactly one of grow, stages and scratch"
            raise refusal([((given[-1] if given else "grow",), " and ".join(given) or None, what)])
        if self.scratch and self.base:
            raise refusal([(("base",), self.base, "none: an arm from scratch has no base")])
        if self.scratch == "equal-compute" and "tokens" in self.train:
            what = "none: equal-compute says on how many it trains"
            raise refusal([(("train", "tokens"), self.train["tokens"], what)])
        if self.optimizer is not None and not self.scratch:
            what = "none: an arm goes on with the optimizer of its base, bases.NAME.optimizer"
            raise refusal([(("optimizer",), "...", what)])
        return self


def _number(value: Any) -> float:
    """Return a number as YAML has it; 0 for what is none."""
    found = number(value)
    is_one = isinstance(found, int | float) and not isinstance(found, bool)
    return float(found) if is_one else 0.0
