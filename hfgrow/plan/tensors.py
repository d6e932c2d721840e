"""What a tensor is made from, as plain data: bytes of the base, or an algebra over them.

Sums, axis maps, fills, seeded noise, and what is aligned, predicted or learned: each says what it
is made from, and `hfgrow.checkpoint.evaluate` computes it.

Gradients of grown tensors as recipes: the maps of the weights, transposed.

Where a growth preserves the function, the gradient of a grown tensor is a linear map of that of its
source. A matrix `W'[i, j] = f[i] W[s(i), t(j)] b[j]`, its rows carried forward with `f` and its
columns read backward with `b`, has the gradient `G'[i, j] = b[i] G[s(i), t(j)] f[j]`, where the two
are exchanged, each on its own axis. Every entry comes from one entry, so that what is known of the
squares follows the same map with squared coefficients.

Of any growth that preserves the function, the map is right about what the copies add up to: what
the transposed growth makes of `G'` is `G`. How they share it is exact too for growth without noise
whose copies share evenly, and otherwise an approximation:

* Uneven shares of the residual stream, in tensors that write to it: an RMSNorm gives the copies
  the gradient `b[i] A + (d/D) f[i] B`, of which only the sum is known.
* Uneven shares of heads, in queries and keys that pass a norm over all heads, for the same reason.
* Key-value heads whose copies serve different queries: each gets its share of the sum.
* Noise that copies cancel: on the way back it reaches the copies that it is read from.
* Embeddings that the growth unties: both get the sum of their gradients.

Growth that changes the function, such as repeated layers, changes gradients too; they are copied.
A predicted matrix, and one of aligned rows, takes the mean of those of the layers it stands
between; one that learned maps made has no history.

The dtypes hfgrow knows: as config.json, safetensors and torch spell them.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from math import prod

from hfgrow.plan.axes import AxisMap, Span

# Bytes of one element, by the dtype names of safetensors.
DTYPE_NBYTES: Mapping[str, int] = {
    "BF16": 2,
    "F16": 2,
    "F32": 4,
    "F64": 8,
}


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor exactly as it lies in a file of the base.

    Attributes:
        file: Name of the safetensors file, inside the plan's folder.
        name: Name of the tensor in that file.
        offset: Where its bytes start, counted from the start of the file.
        shape: Its shape there.
        dtype: Its dtype there, in safetensors' words.
    """

    file: str
    name: str
    offset: int
    shape: tuple[int, ...]
    dtype: str

    @property
    def nbytes(self) -> int:
        """How many bytes it has."""
        return prod(self.shape) * DTYPE_NBYTES[self.dtype]


@dataclass(frozen=True, slots=True)
class Fill:
    """One number everywhere."""

    shape: tuple[int, ...]
    value: float


@dataclass(frozen=True, slots=True)
class Normal:
    """Pseudo-random numbers with mean 0: a pure function of `key` and the position.

    Attributes:
        shape: The shape, of two dimensions.
        std: The standard deviation.
        key: What seeds them.
    """

    shape: tuple[int, ...]
    std: float
    key: str


