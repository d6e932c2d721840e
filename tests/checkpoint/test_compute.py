"""Recipes computed row by row, against the same algebra written out with whole matrices.

Conversion to other dtypes, against torch's own casts.
"""

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hfgrow.checkpoint.compute.chunks import chunks, computed, rows_of_files
from hfgrow.checkpoint.compute.recipe_rows import Evaluator, normal, uniform
from hfgrow.checkpoint.compute.state_dict import evaluated, rows_of_tensors
from hfgrow.errors import ModelError
from hfgrow.plan.axes import FRESH, AxisMap, copied, identity
from hfgrow.plan.plan import TensorPlan
from hfgrow.plan.tensors import Blend, Fill, Fresh, Lift, Noise, Normal, Recipe, Stored
from tests.checkpoints import MakeCheckpoint, edit_json, load, tensors_of
from tests.plan.test_axes import source_lists
from tests.program import call_hfgrow

DTYPES = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32, "F64": torch.float64}


# Rows 5 of the key "hfgrow".
UNIFORM = [-23839, 30134, 18940, 15450, 10980, 32450]
NORMAL = [-1.6849278211593628, 0.35597217082977295, -0.6042197346687317]


def matrix(rows: int, columns: int, dtype: str = "F64") -> torch.Tensor:
    numbers = torch.randn(rows, columns, generator=torch.Generator().manual_seed(1))
    return numbers.to(DTYPES[dtype])


def stored_tensor(tensor: torch.Tensor, name: str = "W") -> Stored:
    (dtype,) = (name for name, found in DTYPES.items() if found == tensor.dtype)
    return Stored("", name, 0, tuple(tensor.shape), dtype)


def evaluate(
    recipe: Recipe, tensors: dict[str, torch.Tensor], dtype: str = "F64", step: int = 0
) -> Any:
    evaluator = Evaluator(rows_of_tensors(tensors))
    num_rows = recipe.shape[0]
    starts = range(0, num_rows, step or num_rows)
    parts = [
        evaluator.rows(recipe, at, min(at + (step or num_rows), num_rows), dtype) for at in starts
    ]
    return torch.cat([torch.from_numpy(part) for part in parts])


def as_matrix(axis_map: AxisMap, *, backward: bool) -> torch.Tensor:
    """P [size, base]: forward or backward factors."""
    found = torch.zeros(axis_map.size, axis_map.base, dtype=torch.float64)
    at = 0
    for span in axis_map.spans:
        for i in range(span.length):
            if span.start != FRESH:
                found[at, span.start + i] = span.backward if backward else span.forward
            at += 1
    return found


@given(source_lists(), source_lists(), st.integers(1, 7))
def test_a_lift_is_a_product_of_three_matrices(
    rows: tuple[int, list[int]], columns: tuple[int, list[int]], step: int
) -> None:
    row_map, column_map = copied(*rows, isometric=True), copied(*columns, isometric=True)
    weights = matrix(rows[0], columns[0])
    expected = as_matrix(row_map, backward=False) @ weights
    expected = expected @ as_matrix(column_map, backward=True).T
    found = evaluate(Lift(stored_tensor(weights), row_map, column_map), {"W": weights}, step=step)
    assert torch.allclose(found, expected, rtol=1e-14, atol=0)


@given(source_lists(), source_lists(), st.integers(1, 7), st.floats(0.01, 2))
def test_noise_cancels_in_what_the_copies_compute(
    rows: tuple[int, list[int]], columns: tuple[int, list[int]], step: int, amplitude: float
) -> None:
    row_map, column_map = copied(*rows), copied(*columns, isometric=True)
    weights = matrix(rows[0], columns[0])
    plain = Lift(stored_tensor(weights), row_map, column_map)
    noisy = Lift(stored_tensor(weights), row_map, column_map, noise=Noise("key", amplitude))
    difference = evaluate(noisy, {"W": weights}, step=step) - evaluate(plain, {"W": weights})
    lifted = as_matrix(column_map, backward=False)
    assert torch.allclose(difference @ lifted, torch.zeros(()).double(), atol=1e-13)
    copies = torch.tensor([columns[1].count(source) > 1 for source in columns[1]])
    fresh = torch.tensor([source == FRESH for source in columns[1]])
    assert not bool(difference[:, ~copies | fresh].any())
    kept = torch.tensor([source != FRESH for source in rows[1]])
    if bool((copies & ~fresh).any()):
        assert bool(difference[kept][:, copies & ~fresh].any())


