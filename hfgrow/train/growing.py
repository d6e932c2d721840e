"""A stage of growth inside a run: on disk, by the operators and the writer of the command line.

Maps are learned from the text of the run, and the optimizer's state grows with the model.
"""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import device

from hfgrow.checkpoint.compute.moments import grow_optimizer_state
from hfgrow.checkpoint.files import LocalFolder
from hfgrow.checkpoint.read import read
from hfgrow.checkpoint.staging import translated
from hfgrow.console import Progress
from hfgrow.data.corpus import Corpus
from hfgrow.errors import GrowthError, printable
from hfgrow.growth.grow import grow
from hfgrow.growth.request import GrowthRequest
from hfgrow.growth.steps import planned
from hfgrow.lineage.manifest import Link
from hfgrow.lineage.reading import read_manifest
from hfgrow.train.checkpoints import Checkpoint, group_state_of, read_optimizer
from hfgrow.train.learn.command import completed, learn_maps, text_of
from hfgrow.train.parameter_names import state_in_files
from hfgrow.train.recipe.parts import text_source
from hfgrow.train.recipe.recipe import Recipe, learning_of
from hfgrow.train.recipe.stages import Grow


@dataclass(frozen=True, slots=True)
class Learner:
    """Learns the maps of growths inside a run.

    Attributes:
        recipe: The recipe of the run.
        corpus: Its text.
        device: Where to compute.
        folder: Where maps lie until a model is made of them.
        progress: Told how it goes on.
    """

    recipe: Recipe
    corpus: Corpus
    device: device
    folder: Path
    progress: Progress

    @contextmanager
    def learned(self, base: Path, asked: Grow) -> Iterator[tuple[Mapping[str, object], Path]]:
        """Learn the maps of a growth.

        Args:
            base: The folder of the model that grows.
            asked: What the recipe says.

        Yields:
            The arguments of the step, with what came out, and the folder where its maps lie for as
            long as the context lasts.

        Raises:
            GrowthError: They cannot be learned or written.
        """
        plan, recipe = read(LocalFolder(base)), self.recipe
        arguments = learning_of(asked, recipe)
        text = text_of([text_source(source) for source in recipe.data.train])
        shutil.rmtree(self.folder, ignore_errors=True)
        try:
            with translated(printable(self.folder, 200)):
                self.folder.mkdir(parents=True)
                arguments = learn_maps(
                    plan,
                    completed(arguments, plan),
                    self.corpus,
                    text,
                    self.folder,
                    self.device,
                    self.progress,
                )
            yield arguments.recorded, self.folder
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class Grown:
    """A growth that a run has done.

    Attributes:
        grow: What the recipe says of it.
        base: The folder it grew from.
        out: The folder it made.
    """

    grow: Grow
    base: Path
    out: Path


def grow_stage(
    stage: Grow, model: str, base: Path, out: Path, dtype: str | None, learner: Learner
) -> None:
    """Grow a model folder into another.

    Args:
        stage: What the recipe says.
        model: The model: a folder, or what the recipe names.
        base: The folder where it lies.
        out: The folder to make.
        dtype: Convert every tensor; None keeps them.
        learner: Learns the maps of a growth where that is the operator, and is told how it goes on.

    Raises:
        GrowthError: The growth cannot be, or cannot be written.
    """
    # Beside a training hashes cost nothing, and with them the growth is proved and can be undone.
    request = GrowthRequest(
        model=model, steps=[stage.step], out=out, dtype=dtype, record_hashes=True
    )
    if not stage.needs_maps:
        grow(request, learner.progress)
        return
    with learner.learned(base, stage) as (arguments, maps):
        grow(replace(request, steps=[(stage.operator, arguments)], maps=maps), learner.progress)


def carried_state(
    growths: Sequence[Grown], checkpoint: Checkpoint
) -> tuple[Mapping[str, Any], Sequence[Mapping[str, Any]]]:
    """Return what is left of the optimizer after growth.

    Args:
        growths: The growths since the last training, in order.
        checkpoint: The last one of that training.

    Returns:
        The state by the grown names in files, and what the groups keep; both empty where it begins
        anew.

    Raises:
        GrowthError: The state does not fit the model that grew.
    """
    state: Mapping[str, Any] = read_optimizer(checkpoint)
    if growths:
        first = growths[0].base
        state = state_in_files(first, state, read(LocalFolder(first)))
    is_beside_weights = any("z" in entry for entry in state.values())
    for growth in growths:
        plan = planned(read(LocalFolder(growth.base)), [growth.grow.step], is_draft=True)
        state = grow_optimizer_state(
            plan,
            state,
            growth.grow.optimizer_state,
            base_weights=_weights(growth.base) if is_beside_weights else None,
            grown_weights=_weights(growth.out) if is_beside_weights else None,
        )
    if not all(growth.grow.optimizer_state == "copy" for growth in growths):
        return state, ()
    return state, group_state_of(checkpoint)


def last_growth(folder: Path) -> Link | None:
    """Return the last growth in a model's lineage, whatever was trained since; None without."""
    try:
        manifest = read_manifest(folder)
    except GrowthError:
        return None
    return manifest.last_growth if manifest else None


def _weights(folder: Path) -> dict[str, Any]:
    """Read all weights of a folder as float32."""
    from safetensors.torch import load_file

    return {
        name: tensor.float()
        for path in sorted(folder.glob("*.safetensors"))
        for name, tensor in load_file(path).items()
    }
