"""The optimizer of a recipe: which parameters train, by which rule, at which learning rates.

Which ones is decided by the last growth. A layer is new if that did not copy it, or copied it from
a layer of the base that an earlier layer is a copy of: the blocks that LLaMA-Pro inserts, wherever
they stand, and the repeats of a stack. Freezing the last layers instead would freeze the wrong ones
where the new are interleaved. Of a growth in width rows and columns are new in the same sense, and
the tensors they stand in train in part: `hfgrow.train.kept`.

Muon makes the momentum of a matrix as good as orthogonal before it is a step. Embeddings, head and
vectors have no use for that and go by AdamW, inside the same optimizer.

Sources: Jordan et al. 2024, "Muon", https://kellerjordan.github.io/posts/muon; Liu et al. 2025,
"Muon is Scalable for LLM Training", https://arxiv.org/abs/2502.16982, Sec. 2.2 (updates as large
as AdamW's); Wu et al. 2024, "LLaMA Pro: Progressive LLaMA with Block Expansion",
https://arxiv.org/abs/2401.02415, Sec. 3.2 (train only the inserted blocks)
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch.nn import Module, Parameter

from hfgrow.checkpoint.derived.skeleton import OTHERS as NO_TEXT
from hfgrow.errors import UsageError, printable
from hfgrow.plan.plan import LayerSource
from hfgrow.plan.undo import Kept
from hfgrow.train.mup import AS_WIDE, Multiples
from hfgrow.train.parameter_names import PLAIN, Names, with_other_experts
from hfgrow.train.recipe.parts import AdamW, Muon, ScheduleFreeAdamW
from hfgrow.train.recipe.stages import Train
from hfgrow.train.schedule_free import ScheduleFreeAdamW as ScheduleFree


class MuonAdamW(torch.optim.Optimizer):
    """torch.optim.Muon and torch.optim.AdamW over one list of groups and one state.

    Args:
        muon_groups: Parameter groups of matrices, `[rows, columns]` each; may be empty.
        adamw_groups: Parameter groups of everything else; may be empty.
        muon_options: Arguments of torch.optim.Muon.
        adamw_options: Arguments of torch.optim.AdamW.

    Raises:
        UsageError: This torch has no Muon.
    """

    def __init__(
        self,
        muon_groups: Sequence[dict[str, Any]],
        adamw_groups: Sequence[dict[str, Any]],
        *,
        muon_options: dict[str, Any],
        adamw_options: dict[str, Any],
    ) -> None:
        if not hasattr(torch.optim, "Muon"):
            raise UsageError(
                f"muon needs torch 2.9 or later, not {torch.__version__}",
                hint="optimizer: {name: adamw}",
            )
        self._parts: dict[str, torch.optim.Optimizer] = {}
        if muon_groups:
            self._parts["muon"] = torch.optim.Muon(muon_groups, **muon_options)
        if adamw_groups:
            self._parts["adamw"] = torch.optim.AdamW(adamw_groups, **adamw_options)
        groups = []
        for rule, part in self._parts.items():
            for group in part.param_groups:
                group["rule"] = rule
                groups.append(group)
        super().__init__(groups, {})

    # torch overloads it by whether there is a closure.
    @torch.no_grad()
    def step(  # type: ignore[override]
        self, closure: Callable[[], float] | None = None
    ) -> float | None:
        """Take a step with each rule on its groups."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for rule, part in self._parts.items():
            # Loading a state replaces groups and state, so the parts are handed them anew.
            part.param_groups = [group for group in self.param_groups if group["rule"] == rule]
            part.state = self.state
            part.step()
        return loss


_EXAMPLE = "such as model.layers.0.*, *.self_attn.*, *norm*; hfgrow inspect lists the names"


