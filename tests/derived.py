"""Derived families, of which the tests take some."""

from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

TYPES = (
    "falcon_h1",
    "gemma4_text",
    "gpt_oss",
    "granitemoehybrid",
    "lfm2",
    "olmoe",
    "qwen3_5_text",
    "phimoe",
)
HERE = version("transformers")
# From a type to the folder of a tiny model of it, made once.
MakeBase = Callable[[str], Path]
