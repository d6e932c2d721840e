"""Trackers that a recipe names must be there: accelerate would leave one out and say nothing."""

from importlib.util import find_spec

from hfgrow.errors import UsageError
from hfgrow.train.recipe import Recipe


def check_trackers(recipe: Recipe) -> None:
    """Refuse a recipe with a tracker that is not installed.

    Raises:
        UsageError: There is one.
    """
    for tracker in recipe.trackers:
        if find_spec(tracker) is None:
            raise UsageError(
                f"the tracker {tracker} is not installed",
                hint=f"pip install {tracker}, or --set trackers=[]",
            )
