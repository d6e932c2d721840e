"""The folder of a run: what lies where, what it was begun with, and what it can go on with.

recipe.yaml       the recipe, every default spelt out
run.json          what a run must share with the one that it resumes
tokens/           text, tokenised once
stages/NN/NAME    the model after each stage but the last, float32
checkpoints/      the state of training
metrics.jsonl     the record
.trackers/        what trackers keep in files
final/            the model, as it is published
"""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from hfgrow.checkpoint.files import MANIFEST, RECIPE, RUN, TRAINED
from hfgrow.checkpoint.staging import replace_text, translated
from hfgrow.data.token_folder import INDEX
from hfgrow.errors import GrowthError, OutputError, TrainingError, argument, printable
from hfgrow.lineage.manifest import TrainingLink
from hfgrow.lineage.reading import read_manifest
from hfgrow.train.identity import differences, is_same_so_far, refusal
from hfgrow.train.recipe.recipe import Recipe

METRICS = "metrics.jsonl"


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The folder of a run.

    Attributes:
        path: Where it lies.
    """

    path: Path

    @property
    def checkpoints(self) -> Path:
        """Where checkpoints lie."""
        return self.path / "checkpoints"

    @property
    def tokens(self) -> Path:
        """Where tokenised text lies."""
        return self.path / "tokens"

    @property
    def final(self) -> Path:
        """The finished model."""
        return self.path / TRAINED

    @property
    def is_finished(self) -> bool:
        """Whether the finished model is there.

        Raises:
            TrainingError: Something else is.
        """
        if not os.path.lexists(self.final):
            return False
        if not (self.final / MANIFEST).is_file():
            raise TrainingError(
                f"{printable(self.final, 200)} is not the finished model of the run",
                hint="move it somewhere else",
            )
        return True

    @property
    def fresh(self) -> Path:
        """The model of random weights that a run without a base begins with."""
        return self.path / "stages" / "base"

    @property
    def maps(self) -> Path:
        """Where the maps of a growth lie that is being learned."""
        return self.path / "stages" / "maps"

    @property
    def trackers(self) -> Path:
        """Where trackers put what they keep in files."""
        return self.path / ".trackers"

    def stage(self, number: int, name: str) -> Path:
        """Return where the model after a stage lies."""
        return self.path / "stages" / f"{number:02d}" / name

    @property
    def holds_a_run(self) -> bool:
        """Whether there is something to go on with: a checkpoint, or a model that was trained."""
        return self.final.exists() or any(self.checkpoints.glob("step-*")) or self.last_trained >= 0

    @property
    def holds_a_record(self) -> bool:
        """Whether a run has begun here and has written down what it did."""
        return (self.path / RUN).is_file() and (self.path / METRICS).is_file()

    @property
    def last_trained(self) -> int:
        """The number of the last stage whose trained model lies in `stages`, or -1."""
        return max(
            (n for n, folder in self._stages() if any(map(_training_of, folder.glob("[!.]*")))),
            default=-1,
        )

    def trained_tokens(self, number: int) -> int:
        """Return on how many tokens the model of a stage was trained, as its lineage says.

        Raises:
            TrainingError: There is no such model.
        """
        for folder in (self.path / "stages" / f"{number:02d}").glob("[!.]*"):
            if (link := _training_of(folder)) is not None:
                return link.compute.tokens
        raise TrainingError(
            f"the model after stage {number} is gone", hint="begin the run anew in another output"
        )

    def check_free(self, *, resume: bool) -> None:
        """Refuse a folder that no run can begin in.

        Args:
            resume: Whether a run that lies there goes on.

        Raises:
            OutputError: It holds a run that is not to go on, or something else; or its tokens would
                be written into somebody's folder.
        """
        shown = printable(self.path, 200)
        self._check_tokens()
        if self.holds_a_run:
            if resume:
                return
            raise OutputError(
                f"{shown} holds a run already",
                hint=f"add {argument('resume')} to go on with it, or choose another output",
            )
        with translated(shown):
            if self.path.exists() and (not self.path.is_dir() or any(self._strangers())):
                raise OutputError(
                    f"{shown} exists and is no folder of a run", hint="choose another output"
                )

    def _check_tokens(self) -> None:
        """Refuse a link to a folder that holds anything but tokens; a study links to its own."""
        if not self.tokens.is_symlink():
            return
        with translated(printable(self.tokens, 200)):
            found = list(self.tokens.iterdir()) if self.tokens.exists() else []
        strangers = sorted(
            path.name for path in found if path.name[0] != "." and not (path / INDEX).is_file()
        )
        if strangers:
            raise OutputError(
                f"{printable(self.tokens, 200)} is a link to "
                f"{printable(self.tokens.resolve(), 200)}, which holds {printable(strangers[0])} "
                "and not tokens alone",
                hint="remove the link, or choose another output",
            )

    def begin(self) -> None:
        """Make the folder of a new run; what a run left that never saved a checkpoint is removed.

        Raises:
            OutputError: It holds a run, or something else.
        """
        self.check_free(resume=False)
        with translated(printable(self.path, 200)):
            self.path.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(self.path / "stages", ignore_errors=True)
            (self.path / METRICS).unlink(missing_ok=True)
            replace_text(self.path / RUN, "{}\n")

    def leave_mark(self) -> Path:
        """Write an empty file of a name that nobody has asked for yet, and return where it is."""
        mark = self.path / f".seen-{uuid4().hex}"
        with translated(printable(mark, 200)):
            mark.touch()
        return mark

    def record(self, identity: Mapping[str, Any], recipe: Recipe) -> None:
        """Write down what the run is carried out with."""
        with translated(printable(self.path, 200)):
            # In this order: a recipe beside no run is somebody else's.
            replace_text(self.path / RUN, json.dumps(identity, indent=2) + "\n")
            replace_text(self.path / RECIPE, recipe.to_yaml())

    def check(
        self,
        identity: Mapping[str, Any],
        recipe: Recipe,
        *,
        stage: int,
        stage_steps: int,
        allow_world_change: bool,
    ) -> tuple[str, ...]:
        """Compare what the run was begun with with what it is to go on with.

        Models that grew in later stages, which are others now, are removed.

        Args:
            identity: What it is to go on with.
            recipe: The recipe of that.
            stage: The stage that it stands in; later ones may be others than they were.
            stage_steps: The steps of the stage that are done.
            allow_world_change: Whether the number of processes may be another.

        Returns:
            The names of the models that were removed.

        Raises:
            TrainingError: They differ in something that the result depends on.
        """
        is_finished = self.is_finished
        own = stage
        stage = max(stage, self.last_trained)
        before = self.begun_with()
        differing = differences(before, identity, recipe)
        later: list[int] = []
        if not is_finished:
            later = [one.stage for one in differing if one.stage > stage]
            differing = [one for one in differing if one.stage <= stage]
            if own > self.last_trained and is_same_so_far(before, recipe, own, stage_steps):
                differing = [one for one in differing if one.stage < stage or not one.is_ahead]
        if allow_world_change:
            differing = [one for one in differing if not one.is_of_the_world]
        if differing:
            raise refusal(differing, self.final, is_finished=is_finished)
        return self._remove_stages_from(min(later)) if later else ()

    def begun_with(self) -> dict[str, Any]:
        """Return what the run was begun with.

        Raises:
            TrainingError: It cannot be read.
        """
        try:
            before = json.loads((self.path / RUN).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise TrainingError(
                f"{RUN} of the run cannot be read", hint="choose another output"
            ) from error
        if not isinstance(before, dict):
            raise TrainingError(f"{RUN} of the run is damaged", hint="choose another output")
        return before

    def _strangers(self) -> Iterator[Path]:
        """Yield what lies in the folder and was not left there by a run that never began."""
        ours = {RUN, "tokens"}
        if (self.path / RUN).exists():
            ours |= {RECIPE, METRICS, "stages", "checkpoints"}
        return (p for p in self.path.iterdir() if p.name not in ours and p.name[0] != ".")

    def _stages(self) -> list[tuple[int, Path]]:
        """Return the folders of stages with their numbers."""
        found = self.path.glob("stages/*")
        return [(int(f.name), f) for f in found if f.name.isdecimal() and f.is_dir()]

    def _remove_stages_from(self, number: int) -> tuple[str, ...]:
        removed = []
        with translated(printable(self.path, 200)):
            for at, folder in self._stages():
                if at >= number:
                    removed += [
                        f"stages/{folder.name}/{path.name}" for path in folder.glob("[!.]*")
                    ]
                    shutil.rmtree(folder)
        return tuple(sorted(removed))


def _training_of(folder: Path) -> TrainingLink | None:
    """Return what a model that lies there was made by, if that is training."""
    try:
        manifest = read_manifest(folder)
    except GrowthError:
        return None
    link = None if manifest is None else manifest.link
    return link if isinstance(link, TrainingLink) else None


def run_name(recipe: Recipe) -> str:
    """Return the name of a run: that of its folder."""
    return printable(Path(recipe.output).expanduser().absolute().name, 200)
