"""A stage of growth by learned maps: they are learned from the text of the run."""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from torch import device

from hfgrow.checkpoint.files import LocalFolder
from hfgrow.checkpoint.read import read
from hfgrow.checkpoint.staging import translated
from hfgrow.console import Progress
from hfgrow.errors import printable
from hfgrow.train.data.corpus import Corpus
from hfgrow.train.growth_settings import learning_of
from hfgrow.train.learn.maps import completed, learn_maps, text_of
from hfgrow.train.recipe import Recipe
from hfgrow.train.recipe_stages import Grow
from hfgrow.train.texts import text_source


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
