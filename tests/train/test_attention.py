"""Our own attention is the stock one, without mask tensors, and documents do not see each other."""

from collections.abc import Collection
from contextlib import nullcontext
from importlib import import_module
from typing import Any

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from hfgrow.errors import UsageError
from hfgrow.train import attention
from hfgrow.train.attention import (
    batch_masks,
    block_mask,
    causal_attention,
    dense_mask,
    preferred_kernels,
    use_causal_attention,
)
from hfgrow.train.flops import layer_windows
from tests.checkpoints import MakeCheckpoint, load, probe
from tests.families import DENSE, EVERY_FAMILY

CPU = torch.device("cpu")
# With `TRAITS`, whose windows are 5 tokens, the probe's 12 tokens are longer than any window.
WINDOWED = {
    "cwm",
    "exaone4",
    "gemma2",
    "gemma3_text",
    "granite_swa",
    "ministral",
    "ministral3",
    "mistral",
    "mixtral",
    "olmo3",
    "phi3",
    "qwen2",
    "qwen2_moe",
    "qwen3",
    "qwen3_moe",
    "vaultgemma",
}


def own(folder: Any) -> Any:
    model, _ = load(folder)
    use_causal_attention(model)
    return model


def windows_of(model: Any) -> Collection[int | None]:
    return set(layer_windows(model.config.to_dict()))


def heads(*, tokens: int = 20, dim: int = 16, value_dim: int = 16) -> tuple[torch.Tensor, ...]:
    """Queries of 4 heads, keys and values of 2, for 3 sequences."""
    generator = torch.Generator().manual_seed(11)
    shapes = ((3, 4, tokens, dim), (3, 2, tokens, dim), (3, 2, tokens, value_dim))
    return tuple(torch.randn(shape, generator=generator) for shape in shapes)


@pytest.mark.parametrize("model_type", EVERY_FAMILY)
def test_every_family_computes_what_its_stock_attention_computes(
    model_type: str, make_checkpoint: MakeCheckpoint
) -> None:
    folder = make_checkpoint(model_type)
    ids = probe()
    stock, ours = load(folder)[0], own(folder)
    if getattr(stock.config, "attn_logit_softcapping", None):
        # Some releases of transformers give Gemma 2 an SDPA that leaves the cap out.
        stock.set_attn_implementation("eager")
    expected = stock(ids, labels=ids, use_cache=False)
    found = ours(ids, labels=ids, use_cache=False)
    torch.testing.assert_close(found.logits, expected.logits, rtol=1e-6, atol=1e-6)
    expected.loss.backward()
    found.loss.backward()
    gradients = {name: p.grad for name, p in stock.named_parameters()}
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("model_type", EVERY_FAMILY)
def test_layer_windows_are_those_the_layers_ask_for(
    model_type: str, make_checkpoint: MakeCheckpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int | None] = []

    def listening(*args: Any, **kwargs: Any) -> Any:
        own_window = getattr(args[0], "sliding_window", None)
        asked.append(kwargs.get("sliding_window", own_window))
        return causal_attention(*args, **kwargs)

    monkeypatch.setattr(attention, "causal_attention", listening)
    model = own(make_checkpoint(model_type))
    model(probe(), use_cache=False)
    assert tuple(asked) == layer_windows(model.config.to_dict())
    assert (model_type in WINDOWED) == any(asked)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "model_type",
    [
        # Tracing takes seconds, and says the same of all that have no windows.
        pytest.param(name, marks=() if name in ("llama", "olmo2") else pytest.mark.slow)
        for name in sorted({*DENSE} - WINDOWED)
    ],
)
def test_the_traced_graph_has_no_mask(model_type: str, make_checkpoint: MakeCheckpoint) -> None:
    """The stock attention has one when traced, and loses grouped heads with it."""
    model = own(make_checkpoint(model_type))
    graphs = []

    def keep(graph: Any, _: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    dynamo: Any = import_module("torch._dynamo")
    dynamo.reset()
    # A length that no other dimension of the tiny models has.
    ids = probe()[:, :11]
    compiled: Any = torch.compile(model.model, backend=keep, fullgraph=True)
    compiled(ids, use_cache=False)
    (graph,) = graphs
    calls = [node for node in graph.graph.nodes if node.target is scaled_dot_product_attention]
    assert len(calls) == 4
    for call in calls:
        assert call.kwargs["attn_mask"] is None
        assert call.kwargs["is_causal"] is True
        assert call.kwargs["enable_gqa"] is (model_type != "minicpm3")
    squares = [
        node
        for node in graph.graph.nodes
        if isinstance(value := node.meta.get("example_value"), torch.Tensor)
        and value.shape[-2:] == (ids.shape[1], ids.shape[1])
    ]
    assert not squares


@pytest.mark.parametrize("model_type", EVERY_FAMILY)
def test_documents_do_not_see_each_other(model_type: str, make_checkpoint: MakeCheckpoint) -> None:
    model = own(make_checkpoint(model_type))
    ids = probe()
    segments = torch.tensor([[0] * 5 + [1] * 7, [3] * 8 + [4] * 4])
    masks = batch_masks(windows_of(model), ids.shape[1], CPU, segment_ids=segments)
    before = model(ids, use_cache=False, attention_masks=masks).logits
    changed = ids.clone()
    changed[0, :5] = changed[0, :5] % 63 + 1
    changed[1, :8] = changed[1, :8] % 63 + 1
    after = model(changed, use_cache=False, attention_masks=masks).logits
    assert torch.equal(after[0, 5:], before[0, 5:])
    assert torch.equal(after[1, 8:], before[1, 8:])
    without = model(changed, use_cache=False).logits
    assert not torch.allclose(without[0, 5:], before[0, 5:], atol=1e-3)


@pytest.mark.parametrize("model_type", EVERY_FAMILY)
def test_a_packed_document_is_computed_as_if_it_were_alone(
    model_type: str, make_checkpoint: MakeCheckpoint
) -> None:
    model = own(make_checkpoint(model_type))
    ids = probe()[:1]
    segments = torch.tensor([[0] * 4 + [1] * 8])
    masks = batch_masks(windows_of(model), ids.shape[1], CPU, segment_ids=segments)
    places = torch.tensor([[*range(4), *range(8)]])
    packed = model(ids, position_ids=places, use_cache=False, attention_masks=masks).logits
    alone = model(ids[:, 4:], use_cache=False).logits
    torch.testing.assert_close(packed[:, 4:], alone, rtol=1e-5, atol=1e-5)


def test_no_mask_is_made_where_none_is_needed() -> None:
    assert batch_masks({None}, 100, CPU) is None
    assert batch_masks({None, 100, 4096}, 100, CPU) is None
    masks = batch_masks({None, 99}, 100, CPU)
    assert masks is not None
    assert masks[None] is None
    assert masks[99] is not None


def test_a_window_counts_the_token_itself() -> None:
    sees = dense_mask(4, 2, CPU)[0, 0]
    assert sees.int().tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1]]


