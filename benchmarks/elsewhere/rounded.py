"""What rounding the weights to int8 and int4 by torchao does to a base and to what it grew into."""

import json
import subprocess
from pathlib import Path

from benchmarks.elsewhere.models import grown_llamas
from benchmarks.elsewhere.tools import PROMPT
from benchmarks.environments import made
from benchmarks.measure import table

PACKAGES = ("transformers==5.23.0", "torchao==0.18.0")
GROWTHS = (
    "stack --g 2",
    "zero-depth --g 2",
    "random-depth --g 2",
    "hyperclone --g 2",
    "hyperclone-noisy --g 2",
    "split --g 2",
    "zero-width --g 2",
    "lemon --hidden-size 96",
    "head-dim --factor 2",
)
_SCRIPT = f"""
import json, os, sys
os.environ |= {{"TRANSFORMERS_VERBOSITY": "error", "HF_HUB_OFFLINE": "1"}}
import torch
import torchao.quantization as torchao
from transformers import AutoModelForCausalLM, TorchAoConfig

# How a group of 32 numbers of a row is rounded, or a whole row.
WAYS = {{
    "int8 weights": torchao.Int8WeightOnlyConfig(),
    "int8 weights and activations": torchao.Int8DynamicActivationInt8WeightConfig(),
    "int4 weights, int8 activations": torchao.Int8DynamicActivationIntxWeightConfig(
        weight_dtype=torch.int4, weight_granularity=torchao.PerGroup(32)
    ),
}}
PROMPT = torch.tensor([{list(PROMPT)}])


def logits(folder, **how):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **how).eval()
    with torch.no_grad():
        return model(PROMPT).logits


answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
for folder in sys.argv[1:]:
    exact, found = logits(folder), {{}}
    for name, way in WAYS.items():
        try:
            off = logits(folder, quantization_config=TorchAoConfig(way)) - exact
            found[name] = float(off.abs().max() / exact.abs().max())
        except Exception as error:
            found[name] = f"{{type(error).__name__}}: {{error}}"[:80]
    print(json.dumps(found), file=answers, flush=True)
"""


def rounded_rows(scratch: Path) -> str:
    """Return the table: how far logits of a Llama and of what it grew into are off when rounded."""
    folders = grown_llamas(scratch / "models" / "rounded", GROWTHS)
    python = made(scratch / "venvs" / "torchao", PACKAGES) / "bin" / "python"
    environment = {"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"}
    words = [str(python), "-c", _SCRIPT, *map(str, folders)]
    done = subprocess.run(words, env=environment, capture_output=True, text=True)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    if len(found) != len(folders):
        raise SystemExit(done.stderr[-2000:])
    names = ["not grown", *(f"`{growth}`" for growth in GROWTHS)]
    rows = [
        [name, *(f"{off:.2g}" if isinstance(off, float) else off for off in one.values())]
        for name, one in zip(names, found, strict=True)
    ]
    return f"{table(['growth', *found[0]], rows)}\n\nRead with: {', '.join(PACKAGES)}."