def test_noise_has_the_amplitude_asked_for_in_units_of_its_row() -> None:
    weights = matrix(4, 4096) * torch.tensor([[1.0], [10.0], [0.1], [0.0]]).double()
    column_map = copied(4096, [*range(4096)] * 4)
    plain = Lift(stored_tensor(weights), identity(4), column_map)
    noisy = Lift(stored_tensor(weights), identity(4), column_map, noise=Noise("key", 0.5))
    difference = evaluate(noisy, {"W": weights}) - evaluate(plain, {"W": weights})
    # A quarter of the noise of four copies is taken away by the projection.
    expected = 0.5 * 0.25 * weights.square().mean(1).sqrt() * 0.75**0.5
    assert torch.allclose(difference.square().mean(1).sqrt(), expected, rtol=0.02)


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32"])
def test_two_copies_of_a_column_are_half_of_it_and_more_and_less(dtype: str) -> None:
    weights = matrix(200, 48, dtype)
    lift = Lift(
        stored_tensor(weights), identity(200), copied(48, [*range(48)] * 2), Noise("k", 1.0)
    )
    drawn = (torch.from_numpy(uniform("k", 0, 200, 48).copy()) + 0.5) / 2**16 * 12**0.5
    norms = weights.double().square().mean(1, keepdim=True).sqrt()
    eta = (drawn * norms / 2 / 2**0.5).float()
    found = evaluated({"W": TensorPlan(dtype, lift)}, {"W": weights})["W"].float()
    tolerance = {"BF16": 2**-7, "F16": 2**-10, "F32": 2**-11}[dtype]
    for half, sign in ((found[:, :48], 1), (found[:, 48:], -1)):
        error = half - (weights.float() / 2 + sign * eta)
        assert float((error.abs() / (half.abs() + eta.abs())).max()) < tolerance


@pytest.mark.parametrize("num_copies", [2, 3, 5])
def test_noise_spreads_evenly_over_all_that_cancels(num_copies: int) -> None:
    num_rows, num_sources = 2000, 50
    weights = torch.ones(num_rows, num_sources).double()
    column_map = copied(num_sources, [*range(num_sources)] * num_copies)
    noisy = Lift(stored_tensor(weights), identity(num_rows), column_map, noise=Noise("key", 1.0))
    noise = evaluate(noisy, {"W": weights}) * num_copies - 1
    found = (noise.T @ noise / num_rows).view(num_copies, num_sources, num_copies, num_sources)
    within = torch.eye(num_copies).double() - 1 / num_copies
    expected = torch.einsum("ac,bd->abcd", within, torch.eye(num_sources).double())
    assert float((found - expected).abs().max()) < 6 / num_rows**0.5
    by_source = found.diagonal(dim1=1, dim2=3).mean(-1)
    assert torch.allclose(by_source, within, atol=0.02)
    assert float(noise.mean(0).abs().max()) < 6 / num_rows**0.5


def test_fresh_rows_and_columns_have_the_spread_asked_for() -> None:
    weights = matrix(200, 300)
    row_map = copied(200, [*range(200), *[FRESH] * 200])
    column_map = copied(300, [*range(300), *[FRESH] * 300])
    fresh = Fresh("key", rows=0.1, columns=0.2, corner=0.3)
    found = evaluate(Lift(stored_tensor(weights), row_map, column_map, fresh=fresh), {"W": weights})
    assert torch.equal(found[:200, :300], weights)
    for block, std in (
        (found[200:, :300], 0.1),
        (found[:200, 300:], 0.2),
        (found[200:, 300:], 0.3),
    ):
        assert float(block.std()) == pytest.approx(std, rel=0.02)
        assert abs(float(block.mean())) < 0.02 * std * 3


def test_a_vector_holds_one_value_where_it_is_fresh() -> None:
    gains = torch.tensor([2.0, 3.0])
    lift = Lift(stored_tensor(gains), copied(2, [0, 1, FRESH, 0]), fresh=Fresh(value=1.0))
    assert evaluate(lift, {"W": gains}, "F32").tolist() == [2.0, 3.0, 1.0, 2.0]


def test_blends_fills_and_lifts_nest() -> None:
    weights = matrix(3, 2)
    lift = Lift(stored_tensor(weights), copied(3, [2, 1, 0, 0]), identity(2))
    blend = Blend(((0.5, lift), (2.0, Fill((4, 2), 3.0))))
    outer = Lift(blend, copied(4, [3, 3]), copied(2, [1, 0]))
    expected = 0.5 * weights[[0, 0]][:, [1, 0]] + 6
    assert torch.allclose(evaluate(outer, {"W": weights}), expected)


