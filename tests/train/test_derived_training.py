"""Training of models that no table knows and of mixtures, as transformers builds and saves them."""

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from benchmarks.reach.prove import base_of
from hfgrow.checkpoint.compute.moments import grow_optimizer_state
from hfgrow.checkpoint.files import LocalFolder
from hfgrow.checkpoint.read import read
from hfgrow.errors import ModelError, UsageError
from hfgrow.plan.operators import apply
from hfgrow.train.checkpoints import model_tensors
from hfgrow.train.flops import arithmetic, spent_flops
from hfgrow.train.loss import NextTokenLoss, router_note
from hfgrow.train.optimizers import parameter_groups, trained_names
from hfgrow.train.parameter_names import (
    in_files,
    names_in_files,
    names_of,
    state_in_files,
    state_in_memory,
)
from hfgrow.train.planned_stages import plan_stages
from hfgrow.train.recipe.recipe import recipe_of
from hfgrow.train.recipe.stages import Train
from hfgrow.train.stage import load_model
from tests.checkpoints import MakeCheckpoint, edit_json, load, probe, tensors_of, write_tokenizer
from tests.program import call_hfgrow
from tests.train.runs import carry, losses, recipe, stop_after

MakeBase = Callable[[str], Path]
# Attention alone, short convolutions, linear attention, state spaces, experts, and a buffer that
# files hold; `+` is the whole of a model that sees too.
TYPES = ("gemma4_text", "granitemoehybrid", "lfm2", "olmoe", "qwen3_5_text")
WHOLE = ("gemma3+", "qwen3_5+")
MIXTURES = ("flex_olmo", "mixtral", "qwen2_moe", "qwen3_moe")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, make_checkpoint: MakeCheckpoint) -> MakeBase:
    """Tiny models with a tokenizer, each made once."""
    made: dict[str, Path] = {}

    def get(name: str) -> Path:
        if name not in made:
            folder = tmp_path_factory.mktemp(name) / "base"
            if name in MIXTURES:
                shutil.copytree(make_checkpoint(name), folder)
            else:
                base_of(name.removesuffix("+"), folder, whole=name.endswith("+"))
            write_tokenizer(folder)
            edit_json(folder / "tokenizer_config.json", eos_token="<unk>")
            if name == "qwen3_5+":
                # transformers splits text as Qwen does, whatever the file says: such a file, then.
                tokenizer: Any = AutoTokenizer
                tokenizer.from_pretrained(folder).save_pretrained(folder)
            made[name] = folder
        return made[name]

    return get