@pytest.mark.parametrize("window", [None, 7])
@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("has_documents", [False, True])
@pytest.mark.filterwarnings("ignore")
def test_block_masks_give_what_dense_masks_give(
    window: int | None, softcap: float | None, has_documents: bool
) -> None:
    """Flex attention computes forward only on the CPU; on CUDA it is compiled."""
    query, key, value = heads(tokens=200, dim=16, value_dim=8)
    segments = torch.arange(200).expand(3, 200) // torch.tensor([[30], [64], [77]])
    ids = segments if has_documents else None
    dense = {window: dense_mask(200, window, CPU, ids)}
    blocks = {window: block_mask(200, window, CPU, ids)}
    settings: dict[str, Any] = {"scaling": 0.3, "sliding_window": window, "softcap": softcap}
    expected, _ = causal_attention(None, query, key, value, None, attention_masks=dense, **settings)
    found, _ = causal_attention(None, query, key, value, None, attention_masks=blocks, **settings)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_a_cap_is_applied_to_the_scores() -> None:
    query, key, value = heads()
    grown = key.repeat_interleave(2, 1), value.repeat_interleave(2, 1)
    scores = 1.5 * torch.tanh(0.5 * query @ grown[0].transpose(-1, -2) / 1.5)
    scores = scores.masked_fill(torch.ones(20, 20).triu(1).bool(), -torch.inf)
    expected = (scores.softmax(-1) @ grown[1]).transpose(1, 2)
    found, _ = causal_attention(None, query, key, value, None, scaling=0.5, softcap=1.5)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_a_mask_or_a_cache_is_refused() -> None:
    query, key, value = heads()
    with pytest.raises(UsageError, match="whole sequences"):
        causal_attention(None, query, key, value, dense_mask(20, None, CPU))
    with pytest.raises(UsageError, match="whole sequences"):
        causal_attention(None, query[:, :, -1:], key, value, None)


def test_block_masks_do_not_go_with_dropout() -> None:
    query, key, value = heads()
    blocks: dict[int | None, Any] = {None: block_mask(20, None, CPU)}
    with pytest.raises(UsageError, match="attention_dropout must be 0"):
        causal_attention(None, query, key, value, None, dropout=0.1, attention_masks=blocks)


def test_a_window_without_its_mask_is_never_passed_over() -> None:
    query, key, value = heads()
    masks = batch_masks({None}, 20, CPU, segment_ids=torch.zeros(3, 20))
    with pytest.raises(KeyError):
        causal_attention(None, query, key, value, None, sliding_window=5, attention_masks=masks)


def test_the_order_of_kernels_is_torchs_own_but_on_hopper(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert isinstance(preferred_kernels(CPU), nullcontext)
    for capability, is_kept in (((8, 0), True), ((9, 0), False), ((10, 0), True)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _, c=capability: c)
        kernels = preferred_kernels(torch.device("cuda"))
        assert isinstance(kernels, nullcontext) == is_kept


def test_attention_is_no_part_of_a_saved_model(
    make_checkpoint: MakeCheckpoint, tmp_path: Any
) -> None:
    model = own(make_checkpoint())
    model.save_pretrained(tmp_path / "saved")
    assert attention.NAME not in (tmp_path / "saved" / "config.json").read_text(encoding="utf-8")
    assert load(tmp_path / "saved")[0].config._attn_implementation == "sdpa"
