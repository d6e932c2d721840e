"""The standard deviation of fresh weights.

Source: Du et al. 2024, "Stacking Your Transformers", https://arxiv.org/abs/2405.15319, App. I.2
"""

from math import sqrt

from hfgrow.families.table import Role

HIDDEN = (("hidden",),)


def initial_std(role: Role, num_inputs: int, num_layers: int) -> float:
    """Return `1 / (sqrt(d_in) L)` for what writes the residual stream, else `sqrt(2 / (5 d_in))`.

    Args:
        role: A linear map or the embeddings.
        num_inputs: `d_in`, the second dimension of the stored shape.
        num_layers: `L`.
    """
    if role.dimensions[0] == HIDDEN:
        return 1 / (sqrt(num_inputs) * num_layers)
    return sqrt(2 / (5 * num_inputs))
