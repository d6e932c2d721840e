"""Several models of one command line, each where it lies."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hfgrow.errors import ModelError, UsageError, printable
from hfgrow.growth.models import base_name, local_folder, locate, nearest_ancestor
from hfgrow.hub.client import HubClient
from hfgrow.lineage.read import read_manifest

from .output import Console


@dataclass(frozen=True, slots=True)
class NamedModel:
    """A model that a command was given.

    Attributes:
        name: How it is called.
        folder: Where it lies.
        is_given: Whether it was named as a folder, and may be written to: no base, no cache.
    """

    name: str
    folder: Path
    is_given: bool


def named_models(
    words: Sequence[str],
    revision: str | None,
    with_base: bool,
    client: HubClient,
    console: Console,
) -> list[NamedModel]:
    """Return models in their order, each once, with the base before each if that is wanted.

    Raises:
        UsageError: A name is none, or a revision is given for several.
        ModelError: Neither the base of one is to be found nor what that comes from.
        GrowthError: The Hub refuses or does not answer.
    """
    if revision is not None and len(words) > 1:
        raise UsageError(
            "--revision is of one model, and there are several", hint="write hf://org/name@rev"
        )
    found: dict[Path, NamedModel] = {}
    for word in words:
        ref = locate(word, revision, client, console)
        folder = local_folder(ref, client, console)
        manifest = read_manifest(folder) if with_base else None
        if manifest is not None:
            try:
                model, base = nearest_ancestor(folder, manifest, client, console)
            except ModelError as error:
                hint = "leave out --with-base, and name it as a MODEL"
                raise ModelError(str(error), hint=hint) from error
            if model != manifest.link.base:
                console.say(
                    f"Note: the base {printable(manifest.link.base.name)} of {printable(word)} is "
                    f"gone; {printable(model.name)}, which that comes from, stands for it"
                )
            named = NamedModel(printable(model.name), base, is_given=False)
            found.setdefault(base.resolve(), named)
        elif with_base:
            console.say(f"Note: {printable(word)} has no lineage, so it has no base")
        name = word if ref.path else ref.repo_id or base_name(ref)
        named = NamedModel(name, folder, is_given=ref.path is not None and ref.alias is None)
        found[folder.resolve()] = named
    return list(found.values())
