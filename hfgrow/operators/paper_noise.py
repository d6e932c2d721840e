"""The paper's noise: every matrix moved towards a fresh one, which changes the function.

Source: Du et al. 2024, "Stacking Your Transformers", https://arxiv.org/abs/2405.15319, ablation on
function preservation: `W <- (1 - a) W + a eps`
"""

from dataclasses import replace

from hfgrow.errors import UsageError
from hfgrow.operators.checks import check_amount, check_seed
from hfgrow.plan.depth import initial_std
from hfgrow.plan.families import FAMILIES
from hfgrow.plan.families.table import Kind, layer_of
from hfgrow.plan.plan import GrowthPlan, GrowthStep, LayerSource, TensorPlan
from hfgrow.plan.tensors import Blend, Normal


def paper_noise(base: GrowthPlan, *, amount: float, seed: int = 0) -> GrowthPlan:
    """Move every matrix towards a fresh one: W <- (1 - a) W + a eps.

    eps has the standard deviation of a fresh model's weights. The paper finds 0.2 of it to help a
    little after growth, and more to harm. Not function preserving.

    Args:
        base: The plan to change, usually a grown one.
        amount: a, from 0 to 1.
        seed: Seeds the noise; the same seed gives the same bytes.

    Raises:
        UsageError: The amount is not between 0 and 1.
    """
    check_amount("amount", amount)
    check_seed(seed)
    if any(s.operator == "paper-noise" and s.arguments["seed"] == seed for s in base.steps):
        raise UsageError(f"noise of the seed {seed} was added before", hint="give another --seed")
    layers = tuple(LayerSource(i) for i in range(base.num_hidden_layers))
    step = GrowthStep("paper-noise", {"amount": amount, "seed": seed}, layers, False)
    noisy = perturbed(base, keep=1 - amount, amount=amount, key=f"{seed}/paper-noise")
    return replace(noisy, steps=(*base.steps, step))


def perturbed(plan: GrowthPlan, *, keep: float, amount: float, key: str) -> GrowthPlan:
    """Return the plan with `keep W + amount eps` for every matrix and the embeddings.

    Args:
        plan: Any plan.
        keep: The factor on what is there.
        amount: The factor on the noise, which has the spread of a fresh model's weights.
        key: Seeds the noise.
    """
    family = FAMILIES[plan.family]
    roles = family.roles(plan.config)
    outer = {role.tensor: role for role in (*family.outer, family.head)}

    def noisy(name: str, tensor: TensorPlan) -> TensorPlan:
        found = layer_of(name)
        role = roles[found[1]] if found else outer[name]
        if role.kind not in (Kind.LINEAR, Kind.EMBEDDING):
            return tensor
        std = initial_std(role, tensor.shape[1], plan.num_hidden_layers)
        noise = Normal(tensor.shape, std, f"{key}/{name}")
        return replace(tensor, recipe=Blend(((keep, tensor.recipe), (amount, noise))))

    return replace(plan, tensors={n: noisy(n, tensor) for n, tensor in plan.tensors.items()})
