"""More experts for a mixture: what copies and routers are made of, and when the function stays."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from hfgrow.checkpoint.files import LocalFolder
from hfgrow.checkpoint.read import read
from hfgrow.errors import UsageError
from hfgrow.plan.mixture import experts_of
from hfgrow.plan.operators import apply
from tests.checkpoints import MakeCheckpoint, edit_json, load, logits, tensors_of
from tests.growths import MIXTURES, kept_neurons
from tests.program import call_hfgrow
from tests.sampling import sampled

# 4 experts, of which a token passes 2, become 8 or 12.
EXACT = [("--experts", "8"), ("--experts", "12"), ("--experts", "8", "--top-k", "4")]
GATE = {"mixtral": "block_sparse_moe.gate.weight"}


def more_experts(base: Path, out: Path, *words: str) -> Path:
    finished = call_hfgrow("upcycle", base, *words, "--out", out)
    assert finished.returncode == 0, finished.stderr
    return out


def check_same_function(base: Path, grown: Path) -> None:
    """At most 1e-6 of the largest logit, by the stock model."""
    model, report = load(grown)
    assert not any(report[key] for key in report if key.endswith("_keys"))
    expected = logits(load(base)[0])
    assert float((logits(model) - expected).abs().max() / expected.abs().max()) <= 1e-6


@pytest.mark.parametrize(("model_type", "words"), sampled(MIXTURES, EXACT), ids=str)
def test_as_many_times_more_experts_for_a_token_compute_what_the_base_computes_in_float32(
    model_type: str, words: tuple[str, ...], make_checkpoint: MakeCheckpoint, tmp_path: Path
) -> None:
    base = make_checkpoint(model_type)
    check_same_function(base, more_experts(base, tmp_path / "out", *words))


@pytest.mark.parametrize("passed", [1, 2])
@pytest.mark.parametrize("model_type", ["qwen2_moe", "qwen3_moe"])
def test_shares_that_are_not_divided_by_their_sum_are_kept_too(
    model_type: str, passed: int, make_checkpoint: MakeCheckpoint, tmp_path: Path
) -> None:
    base = make_checkpoint(model_type, norm_topk_prob=False, num_experts_per_tok=passed)
    check_same_function(base, more_experts(base, tmp_path / "out", "--experts", "8"))


def test_experts_stand_once_more_behind_each_other_and_all_else_is_as_it_was(
    make_checkpoint: MakeCheckpoint, tmp_path: Path
) -> None:
    base = make_checkpoint("qwen2_moe")
    before = tensors_of(base)
    after = tensors_of(more_experts(base, tmp_path / "out", "--experts", "12"))
    for layer in range(4):
        mlp = f"model.layers.{layer}.mlp"
        for part in ("gate_proj", "up_proj", "down_proj"):
            for expert in range(12):
                copy = after.pop(f"{mlp}.experts.{expert}.{part}.weight")
                assert torch.equal(copy, before[f"{mlp}.experts.{expert % 4}.{part}.weight"])
        router = after.pop(f"{mlp}.gate.weight")
        assert torch.equal(router, before[f"{mlp}.gate.weight"].repeat(3, 1))
    assert any("shared_expert" in name for name in after)
    assert all(torch.equal(tensor, before[name]) for name, tensor in after.items())


@pytest.mark.parametrize("key", ["num_experts", "num_local_experts"])
def test_the_number_of_experts_stands_under_the_key_that_the_base_has_it_under(
    key: str, make_checkpoint: MakeCheckpoint, tmp_path: Path
) -> None:
    base = tmp_path / "base"
    shutil.copytree(make_checkpoint("qwen3_moe"), base)
    edit_json(base / "config.json", **{"num_experts": ..., "num_local_experts": ..., key: 4})
    out = more_experts(base, tmp_path / "out", "--experts", "8", "--top-k", "2")
    before, after = (json.loads((one / "config.json").read_text()) for one in (base, out))
    changed = {one for one in after if after[one] != before.get(one)}
    assert changed - {"hfgrow", "rope_theta"} == {key}
    assert after[key] == 8


def routers(
    base: Path, out: Path, model_type: str, *words: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the router of layer 1 before and after growth from 4 experts to 12."""
    more_experts(base, out, "--experts", "12", *words)
    name = f"model.layers.1.{GATE.get(model_type, 'mlp.gate.weight')}"
    return tensors_of(base)[name], tensors_of(out)[name]


