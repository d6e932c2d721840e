"""The growth plan: what every tensor of a checkpoint is made from, as plain data.

A plan is made before any weight is read. Reading a checkpoint gives the identity plan; a growth
operator is a function from plan to plan; the writer carries the last plan out. The same data is
the dry run, the exact size of the output, its lineage, and what verification re-derives.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from math import prod
from typing import Any

from hfgrow.errors import UsageError, printable
from hfgrow.plan.axes import AxisMap
from hfgrow.plan.families.derived import DerivedFamily
from hfgrow.plan.tensors import CONFIG_DTYPES, DTYPE_NBYTES, Fill, Recipe, Stored


@dataclass(frozen=True, slots=True)
class TensorPlan:
    """One tensor to be written: its dtype, and the recipe for its values."""

    dtype: str
    recipe: Recipe

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape, which the recipe has."""
        return self.recipe.shape

    @property
    def num_elements(self) -> int:
        """The number of elements."""
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        """The bytes the tensor takes in a file."""
        return self.num_elements * DTYPE_NBYTES[self.dtype]

    @property
    def is_copy(self) -> bool:
        """Whether its bytes are those of a stored tensor."""
        return isinstance(self.recipe, Stored) and self.recipe.dtype == self.dtype


@dataclass(frozen=True, slots=True)
class LayerSource:
    """Where a layer comes from: the 0-based layer of the base, and in which mode."""

    layer: int
    mode: str = "copy"


# A fresh layer of a base that has none.
FROM_NONE = LayerSource(0, "random")


@dataclass(frozen=True, slots=True)
class GrowthStep:
    """One operator as it was applied: what lineage records and `reproduce` runs again.

    Attributes:
        operator: Its name.
        arguments: What it was told.
        layer_map: For every layer, where it comes from.
        preserves_function: Whether the model computes what it did before.
        axes: For every axis that grew in width, where its units come from; None if none did.
    """

    operator: str
    arguments: Mapping[str, object]
    layer_map: tuple[LayerSource, ...]
    preserves_function: bool
    axes: Mapping[str, AxisMap] | None = None


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A weight file of the base: its size, and the stamp that tells whether it changed."""

    nbytes: int
    stamp: tuple[int, ...] = ()


@dataclass(frozen=True)
class GrowthPlan:
    """A checkpoint to be written.

    Attributes:
        folder: Where the files of the recipes lie; empty when only headers were fetched.
        config: The config.json of the output.
        family: Which table of tensor roles applies (`model_type`).
        derived: The family that stands for that table where no table is written.
        layer_map: For every layer, the layer of the base that it comes from.
        tensors: Tensor name -> plan.
        files: Weight file name -> size and stamp.
        steps: The operators applied so far.
        notes: What the reader noticed and the user should know.
    """

    folder: str
    config: Mapping[str, Any]
    family: str
    layer_map: tuple[LayerSource, ...]
    tensors: Mapping[str, TensorPlan]
    files: Mapping[str, SourceFile]
    steps: tuple[GrowthStep, ...] = ()
    notes: tuple[str, ...] = field(default=())
    derived: DerivedFamily | None = None

    def __repr__(self) -> str:
        steps = f", by {', '.join(step.operator for step in self.steps)}" if self.steps else ""
        return (
            f"GrowthPlan({self.family}: {self.num_hidden_layers} layers, "
            f"{self.num_parameters:,} parameters in {len(self.tensors)} tensors{steps})"
        )

    @property
    def num_hidden_layers(self) -> int:
        """The number of layers."""
        return len(self.layer_map)

    @property
    def settings(self) -> Mapping[str, Any]:
        """What config.json says of the layers; of a derived family with all defaults filled in."""
        return self.config if self.derived is None else self.derived.settings

    @property
    def sources(self) -> tuple[int, ...]:
        """For every layer, the 0-based layer of the base, whatever its mode."""
        return tuple(source.layer for source in self.layer_map)

    @cached_property
    def num_parameters(self) -> int:
        """All parameters, each tied tensor counted once."""
        return sum(tensor.num_elements for tensor in self.tensors.values())

    @cached_property
    def nbytes(self) -> int:
        """The bytes of all tensors, without file headers."""
        return sum(tensor.nbytes for tensor in self.tensors.values())

    @property
    def preserves_function(self) -> bool:
        """Whether every step so far promises the same function as the base."""
        return all(step.preserves_function for step in self.steps)

    @property
    def computes(self) -> bool:
        """Whether the numbers of a tensor have to be computed; copies and zeros are bytes."""
        return not all(tensor.is_copy or is_zero(tensor) for tensor in self.tensors.values())


def in_place(base: GrowthPlan, step: GrowthStep) -> GrowthStep:
    """Return a step with the layer map of a growth that leaves the layers where they are."""
    return replace(step, layer_map=tuple(LayerSource(i) for i in range(base.num_hidden_layers)))


def stored_in(tensor: TensorPlan) -> Stored:
    """Return what a tensor of an identity plan is: where it lies."""
    assert isinstance(tensor.recipe, Stored)
    return tensor.recipe


def connection_rate(layer_map: Sequence[int | LayerSource]) -> float:
    """Return Rc, the share of neighbouring copies that were neighbours in the base too.

    `Rc = #{i: o[i+1] = o[i] + 1} / (L - 1)`, with `o` the 0-based source of each of `L` layers.
    Layers that are no copies, such as those that add nothing yet, are passed over.

    Source: Du et al. 2024, "Stacking Your Transformers", arXiv 2405.15319, App. on partial stacking
    """
    num_copies = len(_copies(layer_map))
    return 1 - len(seams(layer_map)) / (num_copies - 1) if num_copies > 1 else 1.0


def seams(layer_map: Sequence[int | LayerSource]) -> list[int]:
    """Return the 0-based copies whose predecessor is not the one they had in the base."""
    pairs = pairwise(_copies(layer_map))
    return [i for (_, before), (i, source) in pairs if source != before + 1]


def _copies(layer_map: Sequence[int | LayerSource]) -> list[tuple[int, int]]:
    sources = [LayerSource(item) if isinstance(item, int) else item for item in layer_map]
    return [(i, source.layer) for i, source in enumerate(sources) if source.mode == "copy"]


def with_dtype(plan: GrowthPlan, dtype: str | None) -> GrowthPlan:
    """Return the plan with every tensor in another dtype, and the config saying so.

    Args:
        plan: Any plan.
        dtype: A dtype as config.json names it, such as bfloat16; None keeps every tensor's own.

    Raises:
        UsageError: The dtype is unknown.
    """
    if dtype is None:
        return plan
    if dtype not in CONFIG_DTYPES:
        raise UsageError(
            f"dtype {printable(dtype)} is unknown; choose one of {', '.join(CONFIG_DTYPES)}"
        )
    tensors = {
        name: replace(tensor, dtype=CONFIG_DTYPES[dtype]) for name, tensor in plan.tensors.items()
    }
    keys = [key for key in ("dtype", "torch_dtype") if key in plan.config] or ["dtype"]
    return replace(plan, tensors=tensors, config={**plan.config, **dict.fromkeys(keys, dtype)})


def is_zero(tensor: TensorPlan) -> bool:
    """Say whether a tensor is all zeros, whose bytes are zeros in every dtype."""
    return isinstance(tensor.recipe, Fill) and tensor.recipe.value == 0
