"""The products of training: those of torch's other library where it is faster, and as exact."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from hfgrow.train import cpu_products
from hfgrow.train.cpu_products import FastLinear, one_dnn_is_faster, product, use_fast_products

SIZES = st.integers(1, 40)


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let oneDNN be chosen whatever the processor is."""
    monkeypatch.setattr(cpu_products, "one_dnn_is_faster", lambda: True)


def pair(num_in: int, num_out: int, *, bias: bool) -> tuple[nn.Linear, nn.Linear]:
    stock = nn.Linear(num_in, num_out, bias=bias)
    fast = nn.Linear(num_in, num_out, bias=bias)
    fast.load_state_dict(stock.state_dict())
    use_fast_products(fast)
    return stock, fast


@given(rows=SIZES, inner=SIZES, columns=SIZES)
@settings(deadline=None, max_examples=50)
def test_a_product_is_that_of_torch(rows: int, inner: int, columns: int) -> None:
    left, right = numbers(rows, inner), numbers(columns, inner, seed=1)
    for one, other in ((left, right), (left.t().contiguous().t(), right.t().contiguous().t())):
        found = cpu_products._one_dnn(one, other)
        torch.testing.assert_close(found, left @ right.t(), rtol=1e-5, atol=1e-5)


# What aot_eager imports warns of its own past.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.usefixtures("everywhere")
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("compiled", [False, True])
def test_a_fast_layer_has_the_values_and_gradients_of_a_stock_one(
    bias: bool, compiled: bool
) -> None:
    stock, fast = pair(24, 40, bias=bias)
    assert type(fast) is FastLinear
    assert fast.state_dict().keys() == stock.state_dict().keys()
    called: Any = torch.compile(fast, backend="aot_eager") if compiled else fast
    results = []
    for layer, module in ((stock, stock), (fast, called)):
        inputs = numbers(3, 5, 24).requires_grad_()
        outputs = module(inputs)
        (outputs * numbers(3, 5, 40, seed=2)).sum().backward()
        results.append([outputs, inputs.grad, *(p.grad for p in layer.parameters())])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("everywhere")
def test_what_is_frozen_gets_no_gradient() -> None:
    _, fast = pair(8, 8, bias=False)
    fast.weight.requires_grad_(False)
    inputs = numbers(2, 8).requires_grad_()
    fast(inputs).sum().backward()
    assert fast.weight.grad is None
    assert inputs.grad is not None


@pytest.mark.usefixtures("everywhere")
def test_autocast_computes_as_ever() -> None:
    stock, fast = pair(8, 8, bias=False)
    with torch.autocast("cpu", torch.bfloat16):
        one, other = stock(numbers(2, 8)), fast(numbers(2, 8))
    assert one.dtype == other.dtype == torch.bfloat16
    assert torch.equal(one, other)


def of_amd(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Let this machine look like one of AMD's with AVX-512."""
    (folder / "cpuinfo").write_text("vendor_id : AuthenticAMD\n")
    monkeypatch.setattr(cpu_products, "_CPUINFO", folder / "cpuinfo")
    for backend, name, value in (
        (torch.backends.cpu, "get_cpu_capability", "AVX512"),
        (torch.backends.mkl, "is_available", True),
        (torch.backends.mkldnn, "is_available", True),
    ):
        monkeypatch.setattr(backend, name, lambda value=value: value)


def test_processors_of_amd_with_avx_512_get_one_dnn(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    of_amd(monkeypatch, tmp_path)
    assert one_dnn_is_faster.__wrapped__()


def test_a_torch_without_the_operator_keeps_its_own_products(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def gone(left: Tensor, right: Tensor) -> Tensor:
        raise AttributeError("no such operator")

    of_amd(monkeypatch, tmp_path)
    monkeypatch.setattr(cpu_products, "_one_dnn", gone)
    assert not one_dnn_is_faster.__wrapped__()


def test_elsewhere_the_layers_stay_what_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_products, "one_dnn_is_faster", lambda: False)
    layer = nn.Linear(4, 4)
    use_fast_products(layer)
    assert type(layer) is nn.Linear
    assert torch.equal(product(numbers(2, 4), layer.weight), numbers(2, 4) @ layer.weight.t())


@pytest.mark.parametrize(
    ("cpuinfo", "capability"), [("GenuineIntel", "AVX512"), ("AuthenticAMD", "AVX2")]
)
def test_other_processors_are_left_to_mkl(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cpuinfo: str, capability: str
) -> None:
    (tmp_path / "cpuinfo").write_text(f"vendor_id : {cpuinfo}\n")
    monkeypatch.setattr(cpu_products, "_CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    assert not one_dnn_is_faster.__wrapped__()
