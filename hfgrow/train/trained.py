"""What a run has made, and a run as a function of Python."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hfgrow.checkpoint.files import LocalFolder
from hfgrow.console import count, duration, usual_progress
from hfgrow.errors import UsageError
from hfgrow.hub.client import HubClient
from hfgrow.lineage.reading import manifest_of
from hfgrow.lineage.records import Evaluated


@dataclass(frozen=True, slots=True)
class Trained:
    """What a run has made.

    Attributes:
        folder: Where the model lies.
        name: What it is called.
        num_hidden_layers: Its layers.
        num_parameters: Its parameters.
        tokens: Tokens that the trainings of its chain took.
        seconds: What their steps took.
        losses: What the last training made of each held-out text.
        url: Where it was pushed, if it was.
    """

    folder: Path
    name: str
    num_hidden_layers: int
    num_parameters: int
    tokens: int
    seconds: float
    losses: tuple[Evaluated, ...]
    url: str | None = None

    def __repr__(self) -> str:
        losses = ", ".join(
            f"{one.label} {one.before:.4f} -> {one.after:.4f}" for one in self.losses
        )
        return (
            f"Trained({self.name}: {self.num_hidden_layers} layers, {count(self.num_parameters)} "
            f"parameters; {count(self.tokens)} tokens in {duration(self.seconds)}; {losses}; "
            f"{self.folder})"
        )


def trained(folder: str | Path, url: str | None = None) -> Trained:
    """Return what a run has made of the model in a folder.

    Raises:
        ModelError: It has no lineage, or none with a training.
    """
    manifest = manifest_of(LocalFolder(Path(folder)))
    trainings, made = manifest.trainings, manifest.link.result
    return Trained(
        folder=Path(folder),
        name=made.name,
        num_hidden_layers=made.num_hidden_layers,
        num_parameters=made.num_parameters,
        tokens=sum(link.compute.tokens for link in trainings),
        seconds=sum(link.compute.seconds or 0.0 for link in trainings),
        losses=trainings[-1].evaluations if trainings else (),
        url=url,
    )


def train(
    recipe: str | Path | Mapping[str, Any],
    *,
    overrides: Sequence[str] = (),
    resume: bool = False,
    on_cpu: bool = False,
    quiet: bool = False,
    token: str | None = None,
) -> Trained:
    """Grow and train a model as a recipe says, in this process, and return what came of it.

    What is said goes to stderr, as that of `hfgrow train` does.

    Args:
        recipe: A file, a recipe of hfgrow's, a run, a trained model, or the keys themselves.
        overrides: Values put in, each `path=value`: `stages.0.train.tokens=2M`.
        resume: Whether a run that lies in the output goes on.
        on_cpu: Whether accelerators are left alone.
        quiet: Whether nothing is said.
        token: The Hub token; None takes the environment's or the logged-in one.

    Raises:
        GrowthError: Anything that the user can act on.
    """
    # Only now: torch takes seconds, and what was trained is told without it.
    from hfgrow.train.again import recipe_file
    from hfgrow.train.recipe.files import with_overrides
    from hfgrow.train.recipe.recipe import load_recipe, recipe_of
    from hfgrow.train.run import Job, run_recipe

    if isinstance(recipe, Mapping):
        asked = recipe_of(with_overrides(recipe, overrides))
    else:
        with recipe_file(str(recipe), HubClient(token=token), usual_progress()) as file:
            asked = load_recipe(file, overrides)
    if asked.world.processes > 1:
        raise UsageError(
            f"world.processes is {asked.world.processes}, and Python is one process",
            hint="hfgrow train starts several",
        )
    job = Job(recipe=asked, resume=resume, on_cpu=on_cpu, quiet=quiet, token=token)
    result = run_recipe(job)
    return trained(result["folder"], result.get("url"))
