"""The families as parameters of tests: those near another in full only by `pytest -m slow`."""

import pytest

from hfgrow.plan.families import FAMILIES
from tests.growths import NEAR

# What is near, and computes something that nothing else of the default tests does.
_OWN = {"granite_swa", "ministral3", "vaultgemma"}
EVERY_FAMILY = [
    pytest.param(name, marks=pytest.mark.slow if name in NEAR.keys() - _OWN else ())
    for name in FAMILIES
]
# Those whose parameters in a model have the names that they have in files.
DENSE = [name for name, family in FAMILIES.items() if not family.has_experts]
EVERY_DENSE_FAMILY = [one for one in EVERY_FAMILY if one.values[0] in DENSE]
