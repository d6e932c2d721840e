"""What the maps of a learned growth begin as.

`fp` and `stack` fill every axis that grows with copies whose shares add up to what their source
was, as `hyperclone-noisy` does: `write`, `up`, `query`, `key` and `value` carry the copies forward,
`read`, `down` and `output` undo them. To the latter is added noise `N` with `N^T F = 0`, `F` the
map that carries forward: copies without it would get equal gradients and stay copies for ever. In
depth `fp` begins as zero-depth, `stack` as the stack; both width parts keep the function.

`ligo` begins as `[I; Z]` with `Z ~ N(0, 1/D)`, one draw for what writes and reads the stream and
the neurons, and layers in a cycle.

Source: Wang et al. 2023, "Learning to Grow Pretrained Models for Efficient Transformer Training"
(LiGO), https://arxiv.org/abs/2303.00980, Sec. 3, as the code of Du et al. 2024,
https://arxiv.org/abs/2405.15319, begins it
"""

from collections.abc import Sequence
from math import sqrt

import torch
from torch import Tensor

from hfgrow.checkpoint.compute.evaluate import normal
from hfgrow.plan.axes import AxisMap
from hfgrow.plan.families import FAMILIES
from hfgrow.plan.families.table import layer_prefix
from hfgrow.plan.operators.learn import (
    FINAL,
    GAIN,
    READERS,
    LearnArguments,
    LearnedGrowth,
    depth_map,
    map_shapes,
)
from hfgrow.plan.plan import GrowthPlan, LayerSource

# The noise in units of the shares that it is added to; hyperclone-noisy's default.
_NOISE = 0.3


def initial_maps(
    base: GrowthPlan, growth: LearnedGrowth, arguments: LearnArguments
) -> dict[str, Tensor]:
    """Return every map of a growth as it begins, float32 [grown units, units of the base].

    Args:
        base: The plan of the base.
        growth: Where the growth leads.
        arguments: The init and the seed.
    """
    family = FAMILIES[base.family]
    ends = {
        depth_map(layer_prefix(0) + name)
        for name, role in family.roles(base.config).items()
        if role.ends_branch
    }
    is_tied = family.head.tensor not in base.tensors
    seed = arguments.seed or 0
    maps = {}
    for name, (size, base_size) in map_shapes(base, growth).items():
        axis = name.partition(".")[0]
        if axis == "depth":
            made = _one_hot(growth.sources, base_size, is_end=name in ends)
        elif arguments.init == "ligo":
            made = _identity_and_noise(size, base_size, f"{seed}/{_drawn_once(name)}")
        elif name in (GAIN, FINAL):
            made = _matrix(growth.axes[axis], [1.0] * size).float()
            if name == FINAL and is_tied:
                # Tied embeddings read as they write: what they add is divided out behind the norm.
                made *= base_size / size
        else:
            key = f"{seed}/{name}" if name in READERS else None
            made = _copies(growth.axes[axis], key)
        maps[name] = made
    return maps


def _drawn_once(name: str) -> str:
    """Return what names a draw: one for all that writes and reads the stream, or neurons."""
    axis = name.partition(".")[0]
    return axis if axis in ("hidden", "ffn") else name


def _one_hot(sources: Sequence[LayerSource], num_layers: int, *, is_end: bool) -> Tensor:
    made = torch.zeros(len(sources), num_layers)
    for i, source in enumerate(sources):
        if not (is_end and source.mode == "zero"):
            made[i, source.layer] = 1.0
    return made


def _identity_and_noise(size: int, base_size: int, key: str) -> Tensor:
    fresh = normal(key, 0, size - base_size, base_size).float() / sqrt(size)
    return torch.cat((torch.eye(base_size), fresh))


def _copies(axis: AxisMap, reader_key: str | None) -> Tensor:
    """Return an axis map as a matrix: forward, or, with noise that copies cancel, backward."""
    forward = _matrix(axis, [span.forward for span in axis.spans for _ in range(span.length)])
    if reader_key is None:
        return forward.float()
    shares = [span.backward for span in axis.spans for _ in range(span.length)]
    rms = sqrt(sum(share**2 for share in shares) / len(shares))
    noise = normal(reader_key, 0, axis.size, axis.base).double()
    noise *= _NOISE * rms / sqrt(axis.base)
    energy = forward.square().sum(0)[:, None]
    noise -= forward @ (forward.T @ noise / energy)
    backward: Tensor = _matrix(axis, shares) + noise
    return backward.float()


def _matrix(axis: AxisMap, factors: Sequence[float]) -> Tensor:
    made = torch.zeros(axis.size, axis.base, dtype=torch.float64)
    made[torch.arange(axis.size), torch.tensor(axis.sources)] = torch.tensor(
        factors, dtype=torch.float64
    )
    return made
