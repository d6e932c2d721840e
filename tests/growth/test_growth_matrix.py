"""The proof matrix: every operator x every family, by the program itself.

Bases are tied or not, one file or shards, with grouped queries or not: each operator and each
family sees all of it. The default tests take a third of the pairs, in which every operator meets
four families. `pytest -m slow` runs every combination, and every operator on the families that are
one row or default away from another.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from hfgrow.plan.families import FAMILIES
from hfgrow.plan.operators import OPERATORS
from tests.checkpoints import MakeCheckpoint, load, logits, naive_twin, probe, tensors_of
from tests.growths import (
    COMMANDS,
    LAYER_MAPS,
    MIXTURES,
    NEAR,
    NEAR_OPERATORS,
    REFUSED,
    Case,
    exact_norms,
)
from tests.program import call_hfgrow

OWN = [name for name in FAMILIES if name not in NEAR]
A_THIRD = 3
PAIRS = [
    (i, operator, j, model_type)
    for i, operator in enumerate(COMMANDS)
    for j, model_type in enumerate(FAMILIES)
]
PLANNED = [
    Case(
        operator,
        model_type,
        tied=bool((i + j) % 2) or operator == "untie",
        sharded=bool((i + j // 2) % 2),
        grouped=bool((i // 2 + j) % 2),
    )
    for i, operator, j, model_type in PAIRS
    if (operator, model_type) not in REFUSED
]
CASES = [case for case in PLANNED if case.model_type not in NEAR or case.operator in NEAR_OPERATORS]
REST = [case for case in PLANNED if case not in CASES] + [
    other
    for case in PLANNED
    if case.model_type not in NEAR
    for tied in ((True,) if case.operator == "untie" else (False, True))
    for sharded in (False, True)
    for grouped in (False, True)
    if (other := replace(case, tied=tied, sharded=sharded, grouped=grouped)) != case
]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give a test its cases; those that only `-m slow` runs are tens of thousands."""
    if (mark := metafunc.definition.get_closest_marker("matrix")) is None:
        return
    wanted = mark.kwargs.get("wanted", lambda case: True)
    chosen = [case for case in CASES if wanted(case)]
    one_in = len(OWN) if mark.kwargs.get("sampled") else A_THIRD
    some = [case for case in chosen if is_sample(case, one_in)]
    found = [pytest.param(case, id=str(case), marks=_group(case)) for case in some]
    if "not slow" not in metafunc.config.getoption("markexpr"):
        rest = (case for case in (*chosen, *REST) if case not in some and wanted(case))
        found += [
            pytest.param(case, id=str(case), marks=(_group(case), pytest.mark.slow))
            for case in rest
        ]
    name = "grown" if "grown" in metafunc.fixturenames else "case"
    metafunc.parametrize(name, found, indirect=name == "grown")


def _group(case: Case) -> pytest.MarkDecorator:
    """Keep the tests of one grown model in one process."""
    return pytest.mark.xdist_group(str(case))


def preserves(case: Case) -> bool:
    return OPERATORS[case.operator].preserves_function


def is_copying(case: Case) -> bool:
    return case.operator in LAYER_MAPS


def is_sample(case: Case, one_in: int) -> bool:
    """Say whether it is one of a part in which every operator and every family stands."""
    if case.model_type in NEAR:
        if case.model_type in MIXTURES:
            return True
        chosen = NEAR_OPERATORS.index(case.operator) - list(NEAR).index(case.model_type)
        return chosen % (A_THIRD if one_in == A_THIRD else len(NEAR_OPERATORS)) == 0
    chosen = list(COMMANDS).index(case.operator) - OWN.index(case.model_type)
    return chosen % one_in == 0


@dataclass
class Grown:
    """A base, and what one command made of it."""

    case: Case
    base: Path
    folder: Path
    model: Any
    report: dict[str, Any]


def run(case: Case, base: Path, out: Path, *options: str) -> None:
    operator, *arguments = case.command
    finished = call_hfgrow(operator, base, *arguments, *options, "--out", out)
    assert finished.returncode == 0, finished.stderr


@pytest.fixture(scope="module")
def grown(
    request: pytest.FixtureRequest,
    make_checkpoint: MakeCheckpoint,
    tmp_path_factory: pytest.TempPathFactory,
) -> Grown:
    case: Case = request.param
    base = make_checkpoint(case.model_type, **case.base("float64"))
    folder = tmp_path_factory.mktemp("grown") / "out"
    run(case, base, folder, *(("--max-shard-size", "90KB") if case.sharded else ()))
    return Grown(case, base, folder, *load(folder))


@pytest.fixture(scope="module")
def base_model(make_checkpoint: MakeCheckpoint) -> Any:
    loaded: dict[Path, Any] = {}

    def get(folder: Path) -> Any:
        if folder not in loaded:
            loaded[folder] = load(folder)[0]
        return loaded[folder]

    return get


def test_every_operator_is_in_the_matrix() -> None:
    assert COMMANDS.keys() == OPERATORS.keys()


