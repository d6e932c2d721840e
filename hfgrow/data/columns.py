"""Text in the columns of tables: CSV, parquet and arrow files, datasets of the Hub.

No code of a dataset is ever run.
"""

import csv
import io
import logging
import re
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO

from hfgrow.checkpoint.locks import scratch_folder
from hfgrow.data.data_files import ARROW, DataFile
from hfgrow.data.documents import Piece, TextPiece, no_column, piece_of, text_of
from hfgrow.data.sources import TextSource
from hfgrow.errors import GrowthError, TrainingError, UsageError, argument, printable, said
from hfgrow.hub.client import HubClient
from hfgrow.hub.failures import is_of_the_hub
from hfgrow.hub.listing import is_sha
from hfgrow.hub.repo_names import check_repo_id, check_revision

# Far above any document; a field of 128 KiB is the most that the module takes by itself.
_MAX_FIELD_LENGTH = 1 << 28
# Older ones would run a loading script if somebody said yes.
_FIRST_WITHOUT_SCRIPTS = 4
_MOST_NAMES = 10
_BATCH_ROWS = 1000
_CONFIGURATIONS = re.compile(r"(?:available configs|Available): \[([^\]]*)\]")


def read_table(stream: BinaryIO, shown: str, column: str, separator: str) -> Iterator[TextPiece]:
    """Read the documents of a file of comma or tab separated values, which begins with its header.

    Args:
        stream: The file, at its start.
        separator: What stands between two values.

    Raises:
        TrainingError: It is not UTF-8, no such table, or has no text in the column.
    """
    csv.field_size_limit(_MAX_FIELD_LENGTH)
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
    rows = csv.DictReader(text, delimiter=separator, strict=True)
    try:
        for row in rows:
            where = f"{shown} line {rows.line_num}"
            if column not in row:
                named = {str(key): str(value) for key, value in row.items() if key is not None}
                longest = max(named, key=lambda key: len(named[key]), default="")
                raise no_column(column, list(named), where, [longest] if longest else [])
            yield TextPiece(text_of(row, column, where), True)
    except csv.Error as error:
        raise TrainingError(f"{shown} line {rows.line_num} is no CSV: {said(error)}") from error
    except UnicodeDecodeError as error:
        raise TrainingError(
            f"{shown} is not UTF-8, after line {rows.line_num}",
            hint="convert it: iconv -f ITS_ENCODING -t UTF-8",
        ) from error
    finally:
        text.detach()


def read_columns(file: DataFile, column: str) -> Iterator[Piece]:
    """Read the documents of a parquet file, or of an arrow file as `save_to_disk` writes them.

    Args:
        file: The file; its kind is the name of what `datasets` reads it with.

    Raises:
        TrainingError: It is no such file, or has no text in the column.
        UsageError: `datasets` is not installed.
    """
    datasets = _datasets(f"reading {file.shown}")
    try:
        # Its usual cache, which nothing is written to, has to be made for that, and may not.
        with scratch_folder() as scratch:
            builder = datasets.load_dataset_builder(
                file.kind, data_files=[str(file.path)], cache_dir=str(scratch)
            )
            yield from _documents_of(builder, "train", file.shown, column)
    except GrowthError:
        raise
    except Exception as error:
        hint = "datasets.load_from_disk(FOLDER).to_parquet(FILE) writes it as parquet"
        raise TrainingError(
            f"{file.shown} cannot be read as {file.kind}: {_innermost(error)}",
            hint=hint if file.kind == ARROW else "it is damaged, or not what its name says",
        ) from error


def read_dataset(source: TextSource, sha: str, client: HubClient) -> Iterator[Piece]:
    """Read the documents of a split of a dataset on the Hub.

    Args:
        source: The dataset, configuration, split and column.
        sha: The commit to read.

    Raises:
        TrainingError: It needs a loading script, has no such configuration or split, no text in the
            column, or cannot be read.
        GrowthError: The Hub says no, or does not answer.
    """
    datasets = _datasets(f"the dataset {source.label}")
    repo_id = source.dataset or ""
    with client.translating(f"reading the dataset {source.label}", f"datasets/{repo_id}"):
        try:
            builder = datasets.load_dataset_builder(
                repo_id, source.name, revision=sha, token=client.api.token
            )
            yield from _documents_of(builder, source.whole_split, source.label, source.text_column)
        except GrowthError:
            raise
        except Exception as error:
            if is_of_the_hub(error):
                raise
            raise _unreadable(error, source) from error


def _unreadable(error: Exception, source: TextSource) -> TrainingError:
    """Return the error for a dataset that was reached and makes no rows."""
    shown = f"the dataset {source.label}"
    if isinstance(error, RuntimeError) and "script" in str(error):
        return TrainingError(
            f"{shown} needs a loading script, and hfgrow runs no code of others",
            hint="use one stored as parquet or JSON, or convert it",
        )
    if found := _CONFIGURATIONS.search(str(error)):
        names = re.findall(r"'([^']*)'", found[1])
        listed = ", ".join(printable(name) for name in names[:_MOST_NAMES])
        more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
        have = "no configuration " + printable(source.name) if source.name else "configurations"
        return TrainingError(
            f"{shown} has {have}: choose one of {listed}{more}",
            hint=f"{argument('name', names[0])}, for example" if names else "",
        )
    return TrainingError(f"{shown} cannot be read: {_innermost(error, 300)}")


def pinned(source: TextSource, client: HubClient) -> str:
    """Return the commit of a dataset.

    Raises:
        GrowthError: The name cannot be, or the Hub does not have it or does not answer.
    """
    repo_id, revision = source.dataset or "", source.revision
    check_repo_id(repo_id, "dataset")
    if revision is not None:
        check_revision(revision)
        if is_sha(revision):
            return revision
    here = "" if Path(repo_id).exists() else " (there is no such file here)"
    what = f"looking up the dataset {printable(repo_id)}{here}"
    sha = client.ask(
        what,
        lambda: client.api.dataset_info(repo_id, revision=revision).sha,
        f"datasets/{repo_id}",
    )
    if sha is None or not is_sha(sha):
        raise TrainingError(f"the Hub names no commit of the dataset {printable(repo_id)}")
    return sha


def _documents_of(builder: Any, split: str, shown: str, column: str) -> Iterator[Piece]:
    """Read one column of a split, whatever others each of its files has."""
    if getattr(builder.config, "batch_size", 0) is None:
        # By itself parquet takes the rows of the first group, which a part may not have.
        builder.config.batch_size = _BATCH_ROWS
    rows = builder.as_streaming_dataset(split=split)
    features = rows.features
    if features is not None:
        if column not in features:
            is_text = [k for k, v in features.items() if "string" in str(getattr(v, "dtype", ""))]
            raise no_column(column, list(features), shown, is_text)
        rows = rows.select_columns([column])
        # Those of the first file: the tables of all others would be cast to them, or refused.
        builder.info.features = None
    for i, row in enumerate(rows, 1):
        yield piece_of(row, column, f"{shown} row {i}")


def _datasets(what: str) -> Any:
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
    # What it says of a failure is told once, by whoever catches it.
    datasets.logging.set_verbosity(logging.CRITICAL)
    return datasets


def _innermost(error: BaseException, limit: int = 200) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return said(error, limit)
