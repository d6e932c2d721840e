"""Rates that suit a wider model, from those that suit the model a run begins with.

A matrix that reads `n` times as many inputs and writes `m` times as many outputs trains with

    learning_rate / n,    weight_decay * n,    eps / m

and vectors and embeddings, whose outputs alone are wider, with `eps / m`: the rules of the maximal
update parametrization for AdamW, as a factor on top of what a recipe says. Where units were copied
evenly and without noise, `W' = W / n`, and the model then goes on as the narrow one would have: a
step moves each of `n` copies by `1/n` of what moved their source, decay takes the same share of
both, and gradients, which are `1/m` of theirs, stand beside an `eps` that is too. A head that is
tied is not divided; its norm is instead, so that norm has the rate of a head.

It says nothing of depth, and clipping looks at the norm of all gradients, which width changes.

Sources: Yang et al. 2022, "Tensor Programs V", https://arxiv.org/abs/2203.03466, Table 3 (learning
rates); Ma et al. 2026, "mu-pscaling small models", https://arxiv.org/abs/2602.10545, and its code
(weight decay and eps, and that copies then train as their source)
"""

from dataclasses import dataclass

from hfgrow.errors import UsageError, printable
from hfgrow.plan.families import FAMILIES
from hfgrow.plan.families.table import Kind, layer_of, layer_prefix
from hfgrow.plan.plan import GrowthPlan


@dataclass(frozen=True, slots=True)
class Multiples:
    """How many times as wide a tensor is as its like in the model that a run begins with.

    Attributes:
        inputs: `n`, of what it reads.
        outputs: `m`, of what it writes.
    """

    inputs: float = 1.0
    outputs: float = 1.0


AS_WIDE = Multiples()


def multiples_of(base: GrowthPlan, grown: GrowthPlan) -> dict[str, Multiples]:
    """Return the multiples of every tensor of a model, by its name.

    Args:
        base: The model that the run begins with.
        grown: The model that is to be trained.

    Raises:
        UsageError: No axis is wider, or the widths of the family are not known well enough.
    """
    family = FAMILIES.get(grown.family)
    why = ""
    if family is None or grown.derived is not None:
        why = "the roles of its tensors are not known"
    elif family.has_experts:
        why = "the rule is of dense models"
    elif family.embedding_scale is not None:
        why = "its embeddings are multiplied by the root of its width"
    elif base.family != grown.family:
        why = f"the run begins with a {printable(base.family)}"
    elif not base.num_hidden_layers:
        why = "the run begins without layers"
    if family is None or why:
        raise UsageError(
            f"parametrization mup is not for a {printable(grown.family)}: {why}",
            hint="leave it out, and give the rates",
        )
    found = {}
    tied = family.is_tied(grown.config)
    roles = family.roles(grown.config)
    outer = {role.tensor: role for role in (*family.outer, family.head)}
    for name, tensor in grown.tensors.items():
        inside = layer_of(name)
        role = roles[inside[1]] if inside else outer[name]
        like = f"{layer_prefix(0)}{inside[1]}" if inside else name
        if role == family.head and like not in base.tensors:
            # It was untied since.
            like = family.embeddings.tensor
        shapes = zip(tensor.shape, base.tensors[like].shape, strict=True)
        outputs, inputs = (*(size / before for size, before in shapes), 1.0)[:2]
        is_turned = role.kind is Kind.EMBEDDING or (tied and role == family.final_norm)
        found[name] = Multiples(outputs, inputs) if is_turned else Multiples(inputs, outputs)
    if set(found.values()) == {AS_WIDE}:
        raise UsageError(
            "parametrization mup changes nothing: no tensor is wider than in the model that the "
            "run begins with",
            hint="leave it out",
        )
    return found
