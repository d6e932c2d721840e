"""A stage of training as it stands ready: model, optimizer, schedule, mask."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from hfgrow.checkpoint.derived.skeleton import layers_of
from hfgrow.checkpoint.files import LocalFolder
from hfgrow.checkpoint.read import read
from hfgrow.data.order import check_sequence_length
from hfgrow.errors import ModelError, TrainingError, foreign, printable
from hfgrow.growth.loading import loaded_model, transformers_config
from hfgrow.growth.mask import GrowthMask, attach_mask
from hfgrow.lineage.manifest import Link
from hfgrow.plan.families import FAMILIES
from hfgrow.plan.plan import GrowthPlan, LayerSource
from hfgrow.plan.undo import Kept
from hfgrow.train.attention import BatchMasks, use_causal_attention
from hfgrow.train.cpu_products import use_fast_products
from hfgrow.train.devices import Devices
from hfgrow.train.kept import PartlyNew, kept_of
from hfgrow.train.loss import NextTokenLoss
from hfgrow.train.mup import Multiples
from hfgrow.train.optimizers import (
    ParameterGroup,
    make_optimizer,
    only_new,
    parameter_groups,
    partly_new,
)
from hfgrow.train.parameter_names import Names, names_of, state_in_memory
from hfgrow.train.recipe.recipe import Recipe
from hfgrow.train.recipe.stages import Train
from hfgrow.train.schedules import Schedule, new_schedule_of, schedule_of


@dataclass(frozen=True, eq=False)
class Stage:
    """A stage of training, ready.

    Attributes:
        train: What the recipe says of it.
        plan: The model that it begins with, in its files.
        names: What the parameters are called there.
        model: The transformers model, whose parameters are float32.
        module: The loss module around it, wrapped or sharded; what is called.
        optimizer: The optimizer.
        schedule: The learning rate.
        new_schedule: That of what the last growth added; None where it is the same.
        masks: The attention masks of batches.
        growth_mask: What opens while training, after growth at random.
        partly_new: The tensors that the last growth added to.
    """

    train: Train
    plan: GrowthPlan
    names: Names
    model: Any
    module: Any
    optimizer: Any
    schedule: Schedule
    new_schedule: Schedule | None
    masks: BatchMasks
    growth_mask: GrowthMask | None
    partly_new: PartlyNew

    @property
    def trained_parameters(self) -> list[Any]:
        """The parameters that train."""
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    @property
    def learning_rates(self) -> list[float]:
        """What its groups train with at this step, each rate once, the lowest first."""
        return sorted({float(group["lr"]) for group in self.optimizer.param_groups})

    def open_mask(self, tokens: int) -> None:
        """Open the mask as far as it is after so many tokens of the stage."""
        if self.growth_mask is not None:
            ramp = self.train.mask_ramp_tokens
            self.growth_mask.value = 1.0 if tokens >= ramp else tokens / ramp


def load_model(folder: Path) -> Any:
    """Load a model for training: float32, no code of the folder runs.

    Its attention is ours, or of a derived family its own.

    Raises:
        ModelError: transformers cannot load it.
    """
    shown = printable(folder.name)
    with foreign(lambda said: ModelError(f"transformers cannot load {shown}: {said}")):
        model = loaded_model(folder, transformers_config(folder), dtype=torch.float32)
    model.config.use_cache = False
    use_causal_attention(model)
    if model.config.model_type in FAMILIES:
        # Other models may write into what a product has given them.
        use_fast_products(model)
    return model.train()


def make_stage(
    recipe: Recipe,
    train: Train,
    folder: Path,
    devices: Devices,
    *,
    layer_map: Sequence[LayerSource] | None,
    kept: Mapping[str, Kept] | None,
    masked_by: Link | None,
    multiples: Mapping[str, Multiples] | None = None,
) -> Stage:
    """Load a stage's model and make all that trains it.

    Args:
        folder: The model that the stage begins with.
        layer_map: That of the last growth, if there was one.
        kept: Which entries are older than that, where it grew a width.
        masked_by: The growth whose mask opens in this stage, if one does.
        multiples: How much wider its tensors are than what the rates are said for; None is not.

    Raises:
        ModelError: transformers cannot load the model.
        UsageError: What is to train matches nothing, or the model lacks positions.
    """
    model, plan = load_model(folder), read(LocalFolder(folder))
    names = names_of(model, plan)
    settings = model.config.get_text_config(decoder=True)
    positions = getattr(settings, "max_position_embeddings", None)
    if positions is not None:
        check_sequence_length(recipe.data.sequence_length, positions)
    growth_mask = None if masked_by is None else attach_mask(model, masked_by, 0.0)
    if recipe.activation_checkpointing:
        _checkpoint_activations(model)
    if recipe.compile:
        for layer in layers_of(model):
            layer.compile(dynamic=False)
    # Before the model is wrapped, which looks at what trains, and once more for what sharding put
    # in its parameters' place.
    _groups(model, train, layer_map, kept, multiples, names)
    module = devices.distribute(NextTokenLoss(model, is_compiled=recipe.compile))
    groups = _groups(model, train, layer_map, kept, multiples, names)
    parts = partly_new(kept) if train.looks_at_growth else {}
    trained = {
        name: parameter
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and names.of(name)[0] in parts
    }
    older = {name: kept_of(names.of(name), parts) for name in trained}
    return Stage(
        train=train,
        plan=plan,
        names=names,
        model=model,
        module=module,
        optimizer=make_optimizer(recipe.optimizer, groups),
        schedule=schedule_of(train, recipe.batch_tokens),
        new_schedule=new_schedule_of(train, recipe.batch_tokens),
        masks=BatchMasks(model.config, recipe.data.sequence_length, devices.device),
        growth_mask=growth_mask,
        partly_new=PartlyNew(trained, older, is_frozen=only_new(train.trainable)),
    )


def _checkpoint_activations(model: Any) -> None:
    options = {"use_reentrant": False}
    if hasattr(model, "activation_checkpointing_enable"):
        model.activation_checkpointing_enable(activation_checkpointing_kwargs=options)
    else:
        # Its name in earlier releases of transformers 5.
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=options)


def _groups(
    model: Any,
    train: Train,
    layer_map: Sequence[LayerSource] | None,
    kept: Mapping[str, Kept] | None,
    multiples: Mapping[str, Multiples] | None,
    names: Names,
) -> tuple[ParameterGroup, ...]:
    return parameter_groups(
        model,
        learning_rate=train.learning_rate,
        trainable=train.trainable,
        layer_map=layer_map,
        kept=kept,
        new_learning_rate=train.new_learning_rate,
        new_warms_up=train.new_warmup is not None,
        embedding_learning_rate=train.embedding_learning_rate,
        multiples=multiples,
        names=names,
    )


def begin_with(stage: Stage, state: Mapping[str, Any], groups: Sequence[Mapping[str, Any]]) -> None:
    """Give a new stage the optimizer's state that growth carried over, but momentum of what stays.

    Args:
        stage: The stage, its parameters as growth left them.
        state: By names in the files of the model.
        groups: What the optimizer kept for its groups, to go on with the same average; empty begins
            a new one.

    Raises:
        TrainingError: The state is of other parameters.
    """
    from hfgrow.train.checkpoints import put_optimizer
    from hfgrow.train.schedule_free import ScheduleFreeAdamW

    named = dict(stage.model.named_parameters())
    state = state_in_memory(stage.model, state, stage.plan)
    for name, entry in state.items():
        for value in entry.values():
            if value.ndim and name in named and tuple(value.shape) != tuple(named[name].shape):
                raise TrainingError(f"the optimizer's state of {printable(name)} has another shape")
    put_optimizer(stage.model, stage.optimizer, state, groups)
    stage.partly_new.drop_momentum(stage.optimizer)
    if isinstance(stage.optimizer, ScheduleFreeAdamW):
        for group in stage.optimizer.param_groups:
            # Growth left the mean in the parameters; y lies between it and z.
            group["train_mode"] = False
        stage.optimizer.train()