@pytest.mark.parametrize("model_type", MIXTURES)
def test_the_experts_of_a_set_of_copies_share_the_noise_on_their_scores(
    model_type: str, make_checkpoint: MakeCheckpoint, tmp_path: Path
) -> None:
    base = make_checkpoint(model_type)
    before, after = routers(base, tmp_path / "out", model_type, "--top-k", "2")
    assert torch.equal(after[:4], before)
    noise = (after - before.repeat(3, 1)).reshape(3, 4, 32)
    assert torch.allclose(noise, noise[:, :1].expand(-1, 4, -1), atol=1e-6)
    # For an input of mean square 1 the scores differ by as much as was asked for, 3 nats.
    assert 2 < float(noise[1:].std()) * 32**0.5 < 4
    assert not torch.allclose(noise[1], noise[2], atol=0.1)


def test_noise_lets_a_tokens_experts_be_different_ones_of_one_set(
    make_checkpoint: MakeCheckpoint, tmp_path: Path
) -> None:
    """Without it they are copies of one expert."""
    base = make_checkpoint("mixtral")
    inputs = torch.randn(512, 32, generator=torch.Generator().manual_seed(0))

    def chosen(*words: str) -> torch.Tensor:
        out = tmp_path / "-".join(("out", *words))
        after = routers(base, out, "mixtral", "--top-k", "3", *words)[1]
        return (inputs @ after.T).topk(2, dim=1).indices

    alike = chosen("--router-noise", "0")
    assert torch.equal(alike[:, 0] % 4, alike[:, 1] % 4)
    apart = chosen("--router-noise", "50")
    of_one_set = apart[:, 0] // 4 == apart[:, 1] // 4
    assert float(of_one_set.float().mean()) > 0.9
    best = (inputs @ tensors_of(base)[f"model.layers.1.{GATE['mixtral']}"].T).topk(2, dim=1).indices
    assert torch.equal(apart[of_one_set] % 4, best[of_one_set])


def test_a_share_of_the_neurons_of_copies_begins_anew(
    make_checkpoint: MakeCheckpoint, tmp_path: Path
) -> None:
    base = make_checkpoint("qwen3_moe")
    before = tensors_of(base)
    after = tensors_of(more_experts(base, tmp_path / "out", "--experts", "12", "--drop", "0.25"))
    dropped = []
    for expert in range(12):
        mlp = "model.layers.2.mlp.experts"
        kept = kept_neurons(f"{mlp}.{expert}", after, f"{mlp}.{expert % 4}", before)
        assert int((~kept).sum()) == (4 if expert >= 4 else 0)
        dropped.append(tuple(kept.tolist()))
    assert len(set(dropped[4:])) == 8


@pytest.mark.parametrize(
    ("arguments", "preserves"),
    [
        ({}, True),
        ({"top_k": 4}, True),
        ({"top_k": 2}, False),
        ({"top_k": 3}, False),
        ({"router_noise": 0.1}, False),
        ({"drop": 0.5}, False),
    ],
    ids=str,
)
def test_the_function_is_promised_where_copies_are_alike_and_all_are_passed(
    arguments: dict[str, Any], preserves: bool, make_checkpoint: MakeCheckpoint
) -> None:
    base = read(LocalFolder(make_checkpoint("mixtral")))
    assert apply(base, "upcycle", {"experts": 8, **arguments}).preserves_function == preserves


def test_a_token_costs_what_it_did_where_it_passes_as_many_experts(
    make_checkpoint: MakeCheckpoint,
) -> None:
    base = read(LocalFolder(make_checkpoint("mixtral")))
    before = experts_of(base)["num_active_parameters"]
    rows = 4 * 4 * 32
    kept = experts_of(apply(base, "upcycle", {"experts": 8, "top_k": 2}))
    assert kept["num_active_parameters"] == before + rows
    twice = experts_of(apply(base, "upcycle", {"experts": 8}))
    assert twice["num_active_parameters"] == before + rows + 2 * 4 * 3 * 48 * 32


def test_the_plan_says_how_many_experts_there_were_and_that_copies_are_alike(
    make_checkpoint: MakeCheckpoint,
) -> None:
    base = make_checkpoint("mixtral")
    planned = call_hfgrow("upcycle", base, "--experts", "8", "--dry-run").stdout
    assert "experts         4 -> 8 in a layer, of which a token passes 2 -> 4" in planned
    assert "alike, and training cannot tell them apart; --drop or a smaller --top-k" in planned
    fewer = ("upcycle", base, "--experts", "8", "--top-k", "2", "--dry-run")
    kept = call_hfgrow(*fewer).stdout
    assert "experts         4 -> 8 in a layer, of which a token passes 2\n" in kept
    assert "alike" not in kept
    silent = call_hfgrow(*fewer, "--router-noise", "0").stdout
    assert "alike, and training cannot tell them apart; --drop or --router-noise can" in silent
    assert "alike" not in call_hfgrow(*fewer, "--router-noise", "0", "--drop", "0.5").stdout


