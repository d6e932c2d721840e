"""A budget as a recipe: the base trained on d tokens, stacked, and trained on with what is left."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hfgrow.checkpoint.staging import replace_text, translated
from hfgrow.console import count
from hfgrow.data.sources import TextSource
from hfgrow.errors import OutputError, argument, printable
from hfgrow.study.budget import Budget

# Those of the paper's scripts: the longest sequence, the tokens of a batch, the peaks of the base
# and of the grown model.
_SEQUENCE, _BATCH = 2048, 1 << 21
_PEAKS = ("1e-3", "3e-4")
# A smaller budget has a smaller batch, so that either training has this many steps.
_LEAST_STEPS = 200
_MOST_AT_ONCE = 8


def recipe_text(
    found: Budget,
    model: str,
    name: str,
    config: Mapping[str, Any],
    sources: list[TextSource],
    command: str,
) -> str:
    """Return a recipe that spends a budget as it says.

    Args:
        model: The base, as it was named.
        name: Its short name.
        config: What its config.json says of the layers.
        sources: What to train on.

    Raises:
        UsageError: No recipe can say it: a training is shorter than one sequence.
    """
    from hfgrow.checkpoint.strict import parse_yaml
    from hfgrow.train.recipe.recipe import recipe_of

    longest = config.get("max_position_embeddings")
    sequence = min(_SEQUENCE, longest) if isinstance(longest, int) and longest > 1 else _SEQUENCE
    base, more = round(found.base_tokens), round(found.continued_tokens)
    batch = sequence
    while batch < _BATCH and 2 * batch * _LEAST_STEPS <= min(base, more):
        batch *= 2
    quoted = [json.dumps(text, ensure_ascii=False) for text in (model, f"{name}-budget-g{found.g}")]
    text = _TEMPLATE.format(
        command=printable(command, 400),
        law=found.law.formula,
        source=found.law.source,
        flops=f"{found.flops:.4g}",
        base=quoted[0],
        output=quoted[1],
        sources="".join(map(_source, sources)),
        sequence=sequence,
        batch=f"{batch:_}",
        at_once=min(_MOST_AT_ONCE, batch // sequence),
        base_tokens=f"{base:_}",
        more_tokens=f"{more:_}",
        base_size=count(round(found.num_base_parameters)),
        grown_size=count(round(found.num_parameters)),
        peaks=_PEAKS,
        g=found.g,
    )
    recipe_of(parse_yaml(text.encode()), "the recipe of this budget")
    return text


def check_recipe(path: Path, *, overwrite: bool) -> None:
    """Refuse a file that the recipe must not be written to.

    Raises:
        OutputError: It exists, or there is no folder for it.
    """
    shown = printable(path, 200)
    if not path.parent.is_dir():
        raise OutputError(f"there is no folder {printable(path.parent, 200)} for {path.name}")
    if path.is_dir() or (path.exists() and not overwrite):
        hint = "name a file in it" if path.is_dir() else f"add {argument('overwrite')}"
        raise OutputError(f"the recipe {shown} exists", hint=hint)


def write_recipe(path: Path, text: str) -> None:
    """Write a recipe, complete or not at all.

    Raises:
        OutputError: The file system refuses.
    """
    with translated(printable(path, 200)):
        replace_text(path, text)


def _source(source: TextSource) -> str:
    import yaml

    keys = {"path": source.path and str(source.path), "dataset": source.dataset}
    told = {key: value for key, value in keys.items() if value is not None}
    return f"    - {yaml.safe_dump(told, default_flow_style=True, allow_unicode=True).strip()}\n"


_TEMPLATE = """\
# A budget as a recipe: the base trained on d tokens, stacked, and trained on with what is left.
#
# Made by:   {command}
# Law:       {law}
#            {source}
# Compute:   {flops} FLOPs, 6 N D, both trainings together
#
# Not of the law, but usual: batch, learning rates and schedules. `hfgrow recipes reference` has
# every key.

base: {base} # the model to begin with
output: {output} # folder of the run: checkpoints, metrics.jsonl, the model in final/

data:
  train: # what is trained on
{sources}  sequence_length: {sequence} # tokens of a sequence

batch_tokens: {batch} # tokens of an optimizer step
micro_batch_size: {at_once} # sequences that a device computes at once: as many as its memory holds

stages: # in order
  - train: # the base, {base_size} parameters; one that has seen more than d needs no more of it
      tokens: {base_tokens} # d
      learning_rate: {peaks[0]} # the peak
      schedule: constant # the base is not to be finished
      warmup: 0.02 # share of the tokens that the learning rate rises over
  - grow:
      operator: stack # the whole stack of layers repeated
      g: {g} # how often
  - train: # the grown model, {grown_size} parameters
      tokens: {more_tokens} # what is left of the budget
      learning_rate: {peaks[1]} # the peak
      schedule: wsd # warm up, hold, decay
      warmup: 0.02 # share of the tokens that the learning rate rises over
      decay: 0.2 # share of the tokens that it falls over, at the end
"""
