"""What several tests of text take."""

import pytest

from hfgrow.data.text_tokenizer import TextTokenizer
from tests.data.corpora import tokenizer


@pytest.fixture(scope="session")
def encoder() -> TextTokenizer:
    """The tokenizer of the demo."""
    return tokenizer()