def next_tokens(ids: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.pad(ids[:, 1:], (0, 1), value=-100)


def derived_recipe(folder: Path, base: Path, **changes: Any) -> dict[str, Any]:
    """Return a recipe of 4 steps that begins with a model on the disk."""
    made = recipe(folder, base=str(base), batch_tokens=64, micro_batch_size=2, **changes)
    made["evaluation"] = {"tokens": 64}
    made["checkpoint"] = {"every_tokens": 64}
    made.setdefault("stages", [])
    del made["tokenizer"]
    return made


TRAIN = {"train": {"tokens": 256, "learning_rate": 1e-2}}


@pytest.mark.parametrize("name", [*TYPES, *WHOLE, *MIXTURES])
def test_what_is_written_is_what_was_read(name: str, base: MakeBase) -> None:
    folder = base(name)
    plan, model = read(LocalFolder(folder)), load_model(folder)
    found, stored = in_files(model, model_tensors(model, keep=True), plan), tensors_of(folder)
    assert found.keys() == plan.tensors.keys()
    assert all(found[name].equal(stored[name]) for name in found)


@pytest.mark.parametrize("name", [*TYPES, *WHOLE, *MIXTURES])
def test_an_optimizers_state_goes_into_files_and_back(name: str, base: MakeBase) -> None:
    folder = base(name)
    plan, model = read(LocalFolder(folder)), load_model(folder)
    state = {
        name: {"step": torch.tensor(float(i)), "exp_avg": torch.randn_like(parameter)}
        for i, (name, parameter) in enumerate(model.named_parameters())
    }
    stored = state_in_files(folder, state, plan)
    assert stored.keys() <= plan.tensors.keys()
    assert all(stored[name]["exp_avg"].shape == plan.tensors[name].shape for name in stored)
    back = state_in_memory(model, stored, plan)
    assert back.keys() == state.keys()
    for name, entry in back.items():
        assert entry["exp_avg"].equal(state[name]["exp_avg"])
        assert entry["step"] == state[name]["step"]


@pytest.mark.parametrize("name", ["olmoe", "lfm2", "mixtral"])
def test_moments_of_a_copied_layer_are_those_of_its_source(name: str, base: MakeBase) -> None:
    folder = base(name)
    plan, model = read(LocalFolder(folder)), load_model(folder)
    names = names_of(model, plan)
    state = {
        name: {key: torch.rand_like(p) for key in ("exp_avg", "exp_avg_sq")}
        | {"step": p.new_ones(())}
        for name, p in model.named_parameters()
    }
    grown = grow_optimizer_state(
        apply(plan, "stack", {"g": 2}), state_in_files(folder, state, plan), "copy"
    )
    stored = state_in_files(folder, state, plan)
    for name in names.in_files or stored:
        for one in names.of(name):
            found = names.layer_of(one)
            if found is None:
                assert grown[one]["exp_avg"].equal(stored[one]["exp_avg"])
                continue
            layer, rest = found
            before = one.removesuffix(f"{layer}.{rest}")
            for copy in (layer, layer + 4):
                twin = grown[f"{before}{copy}.{rest}"]
                assert twin["exp_avg"].equal(stored[one]["exp_avg"])
                assert twin["exp_avg_sq"].equal(stored[one]["exp_avg_sq"])


@pytest.mark.parametrize("name", ["falcon_h1", *TYPES])
def test_a_token_costs_what_torch_counts_but_for_states(name: str, base: MakeBase) -> None:
    """The counter sees products and convolutions, all experts run one after the other.

    It counts scores in full, and of states the products of the chunks they are computed in, or
    nothing where they are sums of products: those are left out here.
    """
    from torch.utils.flop_counter import FlopCounterMode

    folder = base(name)
    model = load(folder)[0]
    model.set_attn_implementation("eager")
    if name in ("olmoe", "granitemoehybrid"):
        model.set_experts_implementation("eager")
    ids = torch.arange(3, 19)[None]
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(ids, use_cache=False)
    seen = sum(
        flops
        for module, found in counter.get_flop_counts().items()
        for operation, flops in found.items()
        if module == "Global" and "bmm" not in str(operation)
    )
    config = read(LocalFolder(folder)).config
    counted = arithmetic(config, 16)
    experts = sum(p.numel() for part, p in model.named_parameters() if "experts" in part.split("."))
    # Two of four experts.
    assert counted.num_active_parameters == counted.num_parameters - experts // 2
    # The kernels of convolutions are computed once more, over what they are filled up with.
    assert seen / 16 == pytest.approx(2 * counted.num_matmul_parameters, rel=0.02)


def test_attention_counts_by_its_own_heads_and_windows_and_states_by_their_size(
    base: MakeBase,
) -> None:
    gemma, falcon, qwen = (
        read(LocalFolder(base(name))).config
        for name in ("gemma4_text", "falcon_h1", "qwen3_5_text")
    )
    # 5 layers with 4 heads of 8 that see 4 tokens, and one with 4 heads of 512 that sees all.
    assert arithmetic(gemma, 16).attention_flops == 6 * (5 * 64 * 3.5 + 4 * 1024 * 8)
    # Each has 4 heads of 8 and a state of 8 heads of 8 by 8.
    assert arithmetic(falcon, 16).attention_flops == 4 * (6 * 64 * 8 + 12 * 512)
    # One has 4 heads of 8; three keep 4 heads of 8 by 8 by the delta rule.
    assert arithmetic(qwen, 16).attention_flops == 6 * 64 * 8 + 3 * 18 * 256


def test_of_frozen_layers_a_token_costs_less(base: MakeBase) -> None:
    plan = read(LocalFolder(base("olmoe")))
    names = [*plan.tensors]
    assert spent_flops(plan.config, 16, names) == arithmetic(plan.config, 16).exact_flops
    top = [name for name in names if ".layers.3." in name]
    bottom = [name for name in names if ".layers.0." in name]
    assert spent_flops(plan.config, 16, top) < spent_flops(plan.config, 16, bottom)


@pytest.mark.parametrize("name", ["olmoe", "mixtral", "granitemoehybrid"])
def test_the_loss_of_a_router_pulls_and_is_not_told(
    name: str, base: MakeBase, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(base(name), tmp_path / "base"))
    edit_json(folder / "config.json", output_router_logits=True, router_aux_loss_coef=0.5)
    ids = probe()
    ours, stock = load_model(folder), load(folder)[0].train()
    for model in (ours, stock):
        model.set_experts_implementation("eager")
    total, count = NextTokenLoss(ours)(ids, next_tokens(ids))
    (total / count).backward()
    expected = stock(ids, labels=ids, use_cache=False)
    expected.loss.backward()
    alone = stock(ids, labels=ids, use_cache=False, output_router_logits=False).loss
    torch.testing.assert_close(total / count, alone, rtol=1e-5, atol=1e-5)
    gradients = {name: p.grad for name, p in stock.named_parameters()}
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-4, atol=1e-5)
    assert "0.5 times the loss of the router" in router_note(read(LocalFolder(folder)).config)


def test_a_router_loss_that_is_not_asked_for_is_said(base: MakeBase) -> None:
    plan = read(LocalFolder(base("olmoe")))
    assert router_note(plan.settings) == (
        "the loss of the router is not trained on: config.json has router_aux_loss_coef 0.01, but "
        "not output_router_logits"
    )


def test_documents_that_would_see_each_other_are_refused(base: MakeBase, tmp_path: Path) -> None:
    made = derived_recipe(tmp_path, base("lfm2"), stages=[TRAIN])
    made["data"]["document_mask"] = True
    said = (
        r"^stages\.0: document_mask cannot be kept in a lfm2: transformers computes its attention "
        r"and states, and does not tell them where documents end, so that they would see each "
        r"other all the same$"
    )
    with pytest.raises(UsageError, match=said):
        list(plan_stages(recipe_of(made), read(LocalFolder(base("lfm2"))), None))


