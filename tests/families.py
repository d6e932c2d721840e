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
