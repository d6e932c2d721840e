"""Train the demo model of hfgrow, and its tokenizer, on the documentation Python carries.

The text is `pydoc_data.topics` and the docstrings of the standard library, so any machine with a
Python can train the model again, without a network and without an accelerator:

    python benchmarks/train_demo.py --out DIR [--minutes M] [--seed S]

The learning rate follows the clock, so two runs agree closely, not bit for bit. Where other work
runs too, OMP_WAIT_POLICY=PASSIVE keeps the threads from waiting for one another.
"""

import ast
import json
import math
import sys
import sysconfig
import time
from argparse import ArgumentParser, Namespace
from collections import Counter
from pathlib import Path

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from hfgrow.data.prepare import is_held_out

END = "<|endoftext|>"  # its token id is 0
VOCAB_SIZE = 2048
NUM_POSITIONS = 512
BATCH_TOKENS, SEQUENCE_TOKENS = 1024, 256
LEARNING_RATE, WEIGHT_DECAY, DROPOUT = 3e-3, 0.1, 0.05
WARMUP, DECAY, LONG = 0.02, 0.4, 0.2  # shares of the time; LONG: sequences of NUM_POSITIONS
SKIPPED_FOLDERS = {"site-packages", "test", "tests", "idle_test"}
PROMPTS = "Return a new", 'The "for" statement is', "If the file does not exist,"


def documents() -> list[str]:
    """Return the documents: each help topic, and the docstrings of each library module."""
    library = Path(sysconfig.get_path("stdlib"))
    found: list[str] = []
    for path in sorted(library.rglob("*.py")):
        inside = path.relative_to(library)
        if SKIPPED_FOLDERS & set(inside.parts):
            continue
        module = ast.parse(path.read_bytes())
        if inside.as_posix() == "pydoc_data/topics.py":
            (topics,) = (node.value for node in module.body if isinstance(node, ast.Assign))
            found += ast.literal_eval(topics).values()
        owners = ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef
        texts = [ast.get_docstring(node) for node in ast.walk(module) if isinstance(node, owners)]
        found.append("\n\n".join(text for text in texts if text))
    return list(dict.fromkeys(text.strip() + "\n" for text in found if text.strip()))


def split(texts: list[str]) -> tuple[list[str], list[str]]:
    """Split into training and validation: whole documents, about 1 in 20 held out by sha256."""
    seen: set[str] = set()

    def without_repeats(text: str) -> str:
        kept = []
        for paragraph in text.split("\n\n"):
            words = " ".join(paragraph.split())
            if words not in seen:
                kept.append(paragraph)
            if len(words) >= 24:  # shorter ones are phrases like "Example:", free to come again
                seen.add(words)
        return "\n\n".join(kept).strip() + "\n" if kept else ""

    held_out = [text for text in texts if is_held_out(text)]
    training = [text for text in texts if text not in held_out]
    # Topics repeat one another's sections: what is held out comes first, and is not trained on.
    validation = [text for text in map(without_repeats, held_out) if text]
    return [text for text in map(without_repeats, training) if text], validation


def train_tokenizer(training: list[str]) -> Tokenizer:
    """Train a byte-level BPE tokenizer of VOCAB_SIZE entries, END included."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    first = pre_tokenizers.ByteLevel.alphabet()
    bpe = trainers.BpeTrainer(vocab_size=VOCAB_SIZE, special_tokens=[END], initial_alphabet=first)
    tokenizer.train_from_iterator(training, bpe)
    return tokenizer


def build_model() -> LlamaForCausalLM:
    """Build the model with random float32 weights."""
    config = LlamaConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=NUM_POSITIONS,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
    )
    return LlamaForCausalLM(config)


def train(model: LlamaForCausalLM, stream: Tensor, *, seconds: float) -> int:
    """Train for `seconds` on windows drawn at random from `stream`; return the number of steps."""
    for name, module in model.named_modules():
        if name.endswith(("embed_tokens", "o_proj", "down_proj")):  # all that the residual adds
            module.register_forward_hook(lambda m, _, x: F.dropout(x, DROPOUT, m.training))
    weights, betas = model.parameters(), (0.9, 0.95)
    optimizer = torch.optim.AdamW(weights, betas=betas, weight_decay=WEIGHT_DECAY, fused=True)
    num_steps, started = 0, time.monotonic()
    while (progress := (time.monotonic() - started) / seconds) < 1:
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * min(1, 0.01 + progress / WARMUP, (1 - progress) / DECAY)
        length = SEQUENCE_TOKENS if progress < 1 - LONG else NUM_POSITIONS
        starts = torch.randint(len(stream) - length, (BATCH_TOKENS // length, 1))
        windows = stream[starts + torch.arange(length + 1)]
        logits = model(input_ids=windows[:, :-1], use_cache=False).logits
        loss = F.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten())
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        num_steps += 1
        if num_steps % 100 == 0:
            print(f"{progress:4.0%}  step {num_steps}  loss {loss.item():.3f}", file=sys.stderr)
    return num_steps


def unigram_bits(training: Counter[int], validation: Counter[int], num_symbols: int) -> float:
    """Return the bits `validation` costs under the frequencies of `training`, plus one each."""
    total = training.total() + num_symbols
    return sum(n * math.log2(total / (training[s] + 1)) for s, n in validation.items())


@torch.no_grad()
def model_bits(model: nn.Module, encoded: list[list[int]]) -> float:
    """Return the bits the documents cost, a token read after 256 or more before it, or all."""
    nats, stride = 0.0, NUM_POSITIONS // 2
    for document in encoded:
        tokens = torch.tensor([0, *document])
        for first in range(1, len(tokens), stride):  # the first token this window predicts
            last = min(first + stride, len(tokens))
            window = tokens[max(0, last - 1 - NUM_POSITIONS) : last - 1]
            logits = model(window[None]).logits[0, first - last :].float()
            nats += F.cross_entropy(logits, tokens[first:last], reduction="sum").item()
    return nats / math.log(2)


def probe_text(validation: list[str], tokenizer: Tokenizer) -> str:
    """Return what fits in NUM_POSITIONS, in whole paragraphs, of the longest held-out topic."""
    topics = [text for text in validation if text.partition("\n")[2].startswith("***")]
    paragraphs = max(topics, key=len).split("\n\n")
    while len(tokenizer.encode("\n\n".join(paragraphs))) >= NUM_POSITIONS:
        paragraphs.pop()
    return "\n\n".join(paragraphs).strip() + "\n"


def card(options: Namespace, training: list[str], validation: list[str], num_steps: int) -> str:
    """Measure the saved model, and return its card."""
    model = AutoModelForCausalLM.from_pretrained(options.out)
    tokenizer = Tokenizer.from_file(str(options.out / "tokenizer.json"))
    seen, held_out = ([e.ids for e in tokenizer.encode_batch(t)] for t in (training, validation))
    seen_tokens, held_out_tokens = (Counter(i for ids in t for i in ids) for t in (seen, held_out))
    seen_bytes, held_out_bytes = (Counter("".join(t).encode()) for t in (training, validation))
    num_bytes = held_out_bytes.total()
    samples = ""
    for prompt in PROMPTS:
        torch.manual_seed(0)
        prompt_ids = torch.tensor([tokenizer.encode(prompt).ids])
        drawn = model.generate(prompt_ids, max_new_tokens=48)  # type: ignore[misc]  # its protocol
        samples += tokenizer.decode(drawn[0].tolist()).strip() + "\n\n"
    return f"""\
