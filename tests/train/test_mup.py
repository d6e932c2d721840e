"""Rates scaled with width: what each tensor trains at, and that even copies train as one did."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from hfgrow.checkpoint.files import LocalFolder
from hfgrow.checkpoint.read import read
from hfgrow.errors import UsageError
from hfgrow.plan.operators import apply
from hfgrow.train.mup import Multiples, multiples_of
from tests.checkpoints import MakeCheckpoint
from tests.train import runs
from tests.train.recipes import loaded
from tests.train.test_dry_run import planned

WIDE = {"grow": {"operator": "hyperclone", "g": 2}}
SLOW = {"tokens": 1024, "learning_rate": 1e-3, "gradient_clipping": None}
BY_WIDTH = {"train": {**SLOW, "parametrization": "mup"}}


def test_each_tensor_is_scaled_by_what_it_reads_and_what_it_writes(
    make_checkpoint: MakeCheckpoint,
) -> None:
    base = read(LocalFolder(make_checkpoint("qwen3", tied=False)))
    grown = apply(base, "zero-width", {"hidden_size": 64, "ffn": 72})
    grown = apply(grown, "stack", {"g": 2})
    found = multiples_of(base, grown)
    layer = "model.layers.5."
    assert found[f"{layer}self_attn.q_proj.weight"] == Multiples(inputs=2, outputs=1)
    assert found[f"{layer}self_attn.o_proj.weight"] == Multiples(inputs=1, outputs=2)
    assert found[f"{layer}mlp.up_proj.weight"] == Multiples(inputs=2, outputs=1.5)
    assert found[f"{layer}mlp.down_proj.weight"] == Multiples(inputs=1.5, outputs=2)
    assert found[f"{layer}input_layernorm.weight"] == Multiples(outputs=2)
    assert found[f"{layer}self_attn.q_norm.weight"] == Multiples()
    assert found["model.embed_tokens.weight"] == Multiples(outputs=2)
    assert found["model.norm.weight"] == Multiples(outputs=2)
    assert found["lm_head.weight"] == Multiples(inputs=2)


def test_of_a_tied_head_its_norm_is_scaled_and_of_one_untied_since_the_head(
    make_checkpoint: MakeCheckpoint,
) -> None:
    base = read(LocalFolder(make_checkpoint(tied=True)))
    grown = apply(base, "hyperclone", {"g": 2})
    assert multiples_of(base, grown)["model.norm.weight"] == Multiples(inputs=2)
    untied = multiples_of(base, apply(apply(base, "untie", {}), "hyperclone", {"g": 2}))
    assert untied["model.norm.weight"] == Multiples(outputs=2)
    assert untied["lm_head.weight"] == Multiples(inputs=2)


@pytest.mark.parametrize(
    ("model_type", "why"),
    [
        ("gemma", "its embeddings are multiplied by the root of its width"),
        ("mixtral", "the rule is of dense models"),
    ],
)
def test_where_the_rule_is_not_known_to_hold_it_is_refused(
    model_type: str, why: str, make_checkpoint: MakeCheckpoint
) -> None:
    base = read(LocalFolder(make_checkpoint(model_type)))
    with pytest.raises(UsageError, match=f"^parametrization mup is not for a {model_type}: {why}$"):
        multiples_of(base, base)


def test_of_a_run_that_begins_without_layers_no_layer_has_its_like(
    make_checkpoint: MakeCheckpoint,
) -> None:
    base = read(LocalFolder(make_checkpoint(num_hidden_layers=0)))
    grown = apply(apply(base, "progressive", {"layers": 2}), "hyperclone", {"g": 2})
    with pytest.raises(
        UsageError,
        match=r"^parametrization mup is not for a llama: the run begins without layers$",
    ):
        multiples_of(base, grown)


def test_a_model_that_is_no_wider_has_nothing_to_scale(make_checkpoint: MakeCheckpoint) -> None:
    base = read(LocalFolder(make_checkpoint()))
    with pytest.raises(
        UsageError,
        match=r"^parametrization mup changes nothing: no tensor is wider than in the model that "
        r"the run begins with$",
    ):
        multiples_of(base, apply(base, "stack", {"g": 2}))


def test_the_rule_is_of_adamw() -> None:
    with pytest.raises(UsageError, match=r"expected none: the rule is of adamw, not of muon$"):
        loaded("optimizer.name=muon", "stages.0.train.parametrization=mup")


def test_a_dry_run_says_which_rates_come_out(tmp_path: Path) -> None:
    recipe = runs.recipe(tmp_path, stages=[WIDE, BY_WIDTH])
    (line,) = (line for line in planned(recipe) if line.startswith("stage 1: "))
    assert "learning rate 0.001 by mup (0.0005 of 18,464 parameters, 0.001 of 65,664 par" in line


def test_even_copies_train_as_what_they_were_copied_from(tmp_path: Path) -> None:
    """A model twice as wide: each copy is where the narrow model's weight is."""
    trained: dict[str, dict[str, Any]] = {}
    losses: dict[str, list[float]] = {}
    for name, stages in {
        "narrow": [{"train": SLOW}],
        "wide": [WIDE, BY_WIDTH],
        "unscaled": [WIDE, {"train": SLOW}],
    }.items():
        (tmp_path / name).mkdir()
        optimizer = {"name": "adamw", "eps": 1e-4, "weight_decay": 1.0}
        recipe = runs.recipe(tmp_path / name, stages=stages, optimizer=optimizer)
        recipe["dtype"] = "float32"
        final = runs.carry(recipe)
        trained[name] = load_file(final / "model.safetensors")
        losses[name] = runs.losses(recipe)
        if name == "wide":
            manifest = json.loads((final / "hfgrow.json").read_text())
            assert manifest["chain"][-1]["settings"]["parametrization"] == "mup"
            low, high = next(
                line["learning_rates"] for line in runs.lines(recipe) if "loss" in line
            )
            assert low == pytest.approx(high / 2)
    assert losses["wide"] == pytest.approx(losses["narrow"], rel=1e-5)
    assert losses["unscaled"][-1] != pytest.approx(losses["narrow"][-1], rel=1e-3)
    for name, matrix in trained["narrow"].items():
        copies = trained["wide"][name]
        times = [size // before for size, before in zip(copies.shape, matrix.shape, strict=True)]
        share = 1.0
        if name == "model.norm.weight":
            share = 1 / times[0]
        elif "embed" not in name and matrix.ndim == 2:
            share = 1 / times[1]
        assert torch.allclose(copies, matrix.repeat(*times) * share, atol=2e-5), name
