"""One run: recipe, loop, checkpoints; called, `hfgrow.train(recipe)`, it is the command.

The room and the command have one name, and whoever imports a file of the room puts the room into
that name: so it answers as the command does.
"""

import sys
from types import ModuleType
from typing import Any


class _Room(ModuleType):
    """A package that can be called."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        from hfgrow.train.trained import train

        return train(*arguments, **options)


sys.modules[__name__].__class__ = _Room
