"""A study from its recipe to its report."""

import os
from pathlib import Path

from hfgrow.checkpoint.staging import translated
from hfgrow.checkpoint.write import replace_text
from hfgrow.errors import printable
from hfgrow.hub.client import HubClient
from hfgrow.progress import Progress, Silent
from hfgrow.source import local_folder, locate
from hfgrow.study.design import Design
from hfgrow.study.fork import TOKENS
from hfgrow.study.jobs import Outcome, Runner
from hfgrow.train.recipe import Recipe


def run_study(
    design: Design, out: Path, *, num_parallel: int, on_cpu: bool, progress: Progress
) -> dict[str, Outcome]:
    """Carry out all runs of a study that are not done.

    Args:
        design: The runs.
        out: The folder of the study.
        num_parallel: How many run at a time.
        on_cpu: Whether accelerators are left alone.
        progress: Told how it goes on.

    Returns:
        How each run ended, by its name.

    Raises:
        GrowthError: The study cannot begin.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    with translated(printable(out, 200)):
        (out / "runs").mkdir(parents=True, exist_ok=True)
    tokens = out / TOKENS
    devices = () if on_cpu or num_parallel == 1 else _gpus()
    runner = Runner(tokens, out / "recipes", num_parallel, on_cpu, progress, devices)
    _tokenise(design.jobs[0].recipe, tokens, progress)
    return runner.run(design.jobs)


def _gpus() -> tuple[str, ...]:
    """Return the GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return tuple(filter(None, given.split(",")))
    return tuple(map(str, range(torch.cuda.device_count())))


def _tokenise(recipe: Recipe, tokens: Path, progress: Progress) -> None:
    """Tokenise the text once, before runs that begin at the same time would each do it."""
    from hfgrow.train.data.corpus import open_sources
    from hfgrow.train.data.tokenizer import open_tokenizer
    from hfgrow.train.recipe_parts import FreshModel
    from hfgrow.train.texts import text_source

    assert isinstance(recipe.base, FreshModel)
    assert recipe.tokenizer is not None
    client = HubClient()
    ref = locate(recipe.tokenizer, None, client, progress)
    tokenizer = open_tokenizer(local_folder(ref, client, Silent()))
    vocab_size = recipe.base.config.get("vocab_size")
    assert isinstance(vocab_size, int)
    sources = [text_source(s) for s in (*recipe.data.train, *recipe.data.validation)]
    with translated(printable(tokens, 200)):
        tokens.mkdir(parents=True, exist_ok=True)
    open_sources(
        sources, tokenizer, tokens, vocab_size=vocab_size, client=client, progress=progress
    )


def write_text(path: Path, text: str) -> None:
    """Write a file of a study, complete or not at all."""
    with translated(printable(path, 200)):
        replace_text(path, text)
