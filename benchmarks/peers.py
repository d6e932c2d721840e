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

# What a plain stack would take if it recorded the sha256 of its output: no command does without a
# proof or a push.
_WITH_SHA256 = """
import sys
from pathlib import Path

from hfgrow.checkpoint.files import LocalFolder
from hfgrow.checkpoint.layout import lay_out
from hfgrow.checkpoint.read import read
from hfgrow.checkpoint.staging import staged
from hfgrow.checkpoint.write import write
from hfgrow.growth.steps import planned

base, out, g = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
plan = planned(read(LocalFolder(base)), [("stack", {"g": g})])
with staged(out) as staging:
    written = write(plan, lay_out(plan), staging, hashes=True)
print(*written.sha256.values())
"""

# Two things of ml-hypercloning have gone from under it: a package that only its OLMo cloner
# needs, and the numbers of heads that LlamaAttention once had.
_ML_HYPERCLONING = """
import sys
import types

checkout, base_folder, out, g = *sys.argv[1:4], int(sys.argv[4])
sys.path.insert(0, checkout)
for name in ("hf_olmo", "hf_olmo.configuration_olmo"):
    sys.modules[name] = types.ModuleType(name)
sys.modules["hf_olmo.configuration_olmo"].OLMoConfig = object

from transformers import AutoModelForCausalLM
from transformers.models.llama.modeling_llama import LlamaAttention

LlamaAttention.num_heads = property(lambda self: self.config.num_attention_heads)
LlamaAttention.num_key_value_heads = property(lambda self: self.config.num_key_value_heads)
from hypercloning import cloneModel

base = AutoModelForCausalLM.from_pretrained(base_folder, dtype="auto")
grown = cloneModel(base, embedding_dim_multiplier=g, up_project_multiplier=g)
grown.save_pretrained(out)
"""

# What somebody does who wants to know that a model loads and computes before it is uploaded.
_LOAD = """
import sys
import torch
from transformers import AutoModelForCausalLM

folder, num_tokens = sys.argv[1], int(sys.argv[2])
model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
tokens = torch.arange(num_tokens)[None] % model.config.vocab_size
with torch.inference_mode():
    logits = model(tokens).logits
sys.exit(None if logits.isfinite().all() else "logits are not finite")
"""


def cp(folder: Path, out: Path, *options: str) -> list[str]:
    """Copy a finished output."""
    return ["cp", "-r", *options, str(folder), str(out)]


def hfgrow(program: str, base: Path, out: Path, g: int, *options: str) -> list[str]:
    """Stack with hfgrow; it syncs its output itself."""
    return [program, "stack", str(base), "--g", str(g), "--out", str(out), "-q", *options]


def with_sha256(base: Path, out: Path, g: int) -> list[str]:
    """Stack by the writer of hfgrow alone, which hashes what it writes."""
    return [sys.executable, "-P", "-c", _WITH_SHA256, str(base), str(out), str(g)]


def widen(program: str, operator: str, base: Path, out: Path, g: int) -> list[str]:
    """Multiply every width with hfgrow."""
    return [program, operator, str(base), "--g", str(g), "--out", str(out), "-q"]


def verify(program: str, grown: Path) -> list[str]:
    """Verify a grown model with hfgrow, whose base lies where it was."""
    return [program, "verify", str(grown), "-q"]


def expand(program: str, base: Path, out: Path, every: int) -> list[str]:
    """Put a layer that does nothing behind every `every` layers with hfgrow."""
    return [program, "zero-depth", str(base), "--every", str(every), "--out", str(out), "-q"]


def ml_hypercloning(checkout: Path, base: Path, out: Path, g: int) -> list[str]:
    """Multiply every width with Apple's ml-hypercloning, patched so that it runs, and save."""
    places = (str(checkout), str(base), str(out))
    return [sys.executable, "-c", _ML_HYPERCLONING, *places, str(g)]


def load(python: Path, folder: Path, num_tokens: int) -> list[str]:
    """Load a model with transformers and look whether its logits are numbers."""
    return [str(python), "-c", _LOAD, str(folder), str(num_tokens)]


def upload(program: Path, folder: Path, repo_id: str) -> list[str]:
    """Upload a folder with the program of huggingface_hub."""
    return [str(program), "upload", repo_id, str(folder), ".", "--quiet"]


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