@dataclass(frozen=True, slots=True)
class ParameterGroup:
    """Parameters that are optimised alike.

    Attributes:
        names: Their tensor names.
        parameters: The parameters, in the same order.
        learning_rate: The peak of their learning rate.
        decays: Whether weight decay pulls at them: matrices, embeddings among them.
        is_inside: Whether Muon takes them, as `is_inside` says.
        is_new: Whether they warm up by themselves: nothing that trains in them is older than the
            last growth.
        multiples: How much wider they are than what weight decay and eps are said for.
    """

    names: tuple[str, ...]
    parameters: tuple[Parameter, ...]
    learning_rate: float
    decays: bool
    is_inside: bool
    is_new: bool = False
    multiples: Multiples = AS_WIDE


def new_layers(layer_map: Sequence[LayerSource]) -> list[int]:
    """Return the 0-based layers that a growth added.

    Args:
        layer_map: For every layer, the layer of the base it comes from, and its mode.
    """
    copied: set[int] = set()
    new = []
    for i, source in enumerate(layer_map):
        if source.mode == "copy" and source.layer not in copied:
            copied.add(source.layer)
        else:
            new.append(i)
    return new


def is_inside(name: str, num_dimensions: int, names: Names) -> bool:
    """Say whether a tensor is a matrix of a layer, which Muon can orthogonalise.

    Experts are not: those of a layer are one tensor in memory, of three dimensions, though most
    files hold matrices.

    Args:
        name: Its name in files.
        num_dimensions: Those that it has there, or in memory.
        names: How its name is to be read.
    """
    is_of_layer = names.layer_of(name) is not None and "experts" not in name.split(".")
    return num_dimensions == 2 and is_of_layer


def parameter_groups(
    model: Module,
    *,
    learning_rate: float,
    trainable: str | Sequence[str] = "all",
    layer_map: Sequence[LayerSource] | None = None,
    kept: Mapping[str, Kept] | None = None,
    new_learning_rate: float | None = None,
    new_warms_up: bool = False,
    embedding_learning_rate: float | None = None,
    multiples: Mapping[str, Multiples] | None = None,
    names: Names = PLAIN,
) -> tuple[ParameterGroup, ...]:
    """Freeze what does not train, and part the rest into groups.

    Args:
        model: A causal language model; `requires_grad` of its parameters is set. A head tied to the
            embeddings counts as embeddings, and what never sees text, such as the parts of a model
            that see, does not train.
        learning_rate: The peak of what has none of its own.
        trainable: `all`, `new` (what the last growth added), `new+embeddings` (that, the embeddings
            and the head), or patterns of tensor names with `*`, `?` and `[...]`.
        layer_map: The layer map of the last growth; None if nothing has grown.
        kept: Which entries of each tensor are older than the last growth, where that grew a width;
            None where whole layers are new, and nothing else.
        new_learning_rate: The peak of the tensors that the last growth added, and of those that it
            added to where nothing else of them trains.
        new_warms_up: Whether the tensors that the last growth added have a warmup of their own, and
            so groups of their own.
        embedding_learning_rate: The peak of the embeddings and the head.
        multiples: How much wider each tensor is than what the rates are said for; None is not.
        names: What the parameters are called in files, which patterns match.

    Raises:
        UsageError: Something that was asked for matches nothing, or a part of a tensor.
    """
    named = dict(model.named_parameters())
    trained, new, embeddings = _parted(
        [one for name in named for one in names.of(name)],
        trainable,
        layer_map,
        kept,
        new_learning_rate,
        embedding_learning_rate,
        names,
    )
    parted: dict[tuple[float, bool, bool, bool, Multiples], list[str]] = {}
    for name, parameter in named.items():
        first, *_ = stored = names.of(name)
        trains = _trains(stored, trained) and not NO_TEXT.search(name)
        parameter.requires_grad_(trains)
        if not trains:
            continue
        rate = learning_rate
        if first in embeddings and embedding_learning_rate is not None:
            rate = embedding_learning_rate
        elif first in new and new_learning_rate is not None:
            rate = new_learning_rate
        wider = (multiples or {}).get(first, AS_WIDE)
        is_matrix, inside = parameter.ndim > 1, is_inside(first, parameter.ndim, names)
        is_new = new_warms_up and first in new
        key = (rate / wider.inputs, is_matrix, inside, is_new, wider)
        parted.setdefault(key, []).append(name)
    return tuple(
        ParameterGroup(tuple(found), tuple(named[name] for name in found), *key)
        for key, found in parted.items()
    )