@pytest.mark.parametrize("name", ["lfm2", "mixtral"])
def test_a_mask_that_could_not_open_is_refused_beforehand(
    name: str, base: MakeBase, tmp_path: Path
) -> None:
    grow = {"grow": {"operator": "random-depth", "layers": 6}}
    made = derived_recipe(tmp_path, base(name), stages=[TRAIN, grow, TRAIN])
    said = (
        rf"^stages\.2: the mask of random growth cannot open in a {name}: it multiplies what "
        r"single matrices give, and hfgrow does not know them there$"
    )
    with pytest.raises(UsageError, match=said):
        list(plan_stages(recipe_of(made), read(LocalFolder(base(name))), None))


def test_experts_that_are_one_tensor_train_together(base: MakeBase) -> None:
    folder = base("mixtral")
    plan, model = read(LocalFolder(folder)), load_model(folder)
    groups = partial(parameter_groups, model, learning_rate=1.0, names=names_of(model, plan))
    (group,) = groups(trainable=["*.experts.*"])
    assert all("experts" in name for name in group.names)
    assert not group.is_inside
    with pytest.raises(UsageError, match=r"they are one tensor in memory, and train together$"):
        groups(trainable=["*.experts.0.*"])


def test_new_layers_of_a_derived_family_are_known(base: MakeBase) -> None:
    plan = apply(read(LocalFolder(base("lfm2"))), "zero-depth", {"g": 2})
    train = Train(tokens=64, learning_rate=1.0, trainable="new")
    names = trained_names(plan.tensors, train, plan.layer_map, names=names_in_files(plan))
    layers = {int(name.split(".")[2]) for name in names}
    assert layers == {i for i, s in enumerate(plan.layer_map) if s.mode != "copy"}


def test_what_sees_does_not_train_on_text(base: MakeBase, tmp_path: Path) -> None:
    folder = base("gemma3+")
    out = carry(derived_recipe(tmp_path, folder, stages=[TRAIN]))
    old, new = tensors_of(folder), tensors_of(out)
    assert old.keys() == new.keys()
    sees = {name for name in old if "vision" in name or "multi_modal" in name}
    assert sees
    assert all(new[name].equal(old[name]) for name in sees)
    changed = {name for name in old.keys() - sees if not new[name].equal(old[name])}
    assert {name for name in old.keys() - sees if "layers" in name} <= changed


@pytest.mark.parametrize(
    "name",
    ["olmoe", *(pytest.param(one, marks=pytest.mark.slow) for one in ("lfm2", "qwen3_5+"))],
)
def test_a_run_that_grows_goes_on_bit_by_bit(
    name: str, base: MakeBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grow = {"grow": {"operator": "stack", "g": 2, "optimizer_state": "copy"}}
    stages = [TRAIN, grow, TRAIN]
    made = [
        derived_recipe(tmp_path, base(name), stages=stages, output=str(tmp_path / one))
        for one in ("whole", "stopped")
    ]
    whole = tensors_of(carry(made[0]))
    stop_after(monkeypatch, made[1], step=6)
    resumed = tensors_of(carry(made[1], resume=True))
    assert whole.keys() == resumed.keys()
    assert all(whole[name].equal(resumed[name]) for name in whole)


@pytest.mark.slow
@pytest.mark.parametrize("operator", ["stack", "zero-depth"])
@pytest.mark.parametrize("name", ["gemma4+", "lfm2", "mistral3+", "qwen3_5+"])
def test_a_grown_model_trains_and_goes_on_where_it_was_stopped(
    name: str, operator: str, base: MakeBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = {"train": {"tokens": 20 * 64, "learning_rate": 1e-2}}
    stages = [{"grow": {"operator": operator, "g": 2}}, train]
    made = [
        derived_recipe(tmp_path, base(name), stages=stages, output=str(tmp_path / one))
        for one in ("whole", "stopped")
    ]
    whole = tensors_of(carry(made[0]))
    assert losses(made[0])[-1] < losses(made[0])[0]
    stop_after(monkeypatch, made[1], step=12)
    resumed = tensors_of(carry(made[1], resume=True))
    assert all(whole[name].equal(resumed[name]) for name in whole)


def test_a_model_whose_parameters_lie_in_no_file_is_not_trained(tmp_path: Path) -> None:
    folder = base_of("camembert", tmp_path / "base")
    model = load_model(folder)
    said = r"^lm_head\.decoder\.weight of the loaded model lies in no file of it, so what "
    with pytest.raises(ModelError, match=said):
        names_of(model, read(LocalFolder(folder)))


def test_maps_are_learned_of_written_families_only(base: MakeBase, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("some text")
    done = call_hfgrow("learn", base("lfm2"), "--g", "2", "--data", text, "--out", tmp_path / "out")
    assert done.returncode == 2
    said = "not lfm2: a map is one of axes, and hfgrow has no table that names those of its tensors"
    assert said in done.stderr
