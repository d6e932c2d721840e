"""The commands of the tools hfgrow is measured against."""

import sys
from collections.abc import Sequence
from pathlib import Path

# Nothing is initialised, and nothing is held twice but the copies that the output needs: the
# shape of the grown model costs no memory on the meta device, and save_pretrained refuses
# layers that share their memory.
_TRANSFORMERS = """
import sys
import torch
from transformers import AutoConfig, AutoModelForCausalLM

base_folder, out, g = sys.argv[1], sys.argv[2], int(sys.argv[3])
base = AutoModelForCausalLM.from_pretrained(base_folder, dtype="auto")
depth = base.config.num_hidden_layers
config = AutoConfig.from_pretrained(base_folder, num_hidden_layers=g * depth)
with torch.device("meta"):
    grown = AutoModelForCausalLM.from_config(config, dtype=base.dtype)
tensors = dict(base.state_dict())
for name, tensor in base.state_dict().items():
    head, _, tail = name.partition(".layers.")
    if tail:
        layer, _, rest = tail.partition(".")
        for i in range(1, g):
            tensors[f"{head}.layers.{int(layer) + i * depth}.{rest}"] = tensor.clone()
grown.load_state_dict(tensors, assign=True)
grown.save_pretrained(out)
"""


def cp(folder: Path, out: Path, *options: str) -> list[str]:
    """Copy a finished output."""
    return ["cp", "-r", *options, str(folder), str(out)]


def hfgrow(program: str, base: Path, out: Path, g: int) -> list[str]:
    """Stack with hfgrow; it syncs its output itself."""
    return [program, "stack", str(base), "--g", str(g), "--out", str(out), "-q"]


def transformers(base: Path, out: Path, g: int) -> list[str]:
    """Load, stack in memory and save, as a short script with transformers does it."""
    return [sys.executable, "-c", _TRANSFORMERS, str(base), str(out), str(g)]


def mergekit(
    program: Path, base: Path, out: Path, g: int, num_layers: int, extra: Sequence[str] = ()
) -> list[str]:
    """Stack with mergekit's passthrough; its recipe is written beside the output."""
    recipe = out.with_suffix(".yaml")
    source = f"- sources: [{{model: {base}, layer_range: [0, {num_layers}]}}]\n"
    recipe.write_text(
        "merge_method: passthrough\ndtype: bfloat16\nslices:\n" + f"  {source}" * g,
        encoding="utf-8",
    )
    return [str(program), str(recipe), str(out), "--quiet", "--clone-tensors", *extra]


# The fastest way of mergekit 0.1.5 found: smaller files, written by threads of their own.
MERGEKIT_ASYNC = ("--out-shard-size", "1000000000", "--async-write", "--write-threads", "2")


def llama_pro(python: Path, script: Path, base: Path, out: Path, num_expand: int) -> list[str]:
    """Expand blocks with LLaMA-Factory's scripts/llama_pro.py."""
    options = {"model_name_or_path": base, "output_dir": out, "num_expand": num_expand}
    return [str(python), str(script), *(f"--{name}={value}" for name, value in options.items())]