def _trains(stored: Sequence[str], trained: Collection[str]) -> bool:
    """Say whether a parameter trains, by the tensors that it is in files."""
    found = [name for name in stored if name in trained]
    if found and len(found) < len(stored):
        left = next(name for name in stored if name not in trained)
        raise UsageError(
            f"trainable matches {printable(found[0])}, but not {printable(left)}: they are one "
            "tensor in memory, and train together",
            hint="name all experts of a layer with *",
        )
    return bool(found)


def trained_names(
    tensors: Iterable[str],
    train: Train,
    layer_map: Sequence[LayerSource] | None,
    kept: Mapping[str, Kept] | None = None,
    names: Names = PLAIN,
) -> frozenset[str]:
    """Return the names of the tensors that a stage trains.

    Args:
        tensors: The names of the model's tensors in files.
        layer_map: The layer map of the last growth; None if nothing has grown.
        kept: As in `parameter_groups`.
        names: How these names are to be read.

    Raises:
        UsageError: Something that was asked for matches nothing.
    """
    trained, _, _ = _parted(
        [name for name in tensors if not NO_TEXT.search(name)],
        train.trainable,
        layer_map,
        kept,
        train.new_learning_rate,
        train.embedding_learning_rate,
        names,
    )
    return frozenset(trained)


def _parted(
    tensors: Sequence[str],
    trainable: str | Sequence[str],
    layer_map: Sequence[LayerSource] | None,
    kept: Mapping[str, Kept] | None,
    new_learning_rate: float | None,
    embedding_learning_rate: float | None,
    names: Names,
) -> tuple[set[str], set[str], set[str]]:
    """Return the names that train, those where only what is new does, and the embeddings'."""
    new = _new_names(tensors, layer_map, kept, names, is_alone=only_new(trainable))
    embeddings = {name for name in tensors if names.is_embedding(name)}
    trained = _trained(tensors, trainable, new, embeddings, has_grown=layer_map is not None)
    for what, rate, found in (
        ("new_learning_rate", new_learning_rate, new),
        ("embedding_learning_rate", embedding_learning_rate, embeddings),
    ):
        if rate is not None and not found & trained:
            raise UsageError(f"{what} {rate:g} matches nothing that trains", hint="leave it out")
    return trained, new, embeddings


def only_new(trainable: str | Sequence[str]) -> bool:
    """Say whether what is older than the last growth stays as it is, embeddings aside."""
    return trainable in ("new", "new+embeddings")


def partly_new(kept: Mapping[str, Kept] | None) -> dict[str, Kept]:
    """Return the tensors that the last growth added to, with the entries that are older.

    The experts of a layer are one tensor in memory, so that all of them are among these where some
    are old and some new.
    """
    kept = kept or {}
    old = with_other_experts(kept, [name for name, one in kept.items() if one.is_some])
    new = with_other_experts(kept, [name for name, one in kept.items() if not one.is_all])
    return {name: one for name, one in kept.items() if name in old & new}


def _new_names(
    tensors: Sequence[str],
    layer_map: Sequence[LayerSource] | None,
    kept: Mapping[str, Kept] | None,
    names: Names,
    *,
    is_alone: bool,
) -> set[str]:
    if layer_map is None:
        return set()
    if kept is not None:
        if is_alone:
            return with_other_experts(tensors, [one for one in tensors if not kept[one].is_all])
        old = with_other_experts(tensors, [one for one in tensors if kept[one].is_some])
        return {name for name in tensors if name not in old}
    layers = {name: found[0] for name in tensors if (found := names.layer_of(name))}
    num_layers = max(layers.values(), default=-1) + 1
    if num_layers != len(layer_map):
        raise UsageError(
            f"the layer map of the last growth has {len(layer_map)} layers, the model {num_layers}"
        )
    new = set(new_layers(layer_map))
    return {name for name, layer in layers.items() if layer in new}


