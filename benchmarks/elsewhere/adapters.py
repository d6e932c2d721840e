"""Whether adapters of PEFT train what growth left at zero, as it is and as the card says."""

import json
import re
import subprocess
from pathlib import Path

from benchmarks.elsewhere.models import grown_llamas
from benchmarks.environments import made
from benchmarks.measure import table

PACKAGES = ("transformers==5.23.0", "peft==0.21.2")
GROWTHS = (
    "zero-depth --g 2",
    "random-depth --g 2",
    "zero-width --g 2",
    "lemon --hidden-size 96",
    "head-dim --factor 2",
)
# A row of zeros moved if it is one no longer once the adapter is merged.
_SCRIPT = """
import json, os, sys
os.environ |= {"TRANSFORMERS_VERBOSITY": "error", "HF_HUB_OFFLINE": "1"}
import torch
from peft import BOFTConfig, DeloraConfig, HRAConfig, IA3Config, LoraConfig, OFTConfig
from peft import get_peft_model
from transformers import AutoModelForCausalLM

_ALL = {"target_modules": "all-linear"}
ADAPTERS = {
    "LoRA": lambda more: LoraConfig(r=4, **_ALL, **more),
    "DoRA": lambda more: LoraConfig(r=4, use_dora=True, **_ALL, **more),
    "PiSSA": lambda more: LoraConfig(r=4, init_lora_weights="pissa", **_ALL, **more),
    "OFT": lambda more: OFTConfig(oft_block_size=4, **_ALL, **more),
    "BOFT": lambda more: BOFTConfig(boft_block_size=4, **_ALL, **more),
    "HRA": lambda more: HRAConfig(r=4, **_ALL, **more),
    "IA3": lambda more: IA3Config(feedforward_modules=[], **_ALL, **more),
    "DeLoRA": lambda more: DeloraConfig(r=4, **_ALL, **more),
}


def zero_rows(model):
    return {
        name: (weight == 0).all(dim=1)
        for name, weight in model.named_parameters()
        if weight.ndim == 2 and "layers" in name and bool((weight == 0).all(dim=1).any())
    }


def outcome(folder, adapter, zero):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    before = zero_rows(model)
    more = {"exclude_modules": zero, "modules_to_save": zero} if zero else {}
    model = get_peft_model(model, ADAPTERS[adapter](more))
    tokens = torch.randint(40, 2000, (2, 32))
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-2)
    for _ in range(4):
        loss = model(tokens, labels=tokens).loss
        if not loss.isfinite():
            return "NaN"
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    merged = dict(model.merge_and_unload().named_parameters())
    moved = [bool((merged[name][rows] != 0).any()) for name, rows in before.items()]
    return "trains" if all(moved) else "dead" if not any(moved) else "in part"


answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
for line in sys.stdin:
    folder, zero = json.loads(line)
    found = {}
    for adapter in ADAPTERS:
        try:
            found[adapter] = outcome(folder, adapter, zero)
        except Exception as error:
            found[adapter] = f"{type(error).__name__}: {error}"[:80]
    print(json.dumps(found), file=answers, flush=True)
"""


def adapter_rows(scratch: Path) -> str:
    """Return the table: each growth of a Llama as it is, and with what its card names left out."""
    _, *grown = grown_llamas(scratch / "models" / "adapters", GROWTHS)
    cases: list[tuple[str, Path, list[str]]] = []
    for growth, out in zip(GROWTHS, grown, strict=True):
        cases += [(growth, out, []), (growth, out, _named_in_card(out))]
    python = made(scratch / "venvs" / "peft", PACKAGES) / "bin" / "python"
    sent = "\n".join(json.dumps([str(out), zero]) for _, out, zero in cases)
    environment = {"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"}
    words = [str(python), "-c", _SCRIPT]
    done = subprocess.run(words, input=sent, env=environment, capture_output=True, text=True)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    if len(found) != len(cases):
        raise SystemExit(done.stderr[-2000:])
    header = ["growth", "", *found[0]]
    rows = [
        [f"`{growth}`", "as the card says" if zero else "as it is", *one.values()]
        for (growth, _, zero), one in zip(cases, found, strict=True)
    ]
    return f"{table(header, rows)}\n\nRead with: {', '.join(PACKAGES)}."


def _named_in_card(folder: Path) -> list[str]:
    """Return the modules that the code in a card names."""
    card = (folder / "README.md").read_text(encoding="utf-8")
    code = re.search(r"```python\n(zero = .*?)```", card, re.DOTALL)
    assert code is not None
    names: dict[str, list[str]] = {}
    exec(code[1], names)
    return names["zero"]
