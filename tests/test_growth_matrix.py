"""Every operator x every family x tied or not x one file or shards, against a naive twin."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from hfgrow.families import FAMILIES
from hfgrow.operators import OPERATORS
from tests.checkpoints import MakeCheckpoint, load, logits, naive_twin, probe, tensors_of
from tests.program import call_hfgrow

# The command of every operator on a base of 4 layers, and the layer map written out by hand.
COMMANDS: dict[str, tuple[tuple[str, ...], tuple[int, ...]]] = {
    "stack": (("--layers", "7"), (0, 1, 2, 3, 1, 2, 3)),
    "interpolate": (("--g", "2"), (0, 0, 1, 1, 2, 2, 3, 3)),
    "partial": (("1-23*2-4",), (0, 1, 2, 1, 2, 3)),
    "solar": (("--overlap", "1"), (0, 1, 2, 1, 2, 3)),
}
TIED, SHARDED = ("untied", "tied"), ("one", "shards")
CASES = [
    pytest.param(
        (operator, model_type, tied, sharded),
        id=f"{operator}-{model_type}-{TIED[tied]}-{SHARDED[sharded]}",
    )
    for model_type in FAMILIES
    for tied in (False, True)
    for operator in COMMANDS
    for sharded in (False, True)
]
# What does not depend on how the base lies on disk is looked at once.
SINGLE_CASES = [case for case in CASES if not case.values[0][3]]  # type: ignore[index]
Case = tuple[str, str, bool, bool]


@dataclass
class Grown:
    """A base, and what one command made of it."""

    base: Path
    folder: Path
    layer_map: tuple[int, ...]
    model: Any
    report: dict[str, Any]


@pytest.fixture(scope="module")
def grown(
    request: pytest.FixtureRequest,
    make_checkpoint: MakeCheckpoint,
    tmp_path_factory: pytest.TempPathFactory,
) -> Grown:
    operator, model_type, tied, sharded = request.param
    arguments, layer_map = COMMANDS[operator]
    base = make_checkpoint(model_type, tied=tied, sharded=sharded)
    folder = tmp_path_factory.mktemp("grown") / "out"
    shards = ("--max-shard-size", "60KB") if sharded else ()
    finished = call_hfgrow(operator, base, *arguments, "--out", folder, *shards)
    assert finished.returncode == 0, finished.stderr
    return Grown(base, folder, layer_map, *load(folder))


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


@pytest.mark.parametrize("grown", CASES, indirect=True)
def test_a_grown_model_loads_with_an_empty_report(grown: Grown) -> None:
    found = {key: set(value) for key, value in grown.report.items() if key.endswith("_keys")}
    assert found == {"missing_keys": set(), "unexpected_keys": set(), "mismatched_keys": set()}


@pytest.mark.parametrize("grown", CASES, indirect=True)
def test_every_tensor_has_the_bytes_of_its_source_layer(grown: Grown) -> None:
    base, written = tensors_of(grown.base), tensors_of(grown.folder)
    for name, tensor in written.items():
        source = name
        if name.startswith("model.layers."):
            number = name.split(".")[2]
            source = name.replace(f".{number}.", f".{grown.layer_map[int(number)]}.", 1)
        assert tensor.dtype == base[source].dtype
        assert torch.equal(tensor, base[source]), name


@pytest.mark.parametrize("grown", CASES, indirect=True)
def test_the_logits_equal_those_of_a_naive_twin(grown: Grown, base_model: Any) -> None:
    twin = naive_twin(base_model(grown.base), grown.layer_map)
    assert torch.equal(logits(grown.model), logits(twin))


@pytest.mark.parametrize("grown", CASES, indirect=True)
def test_each_layer_is_of_the_kind_of_its_source_layer(grown: Grown, base_model: Any) -> None:
    base = base_model(grown.base).config
    for key in ("layer_types", "no_rope_layers"):
        if (kinds := getattr(base, key, None)) is not None:
            assert getattr(grown.model.config, key) == [kinds[i] for i in grown.layer_map]


@pytest.mark.parametrize("grown", SINGLE_CASES, indirect=True)
def test_the_operator_changes_the_function_unless_it_promises_not_to(
    grown: Grown, base_model: Any, request: pytest.FixtureRequest
) -> None:
    operator = OPERATORS[request.node.callspec.params["grown"][0]]
    same = torch.allclose(logits(grown.model), logits(base_model(grown.base)), atol=1e-4)
    assert same == operator.preserves_function


@pytest.mark.parametrize("grown", SINGLE_CASES, indirect=True)
def test_generation_with_a_cache_equals_generation_without(grown: Grown) -> None:
    settings = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
    tokens = probe()
    mask = torch.ones_like(tokens)
    cached, plain = (
        grown.model.generate(tokens, attention_mask=mask, use_cache=use_cache, **settings)
        for use_cache in (True, False)
    )
    assert torch.equal(cached, plain)


@pytest.mark.parametrize("grown", SINGLE_CASES, indirect=True)
def test_a_grown_model_survives_save_and_load(grown: Grown, tmp_path: Path) -> None:
    grown.model.save_pretrained(tmp_path)
    again, report = load(tmp_path)
    assert not any(report[key] for key in report if key.endswith("_keys"))
    assert torch.equal(logits(again), logits(grown.model))
