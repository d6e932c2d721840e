"""Studies that travel with hfgrow can be carried out; what is wrong in one is said in one line."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from hfgrow.console import Silent
from hfgrow.errors import UsageError
from hfgrow.plan.plan import connection_rate
from hfgrow.study.accounting import total
from hfgrow.study.arms import check_arms, load_study
from hfgrow.study.design import Design, design, selected
from hfgrow.study.study_estimate import estimate
from hfgrow.train.recipe.files import shipped_recipes
from tests.sampling import sampled
from tests.study.studies import tiny

STUDIES = tuple(shipped_recipes("studies"))
STACK = {"grow": {"operator": "stack", "g": 2}}
SIZES = ("miniature", "converged", "h100", "paper")


def designed(name: str, *overrides: str, size: str | None = None) -> Design:
    return design(load_study(name, overrides, size=size), Path("out"))


def written(folder: Path, content: dict[str, Any]) -> str:
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(content))
    return str(path)


def test_the_studies_are_there() -> None:
    assert set(STUDIES) == {
        *("paper-main", "growth-factor", "growth-timing", "partial-stacking"),
        *("function-preservation", "gradual-or-one-hop", "width", "optimizer-state", "schedules"),
        "muon",
    }


@pytest.mark.parametrize(("name", "size"), sampled(STUDIES, SIZES))
def test_every_study_ends_all_its_arms_as_its_target(name: str, size: str) -> None:
    found = designed(name, "seeds=[0]", size=size)
    assert {job.arm for job in found.arms} == set(found.study.arms)
    assert len({job.costs[-1].num_parameters for job in found.arms}) == 1
    assert found.study.compared_with is not None


def test_a_study_that_is_like_another_has_none_of_the_arms_of_its_sizes() -> None:
    assert {"stack-g2", "stack-g3"} < load_study("paper-main", size="converged").arms.keys()
    ours = load_study("optimizer-state", size="converged")
    assert ours.arms.keys() == load_study("optimizer-state").arms.keys()


def test_scratch_of_the_converged_size_sees_20_tokens_for_each_parameter() -> None:
    found = designed("paper-main", "seeds=[0]", size="converged")
    (cost,) = next(job for job in found.arms if job.arm == "scratch").costs
    assert cost.tokens >= 20 * cost.num_parameters


def test_every_study_file_says_where_it_comes_from() -> None:
    for file in shipped_recipes("studies").values():
        head = file.read_text(encoding="utf-8").split("\n\n")[0]
        for key in ("Paper:", "Hardware:", "Expected:", "Run:"):
            assert key in head, file


def test_the_scratch_arm_of_the_paper_costs_as_much_as_its_dearest_arm() -> None:
    found = designed("paper-main", "seeds=[0]", size="paper")
    costs = {job.arm: total(job.costs) for job in found.arms}
    assert costs["scratch"] == pytest.approx(max(costs.values()), rel=1e-3)
    scratch = next(job for job in found.arms if job.arm == "scratch")
    # 97.5B tokens, a base that costs as much as a third of its 10B, and 100 steps for maps.
    assert scratch.costs[0].tokens == pytest.approx(100.9e9, rel=1e-3)


def test_partial_stacking_has_the_connection_rates_of_the_paper() -> None:
    """Table 5, whose 60.7 and 74.0 are 14/23 and 17/23."""
    found = designed("partial-stacking", "seeds=[0]")
    rates = {job.arm: connection_rate(job.layer_map or ()) for job in found.arms}
    assert rates["all"] == pytest.approx(20 / 23)
    assert rates["middle-4"] == pytest.approx(18 / 23)
    assert rates["back-2"] == pytest.approx(14 / 23)
    assert rates["front-3"] == pytest.approx(17 / 23)


def test_an_arm_shares_its_first_stage_with_its_base_and_its_seed_with_its_growth() -> None:
    found = designed("paper-main", "seeds=[7]")
    job = next(job for job in found.arms if job.arm == "random-depth")
    assert job.base is not None
    assert job.recipe.stages[0] == job.base.recipe.stages[0]
    assert job.recipe.seed == 7
    assert job.recipe.stages[1].grow is not None
    assert job.recipe.stages[1].grow.arguments["seed"] == 7


def test_stages_share_out_the_tokens_of_the_study() -> None:
    found = designed("gradual-or-one-hop", "seeds=[0]")
    whole = next(job for job in found.arms if job.arm == "one-hop").costs[-1].tokens
    midas = next(job for job in found.arms if job.arm == "midas")
    own = [cost.tokens for cost in midas.costs if not cost.is_base]
    assert sum(own) == whole
    assert own[0] == own[1] == whole // 8


def test_a_base_without_tokens_is_grown_as_it_is() -> None:
    found = designed("growth-timing", "seeds=[0]")
    untrained = next(job for job in found.arms if job.arm == "d-0")
    assert untrained.base is None
    assert not any(cost.is_base for cost in untrained.costs)


def test_only_what_chosen_arms_need_is_left(tmp_path: Path) -> None:
    found = selected(designed("paper-main", "seeds=[0]"), frozenset({"direct-depth"}))
    assert [job.name for job in found.jobs] == ["base-shallow-seed0", "direct-depth-seed0"]
    with pytest.raises(UsageError, match="no arm stakc"):
        selected(found, frozenset({"stakc"}))


@pytest.mark.parametrize(
    ("changes", "said", "hint"),
    [
        ({"arm": {}}, "there is no key arm", "did you mean arms"),
        ({"base_tokens": None}, "base_tokens", ""),
        ({"arms": {"a": {"base": "small"}}}, "exactly one of grow, stages and scratch", ""),
        ({"arms": {"A b": {"scratch": "target"}}}, "a name of up to 40", ""),
        (
            {"arms": {"a": {"scratch": "equal-compute"}}},
            "arms.a.scratch is 'equal-compute'; expected target",
            "",
        ),
        (
            {
                "arms": {
                    "a": {"scratch": "equal-compute", "train": {"tokens": 9}},
                    "b": {"grow": {"operator": "stack", "g": 2}},
                }
            },
            "arms.a.train.tokens is 9; expected none: equal-compute says",
            "",
        ),
        (
            {"arms": {"base-small": {"scratch": "target"}}},
            "expected another name: base-small is the run of a base",
            "",
        ),
        (
            {"arms": {"a": {"stages": [{"train": {"share": "25%"}}]}}},
            "share is '25%'; expected",
            "",
        ),
        (
            {"arms": {"a": {"stages": [{"train": {"share": 2}}]}}},
            "share is 2; expected a share",
            "",
        ),
        (
            {"arms": {"a": {"stages": [{"train": {}, "grow": {}}]}}},
            "exactly one of train and grow",
            "",
        ),
        ({"arms": {"a": {"stages": [{"grow": {}, "foo": 1}]}}}, "no key arms.a.stages.0.foo", ""),
        (
            {"arms": {"a": {"stages": [{"train": {"share": 0.5, "tokens": 9}}]}}},
            "train.tokens is 9; expected none beside a share",
            "",
        ),
        ({"arms": {"a": {"base": "big", **STACK}}}, "arms.a.base is 'big'", "one of bases: small"),
        (
            {"arms": {"a": {"scratch": "target", "base": "small"}}},
            "an arm from scratch has no base",
            "",
        ),
        (
            {"arms": {"a": {**STACK, "optimizer": {"name": "adamw"}}}},
            "goes on with the optimizer of its base",
            "",
        ),
        ({"sizes": ["small"]}, "sizes is no mapping of names to what they change", ""),
        ({"reference": "nobody"}, "reference is 'nobody'", ""),
        ({"seeds": [1, 1]}, "every seed once", ""),
        ({"like": "nonsense"}, "there is no study nonsense", ""),
    ],
)
def test_what_is_wrong_in_itself_is_one_line(
    tmp_path: Path, changes: dict[str, Any], said: str, hint: str
) -> None:
    with pytest.raises(UsageError) as caught:
        load_study(written(tmp_path, tiny(tmp_path) | changes))
    assert said in str(caught.value)
    assert hint in f"{caught.value} {caught.value.hint}"


@pytest.mark.parametrize(
    ("arm", "said"),
    [
        ({"base": "small", "grow": {"operator": "stack", "g": 3}}, "num_hidden_layers is 3, not 2"),
        ({"base": "small", "grow": {"operator": "stakc"}}, "operator is 'stakc'"),
        ({"base": "small", "grow": {"operator": "stack", "h": 2}}, "no key stages.1.grow.h"),
        ({"scratch": "target", "train": {"learning_rat": 1}}, "did you mean learning_rate"),
        ({"stages": [STACK]}, "do not end in training"),
        ({"stages": [{"train": {}}, STACK, {"train": {}}]}, "nothing is left of the 2,048 tokens"),
        (
            {"stages": [{"train": {"share": 0.25}}, STACK, {"train": {"share": 0.5}}]},
            "train on 1,536 tokens, not on the 2,048",
        ),
        (
            {"grow": {"operator": "stack", "g": 2}, "train": {"trainable": ["nomatch"]}},
            "stages.2: trainable: no tensor name matches nomatch",
        ),
        (
            {**STACK, "train": {"until": {"plateau": 0.01, "evaluations": 1}}},
            "train.until ends a training where nobody knows beforehand, and arms are compared by "
            "what they cost as planned",
        ),
    ],
)
def test_what_an_arm_cannot_do_is_said_with_its_name(
    tmp_path: Path, arm: dict[str, Any], said: str
) -> None:
    study = load_study(written(tmp_path, tiny(tmp_path) | {"arms": {"mine": arm}}))
    with pytest.raises(UsageError) as caught:
        design(study, tmp_path)
    assert said in str(caught.value)
    assert "mine of the study tiny" in str(caught.value)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"hidden_act": "gelu"}, "hidden_act is gelu, not silu"),
        ({"rms_norm_eps": "1e-4"}, "rms_norm_eps is 0.0001, not 1e-06"),
        ({"attention_bias": True}, "attention_bias is True, not False"),
    ],
)
def test_an_arm_that_ends_as_another_model_is_refused(
    tmp_path: Path, other: dict[str, Any], said: str
) -> None:
    bases = {"small": {"config": {"num_hidden_layers": 1, **other}}}
    study = load_study(written(tmp_path, tiny(tmp_path, bases=bases)))
    with pytest.raises(UsageError, match=said):
        design(study, tmp_path)


def test_what_does_not_train_costs_less_of_exact_flops(tmp_path: Path) -> None:
    costs = {}
    for trainable in ("all", "new"):
        arm = {"grow": {"operator": "stack", "g": 2}, "train": {"trainable": trainable}}
        study = load_study(written(tmp_path, tiny(tmp_path, arms={"mine": arm})))
        costs[trainable] = design(study, tmp_path).arms[0].costs[-1]
    assert costs["new"].flops == costs["all"].flops
    assert costs["new"].exact_flops < costs["all"].exact_flops


def test_an_estimate_takes_numbers_for_each_level_of_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2,1")
    found = design(load_study(written(tmp_path, tiny(tmp_path))), tmp_path)
    assert estimate(found, Silent(), num_parallel=1, on_cpu=True).flops_per_s


def test_an_estimate_has_the_tokens_of_all_stages(tmp_path: Path) -> None:
    arm = {"stages": [{"train": {"share": 0.25}}, STACK, {"train": {}}]}
    study = load_study(written(tmp_path, tiny(tmp_path, arms={"mine": arm})))
    found = estimate(design(study, tmp_path), Silent(), num_parallel=1, on_cpu=True)
    assert [run.tokens for run in found.runs] == [1024, 2048]


def test_a_study_is_like_one_that_lies_beside_it(tmp_path: Path) -> None:
    written(tmp_path, tiny(tmp_path))
    (tmp_path / "other.yaml").write_text(
        yaml.safe_dump({"name": "other", "like": "mine.yaml", "arms": {"a": {"scratch": "target"}}})
    )
    found = load_study(tmp_path / "other.yaml")
    assert (found.name, found.base_tokens) == ("other", 1024)


def test_a_size_that_is_none_is_refused() -> None:
    with pytest.raises(UsageError, match="no size huge") as caught:
        load_study("paper-main", size="huge")
    assert "miniature, converged, h100, paper" in caught.value.hint


def test_a_study_without_sizes_has_none(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has no sizes") as caught:
        load_study(written(tmp_path, tiny(tmp_path)), size="huge")
    assert caught.value.hint == "leave out size"


def test_a_study_is_not_like_one_that_is_like_another(tmp_path: Path) -> None:
    written(tmp_path, tiny(tmp_path) | {"like": "paper-main"})
    (tmp_path / "other.yaml").write_text(yaml.safe_dump({"name": "other", "like": "mine.yaml"}))
    with pytest.raises(UsageError, match=r"is like mine\.yaml, which is itself like another"):
        load_study(tmp_path / "other.yaml")


def test_a_choice_without_any_arm_is_refused(tmp_path: Path) -> None:
    study = load_study(written(tmp_path, tiny(tmp_path)))
    with pytest.raises(UsageError, match="no arm is left") as caught:
        check_arms(study, frozenset())
    assert caught.value.hint == "the study has scratch, stack"
