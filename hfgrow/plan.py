"""The growth plan: what every tensor of a checkpoint is made from, as plain data.

A plan is made before any weight is read. Reading a checkpoint gives the identity plan; a growth
operator is a function from plan to plan; the writer carries the last plan out. The same data is
the dry run, the exact size of the output, its lineage, and what verification re-derives.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

# Bytes of one element, by the dtype names of safetensors.
DTYPE_NBYTES: Mapping[str, int] = {
    "BF16": 2,
    "F16": 2,
    "F32": 4,
    "F64": 8,
}


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor exactly as it lies in a file of the base.

    Attributes:
        file: Name of the safetensors file, inside the plan's folder.
        name: Name of the tensor in that file.
        offset: Where its bytes start, counted from the start of the file.
        nbytes: How many bytes it has.
        dtype: Its dtype there, in safetensors' words.
    """

    file: str
    name: str
    offset: int
    nbytes: int
    dtype: str


@dataclass(frozen=True, slots=True)
class TensorPlan:
    """One tensor to be written: its shape and dtype, and the recipe for its values."""

    shape: tuple[int, ...]
    dtype: str
    recipe: Stored

    @property
    def num_elements(self) -> int:
        """The number of elements."""
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        """The bytes the tensor takes in a file."""
        return self.num_elements * DTYPE_NBYTES[self.dtype]


@dataclass(frozen=True, slots=True)
class LayerSource:
    """Where a layer comes from: the 0-based layer of the base, and in which mode."""

    layer: int
    mode: str = "copy"


@dataclass(frozen=True, slots=True)
class GrowthStep:
    """One operator as it was applied: what lineage records and `reproduce` runs again."""

    operator: str
    arguments: Mapping[str, object]
    layer_map: tuple[LayerSource, ...]
    preserves_function: bool


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

    @property
    def num_hidden_layers(self) -> int:
        """The number of layers."""
        return len(self.layer_map)

    @property
    def sources(self) -> tuple[int, ...]:
        """For every layer, the 0-based layer of the base, whatever its mode."""
        return tuple(source.layer for source in self.layer_map)

    @property
    def num_parameters(self) -> int:
        """All parameters, each tied tensor counted once."""
        return sum(tensor.num_elements for tensor in self.tensors.values())

    @property
    def nbytes(self) -> int:
        """The bytes of all tensors, without file headers."""
        return sum(tensor.nbytes for tensor in self.tensors.values())

    @property
    def preserves_function(self) -> bool:
        """Whether every step so far promises the same function as the base."""
        return all(step.preserves_function for step in self.steps)


def connection_rate(sources: Sequence[int]) -> float:
    """Return Rc, the share of neighbouring layers that were neighbours in the base too.

    `Rc = #{i: o[i+1] = o[i] + 1} / (L - 1)`, with `o` the 0-based source of each of `L` layers.

    Source: Du et al. 2024, "Stacking Your Transformers", arXiv 2405.15319, App. on partial stacking
    """
    if len(sources) < 2:
        return 1.0
    return 1 - len(seams(sources)) / (len(sources) - 1)


def seams(sources: Sequence[int]) -> list[int]:
    """Return the 0-based layers whose predecessor is not the one they had in the base."""
    return [i for i in range(1, len(sources)) if sources[i] != sources[i - 1] + 1]
