"""Operators that change weights and no size."""

from collections import Counter
from dataclasses import replace

from hfgrow.errors import UsageError, argument, growth
from hfgrow.plan.depth import initial_std, scale_branches
from hfgrow.plan.families import FAMILIES
from hfgrow.plan.families.table import Kind, layer_of
from hfgrow.plan.operators.operator import (
    STACKING_PAPER,
    Amount,
    Operator,
    Seed,
    check_amount,
    check_seed,
    operator,
)
from hfgrow.plan.plan import GrowthPlan, TensorPlan, in_place
from hfgrow.plan.tensors import Blend, Normal


@operator(
    "untie",
    axis="weights",
    preserves_function=True,
    formula="lm_head = E",
    paper=(
        "Press and Wolf 2017, Using the Output Embedding to Improve Language Models, "
        "https://arxiv.org/abs/1608.05859"
    ),
    unties=True,
)
def untie(own: Operator[...], base: GrowthPlan) -> GrowthPlan:
    """Give a model with tied embeddings an output head of its own, equal to them.

    Grown in width afterwards, the head is split and gets noise like any matrix, and the final norm
    stays as it is. Function preserving.

    Source: tying is the paper's, which this undoes.

    Args:
        own: The operator, for the record.
        base: The plan to change.

    Raises:
        UsageError: The model has a head of its own already.
    """
    family = FAMILIES[base.family]
    head = family.head.tensor
    if head in base.tensors:
        raise UsageError(f"the embeddings are not tied: there is a {head} already")
    tensors = {**base.tensors, head: base.tensors[family.embeddings.tensor]}
    return replace(
        base,
        config={**base.config, "tie_word_embeddings": False},
        tensors=tensors,
        steps=(*base.steps, in_place(base, own.step({}))),
    )


@operator(
    "paper-noise",
    axis="weights",
    preserves_function=False,
    formula="W' = (1 - a) W + a eps",
    paper=STACKING_PAPER,
)
def paper_noise(
    own: Operator[...], base: GrowthPlan, *, amount: Amount, seed: Seed = 0
) -> GrowthPlan:
    """Move every matrix towards a fresh one: W <- (1 - a) W + a eps.

    eps has the standard deviation of a fresh model's weights. The paper finds 0.2 of it to help a
    little after growth, and more to harm. Not function preserving.

    Source: the paper's ablation on function preservation.

    Args:
        own: The operator, for the record.
        base: The plan to change, usually a grown one.
        amount: a, from 0 to 1.
        seed: Seeds the noise; the same seed gives the same bytes.

    Raises:
        UsageError: The amount is not between 0 and 1.
    """
    check_amount("amount", amount)
    check_seed(seed)
    if any(s.operator == own.name and s.arguments["seed"] == seed for s in base.steps):
        raise UsageError(
            f"noise of the seed {seed} was added before", hint=f"give another {argument('seed')}"
        )
    step = own.step({"amount": amount, "seed": seed})
    noisy = perturbed(base, keep=1 - amount, amount=amount, key=f"{seed}/{own.name}")
    return replace(noisy, steps=(*base.steps, in_place(base, step)))


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


@operator(
    "branch-scale",
    axis="depth",
    preserves_function=False,
    formula="o[i] = i, branches times (l/L)^A; of repeats alone times r^-A",
    paper="Yang et al. 2023, Tensor Programs VI, https://arxiv.org/abs/2310.02244",
)
def branch_scale(
    own: Operator[...], base: GrowthPlan, *, exponent: Amount = 0.5, repeats: bool = False
) -> GrowthPlan:
    """Multiply what every branch adds by (l / L)^A.

    `L` is the depth of the plan and `l` how many different layers of the root stand in it. It
    follows growth in depth in the same pass, as in steps=[("stack", {"g": 2}),
    ("branch-scale", {"exponent": 0.5})]. Not function preserving.

    Source: the paper's block multiplier of 1/sqrt(L), as a rule for growing in depth.

    Args:
        own: The operator, for the record.
        base: The plan whose layers an earlier step repeated.
        exponent: `A`, above 0 and at most 1: 0.5 keeps the variance of the sum of independent
            branches, 1 the sum of equal ones.
        repeats: Leave layers that stand once as they are, and multiply by r^-A what stands r times.

    Raises:
        UsageError: The exponent is out of range, no layer is repeated, or it was done before.
    """
    if not 0 < exponent <= 1:
        raise UsageError(f"{argument('exponent')} must be above 0 and at most 1, not {exponent}")
    if any(step.operator == own.name for step in base.steps):
        raise UsageError("branch-scale stands once, behind the last step that grows in depth")
    num_layers, num_sources = base.num_hidden_layers, len(set(base.sources))
    if num_layers == num_sources:
        raise UsageError(
            "branch-scale follows a step that repeats layers, and none is repeated here",
            hint=f"try {growth('stack', g=4, branch_scale=0.5)}",
        )
    factors = [(num_sources / num_layers) ** exponent] * num_layers
    arguments: dict[str, object] = {"exponent": float(exponent)}
    if repeats:
        arguments["repeats"] = True
        times = Counter(source.layer for source in base.layer_map if source.mode == "copy")
        if max(times.values(), default=1) == 1:
            raise UsageError(
                "no layer stands several times here, so that there is nothing to damp",
                hint=f"try {growth('stack', g=2, damp_repeats=1)}",
            )
        factors = [times[source.layer] ** -exponent for source in base.layer_map]
    step = in_place(base, own.step(arguments))
    return replace(base, tensors=scale_branches(base, factors), steps=(*base.steps, step))
