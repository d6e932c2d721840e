"""What is read of families that no table knows, what is refused, and what inspect says of them."""

import json
from pathlib import Path
from typing import Any

import pytest

from hfgrow.checkpoint.derived.release import check_release
from hfgrow.checkpoint.files import LocalFolder
from hfgrow.checkpoint.read import read
from hfgrow.errors import ModelError
from tests.checkpoints import edit_json, tensors_of
from tests.derived import HERE, TYPES, MakeBase
from tests.program import call_hfgrow


def copied(folder: Path, target: Path) -> Path:
    target.mkdir()
    for file in folder.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    return target


def with_tensors(folder: Path, names: dict[str, tuple[int, ...]], **given: Any) -> None:
    """Add tensors to a model of one file: zeros of a shape, or given ones."""
    import torch
    from safetensors.torch import save_file

    more = {name: torch.zeros(shape) for name, shape in names.items()}
    save_file(tensors_of(folder) | more | given, folder / "model.safetensors")


@pytest.mark.parametrize("model_type", ["falcon_mamba", "mamba", "mamba2"])
def test_weights_that_are_divided_by_the_depth_at_loading_are_refused(
    model_type: str, derived_base: MakeBase, tmp_path: Path
) -> None:
    folder = copied(derived_base(model_type), tmp_path / "base")
    assert read(LocalFolder(folder)).num_hidden_layers == 4
    edit_json(folder / "config.json", rescale_prenorm_residual=True)
    said = (
        f"^config\\.json: a {model_type} with rescale_prenorm_residual cannot be grown: "
        "transformers divides out_proj by the root of the number of layers at every loading$"
    )
    with pytest.raises(ModelError, match=said):
        read(LocalFolder(folder))


def test_blocks_that_predict_further_tokens_are_left_out_and_named(
    derived_base: MakeBase, tmp_path: Path
) -> None:
    folder = copied(derived_base("deepseek_v3"), tmp_path / "base")
    with_tensors(folder, {"model.layers.4.eh_proj.weight": (32, 64)})
    edit_json(folder / "config.json", num_nextn_predict_layers=1)
    grown = call_hfgrow("interpolate", folder, "--g", "2", "--verify", "--out", tmp_path / "out")
    assert grown.returncode == 0, grown.stderr
    assert "1 tensors such as model.layers.4.eh_proj.weight predict tokens" in grown.stderr
    assert (
        json.loads((tmp_path / "out" / "config.json").read_text())["num_nextn_predict_layers"] == 0
    )


def test_what_is_recomputed_or_stored_twice_is_read_once_and_named(
    derived_base: MakeBase, tmp_path: Path
) -> None:
    folder = copied(derived_base("lfm2"), tmp_path / "base")
    inverse, head = "model.layers.0.self_attn.rotary_emb.inv_freq", "lm_head.weight"
    embeddings = tensors_of(folder)["model.embed_tokens.weight"]
    with_tensors(folder, {inverse: (4,), head: tuple(embeddings.shape)})
    with pytest.raises(ModelError, match=r"lm_head\.weight differs from model\.embed_tokens"):
        read(LocalFolder(folder))
    with_tensors(folder, {inverse: (4,)}, **{head: embeddings.clone()})
    plan = read(LocalFolder(folder))
    assert not {inverse, head} & plan.tensors.keys()
    notes = " ".join(plan.notes)
    assert f"1 buffers such as {inverse} were dropped" in notes
    assert f"{head} is tied to model.embed_tokens.weight and is stored once" in notes


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("model.layers.4.mlp.gate.weight", "config.json says 4 layers, but the files hold"),
        ("model.extra.weight", "model.extra.weight is no tensor of a OlmoeForCausalLM"),
    ],
)
def test_a_tensor_that_the_model_lacks_is_refused(
    name: str, said: str, derived_base: MakeBase, tmp_path: Path
) -> None:
    folder = copied(derived_base("olmoe"), tmp_path / "base")
    with_tensors(folder, {name: (4, 32)})
    refused = call_hfgrow("check", folder)
    assert refused.returncode == 3
    assert said in refused.stderr


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"num_hidden_layers": 10**9}, "but the files hold only"),
        ({"num_hidden_layers": 5}, "is missing"),
        ({"num_hidden_layers": "four"}, "must be an integer"),
        ({"hidden_size": 64}, "has shape"),
        ({"model_type": "olmoe_of_tomorrow"}, "is unknown"),
        ({"architectures": ["OlmoeForTokenClassification"]}, "is a OlmoeForCausalLM here"),
        ({"num_attention_heads": "many"}, "transformers refuses it"),
        ({"quantization_config": {"quant_method": "fp8"}}, "is quantised"),
    ],
    ids=str,
)
def test_a_config_that_is_not_that_of_the_files_is_refused(
    change: dict[str, object], said: str, derived_base: MakeBase, tmp_path: Path
) -> None:
    folder = copied(derived_base("olmoe"), tmp_path / "base")
    edit_json(folder / "config.json", **change)
    refused = call_hfgrow("stack", folder, "--g", "2", "--out", tmp_path / "out")
    assert refused.returncode == 3
    assert said in refused.stderr
    assert not (tmp_path / "out").exists()


