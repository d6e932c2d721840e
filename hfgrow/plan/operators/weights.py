"""Operators that change weights and no size."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from math import isfinite
from typing import Annotated

from hfgrow.errors import UsageError, argument, growth, printable
from hfgrow.plan.depth import LAYER_RUN, initial_std, run_of, scale_branches
from hfgrow.plan.families import FAMILIES
from hfgrow.plan.families.table import Kind, layer_of
from hfgrow.plan.operators.operator import (
    STACKING_PAPER,
    Amount,
    Mark,
    Operator,
    Seed,
    check_amount,
    check_seed,
    operator,
)
from hfgrow.plan.plan import GrowthPlan, TensorPlan, in_place
from hfgrow.plan.tensors import Blend, Fill, Normal, Recipe


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


# Modes of layers that add something, and are the same where their sources are.
_TOLD_APART = ("copy", "average", "predicted")


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
        repeats: Leave layers that stand once as they are, and fresh ones, and multiply by r^-A what
            stands r times.

    Raises:
        UsageError: The exponent is out of range, no layer is repeated, the root has none, or it was
            done before.
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
    if all(source.mode == "random" for source in base.layer_map):
        raise UsageError(
            "branch-scale counts the layers of the root, and here that had none",
            hint="leave it out",
        )
    factors = [(num_sources / num_layers) ** exponent] * num_layers
    arguments: dict[str, object] = {"exponent": float(exponent)}
    if repeats:
        arguments["repeats"] = True
        # A map does not tell fresh layers apart, nor do silent ones add anything to damp.
        times = Counter(source for source in base.layer_map if source.mode in _TOLD_APART)
        if max(times.values(), default=1) == 1:
            raise UsageError(
                "no layer stands several times here, so that there is nothing to damp",
                hint=f"try {growth('stack', g=2, damp_repeats=1)}",
            )
        factors = [max(times[source], 1) ** -exponent for source in base.layer_map]
    step = in_place(base, own.step(arguments))
    return replace(base, tensors=scale_branches(base, factors), steps=(*base.steps, step))


@operator(
    "tensor-scale",
    axis="weights",
    preserves_function=False,
    formula="W' = c W, c by the name of the tensor",
    paper="Goddard et al. 2024, Arcee's MergeKit, https://arxiv.org/abs/2403.13257",
)
def tensor_scale(
    own: Operator[...],
    base: GrowthPlan,
    factors: Annotated[str, Mark.VARIANT],
    *,
    layers: Annotated[str | None, Mark.VARIANT] = None,
) -> GrowthPlan:
    """Multiply tensors by numbers, told by a part of their names.

    What a scale with filters is in a passthrough recipe of mergekit, with the same bits but for the
    sign of a zero. What is stored is multiplied, also where gains are stored less 1. Not function
    preserving.

    Source: the library of the paper, its merge method passthrough.

    Args:
        own: The operator, for the record.
        base: The plan to change, usually a grown one.
        factors: Parts of names with their factors, such as o_proj:0.5,down_proj:0.5; the first that
            fits counts, and "*" fits every tensor.
        layers: The layers, as runs counted from 1, such as [12] or [11:20]-[31:40]; 0 is what
            stands before the first, and the number behind the last what stands behind it. Left out,
            all of these.

    Raises:
        UsageError: Either is not written so, a part fits no tensor, or all factors are 1.
    """
    by_part = _factors(factors)
    chosen = set(_positions(base.num_hidden_layers, layers))
    tensors, unused = dict(base.tensors), {part for part, _ in by_part}
    before = FAMILIES[base.family].embeddings.tensor
    for name, tensor in base.tensors.items():
        layer, rest = layer_of(name) or (-1 if name == before else base.num_hidden_layers, name)
        fitting = (one for one in by_part if one[0] == "*" or one[0] in rest)
        part, factor = next(fitting, ("", 1.0)) if layer in chosen else ("", 1.0)
        unused.discard(part)
        if factor != 1:
            tensors[name] = replace(tensor, recipe=_times(tensor.recipe, factor))
    if unused:
        raise UsageError(
            f"no tensor is left there whose name has {printable(repr(min(unused)))} in it",
            hint=f"such as o_proj:0.5,down_proj:0.5; {argument('layers')} says where",
        )
    if all(factor == 1 for _, factor in by_part):
        raise UsageError("all factors are 1, which changes nothing")
    arguments = {"factors": factors} if layers is None else {"factors": factors, "layers": layers}
    return replace(base, tensors=tensors, steps=(*base.steps, in_place(base, own.step(arguments))))


def _factors(text: str) -> list[tuple[str, float]]:
    found = []
    for entry in text.split(","):
        part, _, number = entry.rpartition(":")
        try:
            factor = float(number)
        except ValueError:
            factor = float("nan")
        if not part or not isfinite(factor):
            raise UsageError(
                f"{printable(repr(entry))} is no part of a name with a number",
                hint="such as o_proj:0.5,down_proj:0.5, or *:0.9 for every tensor",
            )
        found.append((part, factor))
    return found


def _positions(num_layers: int, pattern: str | None) -> Iterator[int]:
    """Yield the 0-based layers of runs, -1 for what stands before them, `l` for what is behind."""
    if pattern is None:
        yield from range(-1, num_layers + 1)
        return
    for part in pattern.split("-"):
        match = LAYER_RUN.fullmatch(part)
        # In the paper's digits, which `partial` reads, 12 is not layer 12 but 1 and 2.
        is_run = match is not None and part.startswith("[") and not match["times"]
        run = run_of(part) if is_run else range(0)
        if not run:
            raise UsageError(
                f"{printable(repr(part))} in {argument('layers')} is no run of neighbouring layers",
                hint="such as [12], [11:20], or [11:20]-[31:40]",
            )
        if run.stop > num_layers + 1:
            raise UsageError(
                f"{printable(repr(part))} in {argument('layers')} leaves the {num_layers} layers",
                hint=f"[1:{num_layers}] are these, 0 is what stands before them and "
                f"{num_layers + 1} what stands behind",
            )
        yield from run


def _times(recipe: Recipe, factor: float) -> Recipe:
    if not factor:
        return Fill(recipe.shape, 0.0)
    return Blend(((factor, recipe),))
