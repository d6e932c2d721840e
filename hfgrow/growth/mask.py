"""A mask on new units at run time: what they contribute fades in while the model trains.

Source: Yao et al. 2023, "Masked Structural Growth", https://arxiv.org/abs/2305.02869, Sec. 3

Open the mask of a model that was grown at random.

random-width and random-depth fold a mask into the weights. What it hides is a function of the
recorded seed, so a model that was just grown can be given its random weights back, behind hooks
that multiply what they contribute: it then computes what a checkpoint grown with that mask does.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from hfgrow.checkpoint.compute.state_dict import evaluated, torch_dtype
from hfgrow.errors import UsageError
from hfgrow.growth.recorded import recorded_base
from hfgrow.lineage.manifest import Link
from hfgrow.plan.axes import FRESH, AxisMap
from hfgrow.plan.depth import HIDDEN
from hfgrow.plan.families import FAMILIES
from hfgrow.plan.families.table import Kind, Role, layer_of, layer_prefix
from hfgrow.plan.operators import ALL_OPERATORS, apply
from hfgrow.plan.operators.operator import check_amount
from hfgrow.plan.plan import GrowthPlan, GrowthStep
from hfgrow.plan.tensors import CONFIG_DTYPES, Fill, Lift


class GrowthMask:
    """Hooks on a model that multiply the inputs and outputs of modules where they are new.

    Args:
        model: The model.
        inputs: Module name -> 1 where an input is new, else 0, shape [in].
        outputs: Module name -> 1 where an output is new, else 0, shape [out].
        value: The mask at the start.
        centre: What the gains of the family's norms are stored without.
    """

    def __init__(
        self,
        model: Any,
        inputs: Mapping[str, Any],
        outputs: Mapping[str, Any],
        value: float,
        *,
        centre: float = 0.0,
    ) -> None:
        import torch

        self._model, self._centre = model, centre
        self._inputs, self._outputs = dict(inputs), dict(outputs)
        # One number on every device that computes with it, so that compiled code sees it change.
        self._values: dict[Any, Any] = {}
        self._current = torch.tensor(float(value), dtype=torch.float64)
        modules = dict(model.named_modules())
        self._handles = [
            *(
                modules[name].register_forward_pre_hook(self._mask_input(new))
                for name, new in self._inputs.items()
            ),
            *(
                modules[name].register_forward_hook(self._mask_output(new))
                for name, new in self._outputs.items()
            ),
        ]

    @property
    def value(self) -> float:
        """The mask: 0 hides what is new, 1 shows it."""
        return float(self._current)

    @value.setter
    def value(self, value: float) -> None:
        for held in (self._current, *self._values.values()):
            held.fill_(float(value))

    def fold(self) -> None:
        """Multiply the mask into the weights and take the hooks away."""
        import torch

        for handle in self._handles:
            handle.remove()
        modules = dict(self._model.named_modules())
        folded: set[int] = set()
        with torch.no_grad():
            for name in dict.fromkeys((*self._outputs, *self._inputs)):
                module = modules[name]
                # A tied head shares the weights of the embeddings, which are folded before it.
                if id(module.weight) not in folded:
                    folded.add(id(module.weight))
                    self._fold(module, self._inputs.get(name), self._outputs.get(name))
        self._inputs, self._outputs, self._handles = {}, {}, []

    def _fold(self, module: Any, inputs: Any, outputs: Any) -> None:
        import torch

        weight = module.weight
        if isinstance(module, torch.nn.Embedding):
            weight *= self._factors(outputs, weight)
            return
        if weight.dim() == 1:
            centre = self._centre
            weight.copy_((weight + centre) * self._factors(outputs, weight) - centre)
            return
        if outputs is not None:
            weight *= self._factors(outputs, weight)[:, None]
            if module.bias is not None:
                module.bias *= self._factors(outputs, weight)
        if inputs is not None:
            weight *= self._factors(inputs, weight)

    def _factors(self, new: Any, like: Any) -> Any:
        import torch

        key = like.device
        if key not in self._values:
            with torch.inference_mode(False):
                self._values[key] = self._current.to(key, copy=True)
        value = self._values[key].to(like.dtype)
        return 1 + (value - 1) * new.to(device=like.device, dtype=like.dtype)

    def _mask_input(self, new: Any) -> Any:
        def hook(module: Any, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
            return (arguments[0] * self._factors(new, arguments[0]), *arguments[1:])

        return hook

    def _mask_output(self, new: Any) -> Any:
        def hook(module: Any, arguments: tuple[Any, ...], output: Any) -> Any:
            return output * self._factors(new, output)

        return hook


def attach_mask(model: Any, link: Link, value: float) -> GrowthMask:
    """Give a model that was just grown at random its mask back.

    Args:
        model: The grown model, loaded, not trained since.
        link: How it was grown; its last step is of an operator with a mask.
        value: The mask to begin with, from 0 to 1.

    Raises:
        UsageError: The last step has no mask, the value is out of range, or the model was trained
            since; it is then as it was.
    """
    import torch

    check_amount("mask", value)
    step = link.steps[-1]
    row = ALL_OPERATORS.get(step.operator)
    if row is None or row.parameter("mask") is None:
        raise UsageError(f"the last step is {step.operator}, which has no mask")
    blank = _blank_base(model, link)
    folded, opened = (
        _applied(blank, (*link.steps[:-1], replace(step, arguments={**step.arguments, **mask})))
        for mask in ({}, {"mask": 1.0})
    )
    changed = {name: plan for name, plan in opened.tensors.items() if plan != folded.tensors[name]}
    as_grown = evaluated({name: folded.tensors[name] for name in changed}, {})
    as_drawn = evaluated(changed, {})
    inputs, outputs = _new_units(opened, step)
    state = model.state_dict()
    new = {name: drawn != as_grown[name] for name, drawn in as_drawn.items()}
    for name, where in new.items():
        if name not in state or state[name].shape != where.shape:
            raise UsageError(f"{name} is not that of the grown model; attach the mask to that one")
        if not _is_as_grown(state[name][where].cpu(), as_grown[name][where]):
            raise UsageError(
                f"{name} was changed since it was grown; a mask is opened right after growth"
            )
    with torch.no_grad():
        for name, where in new.items():
            tensor = state[name]
            tensor[where] = as_drawn[name][where].to(device=tensor.device, dtype=tensor.dtype)
    centre = 1.0 if FAMILIES[opened.family].centred_gains else 0.0
    return GrowthMask(model, inputs, outputs, value, centre=centre)


def _is_as_grown(found: Any, grown: Any) -> bool:
    """Say whether weights are those of a growth, whatever dtype they were stored in."""
    import torch

    stored = (torch_dtype(dtype) for dtype in CONFIG_DTYPES.values())
    return any(torch.equal(found, grown.to(dtype).to(found.dtype)) for dtype in stored)


def _blank_base(model: Any, link: Link) -> GrowthPlan:
    """Return the plan of the base with zeros for weights: what is left of growth is random."""
    dtype = CONFIG_DTYPES[str(model.dtype).removeprefix("torch.")]
    base = recorded_base(model.config.to_dict(), link, dtype)
    zeros = {name: replace(t, recipe=Fill(t.shape, 0.0)) for name, t in base.tensors.items()}
    return replace(base, tensors=zeros)


def _applied(plan: GrowthPlan, steps: tuple[GrowthStep, ...]) -> GrowthPlan:
    for step in steps:
        plan = apply(plan, step.operator, step.arguments)
    return plan


def _new_units(plan: GrowthPlan, step: GrowthStep) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what the mask multiplies: inputs and outputs of modules, 1 where they are new."""
    import torch

    family = FAMILIES[plan.family]
    inputs: dict[str, Any] = {}
    outputs: dict[str, Any] = {}
    if ALL_OPERATORS[step.operator].axis == "depth":
        for i, source in enumerate(step.layer_map):
            if source.mode == "random":
                for role in _branch_ends(plan):
                    name = layer_prefix(i) + role.tensor.removesuffix(".weight")
                    outputs[name] = torch.ones(1)
        return inputs, outputs
    for name, role, lift in _lifts(plan):
        module = name.removesuffix(".weight")
        if role.kind is Kind.EMBEDDING and lift.cols and lift.cols.has_fresh:
            outputs[module] = _fresh(lift.cols)
            if family.head.tensor not in plan.tensors:
                inputs[family.head.tensor.removesuffix(".weight")] = _fresh(lift.cols)
        elif role.kind is Kind.LINEAR and role.dimensions[0] == HIDDEN and lift.cols:
            if lift.rows.has_fresh:
                outputs[module] = _fresh(lift.rows)
            if lift.cols.has_fresh:
                inputs[module] = _fresh(lift.cols)
    return inputs, outputs


def _branch_ends(plan: GrowthPlan) -> Iterator[Role]:
    roles = FAMILIES[plan.family].roles(plan.config).values()
    return (role for role in roles if role.ends_branch and role.kind is not Kind.BIAS)


def _lifts(plan: GrowthPlan) -> Iterator[tuple[str, Role, Lift]]:
    family = FAMILIES[plan.family]
    roles = family.roles(plan.config)
    outer = {role.tensor: role for role in (*family.outer, family.head)}
    for name, tensor in plan.tensors.items():
        found = layer_of(name)
        if isinstance(tensor.recipe, Lift):
            yield name, roles[found[1]] if found else outer[name], tensor.recipe


def _fresh(axis_map: AxisMap) -> Any:
    import torch

    return torch.tensor([float(source == FRESH) for source in axis_map.sources])