@given(
    source_lists(),
    source_lists(),
    st.sampled_from(list(DTYPES)),
    st.sampled_from(list(DTYPES)),
    st.sampled_from([None, Noise("key", 0.3)]),
    st.integers(1, 200),
)
def test_what_is_written_is_the_recipe_rounded_once(
    rows: tuple[int, list[int]],
    columns: tuple[int, list[int]],
    stored: str,
    dtype: str,
    noise: Noise | None,
    chunk: int,
) -> None:
    weights = matrix(rows[0], columns[0], stored)
    fresh = Fresh("key", rows=0.1, columns=0.2, corner=0.3) if chunk % 2 else Fresh()
    row_map, column_map = copied(*rows), copied(*columns, isometric=True)
    lift = Lift(stored_tensor(weights), row_map, column_map, noise, fresh)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hfgrow.checkpoint.compute.chunks._CHUNK_ELEMENTS", chunk)
        found = evaluated({"W": TensorPlan(dtype, lift)}, {"W": weights})["W"]
    assert torch.equal(found, evaluate(lift, {"W": weights}, dtype).to(DTYPES[dtype]))


@pytest.mark.parametrize("dtype", ["BF16", "F32"])
def test_what_is_random_does_not_depend_on_the_chunks(dtype: str) -> None:
    weights = matrix(64, 32, dtype)
    row_map = copied(64, [*range(64), *[FRESH] * 30, 5, 6])
    column_map = copied(32, [*range(32), *range(20), *[FRESH] * 9])
    fresh = Fresh("key", rows=0.1, columns=0.2, corner=0.3)
    lift = Lift(stored_tensor(weights), row_map, column_map, Noise("key", 0.3), fresh)
    recipe = Blend(((1.0, lift), (1.0, Normal(lift.shape, 0.5, "other"))))
    whole = evaluate(recipe, {"W": weights}, dtype)
    for step in (1, 3, 17, 50):
        assert torch.equal(evaluate(recipe, {"W": weights}, dtype, step), whole)


def test_the_numbers_of_a_key_never_change() -> None:
    """A change here makes every recorded growth with noise come out different."""
    assert uniform("hfgrow", 5, 6, 6).tolist() == [UNIFORM]
    assert normal("hfgrow", 5, 6, 3).tolist() == [NORMAL]


def test_normal_numbers_are_nearly_normal() -> None:
    numbers = torch.from_numpy(normal("key", 0, 1000, 1000)).double()
    assert float(numbers.mean()) == pytest.approx(0, abs=0.005)
    assert float(numbers.std()) == pytest.approx(1, abs=0.005)
    assert float(numbers.abs().max()) < 3.47
    kurtosis = float(numbers.pow(4).mean() / numbers.square().mean() ** 2)
    assert kurtosis == pytest.approx(2.7, abs=0.02)


SPECIAL = [0.0, -0.0, 1.0, -1.5, 3.14159, 65504.0, 1e-7, 6e-8, 1e-8, float("inf"), -float("inf")]


def planned(from_dtype: str, to_dtype: str, num_elements: int) -> TensorPlan:
    return TensorPlan(to_dtype, Stored("source", "the.tensor", 3, (num_elements,), from_dtype))


def cast(numbers: torch.Tensor, to_dtype: str, folder: Path) -> torch.Tensor:
    """Convert from a file, at an odd offset."""
    (from_dtype,) = (name for name, dtype in DTYPES.items() if dtype == numbers.dtype)
    (folder / "source").write_bytes(b"odd" + numbers.view(torch.uint8).numpy().tobytes())
    source = os.open(folder / "source", os.O_RDONLY)
    try:
        evaluator = Evaluator(rows_of_files(lambda name: source))
        tensor = planned(from_dtype, to_dtype, numbers.numel())
        found = [bytes(computed(chunk, evaluator)) for chunk in chunks("the.tensor", tensor)]
    finally:
        os.close(source)
    return torch.frombuffer(bytearray(b"".join(found)), dtype=DTYPES[to_dtype])


