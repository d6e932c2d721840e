#!/usr/bin/env bash
# transformers 5.23.0: `per_layer_config={1: {"skip": ["mlp"]}}` is taken, and does nothing.
#
# Any config takes `per_layer_config`, a mapping from a layer to what is different there, and says
# `is_heterogeneous` then. `skip` among it raises nothing, but the model that is built has the
# tensors and the logits of one without: the MLP is neither left out of the weights nor of the
# computation. A pruned or grown model that says so in its config is another model when it loads.
#
# Seen: 22,688 parameters and the same logits, to the last bit, with and without.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0
"$folder/venv/bin/pip" install --quiet transformers==5.23.0
HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=error "$folder/venv/bin/python" - <<'PYTHON'
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

SHAPE = dict(
    vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
    num_attention_heads=4, num_key_value_heads=2,
)
found = []
for given in ({}, {"per_layer_config": {1: {"skip": ["mlp"]}}}):
    torch.manual_seed(0)
    config = LlamaConfig(**SHAPE, **given)
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        logits = model(torch.tensor([[1, 2, 3]])).logits
    found.append((config.is_heterogeneous, sum(p.numel() for p in model.parameters()), logits))
    print(f"{given or 'no per_layer_config'}: is_heterogeneous {found[-1][0]}, "
          f"{found[-1][1]:,} parameters")
plain, skipping = found
assert skipping[0] and not plain[0], "the mapping is not taken any more"
assert skipping[1] == plain[1] and torch.equal(skipping[2], plain[2]), "the MLP is skipped now"
print("the same logits to the last bit")
PYTHON
