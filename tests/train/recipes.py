"""The shortest recipe, and ways to read it."""

from pathlib import Path

import pytest
import yaml

from hfgrow.errors import UsageError
from hfgrow.train.recipe.files import with_overrides
from hfgrow.train.recipe.recipe import Recipe, load_recipe, recipe_of

MINIMAL = """\
base: demo
output: out
data:
  train: [{dataset: demo}]
  sequence_length: 256
batch_tokens: 8192
micro_batch_size: 8
stages:
- train: {tokens: 2M, learning_rate: 3e-4}
"""


def loaded(*overrides: str) -> Recipe:
    """The shortest recipe with overrides."""
    return recipe_of(with_overrides(yaml.safe_load(MINIMAL), overrides))


def message_of(path: Path, *overrides: str) -> str:
    """What a recipe is refused with."""
    with pytest.raises(UsageError) as caught:
        load_recipe(path, overrides)
    return str(caught.value)