@dataclass(frozen=True, slots=True)
class Blend:
    """A weighted sum of recipes of one shape."""

    terms: "tuple[tuple[float, Recipe], ...]"

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of every term."""
        return self.terms[0][1].shape


@dataclass(frozen=True, slots=True)
class Noise:
    """Noise on copied columns that the copies' inputs cancel: `N` with `N P = 0`.

    Attributes:
        key: What seeds it.
        amplitude: Its standard deviation before the projection, in units of the root mean square
            of the row it is added to.
    """

    key: str
    amplitude: float


@dataclass(frozen=True, slots=True)
class Fresh:
    """What stands where a row or column has no source: standard deviations, or one value.

    Attributes:
        key: What seeds the random numbers.
        rows: Standard deviation in fresh rows, at columns that have a source.
        columns: Standard deviation in fresh columns, at rows that have a source.
        corner: Standard deviation where both are fresh.
        value: What a vector holds there.
    """

    key: str = ""
    rows: float = 0.0
    columns: float = 0.0
    corner: float = 0.0
    value: float = 0.0

    @property
    def is_random(self) -> bool:
        """Whether something random stands there."""
        return bool(self.rows or self.columns or self.corner)


@dataclass(frozen=True, slots=True)
class Lift:
    """A tensor on grown axes: `W'[i, j] = rows.forward[i] W[rows[i], cols[j]] cols.backward[j]`.

    Attributes:
        recipe: `W`, of one or two dimensions.
        rows: The map of the first axis.
        cols: The map of the second axis; None for a vector.
        noise: What breaks the symmetry of copied columns; None leaves them proportional.
        fresh: What stands where there is no source.
    """

    recipe: "Recipe"
    rows: AxisMap
    cols: AxisMap | None = None
    noise: Noise | None = None
    fresh: Fresh = Fresh()

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape on the grown axes."""
        return (self.rows.size,) if self.cols is None else (self.rows.size, self.cols.size)


@dataclass(frozen=True, slots=True)
class Aligned:
    """The mean of a matrix and of the one below it, whose rows are first put in its order.

    Attributes:
        below: The matrix in the layer below.
        above: The matrix in the layer above, whose rows stay where they are.
        parts: How many rows each part has; the rows of a part are compared with each other only.
        regularization: How much the entropy of the transport plan weighs, in units of the distance
            between two rows.
    """

    below: "Recipe"
    above: "Recipe"
    parts: tuple[int, ...]
    regularization: float

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape in both layers."""
        return self.above.shape

    @property
    def mean(self) -> Blend:
        """The mean of the layers that it stands between, row by row."""
        return Blend(((0.5, self.below), (0.5, self.above)))


@dataclass(frozen=True, slots=True)
class Predicted:
    """A matrix between two layers, predicted from how it changes from layer to layer.

    Attributes:
        layers: The matrix in every layer, at least 3, all of one shape.
        after: The 0-based layer that it stands behind.
        seed: What seeds the training of the predictor.
    """

    layers: "tuple[Recipe, ...]"
    after: int
    seed: int

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape in every layer."""
        return self.layers[0].shape

    @property
    def mean(self) -> Blend:
        """The mean of the layers that it stands between."""
        return Blend(((0.5, self.layers[self.after]), (0.5, self.layers[self.after + 1])))


@dataclass(frozen=True, slots=True)
class Learned:
    """A tensor made by learned maps: `W' = R (sum over j of c[i, j] W_j) C^T`.

    `R` and `C` act on units of neighbouring indices, such as whole heads: `R (x) I_unit`.

    Attributes:
        layers: `W_j`, the tensor in every layer of the base, or the only one if it is in none.
        depth: `c`, [layers of the output, layers of the base]; None if there is one tensor.
        layer: `i`, the 0-based layer of the output.
        rows: `R`, [new units, units of the base]; None keeps the rows.
        cols: `C`, likewise for the columns.
        row_unit: The indices of a unit of rows.
        col_unit: The indices of a unit of columns.
    """

    layers: "tuple[Recipe, ...]"
    depth: Stored | None = None
    layer: int = 0
    rows: Stored | None = None
    cols: Stored | None = None
    row_unit: int = 1
    col_unit: int = 1

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape behind both maps."""
        old = self.layers[0].shape
        first = old[0] if self.rows is None else self.rows.shape[0] * self.row_unit
        second = old[1:] if self.cols is None else (self.cols.shape[0] * self.col_unit,)
        return (first, *second)

    @property
    def maps(self) -> tuple[Stored, ...]:
        """The maps that it takes."""
        return tuple(m for m in (self.depth, self.rows, self.cols) if m is not None)


Recipe = Stored | Fill | Normal | Blend | Lift | Aligned | Predicted | Learned


def leaves(recipe: Recipe) -> Iterator[Stored]:
    """Yield the stored tensors that a recipe reads, in order."""
    match recipe:
        case Stored():
            yield recipe
        case Lift():
            yield from leaves(recipe.recipe)
        case Blend():
            for _, term in recipe.terms:
                yield from leaves(term)
        case Aligned():
            yield from leaves(recipe.below)
            yield from leaves(recipe.above)
        case Predicted():
            for layer in recipe.layers:
                yield from leaves(layer)
        case Learned():
            for part in (*recipe.layers, *recipe.maps):
                yield from leaves(part)
        case Fill() | Normal():
            pass


def predictor_of(recipe: Recipe) -> str:
    """Return what names the products of matrices that a recipe needs; empty if it needs none.

    Tensors sorted by it are computed with one training of each predictor. Sums of products are
    rounded in an order that depends on the machine.
    """
    match recipe:
        case Aligned() | Predicted() | Learned():
            return next(leaves(recipe)).name
        case Lift():
            return predictor_of(recipe.recipe)
        case Blend():
            return max(predictor_of(term) for _, term in recipe.terms)
        case _:
            return ""


def linear(recipe: Recipe) -> Recipe:
    """Return a recipe without what it adds: noise, constants and fresh entries."""
    return _mapped(recipe, lambda axis_map: axis_map, lambda coefficient: coefficient)


def gradient(recipe: Recipe) -> Recipe:
    """Return the recipe of a tensor's gradient from the gradients of its leaves."""
    return _mapped(recipe, _dual, lambda coefficient: coefficient)


