"""The checkpoints of a run: when its state is kept, and what a stage begins with."""

from collections.abc import Sequence

from hfgrow.console import Progress
from hfgrow.errors import TrainingError
from hfgrow.train.devices import Devices
from hfgrow.train.growing import Grown, carried_state
from hfgrow.train.position import Position
from hfgrow.train.run_folder import RunFolder
from hfgrow.train.saved import (
    MODEL,
    OPTIMIZER,
    flat,
    group_state,
    group_state_of,
    model_tensors,
    optimizer_state,
    put_model,
    put_optimizer,
    read_optimizer,
)
from hfgrow.train.stage import Stage, begin_with
from hfgrow.train.state import Checkpoint, latest_checkpoint, save_checkpoint


class Keeper:
    """Saves the state of a run and puts it back.

    Args:
        folder: The folder of the run.
        devices: The processes.
        progress: Told what is passed over.
        keep: How many checkpoints stay.
    """

    def __init__(
        self, folder: RunFolder, devices: Devices, progress: Progress, *, keep: int
    ) -> None:
        self._folder, self._devices, self._progress = folder, devices, progress
        self._keep = keep
        self._latest: Checkpoint | None = None

    def latest(self) -> Checkpoint | None:
        """Return the newest checkpoint that is whole; one process has looked at every byte."""
        if self._latest is None:
            self._latest = self._devices.shared(
                lambda: latest_checkpoint(self._folder.checkpoints, self._progress)
            )
        return self._latest

    def save(self, stage: Stage, at: Position) -> None:
        """Save where a stage stands.

        Raises:
            OutputError: It cannot be written; older checkpoints are as they were.
        """
        is_main = self._devices.is_main
        files = {
            MODEL: model_tensors(stage.model, keep=is_main),
            OPTIMIZER: flat(optimizer_state(stage.model, stage.optimizer, keep=is_main)),
        }
        state = {"position": at.to_json(), "groups": group_state(stage.optimizer)}
        self._devices.on_main(
            lambda: save_checkpoint(
                self._folder.checkpoints, at.step, files, state, keep=self._keep
            )
        )
        self._latest = None

    def restore(self, stage: Stage, at: Position, growths: Sequence[Grown]) -> None:
        """Put a stage where the run stands.

        Args:
            stage: The stage, as its model folder left it.
            at: Where the run stands: inside the stage, or just before it.
            growths: The growths since the last training.

        Raises:
            TrainingError: What it needs is not there.
        """
        is_carried = any(growth.grow.optimizer_state != "reset" for growth in growths)
        if not at.stage_step and not is_carried:
            return
        checkpoint = self.latest()
        if checkpoint is None or Position.of_json(checkpoint.state.get("position")).step != at.step:
            raise TrainingError(
                f"the checkpoint of step {at.step} is gone",
                hint="begin the run anew in another output",
            )
        if at.stage_step:
            put_model(stage.model, checkpoint.tensors(MODEL))
            groups = group_state_of(checkpoint)
            put_optimizer(stage.model, stage.optimizer, read_optimizer(checkpoint), groups)
        else:
            state, groups_kept = carried_state(growths, checkpoint)
            begin_with(stage, state, groups_kept)
