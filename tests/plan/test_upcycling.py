"""Upcycling: what experts and routers are made of, and that the function stays."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig

from hfgrow.checkpoint.files import LocalFolder
from hfgrow.checkpoint.read import read
from hfgrow.errors import ModelError, UsageError
from hfgrow.plan.families import FAMILIES
from hfgrow.plan.mixture import experts_of
from hfgrow.plan.operators import apply
from tests.attacks.craft import drop_tensors
from tests.checkpoints import MakeCheckpoint, edit_json, load, logits, tensors_of
from tests.growths import UPCYCLED, Case, kept_neurons
from tests.program import call_hfgrow
from tests.sampling import sampled
from tests.skeletons import config_of

BECOMES = {
    "llama": "mixtral",
    "mistral": "mixtral",
    "olmo2": "flex_olmo",
    "qwen2": "qwen2_moe",
    "qwen3": "qwen3_moe",
}


def settings(model_type: str) -> dict[str, Any]:
    return Case("upcycle", model_type, tied=False, sharded=False, grouped=True).base("float32")


def upcycled(base: Path, out: Path, *words: str) -> Path:
    finished = call_hfgrow("upcycle", base, *words, "--out", out)
    assert finished.returncode == 0, finished.stderr
    return out


WORDS = [
    ("--experts", "4"),
    ("--experts", "5", "--top-k", "3"),
    ("--experts", "6", "--shards", "2"),
    ("--experts", "6", "--shards", "3", "--top-k", "6"),
    ("--experts", "12", "--shards", "2", "--top-k", "4", "--seed", "7"),
]


@pytest.mark.parametrize(("model_type", "words"), sampled(UPCYCLED, WORDS), ids=str)
def test_copies_and_shards_compute_what_the_base_computes_in_float32(
    model_type: str, words: tuple[str, ...], make_checkpoint: MakeCheckpoint, tmp_path: Path
) -> None:
    """At most 1e-6 of the largest logit, by the stock model."""
    base = make_checkpoint(model_type, **settings(model_type))
    model, report = load(upcycled(base, tmp_path / "out", *words))
    assert not any(report[key] for key in report if key.endswith("_keys"))
    assert model.config.model_type == BECOMES[model_type]
    expected = logits(load(base)[0])
    assert float((logits(model) - expected).abs().max() / expected.abs().max()) <= 1e-6


@pytest.mark.parametrize("model_type", UPCYCLED)
def test_what_config_json_does_not_say_stays_what_the_dense_class_takes(model_type: str) -> None:
    from hfgrow.train.initial_weights import fresh_plan

    bare = {key: value for key, value in config_of().items() if "token_id" not in key}
    for key in ("num_key_value_heads", "max_position_embeddings", "rope_parameters"):
        bare.pop(key, None)
    if model_type in ("qwen2", "qwen3"):
        bare["num_attention_heads"] = 32
    plan = fresh_plan({**config_of(), "model_type": model_type})
    plan = apply(
        # What transformers filled in is taken out again.
        type(plan)(**{**vars(plan), "config": {**bare, "model_type": model_type}}),
        "upcycle",
        {"experts": 4},
    )
    before: dict[str, Any] = AutoConfig.for_model(model_type, **bare).to_dict()
    after: dict[str, Any] = AutoConfig.for_model(**plan.config).to_dict()
    sizes = FAMILIES[model_type].sizes({**bare, "model_type": model_type})
    assert after["head_dim"] == sizes["head_dim"]
    own = {"architectures", "head_dim", "model_type", "sliding_window", "layer_types", "dtype"}
    for key in before.keys() & after.keys() - own:
        assert after[key] == before[key], key
    window = before.get("sliding_window") if before.get("use_sliding_window", True) else None
    assert (after.get("sliding_window") or None) == window


def test_copies_are_the_bytes_of_the_mlp_and_the_router_is_fresh(
    make_checkpoint: MakeCheckpoint, tmp_path: Path
) -> None:
    base = make_checkpoint("qwen2", **settings("qwen2"))
    before = tensors_of(base)
    after = tensors_of(upcycled(base, tmp_path / "out", "--experts", "3"))
    for layer in range(4):
        for part in ("gate_proj", "up_proj", "down_proj"):
            mlp = f"model.layers.{layer}.mlp"
            for expert in range(3):
                copy = after[f"{mlp}.experts.{expert}.{part}.weight"]
                assert torch.equal(copy, before[f"{mlp}.{part}.weight"])
        router = after[f"model.layers.{layer}.mlp.gate.weight"]
        assert router.shape == (3, 32)
        assert 0.01 < float(router.std()) < 0.03
        assert len({tuple(row.tolist()) for row in router}) == 3
        assert not after[f"model.layers.{layer}.mlp.shared_expert.down_proj.weight"].any()
    kept = [name for name in before if ".mlp." not in name]
    assert all(torch.equal(after[name], before[name]) for name in kept)


def test_a_group_holds_every_shard_once_and_is_chosen_as_a_whole(
    make_checkpoint: MakeCheckpoint, tmp_path: Path
) -> None:
    base = make_checkpoint("mistral")
    before = tensors_of(base)
    out = upcycled(base, tmp_path / "out", "--experts", "6", "--shards", "3")
    after = tensors_of(out)
    mlp, moe = "model.layers.2.mlp", "model.layers.2.block_sparse_moe"
    router = after[f"{moe}.gate.weight"]
    assert torch.equal(router[:3], router[:1].expand(3, -1))
    assert torch.equal(router[3:], router[3:4].expand(3, -1))
    assert not torch.equal(router[0], router[3])
    for first in (0, 3):
        group = [f"{moe}.experts.{first + i}" for i in range(3)]
        gate = torch.cat([after[f"{expert}.w1.weight"] for expert in group])
        down = torch.cat([after[f"{expert}.w2.weight"] for expert in group], dim=1)
        assert torch.equal(gate, before[f"{mlp}.gate_proj.weight"])
        assert torch.equal(down, 3 * before[f"{mlp}.down_proj.weight"])
    config = json.loads((out / "config.json").read_text())
    assert config["intermediate_size"] == 16
    assert (config["num_local_experts"], config["num_experts_per_tok"]) == (6, 3)


def test_a_share_of_each_experts_neurons_begins_anew(
    make_checkpoint: MakeCheckpoint, tmp_path: Path
) -> None:
    base = make_checkpoint("qwen3", **settings("qwen3"))
    before = tensors_of(base)
    after = tensors_of(upcycled(base, tmp_path / "out", "--experts", "3", "--drop", "0.25"))
    dropped = []
    for expert in range(3):
        name = "model.layers.1.mlp"
        kept = kept_neurons(f"{name}.experts.{expert}", after, name, before)
        assert int((~kept).sum()) == 12
        assert after[f"{name}.experts.{expert}.gate_proj.weight"][~kept].abs().min() > 0
        dropped.append(tuple(kept.tolist()))
    assert len(set(dropped)) == 3


def test_the_width_of_a_shard_is_told_as_that_of_each_expert(
    make_checkpoint: MakeCheckpoint, tmp_path: Path
) -> None:
    base, out = make_checkpoint(**settings("llama")), tmp_path / "out"
    words = ("upcycle", base, "--experts", "6", "--shards", "2")
    planned = call_hfgrow(*words, "--dry-run")
    assert "intermediate_size of each expert 48 -> 24" in planned.stdout
    assert call_hfgrow(*words, "--out", out).returncode == 0
    told = call_hfgrow("lineage", out)
    assert "intermediate_size of each expert 48 -> 24" in told.stdout
    assert "| intermediate_size of each expert | 48 | 24 |" in (out / "README.md").read_text()


def test_dropping_promises_no_function(make_checkpoint: MakeCheckpoint) -> None:
    base = read(LocalFolder(make_checkpoint("mistral")))
    assert apply(base, "upcycle", {"experts": 4}).preserves_function
    assert not apply(base, "upcycle", {"experts": 4, "drop": 0.5}).preserves_function


def test_active_parameters_are_those_of_the_experts_that_a_token_passes(
    make_checkpoint: MakeCheckpoint,
) -> None:
    base = read(LocalFolder(make_checkpoint("mistral")))
    assert experts_of(base) == {}
    plan = apply(base, "upcycle", {"experts": 8, "top_k": 2})
    mlps, routers = 4 * 3 * 48 * 32, 4 * 8 * 32
    assert plan.num_parameters == base.num_parameters + 7 * mlps + routers
    found = experts_of(plan)
    assert (found["num_experts"], found["num_experts_per_tok"]) == (8, 2)
    assert found["num_active_parameters"] == base.num_parameters + mlps + routers


def test_a_mixture_goes_on_growing_in_depth_and_is_made_again(
    make_checkpoint: MakeCheckpoint, tmp_path: Path
) -> None:
    base = make_checkpoint("mistral")
    steps = tmp_path / "steps.yaml"
    steps.write_text("- hyperclone: {g: 2}\n- upcycle: {experts: 4, shards: 2}\n- stack: {g: 2}\n")
    out = tmp_path / "out"
    assert call_hfgrow("apply", steps, base, "--out", out).returncode == 0
    assert call_hfgrow("verify", out).returncode == 0
    again = call_hfgrow("reproduce", out)
    assert again.returncode == 0, again.stderr
    assert load(out)[0].config.num_hidden_layers == 8


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"experts": 1}, "must be a number from 2 to 4096, not 1"),
        ({"experts": 5000}, "not 5000"),
        ({"experts": 8, "top_k": 1}, "of one expert the share is always 1"),
        ({"experts": 8, "top_k": 9}, "from 2 to 8, not 9"),
        ({"experts": 8, "shards": 5}, "must divide the intermediate_size 48"),
        ({"experts": 8, "shards": 0}, "must divide"),
        ({"experts": 8, "shards": 4}, "shards of 12 neurons are no multiple of 8"),
        ({"experts": 8, "shards": 3}, "a multiple of the 3 shards from 6"),
        ({"experts": 3, "shards": 3}, "from 6 to 4096, not 3"),
        ({"experts": 6, "shards": 3, "top_k": 4}, "whole groups of shards"),
        ({"experts": 4, "drop": 1.5}, "drop must be from 0 to 1"),
        ({"experts": 4, "seed": -1}, "seed must be"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_what_cannot_be_a_mixture_is_refused(
    arguments: dict[str, object], said: str, make_checkpoint: MakeCheckpoint
) -> None:
    base = read(LocalFolder(make_checkpoint("mistral")))
    with pytest.raises(UsageError) as caught:
        apply(base, "upcycle", arguments)
    assert said in str(caught.value).replace("--", "")


@pytest.mark.parametrize(
    ("model_type", "said"),
    [
        ("llama", "attention_bias is true, and a mixtral has no biases"),
        ("qwen3", "some layers have a sliding window and others have none"),
    ],
)
def test_a_dense_model_that_the_mixture_cannot_express_is_refused(
    model_type: str, said: str, make_checkpoint: MakeCheckpoint
) -> None:
    base = read(LocalFolder(make_checkpoint(model_type)))
    with pytest.raises(UsageError, match=said):
        apply(base, "upcycle", {"experts": 4})


@pytest.mark.parametrize(
    ("model_type", "changes", "said"),
    [
        ("mixtral", {"num_local_experts": ...}, "num_local_experts is missing"),
        ("mixtral", {"num_experts_per_tok": ...}, "num_experts_per_tok is missing"),
        ("mixtral", {"num_local_experts": 0}, "num_local_experts must be a positive integer"),
        ("mixtral", {"num_local_experts": 1 << 20}, "more than the 4096"),
        ("mixtral", {"num_experts_per_tok": 5}, "num_experts_per_tok 5 is more than"),
        ("qwen3_moe", {"moe_intermediate_size": "x"}, "moe_intermediate_size must be a positive"),
        ("qwen2_moe", {"shared_expert_intermediate_size": ...}, "is missing"),
        ("qwen2_moe", {"mlp_only_layers": [1]}, "only some layers have experts"),
        ("qwen3_moe", {"decoder_sparse_step": 2}, "only some layers have experts"),
    ],
)
def test_a_config_that_no_such_mixture_has_is_refused(
    model_type: str,
    changes: dict[str, Any],
    said: str,
    make_checkpoint: MakeCheckpoint,
    tmp_path: Path,
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(make_checkpoint(model_type), folder)
    edit_json(folder / "config.json", **changes)
    with pytest.raises(ModelError, match=said):
        read(LocalFolder(folder))


def test_an_expert_that_is_missing_is_named(
    make_checkpoint: MakeCheckpoint, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(make_checkpoint("mixtral"), folder)
    name = "model.layers.2.block_sparse_moe.experts.3.w2.weight"
    drop_tensors(folder / "model.safetensors", name)
    finished = call_hfgrow("stack", folder, "--g", "2", "--out", tmp_path / "out")
    assert finished.returncode == 3
    assert f"{name} is missing" in finished.stderr
