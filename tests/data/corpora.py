"""Text, a tokenizer and prepared tokens for the tests of the data layer."""

import json
import os
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

import hfgrow
from hfgrow.data.prepare import prepare
from hfgrow.data.sources import TextSource
from hfgrow.data.text_tokenizer import TextTokenizer, open_tokenizer
from hfgrow.data.token_folder import TokenFiles
from hfgrow.errors import GrowthError

DEMO = Path(hfgrow.__file__).parent / "demo"
VOCAB_SIZE = json.loads((DEMO / "config.json").read_text())["vocab_size"]
WORDS = ["the", "grown", "model", "reads", "one", "more", "page", "of", "old", "text", "layer"]


def tokenizer() -> TextTokenizer:
    return open_tokenizer(DEMO)


def story(seed: int, num_words: int) -> str:
    """Return words that differ from those of another seed."""
    picked = np.random.default_rng(seed).choice(WORDS, num_words)
    return " ".join([f"story {seed}", *picked.tolist()])


def write_stories(path: Path, num_documents: int, *, first: int = 0, num_words: int = 60) -> Path:
    """Write a text file of documents."""
    stories = [story(first + i, num_words) for i in range(num_documents)]
    path.write_text("\n\n\n".join(stories) + "\n", encoding="utf-8")
    return path


def write_rows(path: Path, rows: Sequence[object]) -> Path:
    """Write a file of JSON lines."""
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


def prepared(path: Path, folder: Path, encoder: TextTokenizer, **options: object) -> TokenFiles:
    """Tokenise one local source for the demo model."""
    source = TextSource(path=path, **options)  # type: ignore[arg-type]
    return prepare([source], encoder, folder, vocab_size=VOCAB_SIZE)


def documents(files: TokenFiles) -> list[list[int]]:
    """Return the tokens of every document."""
    starts = [int(n) for n in files.starts]
    pairs = pairwise(starts)
    return [files.read(first, end).tolist() for first, end in pairs]


def expected(encoder: TextTokenizer, *texts: str) -> list[list[int]]:
    """Tokenise every document in one call, as nothing in the data layer does."""
    plain = [encoder.encoder.encode(text, add_special_tokens=False).ids for text in texts]
    return [[*encoder.prefix, *ids, *encoder.suffix] for ids in plain]


def check_refused(path: Path, encoder: TextTokenizer, **options: object) -> GrowthError:
    """Return the error of preparing a file, and see that it left nothing behind."""
    folder = path.parent / "refused"
    before = set(os.listdir(path.parent))
    with pytest.raises(GrowthError) as caught:
        prepared(path, folder, encoder, **options)
    assert set(os.listdir(path.parent)) == before
    return caught.value
