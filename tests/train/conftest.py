"""What several files of tests of training take."""

from pathlib import Path

import pytest

from tests.train.recipes import MINIMAL


@pytest.fixture
def minimal(tmp_path: Path) -> Path:
    """A file with the shortest recipe."""
    path = tmp_path / "recipe.yaml"
    path.write_text(MINIMAL)
    return path
