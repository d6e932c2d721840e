"""A dry run: what would stop a recipe is found without training, writing, or reading weights."""

from collections.abc import Iterator
from pathlib import Path

from hfgrow.checkpoint.staging import check_apart
from hfgrow.console import Progress, Silent
from hfgrow.errors import GrowthError
from hfgrow.growth.models import locate
from hfgrow.hub.client import HubClient
from hfgrow.train.data.sources import files_of
from hfgrow.train.describe import recipe_lines
from hfgrow.train.foresee import foresee_by_name
from hfgrow.train.needs import needs_of
from hfgrow.train.recipe import Recipe
from hfgrow.train.run_folder import RunFolder
from hfgrow.train.texts import text_source
from hfgrow.train.trackers import check_trackers


def rehearse(
    recipe: Recipe, client: HubClient, progress: Progress, *, resume: bool
) -> Iterator[str]:
    """Yield what a recipe will do and need, and what of the output would stop it.

    Args:
        recipe: The recipe.
        client: The connection to the Hub: headers of the base are fetched.
        progress: Told how it goes on.
        resume: Whether a run that lies in the output goes on.

    Raises:
        GrowthError: Base, tokenizer, text, a tracker or a stage cannot be.
    """
    check_trackers(recipe)
    for source in (*recipe.data.train, *recipe.data.validation):
        files_of(text_source(source))
    models = foresee_by_name(recipe, client, progress)
    needs = needs_of(recipe, models)
    yield from recipe_lines(recipe, models, needs.flops)
    yield from needs.lines(recipe.checkpoint.keep)
    folder = RunFolder(Path(recipe.output).expanduser())
    for name in (recipe.base, recipe.tokenizer):
        if isinstance(name, str):
            # The base was told about above.
            path = locate(name, None, client, Silent()).path
            if path is not None:
                check_apart(folder.path, path)
    try:
        folder.check_free(resume=resume)
    except GrowthError as error:
        yield f"Note: the run itself would stop here: {error}"
    if folder.holds_a_run and resume:
        yield "Note: whether the run that lies there can go on is found when it does"
    elif lack := needs.lack(folder.path):
        yield f"Note: {lack}"
