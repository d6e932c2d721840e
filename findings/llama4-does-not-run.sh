#!/usr/bin/env bash
# transformers 5.24.0: Llama4ForConditionalGeneration fails in every forward pass.
#
# Its forward runs Llama4ForCausalLM and hands on `outputs.image_outputs`, which the output of a
# causal language model does not have: text alone, text with an image, `generate` and
# `return_dict=False` all end in AttributeError. With 5.23.0 the same four run.
#
# Seen on CPU, float32, random weights, text and vision of two layers each, four times:
# AttributeError: 'MoeCausalLMOutputWithPast' object has no attribute 'image_outputs'.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0
"$folder/venv/bin/pip" install --quiet transformers==5.24.0
HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=error "$folder/venv/bin/python" - <<'PYTHON'
import torch
from transformers import Llama4Config, Llama4ForConditionalGeneration

IMAGE_TOKEN = 60
TEXT = dict(
    vocab_size=64, hidden_size=32, intermediate_size=48, intermediate_size_mlp=48,
    num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=8,
    num_local_experts=2, pad_token_id=0, bos_token_id=1, eos_token_id=2,
)
VISION = dict(
    hidden_size=32, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
    image_size=28, patch_size=14, projector_input_dim=32, projector_output_dim=32,
    vision_output_dim=32,
)
torch.manual_seed(0)
config = Llama4Config(text_config=TEXT, vision_config=VISION, image_token_index=IMAGE_TOKEN)
model = Llama4ForConditionalGeneration(config).eval()
tokens = torch.tensor([[1, 5, 6, 7]])
pixels = torch.randn(1, 3, 28, 28)
with torch.no_grad():
    num_image_tokens = model.get_image_features(pixels, return_dict=True).last_hidden_state.shape[1]
    seen = torch.tensor([[1, *[IMAGE_TOKEN] * num_image_tokens, 7]])
    ways = {
        "text": lambda: model(tokens),
        "text and an image": lambda: model(seen, pixel_values=pixels),
        "generate": lambda: model.generate(tokens, max_new_tokens=2),
        "text, return_dict=False": lambda: model(tokens, return_dict=False),
    }
    found = {}
    for name, way in ways.items():
        try:
            way()
            found[name] = "runs"
        except AttributeError as error:
            found[name] = f"AttributeError: {error}"
        print(f"{name}: {found[name]}")
assert all("image_outputs" in said for said in found.values()), "it behaves otherwise now"
PYTHON
