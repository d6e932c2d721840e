"""Predict the matrix of a layer between two others from how it changes over all layers.

The matrices of a kind, such as q_proj, share a basis: `[W_0 ... W_{l-1}] = U S [V_0 ... V_{l-1}]`,
the singular value decomposition of all of them side by side. A small network learns to tell row `r`
of `V_i` from row `r` of `V_{i-1}` and of `V_{i+1}`. Behind layer `a` stands `U S V`, with `V` what
the network makes of `V_a` and `V_{a+1}`.

It learns from layers two apart and is asked about neighbours: along a smooth curve it keeps the
direction and goes too far. Where layers have nothing in common, it learns their size.

The same seed gives the same bytes on one machine with one version of torch. Elsewhere sums are
rounded in another order, which training carries on: the numbers are as good, but not the same.

The network has the paper's size and loss, and learns as its code does. Here rows of `V` are scaled
to a mean square of 1, so that what the network begins with fits layers of any size; directions that
hold next to nothing are left out; and of large models it sees a random part of the directions.

Source: Yang et al. 2025, "LESA: Learnable LLM Layer Scaling-Up", https://arxiv.org/abs/2502.13794,
Sec. 3

Tensors made by learned maps, computed from what the maps mix and map.

Sums are taken in float64 and rounded once, so that the order in which a machine adds shows in about
one float32 number of a hundred million.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice, pairwise
from threading import Lock, RLock, local
from typing import Any, TypeVar

from hfgrow.errors import ModelError, printable
from hfgrow.plan.tensors import Learned, Predicted, Recipe, leaves

# Computes rows of a recipe as a tensor of torch: the first row, the row after the last, and
# float32 or float64.
Rows = Callable[[Recipe, int, int, str], Any]
K = TypeVar("K")
V = TypeVar("V")

_HIDDEN_SIZE = 256
_BATCH_SIZE = 64
_LEARNING_RATE = 1e-3
# The weight of the norm in the loss.
_NORM_WEIGHT = 5e-5
_NUM_EPOCHS, _MAX_STEPS = 10, 2000
# Directions with less than this share of the largest singular value are left out.
_SMALLEST = 1e-5
# The most numbers of all layers that a network learns from.
_MAX_ELEMENTS = 1 << 26
# Threads may be at work on the end of one matrix and the start of the next, also of another kind.
_NUM_KEPT = 2
# Whether this is one of several threads at work, and what torch had before one of them called it.
_worker = local()
_num_torch_threads: list[int] = []
_taking = Lock()


def torch_in_worker() -> None:
    """Begin a thread of several at work, where torch is not to start more."""
    _worker.is_one = True


@contextmanager
def torch_is_given_back() -> Iterator[None]:
    """Let torch have its threads again when those at work have ended; it need not be loaded."""
    try:
        yield
    finally:
        if _num_torch_threads:
            import torch

            torch.set_num_threads(_num_torch_threads.pop())


def take_torch() -> None:
    """Let torch use the thread that asks, where several are at work."""
    if getattr(_worker, "is_one", False):
        import torch

        with _taking:
            if not _num_torch_threads:
                _num_torch_threads.append(torch.get_num_threads())
        torch.set_num_threads(1)


class Predictions:
    """Computes predicted matrices, each as a whole; keeps the last ones and their predictors.

    Args:
        rows: Computes rows of what the predictions are made from.
    """

    def __init__(self, rows: Rows) -> None:
        self._whole = partial(_whole, rows)
        # Reentrant: the layers may themselves hold predicted ones.
        self._lock = RLock()
        self._predictors: dict[tuple[tuple[Recipe, ...], int], _Predictor] = {}
        self._matrices: dict[Predicted, Any] = {}

    def rows(self, recipe: Predicted, start: int, stop: int) -> Any:
        """Return rows [stop - start, columns] in float32, whatever the thread and the chunks."""
        take_torch()
        with self._lock:
            matrix = kept_or_made(self._matrices, recipe, self._matrix)
        return matrix[start:stop].clone()

    def _matrix(self, recipe: Predicted) -> Any:
        predictor = kept_or_made(self._predictors, (recipe.layers, recipe.seed), self._predictor)
        below, above = recipe.layers[recipe.after : recipe.after + 2]
        return predictor.between(self._whole(below), self._whole(above))

    def _predictor(self, kind: tuple[tuple[Recipe, ...], int]) -> "_Predictor":
        layers, seed = kind
        return trained(layers, seed, self._whole)


@dataclass(frozen=True, slots=True)
class _Predictor:
    """What was learnt of one kind of matrix.

    Attributes:
        basis: `U S` [rows, rank].
        coordinates: `1 / S U^T` [rank, rows], times what scales coordinates to a mean square of 1.
        scale: That factor.
        network: From coordinates of two layers to those between, [n, 2 columns] to [n, columns].
    """

    basis: Any
    coordinates: Any
    scale: float
    network: Callable[[Any], Any]

    def between(self, below: Any, above: Any) -> Any:
        """Return the matrix between two, all of them [rows, columns] in float32."""
        import torch

        with torch.no_grad():
            pair = [self.coordinates @ matrix for matrix in (below, above)]
            return self.basis @ (self.network(torch.cat(pair, 1)) / self.scale)


def trained(layers: Sequence[Recipe], seed: int, whole: Callable[[Recipe], Any]) -> _Predictor:
    """Train the predictor of one kind of matrix.

    Args:
        layers: The matrix in every layer.
        seed: Seeds the network and the order in which it learns.
        whole: Computes a recipe as a whole in float32.

    Raises:
        ModelError: A matrix holds a number that is not finite, or too large to square.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    rows, num_columns = layers[0].shape
    gram = torch.zeros(rows, rows, dtype=torch.float64)
    for layer in layers:
        wide = whole(layer).double()
        gram += wide @ wide.T
    if not gram.isfinite().all():
        kind = printable(next(leaves(layers[0])).name)
        raise ModelError(f"{kind}, or that of another layer, has values that are not finite")
    vectors, values = _singular(gram)
    del gram
    # All coordinates have a mean square of 1 over layers and columns, but for this factor.
    scale = (len(layers) * num_columns) ** 0.5
    coordinates = (vectors / values * scale).T.float().contiguous()
    num_seen = max(1, _MAX_ELEMENTS // (len(layers) * num_columns))
    seen = coordinates[torch.randperm(len(values), generator=generator)[:num_seen]]
    network = _network(num_columns, generator)
    # Filled layer by layer: a list of them would be a second copy.
    learned_from = torch.empty(len(layers), len(seen), num_columns)
    for of_layer, layer in zip(learned_from, layers, strict=True):
        of_layer.copy_(seen @ whole(layer))
    _train(network, learned_from, generator)
    return _Predictor((vectors * values).float(), coordinates, scale, partial(_applied, network))


def predictor_steps(num_layers: int, rows: int, columns: int) -> tuple[int, float, int]:
    """Return the steps, FLOPs and samples' numbers of the training of a predictor.

    Args:
        rows: Rows of the matrix in each.
        columns: Its columns.
    """
    num_seen = max(1, min(rows, _MAX_ELEMENTS // (num_layers * columns)))
    num_batches = -(-(num_layers - 2) * num_seen // _BATCH_SIZE)
    num_steps = min(_NUM_EPOCHS * num_batches, _MAX_STEPS)
    sizes = (2 * columns, _HIDDEN_SIZE, _HIDDEN_SIZE, columns)
    num_weights = sum(one * other for one, other in pairwise(sizes))
    return num_steps, 6.0 * _BATCH_SIZE * num_weights * num_steps, num_layers * num_seen * columns


def _singular(gram: Any) -> tuple[Any, Any]:
    """Return `U` [rows, rank] and `S` [rank] of matrices side by side, from `U S^2 U^T`.

    The sign of a direction is such that its largest entry is positive.
    """
    import torch

    squares, vectors = torch.linalg.eigh(gram)
    kept = squares > squares[-1].clamp(min=torch.finfo(squares.dtype).tiny) * _SMALLEST**2
    vectors = vectors[:, kept]
    largest = vectors.gather(0, vectors.abs().argmax(0, keepdim=True))
    return vectors * largest.sign(), squares[kept].sqrt()


def _network(num_columns: int, generator: Any) -> list[Any]:
    """Return weights and biases of three linear maps, drawn as torch draws those of its own."""
    import torch

    sizes = (2 * num_columns, _HIDDEN_SIZE, _HIDDEN_SIZE, num_columns)
    return [
        torch.empty(shape).uniform_(-(before**-0.5), before**-0.5, generator=generator)
        for before, after in pairwise(sizes)
        for shape in ((after, before), (after,))
    ]


def _applied(network: Sequence[Any], numbers: Any) -> Any:
    from torch.nn.functional import linear

    for i in range(0, len(network) - 2, 2):
        numbers = linear(numbers, network[i], network[i + 1]).relu_()
    return linear(numbers, network[-2], network[-1])


def _train(network: list[Any], coordinates: Any, generator: Any) -> None:
    """Train a network in place on coordinates [layers, directions, columns]."""
    import torch

    num_directions = coordinates.shape[1]
    num_samples = (len(coordinates) - 2) * num_directions
    num_batches = -(-num_samples // _BATCH_SIZE)
    num_steps = min(_NUM_EPOCHS * num_batches, _MAX_STEPS)
    with torch.enable_grad():
        for tensor in network:
            tensor.requires_grad_()
        optimizer = torch.optim.AdamW(network, lr=_LEARNING_RATE, foreach=False)
        for batch in islice(_batches(num_samples, generator), num_steps):
            layer, direction = batch // num_directions + 1, batch % num_directions
            pair = [coordinates[layer + side, direction] for side in (-1, 1)]
            wanted, found = coordinates[layer, direction], _applied(network, torch.cat(pair, 1))
            error = (found - wanted).square().mean()
            norm_error = (found.norm() - wanted.norm()).square()
            optimizer.zero_grad()
            ((1 - _NORM_WEIGHT) * error + _NORM_WEIGHT * norm_error).backward()
            optimizer.step()
    for tensor in network:
        tensor.requires_grad_(False)


def _batches(num_samples: int, generator: Any) -> Iterator[Any]:
    """Yield numbers of samples without end, each once before any comes again; none if none are."""
    import torch

    while num_samples:
        order = torch.randperm(num_samples, generator=generator)
        for start in range(0, num_samples, _BATCH_SIZE):
            yield order[start : start + _BATCH_SIZE]


def _whole(rows: Rows, recipe: Recipe) -> Any:
    return rows(recipe, 0, recipe.shape[0], "float32")


def kept_or_made(kept: dict[K, V], key: K, make: Callable[[K], V]) -> V:
    """Return what is kept under a key, made if it is not; the oldest goes for it."""
    if key not in kept:
        made = make(key)
        while len(kept) >= _NUM_KEPT:
            del kept[next(iter(kept))]
        kept[key] = made
    return kept[key]


def mapped_rows(maps: Any, numbers: Any, unit: int) -> Any:
    """Return `(R (x) I_unit) W`.

    Args:
        maps: `R` [new units, units].
        numbers: `W` [units * unit] or [units * unit, columns].
        unit: The rows of a unit.
    """
    grouped = numbers.reshape(maps.shape[1], -1)
    return (maps @ grouped).reshape(maps.shape[0] * unit, *numbers.shape[1:])


def mapped_columns(maps: Any, numbers: Any, unit: int) -> Any:
    """Return `W (C (x) I_unit)^T`.

    Args:
        maps: `C` [new units, units].
        numbers: `W` [rows, units * unit].
        unit: The columns of a unit.
    """
    if unit == 1:
        return numbers @ maps.T
    grouped = numbers.reshape(len(numbers), maps.shape[1], unit)
    return (maps @ grouped).reshape(len(numbers), maps.shape[0] * unit)


class Products:
    """Computes what learned maps make; matrices whose rows are mapped, each as a whole.

    Args:
        rows: Computes rows of what the maps are applied to, and of the maps.
    """

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._lock = Lock()
        self._kept: dict[Learned, Any] = {}

    def rows(self, recipe: Learned, start: int, stop: int) -> Any:
        """Return rows [stop - start] or [stop - start, columns] of a tensor, in float64."""
        take_torch()
        if recipe.rows is None:
            return self._product(recipe, start, stop)
        with self._lock:
            if recipe not in self._kept:
                while len(self._kept) >= _NUM_KEPT:
                    del self._kept[next(iter(self._kept))]
                self._kept[recipe] = self._product(recipe, 0, recipe.layers[0].shape[0])
            whole = self._kept[recipe]
        return whole[start:stop].clone()

    def _product(self, recipe: Learned, start: int, stop: int) -> Any:
        """Return a tensor in float64, of some rows of the base; rows that are mapped are all."""
        import torch

        def whole(stored: Recipe) -> Any:
            return self._rows(stored, 0, stored.shape[0], "float64")

        coefficients = [1.0]
        if recipe.depth is not None:
            row = self._rows(recipe.depth, recipe.layer, recipe.layer + 1, "float64")
            coefficients = row[0].tolist()
        total = torch.zeros((stop - start, *recipe.layers[0].shape[1:]), dtype=torch.float64)
        for coefficient, layer in zip(coefficients, recipe.layers, strict=True):
            if coefficient:
                total += self._rows(layer, start, stop, "float64") * coefficient
        if recipe.rows is not None:
            total = mapped_rows(whole(recipe.rows), total, recipe.row_unit)
        if recipe.cols is not None:
            total = mapped_columns(whole(recipe.cols), total, recipe.col_unit)
        return total