---
license: apache-2.0
library_name: transformers
pipeline_tag: text-generation
language: en
tags: [hfgrow, llama, demo, model-growth]
---

# hfgrow demo

A Llama model of {model.num_parameters():,} parameters in {model.config.num_hidden_layers} layers
that has learnt the manner of Python's documentation. It travels inside the package hfgrow, to be
grown in seconds and without a download: `hfgrow stack demo --g 4`.

| on the held-out documents | bits per byte |
|---|---|
| **this model**, the saved bfloat16 weights | **{model_bits(model, held_out) / num_bytes:.3f}** |
| unigram over tokens | {unigram_bits(seen_tokens, held_out_tokens, VOCAB_SIZE) / num_bytes:.3f} |
| unigram over bytes | {unigram_bits(seen_bytes, held_out_bytes, 256) / num_bytes:.3f} |

**Text.** The help topics of Python {sys.version.split()[0]} (`pydoc_data.topics`) and the
docstrings of its standard library, PSF License 2.0. {len(training)} documents are trained on and
the unigram models counted on: {seen_tokens.total():,} tokens, {seen_bytes.total():,} bytes.
{len(validation)} are held out by their sha256: {num_bytes:,} bytes. A document is one topic or all
docstrings of one module. A paragraph of 24 characters or more is on one side only, and once; near
repetitions remain. `probe.txt` begins a held-out topic, to measure the loss around a growth step.

**Training.** {num_steps:,} steps, {num_steps * BATCH_TOKENS:,} tokens, float32, AdamW with
warmup-stable-decay, {60 * options.minutes:,.0f} seconds on {torch.get_num_threads()} CPU cores:
`python benchmarks/train_demo.py --out DIR --minutes {options.minutes:g} --seed {options.seed}`

**Samples**, drawn as generation_config.json says, seed 0. The prompts: `{"`, `".join(PROMPTS)}`.

```text
{samples.strip()}
```

**Limits.** It knows the words and the shape of that documentation, not its truth: most names and
rules in its text are invented. It follows no instructions. It is for trying and testing tools.
"""


def main() -> None:
    """Train, save, measure and describe the demo model."""
    parser = ArgumentParser(description=main.__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder to write the model to")
    parser.add_argument("--minutes", type=float, default=25.0, help="training time (default 25)")
    parser.add_argument("--seed", type=int, default=0, help="of weights and windows (default 0)")
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    training, validation = split(documents())
    tokenizer = train_tokenizer(training)
    stream = torch.tensor([i for e in tokenizer.encode_batch(training) for i in (0, *e.ids)])
    model = build_model()
    num_steps = train(model, stream, seconds=60 * options.minutes)

    out = Path(options.out)
    model.bfloat16().save_pretrained(out)
    (out / "model.safetensors").chmod(0o644)  # it was 0600, and a wheel keeps the mode
    tokenizer.save(str(out / "tokenizer.json"))
    roles = dict.fromkeys(("bos_token", "eos_token", "pad_token"), END)
    kind = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": NUM_POSITIONS}
    (out / "tokenizer_config.json").write_text(json.dumps(kind | roles, indent=2) + "\n")
    ends = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), 0)
    sampling = {"do_sample": True, "temperature": 0.6, "top_k": 20}
    (out / "generation_config.json").write_text(json.dumps(sampling | ends, indent=2) + "\n")
    (out / "probe.txt").write_text(probe_text(validation, tokenizer), encoding="utf-8")
    (out / "README.md").write_text(card(options, training, validation, num_steps), "utf-8")


if __name__ == "__main__":
    main()
