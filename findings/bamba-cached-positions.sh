#!/usr/bin/env bash
# transformers 5.23.0: Bamba counts positions from 0 at every call with a cache.
#
# Called with `past_key_values` and without `position_ids`, as one decodes by hand, most decoders of
# transformers add the length of the past. Bamba does not: every token is rotated as if it were the
# first, and the logits of stepwise decoding are not those of the whole sequence. With
# `position_ids` given, as `generate` gives them, they are. No warning is raised.
#
# Seen on CPU, float32, random weights of two layers (one of attention, one of Mamba-2), 12 tokens:
# max|dlogit| 3.3 of logits up to 8.4 without positions, 2e-5 with them.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0
"$folder/venv/bin/pip" install --quiet transformers==5.23.0
HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=error "$folder/venv/bin/python" - <<'PYTHON'
import torch
from transformers import AutoModelForCausalLM, BambaConfig

NUM_TOKENS = 12
torch.manual_seed(0)
config = BambaConfig(
    vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
    num_attention_heads=4, num_key_value_heads=2, attn_layer_indices=[1], mamba_n_heads=8,
    mamba_d_head=8, mamba_d_state=8, mamba_n_groups=1, mamba_expand=2, initializer_range=0.5,
)
model = AutoModelForCausalLM.from_config(config).eval()
tokens = torch.randint(64, (1, NUM_TOKENS))


def stepwise(with_positions):
    past, logits = None, []
    for at in range(NUM_TOKENS):
        given = {"position_ids": torch.tensor([[at]])} if with_positions else {}
        found = model(tokens[:, at : at + 1], past_key_values=past, use_cache=True, **given)
        past = found.past_key_values
        logits.append(found.logits)
    return torch.cat(logits, 1)


with torch.no_grad():
    whole = model(tokens).logits
    without = (stepwise(False) - whole).abs().max().item()
    given = (stepwise(True) - whole).abs().max().item()
print(f"max|dlogit| to the whole sequence: {without:.2g} without position_ids, {given:.2g} with")
assert given < 1e-3 and without > 0.1, "transformers behaves otherwise now"
PYTHON