def squared(recipe: Recipe) -> Recipe:
    """Return a linear recipe with every coefficient squared."""
    return _mapped(recipe, _squared, lambda coefficient: coefficient**2)


def first_copies(recipe: Recipe, source: str | None) -> Recipe:
    """Return a linear recipe with zeros where it is no first copy.

    An entry is one if it comes from the tensor `source`, and neither an earlier row nor an earlier
    column, nor an earlier term of a sum, comes from where it does.

    Args:
        recipe: A linear recipe.
        source: The leaf that counts; None for a tensor that is a copy as a whole.
    """
    match recipe:
        case Stored():
            return recipe if recipe.name == source else Fill(recipe.shape, 0.0)
        case Blend():
            for coefficient, term in recipe.terms:
                kept = first_copies(term, source)
                if any(leaves(kept)):
                    return Blend(((coefficient, kept),))
            return Fill(recipe.shape, 0.0)
        case Lift():
            return replace(
                recipe,
                recipe=first_copies(recipe.recipe, source),
                rows=recipe.rows.copies(0, 0),
                cols=recipe.cols and recipe.cols.copies(0, 0),
            )
        case Fill() | Normal() | Aligned() | Predicted() | Learned():
            return recipe


def _mapped(
    recipe: Recipe, axis: Callable[[AxisMap], AxisMap], factor: Callable[[float], float]
) -> Recipe:
    match recipe:
        case Stored():
            return recipe
        case Fill() | Normal() | Learned():
            return Fill(recipe.shape, 0.0)
        case Aligned() | Predicted():
            return _mapped(recipe.mean, axis, factor)
        case Blend():
            return Blend(
                tuple((factor(c), _mapped(term, axis, factor)) for c, term in recipe.terms)
            )
        case Lift():
            cols = None if recipe.cols is None else axis(recipe.cols)
            return Lift(_mapped(recipe.recipe, axis, factor), axis(recipe.rows), cols)


# Cached, so that the tensors of a growth go on sharing their maps.
@lru_cache(maxsize=256)
def _dual(axis_map: AxisMap) -> AxisMap:
    return axis_map.dual


@lru_cache(maxsize=256)
def _squared(axis_map: AxisMap) -> AxisMap:
    return AxisMap(
        axis_map.base,
        tuple(Span(s.start, s.length, s.forward**2, s.backward**2) for s in axis_map.spans),
    )


# The dtypes config.json may name -> as safetensors spells them.
CONFIG_DTYPES = {"bfloat16": "BF16", "float16": "F16", "float32": "F32", "float64": "F64"}
CONFIG_NAMES = {dtype: name for name, dtype in CONFIG_DTYPES.items()}
