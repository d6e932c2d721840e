"""A model to be found on a hub: a config, weights that LFS takes, and a file that is not read."""

WEIGHTS = bytes(range(256)) * 64
FILES = {
    "config.json": b'{"model_type": "llama"}',
    "model.safetensors": WEIGHTS,
    "sub/other.json": b"{}",
}
