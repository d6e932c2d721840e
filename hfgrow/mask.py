"""A mask on new units at run time: what they contribute fades in while the model trains.

Source: Yao et al. 2023, "Masked Structural Growth", https://arxiv.org/abs/2305.02869, Sec. 3
"""

from collections.abc import Mapping
from typing import Any


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
