"""The loss by chunks is that of transformers, and counts its tokens."""

from importlib import import_module
from typing import Any

import pytest
import torch

from hfgrow.data.batches import NO_TARGET
from hfgrow.train.loss import (
    Head,
    NextTokenLoss,
    _compiled_slope,
    _slope,
    head_of,
    summed_cross_entropy,
)
from tests.checkpoints import MakeCheckpoint, load, probe
from tests.families import DENSE, EVERY_FAMILY

HEADS = (Head(), Head(hidden_divisor=1.5), Head(logits_divisor=0.75), Head(softcap=3.0))


def next_tokens(input_ids: torch.Tensor) -> torch.Tensor:
    """What each place must predict; the last one has nothing to predict."""
    return torch.nn.functional.pad(input_ids[:, 1:], (0, 1), value=NO_TARGET)


def states(num_tokens: int = 37, vocab_size: int = 50) -> tuple[Any, Any, Any]:
    generator = torch.Generator().manual_seed(5)
    hidden = torch.randn(num_tokens, 16, generator=generator).requires_grad_()
    weight = torch.randn(vocab_size, 16, generator=generator).requires_grad_()
    targets = torch.randint(0, vocab_size, (num_tokens,), generator=generator)
    targets[::5] = NO_TARGET
    return hidden, weight, targets


def gradients(model: Any) -> dict[str, torch.Tensor]:
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("tied", [False, True], ids=["", "tied"])
@pytest.mark.parametrize("model_type", EVERY_FAMILY)
def test_every_family_has_the_loss_of_transformers(
    model_type: str, tied: bool, make_checkpoint: MakeCheckpoint
) -> None:
    folder = make_checkpoint(model_type, tied=tied)
    ids = probe()
    stock, _ = load(folder)
    stock_loss = stock(ids, labels=ids, use_cache=False).loss
    stock_loss.backward()

    ours, _ = load(folder)
    total, count = NextTokenLoss(ours)(ids, next_tokens(ids))
    (total / count).backward()

    assert count == ids.numel() - len(ids)
    torch.testing.assert_close(total / count, stock_loss, rtol=1e-6, atol=1e-6)
    expected = gradients(stock)
    assert gradients(ours).keys() == expected.keys()
    for name, gradient in gradients(ours).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-5, atol=1e-5)


def test_every_family_with_a_head_of_its_own_is_known(make_checkpoint: MakeCheckpoint) -> None:
    own = {name for name in DENSE if head_of(load(make_checkpoint(name))[0].config) != Head()}
    assert own == {"gemma2", "gemma3_text", "granite", "granite_swa", "minicpm3", "vaultgemma"}


@pytest.mark.parametrize("head", HEADS, ids=str)
@pytest.mark.parametrize("chunk_tokens", [1, 8, 36, 37, 1000])
def test_the_size_of_the_chunks_changes_nothing(head: Head, chunk_tokens: int) -> None:
    hidden, weight, targets = states()
    logits = torch.nn.functional.linear(hidden / head.hidden_divisor, weight)
    logits = logits / head.logits_divisor
    if head.softcap is not None:
        logits = head.softcap * torch.tanh(logits / head.softcap)
    whole = torch.nn.functional.cross_entropy(
        logits, targets, reduction="sum", ignore_index=NO_TARGET
    )
    expected = torch.autograd.grad(whole, (hidden, weight))
    total = summed_cross_entropy(hidden, weight, targets, head, chunk_tokens=chunk_tokens)
    torch.testing.assert_close(total, whole, rtol=1e-6, atol=1e-6)
    for gradient, other in zip(torch.autograd.grad(total, (hidden, weight)), expected, strict=True):
        torch.testing.assert_close(gradient, other, rtol=1e-5, atol=1e-5)


def test_no_gradient_is_computed_for_a_frozen_head_or_in_evaluation() -> None:
    hidden, weight, targets = states()
    frozen: Any = summed_cross_entropy(hidden, weight.detach(), targets, Head(), chunk_tokens=8)
    frozen.backward()
    assert hidden.grad is not None
    with torch.no_grad():
        measured = summed_cross_entropy(hidden, weight, targets, Head(), chunk_tokens=8)
    assert not measured.requires_grad
    assert measured.item() == pytest.approx(frozen.item(), rel=1e-6)


def test_uneven_parts_add_up_to_the_whole_batch(make_checkpoint: MakeCheckpoint) -> None:
    """Summed loss over summed count, as micro-batches with unlike numbers of targets want it."""
    ids = probe()
    targets = next_tokens(ids)
    targets[0, :9] = NO_TARGET
    whole, _ = load(make_checkpoint())
    total, count = NextTokenLoss(whole)(ids, targets)
    (total / count).backward()

    parts, _ = load(make_checkpoint())
    for row, row_targets in zip(ids, targets, strict=True):
        row_total, _ = NextTokenLoss(parts)(row[None], row_targets[None])
        (row_total / count).backward()
    for name, gradient in gradients(parts).items():
        torch.testing.assert_close(gradient, gradients(whole)[name], rtol=1e-5, atol=1e-6)


def test_a_batch_without_targets_costs_nothing() -> None:
    hidden, weight, targets = states()
    total: Any = summed_cross_entropy(hidden, weight, torch.full_like(targets, NO_TARGET), Head())
    total.backward()
    assert total.item() == 0
    assert hidden.grad.abs().max() == 0
    assert weight.grad.abs().max() == 0


def test_under_autocast_the_gradient_of_the_matrix_keeps_its_dtype() -> None:
    hidden, weight, targets = states()
    exact = summed_cross_entropy(hidden, weight, targets, Head())
    (expected,) = torch.autograd.grad(exact, weight)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        total: Any = summed_cross_entropy(hidden, weight, targets, Head(), chunk_tokens=8)
    total.backward()
    assert total.dtype == weight.grad.dtype == torch.float32
    assert total.item() == pytest.approx(exact.item(), rel=2e-2)
    assert torch.nn.functional.cosine_similarity(weight.grad, expected).min() > 0.99


def test_logits_exist_for_one_chunk_at_a_time() -> None:
    """The largest tensor that is saved or made has a chunk's rows, not the batch's."""
    mode: Any = import_module("torch.utils._python_dispatch").TorchDispatchMode

    class Largest(mode):  # type: ignore[misc]
        rows = 0

        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            result = func(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor) and result.shape[1:] == (50,):
                self.rows = max(self.rows, result.shape[0])
            return result

    hidden, weight, targets = states(num_tokens=400)
    with Largest() as largest:
        total: Any = summed_cross_entropy(hidden, weight, targets, Head(), chunk_tokens=20)
        total.backward()
    assert largest.rows == 20


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "head", [Head(softcap=3.0), pytest.param(Head(), marks=pytest.mark.slow)], ids=str
)
def test_the_compiled_gradient_of_a_chunk_is_the_same(head: Head) -> None:
    hidden, weight, targets = states()
    logits = (hidden @ weight.t()).detach()
    for one, other in zip(
        _compiled_slope()(logits.clone(), targets, head),
        _slope(logits.clone(), targets, head),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
