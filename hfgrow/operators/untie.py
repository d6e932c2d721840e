"""Untie: the output head becomes a tensor of its own.

Press and Wolf 2017, "Using the Output Embedding to Improve Language Models",
https://arxiv.org/abs/1608.05859, is what it undoes
"""

from dataclasses import replace

from hfgrow.errors import UsageError
from hfgrow.plan.families import FAMILIES
from hfgrow.plan.plan import GrowthPlan, GrowthStep, LayerSource


def untie(base: GrowthPlan) -> GrowthPlan:
    """Give a model with tied embeddings an output head of its own, equal to them.

    Grown in width afterwards, the head is split and gets noise like any matrix, and the final norm
    stays as it is. Function preserving.

    Args:
        base: The plan to change.

    Raises:
        UsageError: The model has a head of its own already.
    """
    family = FAMILIES[base.family]
    head = family.head.tensor
    if head in base.tensors:
        raise UsageError(f"the embeddings are not tied: there is a {head} already")
    tensors = {**base.tensors, head: base.tensors[family.embeddings.tensor]}
    layers = tuple(LayerSource(i) for i in range(base.num_hidden_layers))
    return replace(
        base,
        config={**base.config, "tie_word_embeddings": False},
        tensors=tensors,
        steps=(*base.steps, GrowthStep("untie", {}, layers, True)),
    )
