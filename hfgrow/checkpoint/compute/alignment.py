"""Put the rows of a matrix in the order of those of another, by entropic optimal transport.

Neurons have no order: two layers may hold the same ones, each in its own. Rows `a_i` of one matrix
are carried to rows `b_j` of the other, each as a weight of 1 that may be shared out: the plan `T`
makes `sum T_ij |a_i - b_j|`, less `r` times the entropy of `T`, least. Sinkhorn's iteration finds
`T = diag(u) exp(-|a_i - b_j| / r) diag(v)`, with `u` and `v` in turn such that rows and columns sum
to 1. Columns come last: an aligned row, `sum over i of T_ij a_i`, is always a mean of rows.

The number of iterations is fixed. All is computed in float64 and rounded once, so that the order in
which a machine adds shows in few float32 numbers.

Sources: Cuturi 2013, "Sinkhorn Distances", https://arxiv.org/abs/1306.0895, Sec. 4; Singh and Jaggi
2020, "Model Fusion via Optimal Transport", https://arxiv.org/abs/1910.05653, Sec. 4; Cao et al.
2025, "Progressive Depth Up-scaling via Optimal Transport", https://arxiv.org/abs/2508.08011
"""

from threading import RLock
from typing import Any

from hfgrow.checkpoint.compute.products import Rows, kept_or_made, take_torch
from hfgrow.plan.tensors import Aligned

NUM_ITERATIONS = 100


class Alignments:
    """Computes means of aligned matrices, each as a whole; keeps the last ones.

    Args:
        rows: Computes rows of what is aligned.
    """

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        # Reentrant: what is aligned may itself be aligned.
        self._lock = RLock()
        self._matrices: dict[Aligned, Any] = {}

    def rows(self, recipe: Aligned, start: int, stop: int) -> Any:
        """Return rows [stop - start, columns] in float64, whatever the thread and the chunks."""
        take_torch()
        with self._lock:
            matrix = kept_or_made(self._matrices, recipe, self._matrix)
        return matrix[start:stop].clone()

    def _matrix(self, recipe: Aligned) -> Any:
        num_rows = recipe.shape[0]
        below, mean = (
            self._rows(layer, 0, num_rows, "float64") for layer in (recipe.below, recipe.above)
        )
        for one, other in zip(below.split(recipe.parts), mean.split(recipe.parts), strict=True):
            other += aligned(one, other, recipe.regularization)
        mean /= 2
        return mean


def aligned(numbers: Any, like: Any, regularization: float) -> Any:
    """Return the rows of a matrix in the order of those of another.

    Args:
        numbers: The matrix, [n, columns] in float64.
        like: The other, in the same shape.
        regularization: `r`, in units of the distance between two rows.

    Returns:
        For each row of `like` the mean of the rows that are carried there, [n, columns].
    """
    plan = numbers @ like.T
    plan *= -2
    plan += numbers.square().sum(1, keepdim=True)
    plan += like.square().sum(1)
    plan.clamp_(min=0).sqrt_()
    # What is taken from a whole row or column, `u` and `v` give back; each then has a 1.
    plan -= plan.amin(1, keepdim=True)
    plan -= plan.amin(0)
    plan.div_(-regularization).exp_()
    v = plan.new_ones(len(plan))
    for _ in range(NUM_ITERATIONS):
        u = 1 / (plan @ v)
        v = 1 / (plan.T @ u)
    plan *= u.unsqueeze(1)
    return (plan.T @ numbers).mul_(v.unsqueeze(1))
