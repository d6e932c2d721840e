"""Held-out loss, of a run and of models side by side: nats a token, bits a byte.

Every model has its own tokenizer, so losses a token say little of two models; bits a byte compare
(Gao et al. 2020, "The Pile", https://arxiv.org/abs/2101.00027, Sec. 3.1). All models are measured
on the same bytes: as many tokens of the first one's as were asked for, and what the others make of
that part. Where it ends inside a document, bytes are counted by the tokens' share of it.
"""

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from math import exp, isfinite, log
from pathlib import Path
from typing import Any

import torch

from hfgrow.checkpoint.files import LocalFolder
from hfgrow.checkpoint.locks import scratch_folder
from hfgrow.checkpoint.read import read
from hfgrow.console import Pace, Progress, count, size
from hfgrow.data.batches import evaluation_batches, num_evaluation_blocks
from hfgrow.data.corpus import open_sources
from hfgrow.data.order import check_sequence_length
from hfgrow.data.sources import TextSource
from hfgrow.data.text_tokenizer import open_tokenizer
from hfgrow.data.views import TokenView
from hfgrow.errors import ModelError, UsageError, argument, command, printable
from hfgrow.growth.loading import filled_config
from hfgrow.hub.client import HubClient
from hfgrow.train.attention import BatchMasks
from hfgrow.train.devices import Devices, inner_model
from hfgrow.train.estimate import cost_in_words
from hfgrow.train.flops import arithmetic
from hfgrow.train.loss import NextTokenLoss
from hfgrow.train.recipe.recipe import Recipe
from hfgrow.train.stage import load_model
from hfgrow.train.text import begun


@dataclass(frozen=True, slots=True)
class HeldOutLoss:
    """What one held-out text cost.

    Attributes:
        label: The text's name.
        num_tokens: How many tokens were predicted.
        loss: Nats a token.
        bits_per_byte: Bits a byte of UTF-8.
    """

    label: str
    num_tokens: int
    loss: float
    bits_per_byte: float


def evaluate(
    module: Any,
    views: Sequence[TokenView],
    devices: Devices,
    masks: BatchMasks,
    *,
    sequence_length: int,
    micro_batch_size: int,
    max_tokens: int,
    document_mask: bool,
    advance: Callable[[int], None] = lambda num_tokens: None,
) -> tuple[HeldOutLoss, ...]:
    """Measure held-out text, every source on its own.

    Args:
        module: The loss module, wrapped or not; it must hold what is to be measured.
        views: The texts.
        devices: The processes; each takes a part.
        masks: Makes the masks of a batch.
        sequence_length: Tokens of a sequence.
        micro_batch_size: Sequences at once.
        max_tokens: The most tokens of each text.
        document_mask: Whether documents do not see each other.
        advance: Called with the number of tokens of a batch of this process when it is measured.
    """
    module.eval()
    found = []
    with torch.no_grad(), devices.autocast():
        for view in views:
            total = torch.zeros(2, dtype=torch.float64, device=devices.device)
            for batch in evaluation_batches(
                view,
                sequence_length=sequence_length,
                micro_batch_size=micro_batch_size,
                rank=devices.rank,
                world_size=devices.num_processes,
                max_tokens=max_tokens,
                document_mask=document_mask,
            ):
                moved = batch.to(devices.device)
                loss, count = module(moved.input_ids, moved.targets, masks.of(moved))
                total += torch.stack((loss.double(), count.double()))
                advance(batch.num_targets)
            loss_sum, count_sum = devices.sum(total).tolist()
            blocks = num_evaluation_blocks(view, sequence_length, max_tokens)
            read = view.between(0, min(view.num_tokens, blocks * sequence_length + 1))
            nbytes = read.num_bytes * (read.num_tokens - 1) / read.num_tokens
            # Tokens that no document mask lets be predicted have no loss; their bytes do not count.
            nbytes *= count_sum / max(1, read.num_tokens - 1)
            found.append(
                HeldOutLoss(
                    view.label,
                    int(count_sum),
                    loss_sum / max(1, count_sum),
                    loss_sum / log(2) / max(1.0, nbytes),
                )
            )
    devices.settle(module)
    module.train()
    return tuple(found)