def test_a_mixture_is_said_to_grow_in_experts(make_checkpoint: MakeCheckpoint) -> None:
    told = call_hfgrow("inspect", make_checkpoint("mixtral")).stdout
    assert "can grow     num_hidden_layers, num_experts; see hfgrow operators" in told
    assert "num_experts" not in call_hfgrow("inspect", make_checkpoint("mistral")).stdout


def test_lineage_and_card_tell_the_experts_before_and_after(
    make_checkpoint: MakeCheckpoint, tmp_path: Path
) -> None:
    out = more_experts(make_checkpoint("qwen3_moe"), tmp_path / "out", "--experts", "8")
    told = call_hfgrow("lineage", out).stdout
    assert "| experts 4 -> 8\n" in told
    assert "| experts a token 2 -> 4\n" in told
    card = (out / "README.md").read_text()
    assert "grown from 4 to 8 experts, 2 to 4 experts a token by" in card
    assert "| experts | 4 | 8 |" in card


def test_a_dense_model_becomes_a_mixture_that_gets_more_experts_and_is_made_again(
    make_checkpoint: MakeCheckpoint, tmp_path: Path
) -> None:
    """The second growth, of the same seed, has noise of its own."""
    steps, out = tmp_path / "steps.yaml", tmp_path / "out"
    steps.write_text(
        "- upcycle: {experts: 4}\n"
        "- upcycle: {experts: 8, top_k: 2}\n"
        "- upcycle: {experts: 16, top-k: 2, drop: 0.5}\n"
    )
    assert call_hfgrow("apply", steps, make_checkpoint("mistral"), "--out", out).returncode == 0
    router = tensors_of(out)["model.layers.0.block_sparse_moe.gate.weight"]
    fresh, first, second = router[0], router[4] - router[0], router[8] - router[0]
    for one, other in ((fresh, first), (first, second), (fresh, second)):
        assert abs(float(torch.cosine_similarity(one, other, dim=0))) < 0.9
    again = call_hfgrow("reproduce", out)
    assert again.returncode == 0, again.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"experts": 4}, "experts must be a multiple of the 4 experts .* from 8 to 4096, not 4"),
        ({"experts": 2}, "not 2"),
        ({"experts": 10}, "not 10"),
        ({"experts": 1 << 20}, "not 1048576"),
        ({"experts": 8, "top_k": 1}, "of one expert the share is always 1"),
        ({"experts": 8, "top_k": 9}, "top_k must be from 2 to 8, not 9"),
        ({"experts": 8, "shards": 2}, "shards cuts the MLPs of a dense model"),
        ({"experts": 8, "router_noise": -1.0}, "router_noise must be from 0 to 100, not -1.0"),
        ({"experts": 8, "drop": 1.5}, "drop must be from 0 to 1"),
        ({"experts": 8, "seed": -1}, "seed must be"),
    ],
    ids=str,
)
def test_a_mixture_that_cannot_get_such_experts_is_refused(
    arguments: dict[str, object], said: str, make_checkpoint: MakeCheckpoint
) -> None:
    base = read(LocalFolder(make_checkpoint("mixtral")))
    with pytest.raises(UsageError, match=said):
        apply(base, "upcycle", arguments)


def test_noise_between_copies_is_nothing_for_a_dense_model(make_checkpoint: MakeCheckpoint) -> None:
    base = read(LocalFolder(make_checkpoint("mistral")))
    with pytest.raises(UsageError, match=r"router_noise tells copies .* base is dense"):
        apply(base, "upcycle", {"experts": 4, "router_noise": 1.0})


def test_a_family_that_is_neither_is_told_what_works(make_checkpoint: MakeCheckpoint) -> None:
    base = read(LocalFolder(make_checkpoint("gemma")))
    with pytest.raises(UsageError, match="no mixture of experts for a gemma to become") as caught:
        apply(base, "upcycle", {"experts": 4})
    assert "gives more experts to flex_olmo, mixtral, qwen2_moe, qwen3_moe" in caught.value.hint
