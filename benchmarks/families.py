"""Stack tiny Llama, Qwen2 and Qwen3 models with each tool, then load what came out."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from benchmarks import peers
from benchmarks.measure import clear, hfgrow_program, measure, table, version_in, write_json
from benchmarks.models import make_tokenizer, wrong_tensors

_NUM_LAYERS = 4
_SIZES = {
    "vocab_size": 256,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": _NUM_LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 128,
}
# Older checkpoints on the Hub have no layer_types in config.json; transformers 5 writes it.
_MODELS = (
    ("llama", "untied"),
    ("llama", "tied"),
    ("qwen2", "untied"),
    ("qwen2", "tied"),
    ("qwen2", "untied, no layer_types"),
    ("qwen3", "untied"),
    ("qwen3", "tied"),
    ("qwen3", "untied, no layer_types"),
)


def main() -> None:
    """Grow every family with every tool and print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--mergekit", type=Path, metavar="MERGEKIT_YAML", help="its program")
    parser.add_argument(
        "--llama-pro", type=Path, metavar="SCRIPT", help="LLaMA-Factory's scripts/llama_pro.py"
    )
    parser.add_argument(
        "--llama-pro-python", type=Path, default=Path(sys.executable), help="it needs `fire`"
    )
    parser.add_argument("--json", type=Path, help="write every row here")
    arguments = parser.parse_args()
    rows = []
    for family, variant in _MODELS:
        base = arguments.folder / f"{family}-{variant.replace(', ', '-').replace(' ', '-')}"
        clear(base)
        _make(base, family, variant)
        for tool, command, out in _commands(arguments, base):
            clear(out)
            run = measure(command, strict=False)
            loaded = _load(out)
            same = "-"
            if tool != "llama_pro.py" and out.is_dir():
                # A tied head may be left out of the file or stored beside the embedding.
                wrong = wrong_tensors(base, out, _NUM_LAYERS, 2)
                spare = ["lm_head.weight"] if variant == "tied" else []
                same = "yes" if wrong in ([], spare) else f"{len(wrong)} differ"
            said = run.last_line[:160].replace("|", "\\|") if run.exit_code else ""
            rows.append([f"{family}, {variant}", tool, str(run.exit_code), loaded, same, said])
            print(" | ".join(rows[-1]), file=sys.stderr)
            clear(out)
        clear(base)
    head = ["model", "tool", "exit code", "transformers loads it", "bytes equal", "last line"]
    print(table(head, rows))
    print({name: version_in(None, name) for name in ("hfgrow", "torch", "transformers")})
    write_json(
        arguments.json, arguments.folder, rows=[dict(zip(head, r, strict=True)) for r in rows]
    )


def _commands(arguments: argparse.Namespace, base: Path) -> list[tuple[str, list[str], Path]]:
    out = arguments.folder / "out"
    commands = [("hfgrow", peers.hfgrow(hfgrow_program(), base, out, 2), out)]
    if arguments.mergekit is not None:
        command = peers.mergekit(arguments.mergekit, base, out, 2, _NUM_LAYERS)
        commands.append(("mergekit", command, out))
    if arguments.llama_pro is not None:
        script = (arguments.llama_pro_python, arguments.llama_pro, base, out, _NUM_LAYERS)
        commands.append(("llama_pro.py", peers.llama_pro(*script), out))
    return commands


def _make(folder: Path, family: str, variant: str) -> None:
    """Write a random model and, since llama_pro.py wants one, a tokenizer."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    build: Any = AutoModelForCausalLM.from_config

    torch.manual_seed(0)
    config = AutoConfig.for_model(family, tie_word_embeddings=variant == "tied", **_SIZES)
    build(config, dtype=torch.bfloat16).save_pretrained(folder)
    path = folder / "config.json"
    written = json.loads(path.read_text(encoding="utf-8"))
    if "no layer_types" in variant:
        del written["layer_types"]
        path.write_text(json.dumps(written), encoding="utf-8")
    make_tokenizer(folder, _SIZES["vocab_size"])


def _load(folder: Path) -> str:
    """Return "yes", or what transformers said about the folder."""
    from transformers import AutoModelForCausalLM

    load: Any = AutoModelForCausalLM.from_pretrained
    if not (folder / "config.json").is_file():
        weights = any(folder.glob("*.safetensors"))
        return f"no: {'weights, but ' if weights else ''}no config.json"
    try:
        model, info = load(folder, output_loading_info=True)
    except Exception as error:  # whatever a peer's output provokes belongs into the table
        return f"no: {type(error).__name__}"
    keys = ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs")
    found = [f"{len(info[key])} {key}" for key in keys if info.get(key)]
    depth = model.config.num_hidden_layers
    if depth != 2 * _NUM_LAYERS:
        found.append(f"{depth} layers")
    return "no: " + ", ".join(found) if found else "yes"


if __name__ == "__main__":
    main()
