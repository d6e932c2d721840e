#!/usr/bin/env bash
# peft 0.21.2: on a matrix of zeros DoRA is NaN from the first forward, and PiSSA never moves.
#
# Block expansion (LLaMA Pro, arXiv 2401.02415) inserts layers whose o_proj and down_proj are zero.
# DoRA divides a row by its norm, which is 0 there: every logit is NaN, and no error is raised.
# PiSSA begins at the singular vectors scaled by the roots of the singular values, all 0: both of
# its factors stay 0 for good, so the layer never learns, while the loss falls by the others. Plain
# LoRA and OLoRA train it.
#
# Seen on CPU, float32, two layers of Llama, the second one's two matrices zero, three steps of SGD:
# LoRA and OLoRA move 4 of 4 factors of the zero layer, PiSSA 0 of 4, DoRA ends in NaN.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0
"$folder/venv/bin/pip" install --quiet transformers==5.23.0 peft==0.21.2
HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=error "$folder/venv/bin/python" -W ignore - <<'PYTHON'
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, LlamaConfig

ZERO = "layers.1."
CONFIG = LlamaConfig(
    vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
    num_attention_heads=4, num_key_value_heads=2,
)
METHODS = {
    "LoRA": {},
    "OLoRA": {"init_lora_weights": "olora"},
    "PiSSA": {"init_lora_weights": "pissa"},
    "DoRA": {"use_dora": True},
}
tokens = torch.arange(8)[None]
found = {}
for name, given in METHODS.items():
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_config(CONFIG)
    with torch.no_grad():
        base.model.layers[1].self_attn.o_proj.weight.zero_()
        base.model.layers[1].mlp.down_proj.weight.zero_()
    targets = ["o_proj", "down_proj"]
    model = get_peft_model(base, LoraConfig(r=4, target_modules=targets, **given))
    with torch.no_grad():
        is_finite = bool(model(tokens).logits.isfinite().all())
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad and ZERO in n}
    before = {n: p.detach().clone() for n, p in trained.items()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        model(tokens, labels=tokens).loss.backward()
        optimizer.step()
    moved = sum(not torch.equal(p, before[n]) for n, p in trained.items())
    found[name] = (is_finite, moved, len(trained))
    print(f"{name}: logits {'finite' if is_finite else 'NaN'}, {moved} of {len(trained)} moved")
assert found["LoRA"] == found["OLoRA"] == (True, 4, 4), "LoRA behaves otherwise now"
assert found["PiSSA"] == (True, 0, 4), "PiSSA trains a matrix of zeros now"
assert not found["DoRA"][0], "DoRA is finite on a matrix of zeros now"
PYTHON
