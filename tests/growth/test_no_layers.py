"""A model without layers, embeddings and a head alone: read, grown, proven, taken back, trained."""

from pathlib import Path

import pytest
import torch

from hfgrow.console import Silent
from hfgrow.errors import UsageError
from hfgrow.growth.scan import scan
from hfgrow.plan.families import FAMILIES
from tests.checkpoints import TRAITS, MakeCheckpoint, load, logits
from tests.program import call_hfgrow
from tests.train import runs

# Keys of the small models of the tests that have an entry for each of their layers.
_LISTS = ("layer_types", "no_rope_layers", "layer_rope_theta", "mlp_layer_types")


def check_that_it_grows_from_none(base: Path, tmp_path: Path) -> None:
    out, silent, back = (tmp_path / name for name in ("out", "silent", "back"))
    for command in (
        ("progressive", base, "--layers", "2", "--seed", "3", "--out", out),
        ("verify", out),
        ("reproduce", out),
        ("lineage", out, "--json"),
        ("ungrow", out, "--out", back),
        ("random-depth", base, "--layers", "2", "--out", silent),
    ):
        finished = call_hfgrow(*command)
        assert finished.returncode == 0, finished.stderr
    assert (back / "model.safetensors").read_bytes() == (base / "model.safetensors").read_bytes()
    grown, report = load(out)
    assert not any(report.values())
    assert grown.config.num_hidden_layers == 2
    assert torch.equal(logits(load(silent)[0]), logits(load(base)[0]))
    assert not torch.equal(logits(grown), logits(load(base)[0]))


@pytest.mark.parametrize(
    "model_type",
    [name if name == "llama" else pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES],
)
def test_fresh_layers_are_put_into_a_model_of_every_family(
    model_type: str, make_checkpoint: MakeCheckpoint, tmp_path: Path
) -> None:
    lists: dict[str, list[object]] = {key: [] for key in _LISTS if key in TRAITS[model_type]}
    base = make_checkpoint(model_type, num_hidden_layers=0, **lists)
    check_that_it_grows_from_none(base, tmp_path)


def test_there_is_no_block_of_it_to_scan(make_checkpoint: MakeCheckpoint) -> None:
    base = make_checkpoint(num_hidden_layers=0)
    with pytest.raises(UsageError, match=r"has no layers, so there is no block to repeat$"):
        scan(base, Silent())


def test_a_run_begins_without_layers_and_grows_late(tmp_path: Path) -> None:
    grow = {"operator": "progressive", "layers": 2, "optimizer_state": "copy"}
    recipe = runs.recipe(tmp_path, stages=[runs.GROWN[0], {"grow": grow}, runs.GROWN[2]])
    recipe["base"]["config"]["num_hidden_layers"] = 0
    final = runs.carry(recipe)
    assert load(final)[0].config.num_hidden_layers == 2
    first, last = runs.losses(recipe)[0], runs.losses(recipe)[-1]
    assert last < first - 1