def evaluate_folder(
    folder: Path,
    views: Sequence[TokenView],
    devices: Devices,
    recipe: Recipe,
    advance: Callable[[int], None] = lambda num_tokens: None,
) -> tuple[HeldOutLoss, ...]:
    """Measure held-out text with the model of a folder, as a run of the recipe does.

    Args:
        advance: As in `evaluate`.

    Raises:
        ModelError: transformers cannot load the model.
    """
    module: Any = devices.distribute(NextTokenLoss(load_model(folder)))
    length = recipe.data.sequence_length
    return evaluate(
        module,
        views,
        devices,
        BatchMasks(inner_model(module).config, length, devices.device),
        sequence_length=length,
        micro_batch_size=recipe.micro_batch_size,
        max_tokens=recipe.evaluation.tokens,
        document_mask=recipe.data.document_mask,
        advance=advance,
    )


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model to be measured.

    Attributes:
        name: How it is called.
        folder: Where it lies.
        tokenizer: The folder of its tokenizer.
    """

    name: str
    folder: Path
    tokenizer: Path


def same_bytes(
    candidates: Sequence[Candidate],
    sources: Sequence[TextSource],
    *,
    max_tokens: int,
    cache: Path,
    client: HubClient,
    progress: Progress,
) -> list[list[TokenView]]:
    """Return the same part of every text as each model's tokens.

    Args:
        max_tokens: The most tokens of a text, by the first model's tokenizer.
        cache: Where the tokens are to lie.
        client: The connection to the Hub, for texts.

    Raises:
        GrowthError: A text or a tokenizer cannot be read.
    """
    found: list[list[TokenView]] = []
    for candidate in candidates:
        plan = read(LocalFolder(candidate.folder))
        try:
            tokenizer = open_tokenizer(candidate.tokenizer)
        except ModelError as error:
            hint = f"name a model that has one: {argument('tokenizer', 'MODEL')}"
            raise ModelError(str(error), hint=hint) from error
        views = begun(
            open_sources(
                sources,
                tokenizer,
                cache,
                vocab_size=int(plan.settings["vocab_size"]),
                client=client,
                progress=progress,
            ),
            plan.family,
            tokenizer,
        )
        first = found[0] if found else None
        found.append(
            [
                # One more than is predicted: the first token of a text is only read.
                view.between(0, min(view.num_tokens, max_tokens + 1))
                if first is None
                else _of_bytes(view, first[i].num_bytes)
                for i, view in enumerate(views)
            ]
        )
    return found


def _of_bytes(view: TokenView, num_bytes: int) -> TokenView:
    """Return the start of a view that stands for so many bytes, as nearly as tokens go."""
    least, most = 0, view.num_tokens
    while least < most:
        middle = (least + most) // 2
        if view.between(0, middle).num_bytes < num_bytes:
            least = middle + 1
        else:
            most = middle
    # What has no bytes of its own, such as the token that ends a document, belongs to the text.
    rest = view.num_tokens - least
    return view if rest <= 1 else view.between(0, least)


_MOST_SEQUENCE_LENGTH = 1024
# Tokens computed at once, which bounds the memory of activations.
_MICRO_BATCH_TOKENS = 8192
_ALL = 1 << 62
_FLOAT32 = 4
# Their mean depends on the passage more than on the model.
_FEW_TOKENS = 1000


@dataclass(frozen=True, slots=True)
class TextLoss:
    """What a text cost a model.

    Attributes:
        loss: Nats a token and bits a byte.
        num_bytes: Bytes of UTF-8 that were predicted.
    """

    loss: HeldOutLoss
    num_bytes: int

    @property
    def perplexity(self) -> float:
        """`exp` of the nats a token; infinite where a float does not hold it."""
        return exp(self.loss.loss) if self.loss.loss < 700 else float("inf")


@dataclass(frozen=True, slots=True)
class ModelLoss:
    """What all texts cost a model.

    Attributes:
        name: How it is called.
        num_parameters: All of its parameters.
        texts: What each text cost, in the order of the texts.
    """

    name: str
    num_parameters: int
    texts: tuple[TextLoss, ...]

    def __repr__(self) -> str:
        losses = ", ".join(
            f"{one.loss.label} {one.loss.loss:.4f} nats a token, {one.loss.bits_per_byte:.4f} bits "
            "a byte"
            for one in self.texts
        )
        return f"ModelLoss({self.name}: {count(self.num_parameters)} parameters; {losses})"


@dataclass(frozen=True, slots=True)
class _Alone:
    """What `Devices` wants to know of accelerate, of one process on one device."""

    device: torch.device
    process_index: int = 0
    num_processes: int = 1


def device_of(name: str | None) -> torch.device:
    """Return a device by its name; None takes a GPU if there is one.

    Raises:
        UsageError: There is no such device.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    # An assertion is what torch says where it was built without CUDA.
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UsageError(
            f"there is no device {printable(name)} here", hint="cpu, cuda or cuda:0"
        ) from error
    return device


@dataclass(frozen=True, slots=True)
class Prepared:
    """Models and their texts, ready to be measured.

    Attributes:
        candidates: The models.
        views: For each model the texts, as its tokens.
        sequence_length: Tokens of a sequence.
    """

    candidates: tuple[Candidate, ...]
    views: tuple[tuple[TokenView, ...], ...]
    sequence_length: int


