"""The rules for names of the Hub, applied before a name becomes part of a path or an address."""

import re

from hfgrow.errors import UsageError, printable, redacted

_REVISION = re.compile(r"[\w.\-]+(/[\w.\-]+)*", re.ASCII)
_LONGEST_REVISION = 200
_NOT_MODELS = frozenset({"datasets", "spaces", "buckets", "kernels", "models"})


def check_revision(revision: str) -> None:
    """Refuse what cannot be a revision.

    Raises:
        UsageError: It holds other characters than a branch can, a `..`, or is too long.
    """
    segments = revision.split("/")
    if (
        len(revision) > _LONGEST_REVISION
        or revision.startswith("-")
        or not _REVISION.fullmatch(revision)
        or "." in segments
        or any(".." in segment for segment in segments)
    ):
        raise UsageError(
            f"{shown(revision)} is no revision",
            hint="give a branch, a tag, a commit hash or refs/pr/N",
        )


def check_repo_id(repo_id: str, kind: str = "model") -> None:
    """Refuse what cannot be the id of a model, or of another kind of repository.

    Raises:
        UsageError: It is not org/name by the rules of the Hub.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # not typed as public

    namespace, slash, _ = repo_id.partition("/")
    if slash and namespace in _NOT_MODELS:
        raise UsageError(f"{shown(repo_id)} is no {kind}: {namespace}/ is a type of repository")
    rule = "org/name, each at most 96 letters, digits, - _ . (no --, no .., not ending in .git)"
    if not repo_id.isascii() or repo_id.count("/") != 1 or repo_id.endswith("\n"):
        raise UsageError(f"{shown(repo_id)} is neither a folder nor a {kind} id", hint=rule)
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise UsageError(f"{shown(repo_id)} is no {kind} id", hint=rule) from error


def edit_distance(one: str, other: str, *, limit: int) -> int:
    """Return how many letters must change to turn one text into the other, or limit + 1."""
    if abs(len(one) - len(other)) > limit:
        return limit + 1
    row = list(range(len(other) + 1))
    for i, letter in enumerate(one, 1):
        above, row[0] = row[0], i
        for j, wanted in enumerate(other, 1):
            above, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, above + (letter != wanted))
        if min(row) > limit:
            return limit + 1
    return min(row[-1], limit + 1)


def shown(text: str) -> str:
    """Return what the user typed, quoted, safe to print, and without a token."""
    return repr(printable(redacted(text)))
