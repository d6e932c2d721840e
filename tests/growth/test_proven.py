"""What was proven of families that no table knows: the table that ships, and what rests on it."""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest

from benchmarks.reach import __main__ as reach
from benchmarks.reach.__main__ import SHIPPED, as_text
from benchmarks.reach.flags import needs_of
from benchmarks.reach.prove import Outcome, base_of, prove
from benchmarks.reach.tiny import TRAITS
from hfgrow.checkpoint.derived.proven import proven, row_of
from hfgrow.checkpoint.files import LocalFolder
from hfgrow.checkpoint.read import read
from hfgrow.errors import ModelError, UsageError
from hfgrow.growth.proven_growths import check_proven
from hfgrow.growth.steps import planned
from hfgrow.plan.families import FAMILIES
from tests.program import call_hfgrow

HERE = version("transformers")


@pytest.fixture(scope="module")
def olmoe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model of a derived family."""
    return base_of("olmoe", tmp_path_factory.mktemp("olmoe") / "base")


def test_a_growth_that_was_not_proven_is_refused(olmoe: Path) -> None:
    family = read(LocalFolder(olmoe)).derived
    assert family is not None
    check_proven(family, ["stack"])
    said = r"stack of a olmoe was not proven with transformers 0\.1, only with 5\.23\.0, 5\.24\.0$"
    with pytest.raises(ModelError, match=said) as older:
        check_proven(replace(family, version="0.1"), ["stack"])
    assert older.value.hint.startswith("pip install transformers==5.24.0; or untested grows it")
    said = rf"stack of a new was not proven with transformers {re.escape(HERE)}$"
    with pytest.raises(ModelError, match=said) as new:
        check_proven(replace(family, model_type="new"), ["stack"])
    assert new.value.hint.startswith("untested grows it all the same")


def test_a_type_that_a_release_does_not_run_is_refused_with_one_that_does(olmoe: Path) -> None:
    family = read(LocalFolder(olmoe)).derived
    assert family is not None
    said = r"stack of a llama4 was not proven with transformers 5\.24\.0, only with 5\.23\.0$"
    with pytest.raises(ModelError, match=said) as refused:
        check_proven(replace(family, model_type="llama4", version="5.24.0"), ["stack"])
    assert refused.value.hint.startswith("pip install transformers==5.23.0; or untested grows it")


def test_a_base_that_transformers_does_not_run_proves_nothing(
    olmoe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import OlmoeForCausalLM

    def forward(*_: object, **__: object) -> None:
        raise ValueError("no")

    folder = Path(shutil.copytree(olmoe, tmp_path / "base"))
    monkeypatch.setattr(OlmoeForCausalLM, "forward", forward)
    outcome = prove(folder, tmp_path / "out", "stack")
    assert outcome == Outcome("not built", "the base does not run: ValueError: no")


def test_the_table_ships_as_it_is_written_and_has_equal_rows_of_releases_once() -> None:
    text = as_text(proven())
    assert SHIPPED.read_text(encoding="utf-8") == text
    assert json.loads(text)["5.24.0"]["olmoe"] == "5.23.0"
    assert proven()["5.24.0"]["olmoe"] == proven()["5.23.0"]["olmoe"]


def _told(row: str, **more: str) -> dict[str, object]:
    verdicts = {**dict.fromkeys(("stack", "interpolate", "partial", "zero-depth"), row), **more}
    return {**verdicts, "zero": {}, "details": {}, "seconds": 0}


def test_kept_rows_of_another_release_are_not_taken_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, asked = tmp_path / "rows.jsonl", list[str]()
    kept = [("0.1", "opt"), (HERE, "olmoe")]
    lines = [json.dumps([*one, _told("right")]) for one in kept]
    rows.write_text("".join(f"{line}\n" for line in lines))

    def tried(types: list[str], _: int) -> list[tuple[str, dict[str, object]]]:
        asked.extend(types)
        return []

    monkeypatch.setattr(reach, "_all", tried)
    assert reach.main(["--only", "opt", "olmoe", "--rows", str(rows)]) == 0
    assert asked == ["opt"]


def test_a_table_with_a_wrong_row_is_not_shipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = {"opt": _told("right"), "olmoe": _told("right", stack="wrong")}
    monkeypatch.setattr(reach, "_all", lambda *_: iter(rows.items()))
    monkeypatch.setattr(reach, "SHIPPED", tmp_path / "proven.json")
    monkeypatch.setattr(reach, "PAGE", tmp_path / "families.md")
    assert reach.main([]) == 1
    assert capsys.readouterr().err == "wrong or crashed, nothing was written: olmoe\n"
    assert list(tmp_path.iterdir()) == []
    rows["olmoe"] = _told("right")
    assert reach.main([]) == 0
    assert json.loads((tmp_path / "proven.json").read_text())[HERE].keys() == rows.keys()


def test_every_type_of_the_installed_transformers_has_a_row() -> None:
    """Where it fails, a new release came: `python -m benchmarks.reach` makes its table."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    rows = proven().get(HERE, {})
    assert sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.keys() - rows.keys() - FAMILIES.keys()) == []


