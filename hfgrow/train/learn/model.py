"""The grown model as a function of its maps, with one grown layer in memory at a time.

Of the grown model there is a skeleton without weights. Each layer is called with the weights that
the maps make, inside a checkpoint: they are made for the forward pass, dropped, and made again for
the backward pass. Depth is mixed before width is mapped, one product of matrices for each side of a
tensor. Embeddings and head are never grown: the tokens' rows are mapped instead, and the last
hidden states are mapped back to the width of the base's head.

Source: Wang et al. 2023, "Learning to Grow Pretrained Models for Efficient Transformer Training",
https://arxiv.org/abs/2303.00980, Sec. 3
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

from hfgrow.checkpoint.compute.chunks import rows_of_files
from hfgrow.checkpoint.compute.products import mapped_columns, mapped_rows
from hfgrow.checkpoint.compute.state_dict import as_tensor
from hfgrow.checkpoint.files import opened
from hfgrow.data.batches import NO_TARGET, MicroBatch
from hfgrow.errors import ModelError, said
from hfgrow.growth.loading import config_of, skeleton
from hfgrow.plan.families import FAMILIES
from hfgrow.plan.families.table import layer_of
from hfgrow.plan.plan import GrowthPlan, stored_in
from hfgrow.plan.tensors import Learned, Recipe, Stored
from hfgrow.train.attention import BatchMasks, use_causal_attention
from hfgrow.train.loss import head_of, summed_cross_entropy

Maps = Mapping[str, Tensor]


class LearnedModel:
    """The grown model of a plan, its maps left open.

    Args:
        base: The plan of the base, as it was read.
        plan: The learned plan; a draft will do.
        sequence_length: Tokens of a sequence.
        device: Where to compute.
    """

    def __init__(
        self, base: GrowthPlan, plan: GrowthPlan, *, sequence_length: int, device: torch.device
    ) -> None:
        family = FAMILIES[plan.family]
        model = _skeleton(plan)
        self.config = model.config
        self._device = device
        self._layers = model.model.layers
        self._norm = model.model.norm
        self._rotary = type(model.model.rotary_emb)(config=self.config).to(device)
        self._masks = BatchMasks(self.config, sequence_length, device)
        self._head_of = head_of(self.config)
        self._recipes: list[dict[str, Recipe]] = [{} for _ in self._layers]
        for name, tensor in plan.tensors.items():
            found = layer_of(name)
            if found is not None:
                self._recipes[found[0]][found[1]] = tensor.recipe
        self._embeddings = plan.tensors[family.embeddings.tensor].recipe
        head = plan.tensors.get(family.head.tensor)
        self._head = self._embeddings if head is None else head.recipe
        self._gain = plan.tensors[family.final_norm.tensor].recipe
        self._frozen = _loaded(base, device)
        for recipe in {_source(self._embeddings), _source(self._head)}:
            self._frozen[recipe] = self._frozen[recipe].float()

    @property
    def num_layers(self) -> int:
        """Its layers, all of them grown."""
        return len(self._layers)

    def loss(
        self, batch: MicroBatch, maps: Maps, passed: Callable[[], None] = lambda: None
    ) -> tuple[Tensor, int]:
        """Return the summed loss of a batch in nats, and how many tokens it sums over.

        Args:
            batch: Tokens and targets, without a document mask.
            maps: Every map by name, on the device.
            passed: Called at each layer, and on the way back once more.
        """
        tokens, targets = batch.input_ids.to(self._device), batch.targets.to(self._device)
        hidden = self._frozen[_source(self._embeddings)][tokens]
        if isinstance(self._embeddings, Learned) and self._embeddings.cols is not None:
            hidden = hidden @ maps[self._embeddings.cols.name].T
        places = torch.arange(tokens.shape[1], device=self._device)[None]
        masks = self._masks.of(batch)
        told: dict[str, Any] = {
            "attention_mask": None,
            "position_ids": places,
            "position_embeddings": self._rotary(hidden, places),
            **({} if masks is None else {"attention_masks": masks}),
        }
        for i in range(len(self._layers)):
            hidden = checkpoint(self._layer, i, hidden, maps, told, passed, use_reentrant=False)
        gain = {"weight": self._grown(self._gain, maps)}
        hidden = functional_call(self._norm, gain, (hidden,), strict=True)
        if isinstance(self._head, Learned) and self._head.cols is not None:
            hidden = hidden @ maps[self._head.cols.name]
        total = summed_cross_entropy(
            hidden.flatten(0, 1),
            self._frozen[_source(self._head)],
            targets.flatten(),
            self._head_of,
        )
        return total, int((targets != NO_TARGET).sum())

    def layer_weights(self, i: int, maps: Maps) -> dict[str, Tensor]:
        """Return the weights of a grown layer, by their names inside it."""
        return {name: self._grown(recipe, maps) for name, recipe in self._recipes[i].items()}

    def _layer(
        self,
        i: int,
        hidden: Tensor,
        maps: Maps,
        told: dict[str, Any],
        passed: Callable[[], None],
    ) -> Tensor:
        # At its begin: on the way back it ends as soon as it has made what is needed.
        passed()
        weights = self.layer_weights(i, maps)
        output: Tensor = functional_call(self._layers[i], weights, (hidden,), told, strict=True)
        return output

    def _grown(self, recipe: Recipe, maps: Maps) -> Tensor:
        """Return a tensor that the maps make, float32."""
        if not isinstance(recipe, Learned):
            return self._frozen[_source(recipe)].float()
        layers = [self._frozen[_source(layer)] for layer in recipe.layers]
        if recipe.depth is None:
            numbers = layers[0].float()
        else:
            mix: Any = _Mix
            numbers = mix.apply(maps[recipe.depth.name][recipe.layer], *layers)
        if recipe.rows is not None:
            numbers = mapped_rows(maps[recipe.rows.name], numbers, recipe.row_unit)
        if recipe.cols is not None:
            numbers = mapped_columns(maps[recipe.cols.name], numbers, recipe.col_unit)
        return numbers


class _Mix(torch.autograd.Function):
    """The sum of layers times coefficients, which keeps neither products nor converted layers."""

    @staticmethod
    def forward(ctx: Any, coefficients: Tensor, *layers: Tensor) -> Tensor:
        ctx.layers = layers
        total = torch.zeros(layers[0].shape, dtype=torch.float32, device=layers[0].device)
        for coefficient, layer in zip(coefficients.tolist(), layers, strict=True):
            if coefficient:
                total.add_(layer, alpha=coefficient)
        return total

    # torch declares one gradient, and means as many as forward returned values.
    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *upstream: Tensor
    ) -> tuple[Tensor | None, ...]:
        of_coefficients = torch.stack([(upstream[0] * layer).sum() for layer in ctx.layers])
        return of_coefficients, *(None for _ in ctx.layers)


def _skeleton(plan: GrowthPlan) -> Any:
    """Return the model of a plan on the meta device, its attention ours."""
    settings = {key: value for key, value in plan.config.items() if key != "hfgrow"}
    try:
        model = skeleton(config_of(settings))
    except Exception as error:
        raise ModelError(f"transformers refuses the config: {said(error, 300)}") from error
    use_causal_attention(model)
    return model.eval()


def _source(recipe: Recipe) -> str:
    """Return the name of the only tensor of the base that a recipe reads, maps left out."""
    if isinstance(recipe, Learned):
        (recipe,) = recipe.layers
    assert isinstance(recipe, Stored)
    return recipe.name


def _loaded(base: GrowthPlan, device: torch.device) -> dict[str, Tensor]:
    """Return the tensors of the base in their own dtypes."""
    with opened(Path(base.folder), base.files) as descriptor_of:
        read = rows_of_files(descriptor_of)
        return {
            name: as_tensor(read(stored_in(tensor), 0, tensor.shape[0]), tensor.dtype).to(device)
            for name, tensor in base.tensors.items()
        }
