"""What a plan takes where it takes more than a chunk: whole matrices, and predictors that learn.

Copied tensors take a few buffers, and most that are computed a chunk a core. A predicted matrix
needs the singular vectors of all matrices of its kind, a learned map of rows the whole matrix, and
rows that are aligned the distances between any two of them.
"""

from dataclasses import dataclass
from math import prod

from hfgrow.checkpoint.compute.alignment import NUM_ITERATIONS
from hfgrow.checkpoint.compute.products import predictor_steps
from hfgrow.plan.plan import GrowthPlan
from hfgrow.plan.tensors import Aligned, Blend, Learned, Lift, Predicted, Recipe

_FLOAT32, _FLOAT64 = 4, 8
# The matrix itself, its vectors, and the workspace of LAPACK's syevd.
_NUM_SQUARES = 5
# Of the last two kinds, basis and coordinates stay; of the last two matrices, the whole.
_NUM_KEPT = 2
# Of a matrix that a learned map makes, in float64: the two last ones, and one that comes about.
_NUM_PRODUCTS = 3
# Both matrices that are aligned, what comes about, and the two last ones.
_NUM_ALIGNED = 5
# What a core makes of the small steps of a predictor, roughly.
_FLOPS_A_SECOND = 30e9
# How often an iteration reads a plan, and the bytes that a core reads in a second, roughly.
_NUM_READS, _NBYTES_A_SECOND = 2, 5e9


@dataclass(frozen=True, slots=True)
class Cost:
    """What a plan takes beside its chunks.

    Attributes:
        nbytes: Bytes in memory at once.
        num_predictors: The predictors that are trained, one for each kind of matrix.
        num_steps: Their steps in all.
        seconds: What they take on one core, roughly.
        num_alignments: The transport plans that are solved, one for each part of a matrix.
        alignment_seconds: What they take on one core, roughly.
    """

    nbytes: int = 0
    num_predictors: int = 0
    num_steps: int = 0
    seconds: float = 0.0
    num_alignments: int = 0
    alignment_seconds: float = 0.0


def cost_of(plan: GrowthPlan) -> Cost:
    """Return what computing the tensors of a plan takes; nothing where chunks are enough."""
    kinds, alignments, nbytes = set(), set(), [0]
    for tensor in plan.tensors.values():
        for recipe in _whole(tensor.recipe):
            if isinstance(recipe, Predicted):
                kinds.add((recipe.layers, recipe.seed))
            elif isinstance(recipe, Aligned):
                alignments.add(recipe)
            else:
                nbytes.append(_product_nbytes(recipe))
    alignment_seconds = 0.0
    for recipe in alignments:
        num_rows, num_columns = recipe.shape
        squares = [rows * rows for rows in recipe.parts]
        nbytes.append(_FLOAT64 * (_NUM_ALIGNED * num_rows * num_columns + max(squares)))
        alignment_seconds += sum(squares) * (
            4.0 * num_columns / _FLOPS_A_SECOND
            + NUM_ITERATIONS * _NUM_READS * _FLOAT64 / _NBYTES_A_SECOND
        )
    num_steps, seconds = 0, 0.0
    for layers, _ in kinds:
        rows, columns = layers[0].shape
        steps, flops, seen = predictor_steps(len(layers), rows, columns)
        num_steps += steps
        # The products of all matrices with themselves, and the vectors of their sum.
        flops += 2.0 * len(layers) * rows * rows * columns + 10.0 * rows**3
        seconds += flops / _FLOPS_A_SECOND
        square = rows * rows
        kept = _NUM_KEPT * _FLOAT32 * (2 * square + rows * columns)
        nbytes.append(kept + max(_NUM_SQUARES * _FLOAT64 * square, _FLOAT32 * seen))
    num_alignments = sum(len(recipe.parts) for recipe in alignments)
    return Cost(max(nbytes), len(kinds), num_steps, seconds, num_alignments, alignment_seconds)


def _whole(recipe: Recipe) -> list[Aligned | Predicted | Learned]:
    """Return the parts of a recipe that are computed as a whole."""
    match recipe:
        case Aligned() | Predicted():
            return [recipe]
        case Learned():
            return [recipe] if recipe.rows is not None else []
        case Lift():
            return _whole(recipe.recipe)
        case Blend():
            return [found for _, term in recipe.terms for found in _whole(term)]
        case _:
            return []


def _product_nbytes(recipe: Learned) -> int:
    return _FLOAT64 * (2 * prod(recipe.layers[0].shape) + _NUM_PRODUCTS * prod(recipe.shape))