@pytest.mark.case("I1")
@pytest.mark.matrix
def test_a_grown_model_loads_with_an_empty_report(grown: Grown) -> None:
    found = {key: set(value) for key, value in grown.report.items() if key.endswith("_keys")}
    assert found == {"missing_keys": set(), "unexpected_keys": set(), "mismatched_keys": set()}


@pytest.mark.matrix(wanted=is_copying)
def test_every_tensor_has_the_bytes_of_its_source_layer(grown: Grown) -> None:
    base, written = tensors_of(grown.base), tensors_of(grown.folder)
    layer_map = LAYER_MAPS[grown.case.operator]
    for name, tensor in written.items():
        source = name
        if name.startswith("model.layers."):
            number = name.split(".")[2]
            source = name.replace(f".{number}.", f".{layer_map[int(number)]}.", 1)
        assert tensor.dtype == base[source].dtype
        assert torch.equal(tensor, base[source]), name


@pytest.mark.matrix(wanted=is_copying)
def test_the_logits_equal_those_of_a_naive_twin(grown: Grown, base_model: Any) -> None:
    twin = naive_twin(base_model(grown.base), LAYER_MAPS[grown.case.operator])
    assert torch.equal(logits(grown.model), logits(twin))


@pytest.mark.matrix(wanted=is_copying)
def test_each_layer_is_of_the_kind_of_its_source_layer(grown: Grown, base_model: Any) -> None:
    base = base_model(grown.base).config
    for key in ("layer_types", "no_rope_layers"):
        if (kinds := getattr(base, key, None)) is not None:
            expected = [kinds[i] for i in LAYER_MAPS[grown.case.operator]]
            assert getattr(grown.model.config, key) == expected


@pytest.mark.matrix
def test_the_function_is_preserved_in_exact_norms_or_else_changed(
    grown: Grown, base_model: Any
) -> None:
    """At most 1e-12 of the largest logit, in float64 and with norms in float64."""
    with exact_norms(base_model(grown.base)) as base, exact_norms(grown.model) as model:
        expected, found = logits(base), logits(model)
    error = float((found - expected).abs().max() / expected.abs().max())
    if preserves(grown.case):
        assert error <= 1e-12
    else:
        assert error >= 1e-3


@pytest.mark.matrix(wanted=lambda case: case.operator in ("zero-depth", "random-depth"))
def test_silent_layers_change_not_a_single_bit(grown: Grown, base_model: Any) -> None:
    assert torch.equal(logits(grown.model), logits(base_model(grown.base)))


@pytest.mark.matrix(wanted=preserves, sampled=True)
def test_the_function_is_preserved_by_the_stock_model_in_float32(
    case: Case, make_checkpoint: MakeCheckpoint, tmp_path: Path
) -> None:
    """At most 1e-5 of the largest logit."""
    base = make_checkpoint(case.model_type, **case.base("float32"))
    run(case, base, tmp_path / "out")
    expected, found = logits(load(base)[0]), logits(load(tmp_path / "out")[0])
    assert float((found - expected).abs().max() / expected.abs().max()) <= 1e-5


@pytest.mark.matrix(sampled=True)
def test_generation_with_a_cache_equals_generation_without(grown: Grown) -> None:
    settings = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
    tokens = probe()
    mask = torch.ones_like(tokens)
    cached, plain = (
        grown.model.generate(tokens, attention_mask=mask, use_cache=use_cache, **settings)
        for use_cache in (True, False)
    )
    assert torch.equal(cached, plain)


@pytest.mark.matrix(sampled=True)
def test_a_grown_model_survives_save_and_load(grown: Grown, tmp_path: Path) -> None:
    grown.model.save_pretrained(tmp_path)
    again, report = load(tmp_path)
    assert not any(report[key] for key in report if key.endswith("_keys"))
    assert torch.equal(logits(again), logits(grown.model))


@pytest.mark.matrix(wanted=lambda case: case.sharded, sampled=True)
def test_shards_hold_the_tensors_of_a_single_file(grown: Grown, tmp_path: Path) -> None:
    assert len(list(grown.folder.glob("*.safetensors"))) > 1
    run(grown.case, grown.base, tmp_path / "out")
    single, sharded = tensors_of(tmp_path / "out"), tensors_of(grown.folder)
    assert single.keys() == sharded.keys()
    assert all(torch.equal(single[name], sharded[name]) for name in single)


@pytest.mark.parametrize(
    ("operator", "model_type"),
    [
        pytest.param(
            *pair,
            marks=pytest.mark.slow
            if pair[1] in NEAR and pair[0] not in (*NEAR_OPERATORS, "head-dim")
            else (),
        )
        for pair in REFUSED
    ],
)
def test_what_a_family_cannot_do_is_refused_with_the_reason(
    operator: str, model_type: str, make_checkpoint: MakeCheckpoint, tmp_path: Path
) -> None:
    base = make_checkpoint(model_type)
    finished = call_hfgrow(operator, base, *COMMANDS[operator], "--out", tmp_path / "out")
    assert finished.returncode == 2
    assert REFUSED[operator, model_type] in finished.stderr
    assert not (tmp_path / "out").exists()
