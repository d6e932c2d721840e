"""A study as its YAML file says it: arms and seeds with one target, one text and one schedule.

`like: OTHER` takes everything but name, question and arms from another study; `sizes` are what
changes with the machine, one of which is put in. What an arm has in common with every training
recipe (`data`, `optimizer`, `train`, ...) is passed on as it stands, and checked where the recipe
of its runs is made.

Source: Du et al. 2024, "Stacking Your Transformers", https://arxiv.org/abs/2405.15319, Sec. 3
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, JsonValue, ValidationError, model_validator

from hfgrow.errors import UsageError, argument, printable
from hfgrow.plan.operators.operator import MAX_SEED
from hfgrow.train.recipe.fields import (
    NotNegative,
    Part,
    Text,
    Tokens,
    check_one,
    expected,
    number,
    refusal,
    refused,
)
from hfgrow.train.recipe.files import read_recipe, with_overrides

_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{0,39}", re.ASCII)
_SHARE = "share"
_A_SHARE = "a share of the study's tokens, above 0 and below 1"
FOLDER = "studies"
_SIZES, _LIKE = "sizes", "like"
# What a study does not take over from the one that it is like.
_OWN = ("name", "question", "arms", "reference")
Seed = Annotated[int, Field(ge=0, le=MAX_SEED)]


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

# An arm of random weights that costs what the dearest of the others does.
EQUAL_COMPUTE = "equal-compute"


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
        check_one(self, "train", "grow")
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
        if self.scratch == EQUAL_COMPUTE and "tokens" in self.train:
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


class StudyRecipe(Part):
    """A study, checked in itself.

    Attributes:
        name: What it is called.
        question: What it asks, and where that comes from, for the report.
        size: Which of its sizes this is.
        hardware: What this size is made for.
        tokenizer: The model whose tokenizer is used.
        model: The config of the target, which every arm ends as.
        bases: What arms grow from, by name.
        base_tokens: `d`, what they are trained on.
        data: As in a recipe.
        batch_tokens: As in a recipe.
        micro_batch_size: As in a recipe.
        optimizer: As in a recipe.
        precision: As in a recipe.
        checkpoint: As in a recipe.
        evaluation: As in a recipe.
        activation_checkpointing: As in a recipe.
        compile: As in a recipe.
        world: As in a recipe.
        base_train: A stage of training without its tokens: how bases are trained.
        train: A stage of training: how the target is trained after growth, and from scratch;
            `tokens` is `D`.
        arms: The ways to the target, by name.
        reference: The arm that the others are compared with; by default the first from scratch.
        seeds: Each arm runs once for each.
    """

    name: Name
    question: Annotated[str, Field(max_length=4096)] = ""
    size: Name = "only"
    hardware: Text | None = None
    tokenizer: Text
    model: Settings
    bases: Annotated[dict[Name, Base], Field(max_length=100)] = NO_BASES
    base_tokens: Tokens | None = None
    data: Settings
    batch_tokens: JsonValue
    micro_batch_size: JsonValue
    optimizer: Settings = NOTHING
    precision: JsonValue = "bf16"
    checkpoint: Settings = NOTHING
    evaluation: Settings = NOTHING
    activation_checkpointing: bool = False
    compile: bool = False
    world: Settings = NOTHING
    base_train: Settings = NOTHING
    train: Settings
    arms: Annotated[dict[Name, Arm], Field(min_length=1, max_length=100)]
    reference: Name | None = None
    seeds: Annotated[tuple[Seed, ...], Field(strict=False, min_length=1, max_length=100)] = (0,)

    @model_validator(mode="after")
    def _fits_together(self) -> "StudyRecipe":
        faults: list[tuple[tuple[int | str, ...], Any, str]] = []
        names = ", ".join(self.bases) or "none"
        for name, arm in self.arms.items():
            if arm.scratch is None and self.base_of(arm) not in self.bases:
                faults.append((("arms", name, "base"), arm.base, f"one of bases: {names}"))
        if self.base_tokens is None and any(base.factor for base in self.bases.values()):
            faults.append((("base_tokens",), None, "the tokens that bases are trained on"))
        if not any(arm.scratch is None for arm in self.arms.values()):
            what = "target: without an arm that grows there is no compute to be equal to"
            faults += [
                (("arms", name, "scratch"), arm.scratch, what)
                for name, arm in self.arms.items()
                if arm.scratch == EQUAL_COMPUTE
            ]
        names_of_bases = {f"base-{name}" for name in self.bases}
        faults += [
            (("arms",), name, f"another name: {name} is the run of a base")
            for name in self.arms
            if name in names_of_bases
        ]
        if self.reference is not None and self.reference not in self.arms:
            faults.append((("reference",), self.reference, f"one of {', '.join(self.arms)}"))
        if len(set(self.seeds)) < len(self.seeds):
            faults.append((("seeds",), list(self.seeds), "every seed once"))
        if faults:
            raise refusal(faults)
        return self

    def base_of(self, arm: Arm) -> str | None:
        """Return the name of what an arm grows from: its own, or the only one."""
        only = next(iter(self.bases)) if len(self.bases) == 1 else None
        return arm.base or only

    @property
    def compared_with(self) -> str | None:
        """The arm that the others are compared with; None without an arm from scratch."""
        scratch = (name for name, arm in self.arms.items() if arm.scratch)
        return self.reference or next(scratch, None)


def load_study(
    study: str | Path, overrides: Sequence[str] = (), *, size: str | None = None
) -> StudyRecipe:
    """Read a study.

    Args:
        study: A file, or the name of a study that travels with hfgrow.
        overrides: Values put in, each `path=value`.
        size: Which of its sizes; by default the first.

    Raises:
        UsageError: There is none, it is no YAML, or says what cannot be.
    """
    where = f"the study {printable(study, 200)}"
    content = _of_size(_complete(read_recipe(study, FOLDER), study, where), size, where)
    content = with_overrides(content, overrides)
    try:
        return StudyRecipe.model_validate(content)
    except ValidationError as error:
        raise refused(error, content, where) from None


def check_arms(study: StudyRecipe, arms: frozenset[str] | None) -> None:
    """Refuse arms that a study does not have.

    Args:
        arms: Their names; None takes all.

    Raises:
        UsageError: There is no such arm, or none is named.
    """
    known = study.arms
    for arm in sorted((arms or frozenset()) - known.keys()):
        raise UsageError(
            f"the study has no arm {printable(arm)}", hint=f"it has {', '.join(known)}"
        )
    if arms is not None and not arms:
        raise UsageError("no arm is left", hint=f"the study has {', '.join(known)}")


def _complete(content: dict[Any, Any], study: str | Path, where: str) -> dict[Any, Any]:
    """Return a study with what it takes over from the one that it is like."""
    like = content.get(_LIKE)
    if like is None:
        return content
    beside = Path(study).expanduser().parent / str(like)
    other = read_recipe(beside if beside.is_file() else str(like), FOLDER)
    if _LIKE in other:
        raise UsageError(f"{where} is like {printable(like)}, which is itself like another")
    taken = _not_own(other)
    if isinstance(sizes := taken.get(_SIZES), dict):
        taken[_SIZES] = {
            name: _not_own(size) if isinstance(size, dict) else size for name, size in sizes.items()
        }
    return _merged(taken, {key: value for key, value in content.items() if key != _LIKE})


def _not_own(content: Mapping[Any, Any]) -> dict[Any, Any]:
    return {key: value for key, value in content.items() if key not in _OWN}


def _of_size(content: dict[Any, Any], size: str | None, where: str) -> dict[Any, Any]:
    """Return a study with one of its sizes put in."""
    result = {key: value for key, value in content.items() if key != _SIZES}
    sizes: Any = content.get(_SIZES)
    if sizes is None:
        if size is not None:
            raise UsageError(f"{where} has no sizes", hint=f"leave out {argument('size')}")
        return result
    if not isinstance(sizes, dict) or not all(isinstance(v, dict) for v in sizes.values()):
        raise UsageError(f"{where}: sizes is no mapping of names to what they change")
    chosen = next(iter(sizes), "") if size is None else size
    if chosen not in sizes:
        listed = ", ".join(map(printable, sizes))
        raise UsageError(f"{where} has no size {printable(chosen)}", hint=f"it has {listed}")
    changes: Mapping[Any, Any] = sizes[chosen]
    return _merged(result, {"size": chosen, **changes})


def _merged(content: Mapping[Any, Any], changes: Mapping[Any, Any]) -> dict[Any, Any]:
    """Return a mapping with another put over it, mapping by mapping; lists are replaced."""
    result = dict(content)
    for key, value in changes.items():
        old = result.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            value = _merged(old, value)
        result[key] = value
    return result
