#!/usr/bin/env bash
# transformers 5.23.0: Mamba models divide their stored out_proj at every loading.
#
# With `rescale_prenorm_residual: true` the `_init_weights` of Mamba, Mamba-2 and FalconMamba divides
# `out_proj.weight` by sqrt(num_hidden_layers) in place, without asking whether it was loaded from a
# file, which Nemotron-H does. `from_pretrained` runs it on layers whose weights are all in the file,
# so a model that is saved and loaded computes something else, and once more each time.
#
# Seen on CPU, float32, random weights, four layers: out_proj is 0.5 of what was saved, 0.25 after
# two rounds, in all three; with 5.24.0 too.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0
"$folder/venv/bin/pip" install --quiet transformers==5.23.0
HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=error "$folder/venv/bin/python" - "$folder" <<'PYTHON'
import sys

import torch
from transformers import AutoConfig, AutoModelForCausalLM

TINY = dict(
    vocab_size=64, hidden_size=32, num_hidden_layers=4, state_size=8, pad_token_id=0,
    bos_token_id=1, eos_token_id=2,
)
HEADS = dict(num_heads=8, head_dim=8, n_groups=1, chunk_size=8)
NAME = "backbone.layers.0.mixer.out_proj.weight"


def ratios(model_type, flag):
    torch.manual_seed(0)
    heads = HEADS if model_type == "mamba2" else {}
    config = AutoConfig.for_model(model_type, **TINY, **heads, rescale_prenorm_residual=flag)
    model = AutoModelForCausalLM.from_config(config)
    first, found = model.state_dict()[NAME].clone(), []
    for i in range(2):
        folder = f"{sys.argv[1]}/{model_type}-{flag}-{i}"
        model.save_pretrained(folder)
        model = AutoModelForCausalLM.from_pretrained(folder)
        found.append((model.state_dict()[NAME] / first).mean().item())
    return found


for model_type in ("mamba", "mamba2", "falcon_mamba"):
    on, off = ratios(model_type, True), ratios(model_type, False)
    print(f"{model_type}: out_proj after one and two loadings, times {on}; without the flag {off}")
    near = torch.allclose(torch.tensor(on + off), torch.tensor([0.5, 0.25, 1, 1]))
    assert near, "transformers behaves otherwise now"
PYTHON
