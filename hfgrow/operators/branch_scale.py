"""Weaker branches for a deeper model.

Source: Yang et al. 2023, "Tensor Programs VI: Feature Learning in Infinite-Depth Neural Networks",
https://arxiv.org/abs/2310.02244 (a block multiplier of 1/sqrt(L)), as a rule for growing in depth
"""

from dataclasses import replace

from hfgrow.errors import UsageError
from hfgrow.plan.depth import scale_branches
from hfgrow.plan.plan import GrowthPlan, GrowthStep, LayerSource


def branch_scale(base: GrowthPlan, *, exponent: float = 0.5) -> GrowthPlan:
    """Multiply what every branch adds by (l / L)^A.

    `L` is the depth of the plan and `l` how many different layers of the root stand in it. It
    follows growth in depth in the same pass, as in steps=[("stack", {"g": 2}),
    ("branch-scale", {"exponent": 0.5})]. Not function preserving.

    Args:
        base: The plan whose layers an earlier step repeated.
        exponent: `A`, above 0 and at most 1: 0.5 keeps the variance of the sum of independent
            branches, 1 the sum of equal ones.

    Raises:
        UsageError: The exponent is out of range, no layer is repeated, or it was done before.
    """
    if not 0 < exponent <= 1:
        raise UsageError(f"--exponent must be above 0 and at most 1, not {exponent}")
    if any(step.operator == "branch-scale" for step in base.steps):
        raise UsageError("branch-scale stands once, behind the last step that grows in depth")
    num_layers, num_sources = base.num_hidden_layers, len(set(base.sources))
    if num_layers == num_sources:
        raise UsageError(
            "branch-scale follows a step that repeats layers, and none is repeated here",
            hint="try hfgrow stack MODEL --g 4 --branch-scale 0.5",
        )
    step = GrowthStep(
        operator="branch-scale",
        arguments={"exponent": float(exponent)},
        layer_map=tuple(LayerSource(i) for i in range(num_layers)),
        preserves_function=False,
    )
    factor = (num_sources / num_layers) ** exponent
    return replace(base, tensors=scale_branches(base, factor), steps=(*base.steps, step))
