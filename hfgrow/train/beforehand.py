"""What is told and refused before torch is imported: a recipe in words, and what stops its run.

It takes a moment where the rest takes seconds: names, paths and the output are looked at here, and
again by the run itself, which may come later.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from hfgrow.data.sources import text_files_of
from hfgrow.errors import printable
from hfgrow.hub.client import HubClient
from hfgrow.hub.resolve import parse
from hfgrow.hub.search import UnknownNameError, with_candidates
from hfgrow.lineage.describe import describe_step
from hfgrow.train.cadence import cadence_line
from hfgrow.train.recipe.parts import text_source
from hfgrow.train.recipe.recipe import Recipe
from hfgrow.train.recipe.stages import Train
from hfgrow.train.run_folder import RunFolder


def check_beforehand(recipe: Recipe, client: HubClient, *, resume: bool) -> None:
    """Refuse a run whose base, tokenizer, text or output cannot be; nothing is fetched.

    Args:
        client: Asked what a name that nobody knows could mean.
        resume: Whether a run that lies in the output goes on.

    Raises:
        GrowthError: One of them cannot be.
    """
    check_inputs(recipe, client)
    RunFolder(Path(recipe.output).expanduser()).check_free(resume=resume)


def check_inputs(recipe: Recipe, client: HubClient) -> None:
    """Refuse a base, tokenizer or text that cannot be, wherever the output is.

    Args:
        recipe: As in `check_beforehand`.
        client: As in `check_beforehand`.

    Raises:
        GrowthError: One of them cannot be.
    """
    for name in (recipe.base, recipe.tokenizer):
        if isinstance(name, str):
            try:
                parse(name)
            except UnknownNameError as error:
                raise with_candidates(error, name, client) from None
    for source in (*recipe.data.train, *recipe.data.validation):
        text_files_of(text_source(source))


class StageModel(Protocol):
    """The model after a stage."""

    @property
    def number(self) -> int:
        """The stage, from 0."""
        ...

    @property
    def num_hidden_layers(self) -> int:
        """Its layers."""
        ...

    @property
    def num_parameters(self) -> int:
        """Its parameters."""
        ...

    @property
    def num_trained(self) -> int:
        """Those of them that train."""
        ...

    @property
    def rates(self) -> str:
        """What parametrization makes of the peak, in words."""
        ...


def recipe_lines(
    recipe: Recipe,
    models: Sequence[StageModel] = (),
    flops: Mapping[int, float] = MappingProxyType({}),
) -> Iterator[str]:
    """Yield what a recipe will do, stage by stage.

    Args:
        models: The model after each stage, if somebody looked.
        flops: What every stage of training costs, where that is known.
    """
    sizes = {
        model.number: f" to {model.num_hidden_layers} layers, {model.num_parameters:,} parameters"
        if recipe.stages[model.number].grow
        else f" {model.num_hidden_layers} layers, {model.num_parameters:,} parameters,"
        for model in models
    }
    rates = {model.number: f" ({model.rates})" for model in models if model.rates}
    trained = {model.number: model.num_trained for model in models}
    base = recipe.base if isinstance(recipe.base, str) else "a fresh model"
    yield f"{printable(base)} to {printable(recipe.output, 200)}"
    for number, stage in enumerate(recipe.stages):
        if stage.grow:
            grow = stage.grow
            step = describe_step(grow.operator, grow.arguments)
            kept = f"; optimizer state: {grow.optimizer_state}"
            cost = f"; {flops[number]:.3g} FLOPs" if number in flops else ""
            yield f"  stage {number}: grow by {printable(step)}{sizes.get(number, '')}{kept}{cost}"
        elif stage.train:
            train = stage.train
            steps = train.num_steps(recipe.batch_tokens)
            most = "at most " if train.until else ""
            cost = f"; {flops[number]:.3g} FLOPs" if number in flops else ""
            yield (
                f"  stage {number}: train{sizes.get(number, '')} on {most}{train.tokens:,} tokens, "
                f"{steps:,} steps of {recipe.batch_tokens:,}; {recipe.optimizer.name}, "
                f"{train.schedule}, learning rate {train.learning_rate:g}"
                f"{' by mup' if train.parametrization else ''}{rates.get(number, '')}"
                f"{_of_part(train, trained.get(number))}{_until(train)}{cost}"
            )
    yield f"  checkpoints: {cadence_line(recipe.checkpoint)}"


def _until(train: Train) -> str:
    """Say what ends a stage before its tokens are spent; nothing where nothing does."""
    if (until := train.until) is None:
        return ""
    return (
        f", until {until.evaluations} evaluations improve the held-out loss by less than "
        f"{until.plateau:g}"
    )


_PARTS = {
    "new": "what the last growth added",
    "new+embeddings": "what the last growth added, and the embeddings",
}
_MOST_PATTERNS = 3


def _of_part(train: Train, num_trained: int | None) -> str:
    """Say what alone trains, and what rises by itself; nothing where all train alike."""
    wanted = train.trainable
    own = {"new_learning_rate": train.new_learning_rate, "new_warmup": train.new_warmup}
    by_itself = "".join(f", {key} {value}" for key, value in own.items() if value is not None)
    if wanted == "all":
        return by_itself
    if isinstance(wanted, str):
        named, told = wanted, [_PARTS.get(wanted, "")]
    else:
        named, told = " ".join(wanted[:_MOST_PATTERNS]), []
        if len(wanted) > _MOST_PATTERNS:
            named += f" and {len(wanted) - _MOST_PATTERNS} more"
    told += [] if num_trained is None else [f"{num_trained:,} parameters"]
    meaning = f" ({': '.join(filter(None, told))})" if any(told) else ""
    return f", trainable {printable(named, 300)}{meaning}{by_itself}"
