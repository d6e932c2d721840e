"""Parquet files and datasets of the Hub, streamed row by row through `datasets`; never any code."""

from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hfgrow.errors import GrowthError, TrainingError, UsageError, printable
from hfgrow.hub.client import HubClient
from hfgrow.hub.listing import is_sha
from hfgrow.hub.names import check_repo_id, check_revision
from hfgrow.train.data.json_lines import no_column, text_of
from hfgrow.train.data.pieces import Piece
from hfgrow.train.data.sources import DataFile, TextSource

# Older ones would run a loading script if somebody said yes.
_FIRST_WITHOUT_SCRIPTS = 4


def read_parquet(file: DataFile, column: str) -> Iterator[Piece]:
    """Read the documents of a parquet file.

    Args:
        file: The file.
        column: The column of the text.

    Raises:
        TrainingError: It is no parquet file, or has no text in the column.
        UsageError: `datasets` is not installed.
    """
    load_dataset = _loader(f"reading {file.shown}")
    try:
        rows = load_dataset("parquet", data_files=[str(file.path)], split="train", streaming=True)
        yield from _documents(rows, file.shown, column)
    except GrowthError:
        raise
    except Exception as error:
        raise TrainingError(
            f"{file.shown} cannot be read as parquet: {_innermost(error)}"
        ) from error


def pinned(source: TextSource, client: HubClient) -> str:
    """Return the commit of a dataset.

    Raises:
        GrowthError: The name cannot be, or the Hub does not have it or does not answer.
    """
    repo_id, revision = source.dataset or "", source.revision
    check_repo_id(repo_id)
    if revision is not None:
        check_revision(revision)
        if is_sha(revision):
            return revision
    here = "" if Path(repo_id).exists() else " (there is no such file here)"
    what = f"looking up the dataset {printable(repo_id)}{here}"
    sha = client.ask(what, lambda: client.api.dataset_info(repo_id, revision=revision).sha, repo_id)
    if sha is None or not is_sha(sha):
        raise TrainingError(f"the Hub names no commit of the dataset {printable(repo_id)}")
    return sha


def read_dataset(source: TextSource, sha: str, client: HubClient) -> Iterator[Piece]:
    """Read the documents of a split of a dataset on the Hub.

    Args:
        source: The dataset, configuration, split and column.
        sha: The commit to read.
        client: The connection to the Hub.

    Raises:
        TrainingError: It needs a loading script, has no such split, or no text in the column.
        GrowthError: The Hub says no, or does not answer.
    """
    load_dataset = _loader(f"the dataset {source.label}")
    repo_id = source.dataset or ""
    with client.translating(f"reading the dataset {source.label}", repo_id):
        try:
            rows = load_dataset(
                repo_id,
                source.name,
                split=source.whole_split,
                revision=sha,
                streaming=True,
                token=client.api.token,
            )
            yield from _documents(rows, source.label, source.text_column)
        except RuntimeError as error:
            if "script" not in str(error):
                raise
            raise TrainingError(
                f"the dataset {source.label} needs a loading script, and hfgrow runs no code of "
                "others",
                hint="use one stored as parquet or JSON, or convert it",
            ) from error
        except ValueError as error:
            raise TrainingError(
                f"the dataset {source.label}: {printable(_innermost(error), 300)}"
            ) from error


def _documents(rows: Any, shown: str, column: str) -> Iterator[Piece]:
    features = rows.features
    if features is not None:
        if column not in features:
            is_text = [k for k, v in features.items() if "string" in str(getattr(v, "dtype", ""))]
            raise no_column(column, list(features), shown, is_text)
        rows = rows.select_columns([column])
    for i, row in enumerate(rows, 1):
        yield Piece(text_of(row, column, f"{shown} row {i}"), True)


def _loader(what: str) -> Any:
    if find_spec("datasets") is None:
        raise UsageError(
            f"{what} needs datasets, which is not installed", hint="pip install datasets"
        )
    datasets = import_module("datasets")
    version = str(datasets.__version__)
    if int(version.partition(".")[0]) < _FIRST_WITHOUT_SCRIPTS:
        raise UsageError(
            f"{what} needs datasets {_FIRST_WITHOUT_SCRIPTS} or later, not {printable(version)}",
            hint="pip install -U datasets",
        )
    return datasets.load_dataset


def _innermost(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return printable(error, 200)