@pytest.fixture(scope="module")
def flagged(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str, bool], Path]:
    """Tiny models with one flag that is not the default of their type, each made once."""
    made: dict[str, Path] = {}

    def get(model_type: str, key: str, value: bool) -> Path:
        if model_type not in made:
            folder = tmp_path_factory.mktemp(model_type) / "base"
            with pytest.MonkeyPatch.context() as patch:
                patch.setitem(TRAITS, model_type, {key: value})
                made[model_type] = base_of(model_type, folder)
        return made[model_type]

    return get


# Where the default decides what has to be zero in a layer that adds nothing.
_OPT = ("opt", "do_layer_norm_before", False)
FLAGS = [
    _OPT,
    ("bloom", "apply_residual_connection_post_layernorm", True),
    ("hyperclovax", "use_post_norm", False),
    ("lfm3", "use_sandwich_norm", False),
]


@pytest.mark.parametrize("operator", ["zero-depth", "random-depth"])
def test_a_flag_that_the_ends_rest_on_is_named(
    operator: str, flagged: Callable[[str, str, bool], Path], tmp_path: Path
) -> None:
    folder, out = flagged(*_OPT), tmp_path / "out"
    refused = call_hfgrow(operator, folder, "--layers", "6", "--out", out)
    assert refused.returncode == 3
    assert (
        f"{operator} of a opt was not proven with do_layer_norm_before false, as config.json has "
        "it, only with true"
    ) in refused.stderr
    assert "--untested" in refused.stderr
    assert not out.exists()
    assert call_hfgrow("stack", folder, "--g", "2", "--out", out).returncode == 0
    shown = call_hfgrow("inspect", folder).stdout
    assert "layers that add nothing (not proven, --untested)" in " ".join(shown.split())


@pytest.mark.parametrize(("model_type", "key", "value"), FLAGS)
def test_ends_that_were_found_with_another_flag_are_not_believed(
    model_type: str, key: str, value: bool, flagged: Callable[[str, str, bool], Path]
) -> None:
    assert row_of(model_type, HERE)["zero"]["needs"] == {key: not value}
    plan = read(LocalFolder(flagged(model_type, key, value)))
    assert plan.derived is not None
    with pytest.raises(ModelError, match=rf"with {key} {str(value).lower()}, as config\.json has"):
        check_proven(plan.derived, ["zero-depth"])
    with pytest.raises((ModelError, UsageError)):
        planned(plan, [("zero-depth", {"g": 2})])


def test_the_flags_that_the_ends_rest_on_are_found_by_turning_each_over() -> None:
    row = row_of("opt", HERE)
    assert needs_of("opt", row["zero"]) == {"do_layer_norm_before": True}


def test_a_layer_without_any_end_is_not_silenced(
    flagged: Callable[[str, str, bool], Path],
) -> None:
    plan = read(LocalFolder(flagged("hyperclovax", "use_post_norm", False)))
    said = r"a hyperclovax add nothing, and layer 0 has none of post_norm1\.weight, post_norm2\.wei"
    with pytest.raises(UsageError, match=said):
        planned(plan, [("zero-depth", {"g": 2})], untested=True)