@pytest.mark.parametrize("chunk", [1 << 22, 7], ids=["whole", "in chunks"])
@pytest.mark.parametrize("to_dtype", DTYPES)
@pytest.mark.parametrize("from_dtype", DTYPES)
def test_conversion_is_torchs_own_cast(
    from_dtype: str, to_dtype: str, chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hfgrow.checkpoint.compute.chunks._CHUNK_ELEMENTS", chunk)
    random = torch.randn(50, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    numbers = torch.cat([torch.tensor(SPECIAL, dtype=torch.float64), random]).to(DTYPES[from_dtype])
    numbers = numbers[numbers.to(torch.float16).isfinite() | ~numbers.isfinite()]
    assert torch.equal(cast(numbers, to_dtype, tmp_path), numbers.to(DTYPES[to_dtype]))


@pytest.mark.parametrize("dtype", ["BF16", "F16"])
def test_every_number_of_two_bytes_is_read_as_in_torch(dtype: str, tmp_path: Path) -> None:
    every = torch.arange(1 << 16).to(torch.uint16).view(DTYPES[dtype])
    assert torch.allclose(cast(every, "F32", tmp_path), every.float(), 0, 0, equal_nan=True)


@pytest.mark.parametrize("dtype", ["BF16", "F16"])
@pytest.mark.parametrize("lower", [0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF])
def test_every_upper_half_of_a_float32_is_rounded_as_in_torch(
    dtype: str, lower: int, tmp_path: Path
) -> None:
    numbers = ((torch.arange(1 << 16) << 16) + lower).to(torch.uint32).view(torch.float32)
    expected = numbers.to(DTYPES[dtype])
    fits = expected.isfinite() | ~numbers.isfinite()
    found = cast(numbers[fits], dtype, tmp_path)
    assert torch.allclose(found, expected[fits], 0, 0, equal_nan=True)
    assert torch.equal(found.signbit(), expected[fits].signbit() & ~found.isnan())


def test_what_is_no_number_stays_none(tmp_path: Path) -> None:
    bits = torch.tensor([0x7FC00000, 0x7FFFFFFF, 0xFFFFFFFF, 0x7F800001, 0x3F800000])
    found = cast(bits.to(torch.uint32).view(torch.float32), "BF16", tmp_path)
    assert found.isnan().tolist() == [True, True, True, True, False]


@pytest.mark.case("A23")
@pytest.mark.parametrize(
    ("value", "from_dtype", "to_dtype"),
    [
        (65520.0, "F32", "F16"),
        (-1e30, "BF16", "F16"),
        (3.4e38, "F32", "BF16"),
        (1e39, "F64", "F32"),
    ],
)
def test_a_finite_number_that_does_not_fit_is_refused(
    value: float, from_dtype: str, to_dtype: str, tmp_path: Path
) -> None:
    numbers = torch.tensor([1.0, value, value], dtype=DTYPES[from_dtype])
    with pytest.raises(ModelError, match=r"the\.tensor: 2 values are too large for"):
        cast(numbers, to_dtype, tmp_path)


def test_a_source_that_ends_early_was_changed(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(bytes(8))
    source = os.open(tmp_path / "source", os.O_RDONLY)
    (chunk,) = chunks("x", planned("F32", "BF16", 4))
    with pytest.raises(ModelError, match="changed while it was read"):
        computed(chunk, Evaluator(rows_of_files(lambda name: source)))
    os.close(source)


@pytest.mark.parametrize(
    ("stored", "asked"), [("float32", "bfloat16"), ("bfloat16", "float32"), ("float16", "bfloat16")]
)
def test_the_dtype_option_converts_every_tensor_and_says_so(
    make_checkpoint: MakeCheckpoint, tmp_path: Path, stored: str, asked: str
) -> None:
    base, out = make_checkpoint(dtype=stored), tmp_path / "out"
    finished = call_hfgrow("stack", base, "--g", "2", "--dtype", asked, "--out", out)
    assert finished.returncode == 0, finished.stderr
    before, after = tensors_of(base), tensors_of(out)
    dtype = getattr(torch, asked)
    for name, tensor in after.items():
        source = before[re.sub(r"layers\.(\d+)", lambda m: f"layers.{int(m[1]) % 4}", name)]
        assert tensor.dtype == dtype
        assert torch.equal(tensor, source.to(dtype))
    assert load(out)[0].dtype == dtype


@pytest.mark.case("C18")
@pytest.mark.parametrize(
    "keys", [("dtype",), ("torch_dtype",), ("dtype", "torch_dtype"), ()], ids=str
)
def test_the_config_names_the_new_dtype_under_every_key_it_has(
    base: Path, tmp_path: Path, keys: tuple[str, ...]
) -> None:
    edit_json(base / "config.json", **{"dtype": ..., **dict.fromkeys(keys, "float32")})
    call_hfgrow("stack", base, "--g", "2", "--dtype", "bfloat16", "--out", tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    found = {key: config[key] for key in ("dtype", "torch_dtype") if key in config}
    assert found == dict.fromkeys(keys or ("dtype",), "bfloat16")


@pytest.mark.case("A23")
def test_an_overflow_leaves_no_output(base: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(base / "model.safetensors")
    tensors["model.norm.weight"][3] = 1e5
    save_file(tensors, base / "model.safetensors")
    finished = call_hfgrow(
        "stack", base, "--g", "2", "--dtype", "float16", "--out", tmp_path / "out"
    )
    assert finished.returncode == 3
    assert "model.norm.weight" in finished.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["base"]
