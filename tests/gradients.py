"""Gradients of models in float64, and the models that steps make of them."""

from typing import Any

import torch
from transformers import AutoModelForCausalLM

from hfgrow.growth.memory import grow_state_dict
from tests.checkpoints import probe
from tests.growths import with_exact_norms

Steps = list[tuple[str, dict[str, object]]]
Tensors = dict[str, Any]
FRACTION: dict[str, object] = {"hidden_size": 40, "ffn": 52, "heads": 8, "kv_heads": 4}


def gradients(model: Any, rows: slice = slice(None)) -> Tensors:
    tokens = probe()[rows]
    model.zero_grad(set_to_none=True)
    predicted = model(tokens).logits[:, :-1].flatten(0, 1)
    loss: Any = torch.nn.functional.cross_entropy(predicted, tokens[:, 1:].flatten())
    loss.backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def grown_model(model: Any, steps: Steps) -> Any:
    state, config = grow_state_dict(model, steps)
    auto: Any = AutoModelForCausalLM
    grown = auto.from_config(type(model.config)(**config)).double()
    assert not grown.load_state_dict(state, strict=False).unexpected_keys
    grown.tie_weights()
    return with_exact_norms(grown.eval())