def _trained(
    names: Sequence[str],
    trainable: str | Sequence[str],
    new: set[str],
    embeddings: set[str],
    *,
    has_grown: bool,
) -> set[str]:
    match trainable:
        case "all":
            return set(names)
        case "new" | "new+embeddings":
            if not new:
                why = "the last growth added nothing" if has_grown else "nothing has grown"
                raise UsageError(
                    f"trainable {trainable} matches nothing: {why}", hint="trainable: all"
                )
            return new if trainable == "new" else new | embeddings
        case str():
            raise UsageError(
                f"trainable {printable(trainable)} is not one of all, new, new+embeddings or a "
                "list of patterns",
                hint=_EXAMPLE,
            )
    matches = {
        pattern: {name for name in names if fnmatchcase(name, pattern)} for pattern in trainable
    }
    idle = [printable(pattern) for pattern, found in matches.items() if not found]
    if idle or not matches:
        what = ", ".join(idle) or "an empty list"
        raise UsageError(f"trainable: no tensor name matches {what}", hint=_EXAMPLE)
    return set().union(*matches.values())


# Where torch has one kernel for a whole step of AdamW.
_FUSED = ("cuda", "cpu")


def make_optimizer(
    settings: AdamW | ScheduleFreeAdamW | Muon, groups: Sequence[ParameterGroup]
) -> torch.optim.Optimizer:
    """Return the optimizer of a recipe, at the peak learning rate of each group.

    Args:
        settings: What the recipe says.
        groups: What it optimises. Each becomes one `param_group`, with its peak under `peak`.

    Raises:
        UsageError: This optimizer cannot have these parameters, or not with this torch.
    """
    betas, eps = settings.betas, settings.eps
    own = [_options(group, settings.weight_decay, eps) for group in groups]
    match settings:
        case ScheduleFreeAdamW():
            return ScheduleFree(
                own,
                betas=betas,
                eps=eps,
                r=settings.r,
                weight_lr_power=settings.weight_lr_power,
            )
        case Muon():
            return MuonAdamW(
                [options for options, group in zip(own, groups, strict=True) if group.is_inside],
                [
                    options
                    for options, group in zip(own, groups, strict=True)
                    if not group.is_inside
                ],
                muon_options={
                    "momentum": settings.momentum,
                    "nesterov": settings.nesterov,
                    "ns_steps": settings.ns_steps,
                    "adjust_lr_fn": settings.adjust_lr,
                },
                adamw_options={"betas": betas, "eps": eps, "fused": _is_fused(groups)},
            )
        case AdamW():
            return torch.optim.AdamW(own, betas=betas, eps=eps, fused=_is_fused(groups))


def set_learning_rates(optimizer: torch.optim.Optimizer, factor: float, new_factor: float) -> None:
    """Set the learning rate of every group to a factor of its peak, of what is new to another."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * (new_factor if group["is_new"] else factor)


@contextmanager
def averaged(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Hold in the parameters what is to be measured or exported.

    With Schedule-Free AdamW that is the mean of the iterates; with others it is what they hold.
    """
    if not isinstance(optimizer, ScheduleFree):
        yield
        return
    optimizer.eval()
    try:
        yield
    finally:
        optimizer.train()


def _options(group: ParameterGroup, weight_decay: float, eps: float) -> dict[str, Any]:
    wider = group.multiples
    # torch's Muon takes no other key than its own.
    options = {} if wider == AS_WIDE else {"eps": eps / wider.outputs}
    return options | {
        "params": list(group.parameters),
        "lr": group.learning_rate,
        "peak": group.learning_rate,
        "is_new": group.is_new,
        "weight_decay": weight_decay * wider.inputs if group.decays else 0.0,
    }


def _is_fused(groups: Sequence[ParameterGroup]) -> bool:
    return all(p.device.type in _FUSED for group in groups for p in group.parameters)
