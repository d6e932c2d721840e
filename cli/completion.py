"""What a shell completes: names of models, recipes, studies, steps, operators and dtypes.

A name that a user's own table spoils is left out: a completion has nobody to tell.
"""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from hfgrow.errors import GrowthError
from hfgrow.plan.tensors import CONFIG_DTYPES

# With what is said of it.
Word = tuple[str, str]


def aliases(incomplete: str) -> list[Word]:
    """Return the short names of models that begin so."""
    from hfgrow.hub.search import DEMO, load_aliases

    known = {DEMO: "the model inside hfgrow, 1.4M"}
    with suppress(GrowthError):
        known |= {alias.name: alias.note or alias.repo_id for alias in load_aliases().values()}
    return [one for one in known.items() if one[0].startswith(incomplete)]


def recipes(incomplete: str) -> list[Word]:
    """Return the recipes of hfgrow's that begin so; a shell adds files where there is none."""
    return list(_shipped("", incomplete))


def studies(incomplete: str) -> list[Word]:
    """Return the studies of hfgrow's that begin so."""
    return list(_shipped("studies", incomplete))


def growths(incomplete: str) -> list[Word]:
    """Return the steps of hfgrow's that begin so."""
    return list(_shipped("growths", incomplete))


def all_recipes(incomplete: str) -> list[Word]:
    """Return all three."""
    return [*recipes(incomplete), *studies(incomplete), *growths(incomplete)]


def operators(incomplete: str) -> list[Word]:
    """Return the operators that begin so."""
    from hfgrow.plan.operators import OPERATORS

    return [(name, row.summary) for name, row in OPERATORS.items() if name.startswith(incomplete)]


def listed_operators(incomplete: str) -> list[str]:
    """Return what a list of operators between commas can go on with."""
    done, _, last = incomplete.rpartition(",")
    before = f"{done}," if done else ""
    return [before + name for name, _ in operators(last)]


def pages(incomplete: str) -> list[str]:
    """Return the pages of the documentation that begin so."""
    return [name for name in documentation() if name.startswith(incomplete)]


def documentation() -> dict[str, Path]:
    """Return the pages of the documentation by name: installed beside us, or in a checkout."""
    here = Path(__file__).parent
    folders = (here.with_name("hfgrow_docs"), here.with_name("docs"))
    pages = (file for folder in folders for file in folder.glob("*.md"))
    return {file.stem: file for file in sorted(pages)}


def dtypes(incomplete: str) -> list[str]:
    """Return the dtypes that begin so."""
    return [name for name in CONFIG_DTYPES if name.startswith(incomplete)]


def _shipped(folder: str, incomplete: str) -> Iterator[Word]:
    from hfgrow.train.recipe.files import shipped_recipes, summary_of

    for name, file in shipped_recipes(folder).items():
        if name.startswith(incomplete):
            yield name, summary_of(file)