@contextmanager
def prepared(
    candidates: Sequence[Candidate],
    sources: Sequence[TextSource],
    *,
    max_tokens: int,
    sequence_length: int | None,
    client: HubClient,
    progress: Progress,
) -> Iterator[Prepared]:
    """Check models and texts and tokenise the texts; the tokens stay as long as the block runs.

    Args:
        max_tokens: The most tokens of a text, by the first model's tokenizer.
        sequence_length: Tokens of a sequence; None takes up to 1024, as far as all models go.
        client: The connection to the Hub, for texts.

    Raises:
        GrowthError: A model or a text cannot be read or has no token to predict, or a model lacks
            positions.
    """
    settings = [read(LocalFolder(found.folder)).settings for found in candidates]
    positions = [int(one.get("max_position_embeddings") or _ALL) for one in settings]
    length = sequence_length or min(_MOST_SEQUENCE_LENGTH, *positions)
    for found, most in zip(candidates, positions, strict=True):
        try:
            check_sequence_length(length, most)
        except UsageError as error:
            hint = argument("sequence_length", min(positions))
            raise UsageError(f"{printable(found.name)}: {error}", hint=hint) from None
    with scratch_folder() as scratch:
        views = same_bytes(
            candidates,
            sources,
            max_tokens=max_tokens,
            cache=scratch,
            client=client,
            progress=progress,
        )
        for own in views:
            for view in own:
                num_evaluation_blocks(view, length)
        for view in views[0]:
            if view.num_tokens <= _FEW_TOKENS:
                progress.say(
                    f"Note: tokens to predict of {printable(view.label)}: {view.num_tokens - 1}; "
                    f"a loss of fewer than {_FEW_TOKENS:,} says little of a model"
                )
        yield Prepared(tuple(candidates), tuple(map(tuple, views)), length)


def measured(ready: Prepared, device: torch.device, progress: Progress) -> Iterator[ModelLoss]:
    """Measure models on their texts, one model after the other, in float32; yield what they cost.

    Raises:
        GrowthError: A model cannot be loaded, or has no finite loss on a text.
    """
    for found, views in zip(ready.candidates, ready.views, strict=True):
        devices = Devices(_Alone(device), "none", False)
        result = _measured(found, views, ready.sequence_length, devices, progress)
        for text in result.texts:
            progress.say(
                f"{printable(found.name)}: {text.loss.bits_per_byte:.4f} bits per byte of "
                f"{printable(text.loss.label)}"
            )
        yield result


def _measured(
    found: Candidate,
    views: Sequence[TokenView],
    length: int,
    devices: Devices,
    progress: Progress,
) -> ModelLoss:
    name, plan = printable(found.name), read(LocalFolder(found.folder))
    progress.say(f"Loading {name}, {size(_FLOAT32 * plan.num_parameters)} of weights in memory")
    model = load_model(found.folder)
    module = NextTokenLoss(model).to(devices.device)
    total = sum(view.num_tokens - 1 for view in views)
    # A forward pass is a third of a step.
    flops = total * arithmetic(filled_config(plan.config), length).exact_flops / 3
    cost = cost_in_words(flops, devices.device)
    progress.say(f"Measuring {name} on {total:,} tokens, {cost}")
    done, pace = 0, Pace(total, "{:,}".format)

    def tell(num_tokens: int) -> None:
        if state := pace.due(min(num_tokens, total)):
            progress.say(f"Measuring {name}, tokens: {state}")

    def advance(num_tokens: int) -> None:
        nonlocal done
        done += num_tokens
        tell(done)

    # What a batch lacks is filled up, and would be computed for nothing.
    most = max(num_evaluation_blocks(view, length) for view in views)
    batch = max(1, min(_MICRO_BATCH_TOKENS // length, most))
    with _each_layer(model, lambda share: tell(done + int(share * batch * length))):
        losses = evaluate(
            module,
            views,
            devices,
            BatchMasks(model.config, length, devices.device),
            sequence_length=length,
            micro_batch_size=batch,
            max_tokens=_ALL,
            document_mask=False,
            advance=advance,
        )
    for loss in losses:
        if not isfinite(loss.loss):
            raise ModelError(
                f"{printable(found.name)} has no finite loss on {printable(loss.label)}",
                hint=command(f"check {printable(found.folder, 200)}", weights="")
                + " says where its weights are NaN or infinite, if they are",
            )
    texts = tuple(
        TextLoss(
            replace(loss, label=view.label),
            round(view.num_bytes * loss.num_tokens / view.num_tokens),
        )
        for loss, view in zip(losses, views, strict=True)
    )
    del model, module
    gc.collect()
    return ModelLoss(found.name, plan.num_parameters, texts)


@contextmanager
def _each_layer(model: Any, tell: Callable[[float], None]) -> Iterator[None]:
    """Call a function with the share of its layers that a forward pass has gone through."""
    num_layers = int(model.config.get_text_config(decoder=True).num_hidden_layers)
    lists = (found for found in model.modules() if isinstance(found, torch.nn.ModuleList))
    layers = next((found for found in lists if len(found) == num_layers), ())

    def passed(number: int, *_: object) -> None:
        # The head behind the last layer costs as well.
        tell((number + 1) / (num_layers + 1))

    hooks = [each.register_forward_hook(partial(passed, i)) for i, each in enumerate(layers)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
