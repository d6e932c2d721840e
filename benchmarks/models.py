"""Random Llama checkpoints written as a stream, and checks of outputs that are not hfgrow's own."""

import json
import os
import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_CHUNK_NBYTES = 1 << 20
# The high byte of a bfloat16: the sign stays, the exponent becomes that of 2^-7 to 2^-5.
_SMALL = bytes((byte & 0x80) | 0x3C for byte in range(256))


@dataclass(frozen=True)
class Shape:
    """The sizes of a Llama, named as in config.json."""

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    intermediate_size: int
    vocab_size: int


SHAPES = {
    "tinyllama-1.1b": Shape(2048, 22, 32, 4, 5632, 32000),
    # One layer of it is no multiple of a block of 4096 bytes.
    "smollm2-135m": Shape(576, 30, 9, 3, 1536, 49152),
    "smollm2-360m": Shape(960, 32, 15, 5, 2560, 49152),
    "llama-13b": Shape(5120, 40, 40, 40, 13824, 32000),
    "tiny": Shape(64, 2, 4, 2, 128, 2048),
}


def make_llama(folder: Path, shape: Shape, tokenizer: Path | None = None) -> None:
    """Write a random untied bfloat16 Llama in one shard, unless it lies there already.

    Args:
        folder: Where it lies then.
        shape: Its sizes.
        tokenizer: The folder of a model whose tokenizer it gets, of no more tokens than it has.
    """
    weights = folder / "model.safetensors"
    if weights.is_file():
        return
    folder.mkdir(parents=True, exist_ok=True)
    tensors = list(_tensors(shape))
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, dims in tensors:
        start, end = end, end + 2 * dims[0] * (dims[1] if len(dims) > 1 else 1)
        header[name] = {"dtype": "BF16", "shape": dims, "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    values = random.Random(0)
    partial = folder / "model.partial"
    with partial.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for at in range(0, end, _CHUNK_NBYTES):
            chunk = bytearray(values.randbytes(min(_CHUNK_NBYTES, end - at)))
            chunk[1::2] = chunk[1::2].translate(_SMALL)
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "bos_token_id": 1,
        "eos_token_id": 2,
        "head_dim": shape.hidden_size // shape.num_attention_heads,
        "hidden_act": "silu",
        "initializer_range": 0.02,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-05,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        **vars(shape),
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    if tokenizer is not None:
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copyfile(tokenizer / name, folder / name)
    partial.rename(weights)


def _tensors(shape: Shape) -> Iterator[tuple[str, list[int]]]:
    hidden, ffn = shape.hidden_size, shape.intermediate_size
    keys = hidden // shape.num_attention_heads * shape.num_key_value_heads
    yield "lm_head.weight", [shape.vocab_size, hidden]
    yield "model.embed_tokens.weight", [shape.vocab_size, hidden]
    for i in range(shape.num_hidden_layers):
        layer = f"model.layers.{i}"
        yield f"{layer}.input_layernorm.weight", [hidden]
        yield f"{layer}.mlp.down_proj.weight", [hidden, ffn]
        yield f"{layer}.mlp.gate_proj.weight", [ffn, hidden]
        yield f"{layer}.mlp.up_proj.weight", [ffn, hidden]
        yield f"{layer}.post_attention_layernorm.weight", [hidden]
        yield f"{layer}.self_attn.k_proj.weight", [keys, hidden]
        yield f"{layer}.self_attn.o_proj.weight", [hidden, hidden]
        yield f"{layer}.self_attn.q_proj.weight", [hidden, hidden]
        yield f"{layer}.self_attn.v_proj.weight", [keys, hidden]
    yield "model.norm.weight", [hidden]


def make_tokenizer(folder: Path, vocab_size: int) -> None:
    """Write a tokenizer of made-up words: LLaMA-Factory's script does not go on without one."""
    vocab = {f"word{i}": i for i in range(vocab_size)}
    model = {"type": "WordLevel", "vocab": vocab, "unk_token": "word0"}
    parts = ("normalizer", "pre_tokenizer", "post_processor", "decoder", "truncation", "padding")
    tokenizer: dict[str, object] = {
        "version": "1.0",
        "added_tokens": [],
        **dict.fromkeys(parts),
        "model": model,
    }
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "word0"}
    for name, content in (("tokenizer.json", tokenizer), ("tokenizer_config.json", config)):
        (folder / name).write_text(json.dumps(content) + "\n", encoding="utf-8")


Ranges = dict[str, tuple[Path, int, int]]


def wrong_tensors(base: Path, grown: Path, num_layers: int, g: int) -> list[str]:
    """Compare a stack with its base, byte for byte.

    Returns:
        The tensors that are missing, unexpected, or differ from those of layer i mod num_layers.
    """
    stored, written = _ranges(base), _ranges(grown)
    expected: dict[str, str] = {}
    for name in stored:
        parts = name.split(".")
        if "layers" not in parts:
            expected[name] = name
            continue
        at = parts.index("layers") + 1
        for repeat in range(g):
            layer = str(int(parts[at]) + repeat * num_layers)
            expected[".".join([*parts[:at], layer, *parts[at + 1 :]])] = name
    wrong = list(expected.keys() ^ written.keys())
    for name in expected.keys() & written.keys():
        if not _equal(stored[expected[name]], written[name]):
            wrong.append(name)
    return sorted(wrong)


def different_tensors(one: Path, other: Path) -> list[str]:
    """Return the tensors that only one of two models has, or whose bytes differ."""
    ranges, other_ranges = _ranges(one), _ranges(other)
    wrong = list(ranges.keys() ^ other_ranges.keys())
    for name in ranges.keys() & other_ranges.keys():
        if not _equal(ranges[name], other_ranges[name]):
            wrong.append(name)
    return sorted(wrong)


def _ranges(folder: Path) -> Ranges:
    found: Ranges = {}
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            nbytes = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(nbytes))
        header.pop("__metadata__", None)
        for name, entry in header.items():
            start, end = entry["data_offsets"]
            found[name] = (path, 8 + nbytes + start, end - start)
    return found


def _equal(one: tuple[Path, int, int], other: tuple[Path, int, int]) -> bool:
    (path, start, nbytes), (other_path, other_start, other_nbytes) = one, other
    if nbytes != other_nbytes:
        return False
    with path.open("rb") as file, other_path.open("rb") as other_file:
        file.seek(start)
        other_file.seek(other_start)
        for at in range(0, nbytes, _CHUNK_NBYTES):
            step = min(_CHUNK_NBYTES, nbytes - at)
            if file.read(step) != other_file.read(step):
                return False
    return True
