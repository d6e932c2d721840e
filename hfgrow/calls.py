"""The commands as functions of Python: inspect, pull, push, evaluate, budget.

Each takes the main options of its command and returns what that prints, as an object. Where nobody
says who is told how work goes on, a notebook gets bars, and a script nothing.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hfgrow.checkpoint.read import read
from hfgrow.console import Progress, amount, usual_progress
from hfgrow.data.sources import held_out_source
from hfgrow.errors import UsageError
from hfgrow.growth.models import base_name, files_of, local_folder, locate, pulled
from hfgrow.growth.publish import publish
from hfgrow.hub.client import HubClient
from hfgrow.hub.push import Pushed
from hfgrow.plan.operators.stacking import stack
from hfgrow.plan.plan import GrowthPlan

if TYPE_CHECKING:
    from hfgrow.study.budget import Budget
    from hfgrow.train.evaluate import ModelLoss


def inspect(
    model: str,
    *,
    revision: str | None = None,
    token: str | None = None,
    progress: Progress | None = None,
) -> GrowthPlan:
    """Read what a model is from its config and headers; of a Hub model no weight is downloaded.

    Args:
        model: Folder, alias, org/name, hf:// or Hub URL.
        revision: Branch, tag or commit of it.
        token: The Hub token; None takes the environment's or the logged-in one.
        progress: Told how it goes on.

    Raises:
        GrowthError: There is no such model, or none that hfgrow can grow.
    """
    client = HubClient(token=token)
    return read(files_of(locate(model, revision, client, progress or usual_progress()), client))


def pull(
    model: str,
    *,
    out: str | Path | None = None,
    overwrite: bool = False,
    revision: str | None = None,
    token: str | None = None,
    progress: Progress | None = None,
) -> Path:
    """Download the files of a model that growing needs, checksums compared, and return the folder.

    Args:
        model: As in `inspect`.
        out: The folder to copy them into; None leaves them in the cache of the Hub.
        overwrite: Whether a model that stands there may be replaced.
        revision: As in `inspect`.
        token: As in `inspect`.
        progress: As in `inspect`.

    Raises:
        GrowthError: There is no such model, it cannot be had, or `out` cannot be written.
    """
    _, folder = pulled(
        model,
        None if out is None else Path(out),
        HubClient(token=token),
        progress or usual_progress(),
        revision=revision,
        overwrite=overwrite,
    )
    return folder


def push(
    folder: str | Path,
    repo: str | None = None,
    *,
    private: bool | None = None,
    exist_ok: bool = False,
    create_pr: bool = False,
    dry_run: bool = False,
    token: str | None = None,
    progress: Progress | None = None,
) -> Pushed:
    """Push a grown or trained model in one commit; a second push of the same is none.

    A growth whose sha256 was not recorded is compared with its base first, where that is at hand;
    else a note says that nothing compared it.

    Args:
        folder: Where it lies.
        repo: The target; None means a repository of yours named as the model.
        private: The visibility of a new repository; None means as private as its ancestors.
        exist_ok: Whether a repository that hfgrow did not make may be pushed to.
        create_pr: Whether to open a pull request instead.
        dry_run: Whether to send nothing, and only say what would go where.
        token: As in `inspect`.
        progress: As in `inspect`.

    Raises:
        VerificationError: The model is not what its growth makes of the base.
        GrowthError: It was changed since, or the Hub refuses or does not answer.
    """
    return publish(
        Path(folder),
        repo,
        HubClient(token=token),
        progress or usual_progress(),
        private=private,
        exist_ok=exist_ok,
        create_pr=create_pr,
        dry_run=dry_run,
    )


def evaluate(
    models: str | Path | Sequence[str | Path],
    text: str | Path | Sequence[str | Path],
    *,
    tokens: int | str = "1M",
    sequence_length: int | None = None,
    split: str | None = None,
    name: str | None = None,
    text_column: str = "text",
    device: str | None = None,
    token: str | None = None,
    progress: Progress | None = None,
) -> tuple["ModelLoss", ...]:
    """Measure models side by side on text; bits per byte compare across tokenizers.

    Args:
        models: One or more, as in `inspect`.
        text: Files, folders, datasets of the Hub as org/name, or `demo`; one or more.
        tokens: The most tokens of a text, by the first model's count: 20_000 or "20K".
        sequence_length: Tokens seen together; None takes up to 1024, as far as all models go.
        split: Of a dataset; None takes validation, of files train.
        name: Configuration of a dataset of the Hub.
        text_column: The column of the text.
        device: cpu, cuda, ...; None takes a GPU if there is one.
        token: As in `inspect`.
        progress: As in `inspect`.

    Raises:
        GrowthError: A model or a text cannot be read, or a loss is not finite.
    """
    from hfgrow.train.evaluate import Candidate, device_of, measured, prepared

    client, told = HubClient(token=token), progress or usual_progress()
    candidates = []
    for model in map(str, _several(models)):
        ref = locate(model, None, client, told)
        folder = local_folder(ref, client, told)
        candidates.append(Candidate(ref.repo_id or base_name(ref), folder, folder))
    words = map(str, _several(text))
    sources = [held_out_source(word, text_column, split, name) for word in words]
    with prepared(
        candidates,
        sources,
        max_tokens=int(amount(str(tokens), "tokens")),
        sequence_length=sequence_length,
        client=client,
        progress=told,
    ) as ready:
        return tuple(measured(ready, device_of(device), told))


def budget(
    model: str | None = None,
    *,
    parameters: float | str | None = None,
    tokens: float | str | None = None,
    flops: float | str | None = None,
    g: int = 4,
    token: str | None = None,
) -> "Budget":
    """Say after how many tokens to grow, what then remains, and what both cost.

    Args:
        model: The base to be stacked, as in `inspect`; or
        parameters: those of the grown model: 7e9 or "7B".
        tokens: The compute, as tokens that the grown model could train on from scratch; or
        flops: the compute itself.
        g: Growth factor of the depth.
        token: As in `inspect`.

    Raises:
        GrowthError: There is no such model, or not exactly one of each pair is given.
    """
    from hfgrow.study.budget import budget_of

    if (model is None) == (parameters is None):
        raise UsageError("give either a model or parameters")
    if (tokens is None) == (flops is None):
        raise UsageError("give either tokens or flops")
    num_base: float | None = None
    if model is not None:
        plan = inspect(model, token=token)
        num_base, size = float(plan.num_parameters), float(stack(plan, g=g).num_parameters)
    else:
        size = amount(str(parameters), "parameters")
    spent = (
        amount(str(flops), "flops")
        if flops is not None
        else 6 * size * amount(str(tokens), "tokens")
    )
    return budget_of(num_parameters=size, flops=spent, g=g, num_base_parameters=num_base)


def _several(given: str | Path | Sequence[str | Path]) -> Sequence[str | Path]:
    return [given] if isinstance(given, str | Path) else given