def test_a_key_that_only_a_newer_transformers_knows_is_refused(
    derived_base: MakeBase, tmp_path: Path
) -> None:
    folder = copied(derived_base("lfm2"), tmp_path / "base")
    edit_json(folder / "config.json", transformers_version="9.9.9", unsloth_fixed=True)
    call = ("stack", folder, "--g", "2", "--dry-run")
    assert call_hfgrow(*call).returncode == 0
    edit_json(folder / "config.json", use_new_gate=True)
    refused = call_hfgrow(*call)
    assert refused.returncode == 3
    assert f"use_new_gate is unknown to the installed transformers {HERE}" in refused.stderr
    assert "was written by 9.9.9" in refused.stderr
    assert "pip install -U transformers; --untested" in refused.stderr
    assert call_hfgrow(*call, "--untested").returncode == 0
    told = "note         not grown without --untested: config.json: "
    assert told in call_hfgrow("inspect", folder).stdout
    edit_json(folder / "config.json", transformers_version=HERE)
    assert call_hfgrow(*call).returncode == 0
    assert told not in call_hfgrow("inspect", folder).stdout


@pytest.mark.parametrize("model_type", TYPES)
def test_what_a_class_writes_itself_is_no_newer_key(
    model_type: str, derived_base: MakeBase
) -> None:
    config = json.loads((derived_base(model_type) / "config.json").read_text(encoding="utf-8"))
    check_release({**config, "transformers_version": "9.9.9"})


def test_a_newer_key_in_the_part_with_the_layers_is_refused_with_its_place() -> None:
    text = {"num_hidden_layers": 1, "use_new_gate": True}
    config = {"model_type": "gemma3", "text_config": text, "transformers_version": "9.9.9"}
    with pytest.raises(ModelError, match=r"config\.json: text_config\.use_new_gate is unknown"):
        check_release(config)


def test_a_dry_run_reads_headers_alone(derived_base: MakeBase, tmp_path: Path) -> None:
    folder = copied(derived_base("olmoe"), tmp_path / "base")
    raw = (folder / "model.safetensors").read_bytes()
    length = 8 + int.from_bytes(raw[:8], "little")
    (folder / "model.safetensors").write_bytes(raw[:length] + bytes(len(raw) - length))
    shown = call_hfgrow("stack", folder, "--g", "2", "--dry-run")
    assert shown.returncode == 0, shown.stderr
    assert "4 -> 8 layers" in shown.stdout
    assert "to verify       the grown model is loaded whole: " in shown.stdout


def test_inspect_says_where_a_family_comes_from_and_what_its_layers_are(
    derived_base: MakeBase,
) -> None:
    shown = call_hfgrow("inspect", derived_base("jamba")).stdout
    assert f"derived from transformers {HERE}" in shown
    assert "3 kinds" in shown
    assert "period 4" in shown


def test_inspect_calls_kinds_of_layers_what_config_does(derived_base: MakeBase) -> None:
    shown = call_hfgrow("inspect", derived_base("lfm2")).stdout
    assert "2 kinds: 2 A (conv), 2 B (full_attention)" in shown
    assert "copies of layers (proven by stack, interpolate)" in shown


def test_inspect_says_how_many_parameters_a_token_passes_of_a_mixture(
    derived_base: MakeBase,
) -> None:
    plan = read(LocalFolder(derived_base("olmoe")))
    experts = sum(t.num_elements for name, t in plan.tensors.items() if ".experts." in name)
    num_experts, chosen = (plan.settings[key] for key in ("num_experts", "num_experts_per_tok"))
    active = plan.num_parameters - experts + experts * chosen // num_experts
    shown = call_hfgrow("inspect", derived_base("olmoe")).stdout
    assert f"{num_experts} in a layer, of which a token passes {chosen}: {active:,}" in shown
    assert "\nexperts " not in call_hfgrow("inspect", derived_base("lfm2")).stdout


def test_layers_store_no_keys_where_none_takes_them(derived_base: MakeBase) -> None:
    """Since 5.24 transformers says so of the last one of each kind all the same."""
    family = read(LocalFolder(derived_base("gemma4_text"))).derived
    assert family is not None
    assert family.kinds == tuple("AAAAAB")
