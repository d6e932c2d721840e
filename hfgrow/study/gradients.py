"""How many weights get no gradient at all in the first step after growth.

Where growth inserts zeros, what reads or feeds them may have a gradient of exactly zero, and starts
to learn only when they have moved. Embeddings are left out: rows of tokens that are not in the text
have none in any model.
"""

from hfgrow.errors import GrowthError
from hfgrow.plan.families.table import layer_of
from hfgrow.study.child import is_done
from hfgrow.study.design import Design
from hfgrow.study.job import StudyRun
from hfgrow.train.run_folder import RunFolder

_MOST_PARAMETERS = 200_000_000
_NUM_TOKENS = 512


def dead_gradients(design: Design) -> dict[str, float]:
    """Return the share of dead weights of every arm that grew, by its first finished run.

    What was not kept, or is too large to be loaded for this, is left out.
    """
    found: dict[str, float] = {}
    for job in design.arms:
        if job.arm is not None and job.arm not in found and job.layer_map and is_done(job):
            share = _share(job)
            if share is not None:
                found[job.arm] = share
    return found


def _share(job: StudyRun) -> float | None:
    """Return the share of the matrices' weights whose gradient is zero in the first step."""
    import torch

    from hfgrow.growth.mask import attach_mask
    from hfgrow.train.growing import last_growth
    from hfgrow.train.stage import load_model

    number = job.first_grown
    folders = sorted(RunFolder(job.folder).stage(number - 1, "").glob("*"))
    train = job.recipe.stages[number].train
    if len(folders) != 1 or train is None or job.costs[-1].num_parameters > _MOST_PARAMETERS:
        return None
    try:
        model = load_model(folders[0])
        growth = last_growth(folders[0])
    except GrowthError:
        return None
    if train.mask_ramp is not None and growth is not None:
        opened = job.recipe.batch_tokens / max(1, train.mask_ramp_tokens)
        attach_mask(model, growth, min(1.0, opened))
    length = min(job.recipe.data.sequence_length, _NUM_TOKENS)
    shape = (max(1, _NUM_TOKENS // length), length)
    generator = torch.Generator().manual_seed(job.seed)
    tokens = torch.randint(0, model.config.vocab_size, shape, generator=generator)
    model(tokens, labels=tokens).loss.backward()
    num_dead = num_weights = 0
    for name, parameter in model.named_parameters():
        if layer_of(name) and parameter.ndim == 2:
            num_weights += parameter.numel()
            gradient = parameter.grad
            num_dead += parameter.numel() if gradient is None else int((gradient == 0).sum().item())
    return num_dead / num_weights
