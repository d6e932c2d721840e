"""A model that hfgrow grew and another program has trained or saved since."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from hfgrow.console import Silent
from hfgrow.errors import ModelError
from hfgrow.growth.publish import unchanged
from hfgrow.lineage.describe import plain
from hfgrow.lineage.reading import parse_manifest, read_manifest, told_by_config
from tests.program import call_hfgrow
from tests.trained import manifest_in


@pytest.fixture
def saved_elsewhere(base: Path, tmp_path: Path) -> Path:
    """A grown model as another trainer's `save_pretrained` leaves it: config and weights."""
    assert call_hfgrow("stack", base, "--g", "2", "--out", tmp_path / "grown").returncode == 0
    folder = tmp_path / "trained"
    folder.mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copy(tmp_path / "grown" / name, folder / name)
    return folder


@pytest.mark.parametrize(
    "words",
    [("push", "alice/x"), ("lineage",), ("verify",), ("card",), ("reproduce",)],
    ids=lambda words: words[0],
)
def test_what_was_grown_and_saved_elsewhere_is_told_as_that(
    saved_elsewhere: Path, words: tuple[str, ...]
) -> None:
    done = call_hfgrow(words[0], saved_elsewhere, *words[1:])
    assert done.returncode == 3
    assert "hfgrow grew or trained it, by stack from base: another program" in done.stderr
    assert "was not grown by hfgrow" not in done.stderr


def test_growing_what_was_saved_elsewhere_says_that_its_lineage_starts_anew(
    saved_elsewhere: Path, tmp_path: Path
) -> None:
    done = call_hfgrow("stack", saved_elsewhere, "--g", "2", "--out", tmp_path / "again")
    assert done.returncode == 0
    assert "by stack from base, and hfgrow.json is not there" in done.stderr
    manifest = read_manifest(tmp_path / "again")
    assert manifest is not None
    assert len(manifest.chain) == 1


@pytest.fixture
def trained_elsewhere(saved_elsewhere: Path, tmp_path: Path) -> Path:
    """That model with other weights, and the hfgrow.json of what it was trained from beside."""
    shutil.copy(tmp_path / "grown" / "hfgrow.json", saved_elsewhere / "hfgrow.json")
    weights = saved_elsewhere / "model.safetensors"
    raw = bytearray(weights.read_bytes())
    raw[-4:] = b"\0\0\x80\x3f"
    weights.write_bytes(raw)
    return saved_elsewhere


NOTE = "2B of FineWeb's tokens (axolotl, <1 day) & some `code`"


def test_weights_that_changed_say_how_their_training_is_recorded(trained_elsewhere: Path) -> None:
    manifest = manifest_in(trained_elsewhere)
    (file,) = manifest.files.values()
    hashed = manifest.with_result_files({"model.safetensors": replace(file, sha256="0" * 64)})
    with pytest.raises(ModelError, match="changed after growth") as caught:
        unchanged(trained_elsewhere, hashed, Silent())
    assert "--trained-elsewhere NOTE" in caught.value.hint


def test_a_lineage_says_that_it_compares_no_weights_and_verify_how_a_change_is_recorded(
    base: Path, tmp_path: Path
) -> None:
    grown = tmp_path / "grown"
    assert call_hfgrow("stack", base, "--g", "2", "--out", grown).returncode == 0
    weights = grown / "model.safetensors"
    raw = bytearray(weights.read_bytes())
    raw[-4:] = b"\0\0\x80\x3f"
    weights.write_bytes(raw)
    told = call_hfgrow("lineage", grown)
    assert told.returncode == 0
    assert f"hfgrow verify {grown} compares the weights with it" in told.stderr
    refused = call_hfgrow("verify", grown)
    assert refused.returncode == 9
    assert "hfgrow card FOLDER --trained-elsewhere NOTE" in refused.stderr


def test_weights_that_another_program_saved_get_no_card_of_the_growth_and_are_told_without_a_base(
    trained_elsewhere: Path, base: Path
) -> None:
    weights = trained_elsewhere / "model.safetensors"
    save_file(load_file(weights), weights, metadata={"format": "pt", "saved by": "another"})
    base.rename(base.with_name("moved"))
    for word, code in (("card", 3), ("verify", 9)):
        refused = call_hfgrow(word, trained_elsewhere)
        assert refused.returncode == code
        assert "--trained-elsewhere NOTE" in refused.stderr
    assert not (trained_elsewhere / "README.md").exists()
    assert call_hfgrow("card", trained_elsewhere, "--trained-elsewhere", NOTE).returncode == 0
    assert call_hfgrow("verify", trained_elsewhere).returncode == 0


def test_a_training_elsewhere_is_told_wherever_the_model_is(
    trained_elsewhere: Path, tmp_path: Path
) -> None:
    done = call_hfgrow("card", trained_elsewhere, "--trained-elsewhere", NOTE)
    assert done.returncode == 0, done.stderr
    card = (trained_elsewhere / "README.md").read_text()
    assert plain(NOTE) in card
    assert "not trained since" not in card
    assert "Not trained after growth" not in card
    lines = call_hfgrow("lineage", trained_elsewhere).stdout
    assert f"trained by another program, its cost unknown: {NOTE}" in lines
    assert call_hfgrow("verify", trained_elsewhere).returncode == 0
    manifest = manifest_in(trained_elsewhere)
    assert unchanged(trained_elsewhere, manifest, Silent()) == manifest
    assert parse_manifest(json.loads(manifest.to_json())) == manifest
    refused = call_hfgrow("reproduce", trained_elsewhere)
    assert "was trained by another program" in refused.stderr


def test_weights_that_were_grown_and_not_trained_are_known_without_a_recorded_hash(
    base: Path, tmp_path: Path
) -> None:
    assert call_hfgrow("stack", base, "--g", "2", "--out", tmp_path / "grown").returncode == 0
    before = (tmp_path / "grown" / "hfgrow.json").read_bytes()
    assert b"sha256" not in before
    done = call_hfgrow("card", tmp_path / "grown", "--trained-elsewhere", NOTE)
    assert done.returncode == 2
    assert "the weights are those that hfgrow.json records: nothing was trained" in done.stderr
    assert (tmp_path / "grown" / "hfgrow.json").read_bytes() == before


def test_what_grows_from_it_keeps_the_whole_chain(trained_elsewhere: Path, tmp_path: Path) -> None:
    manifest = manifest_in(trained_elsewhere)
    (file,) = manifest.files.values()
    hashed = manifest.with_result_files({"model.safetensors": replace(file, sha256="0" * 64)})
    (trained_elsewhere / "hfgrow.json").write_text(hashed.to_json())
    assert call_hfgrow("card", trained_elsewhere, "--trained-elsewhere", NOTE).returncode == 0
    done = call_hfgrow("stack", trained_elsewhere, "--g", "2", "--out", tmp_path / "again")
    assert "starts anew" not in done.stderr
    manifest = manifest_in(tmp_path / "again")
    assert (len(manifest.chain), [one.note for one in manifest.elsewhere]) == (2, [NOTE])
    assert manifest.trained_since == ()
    assert NOTE in call_hfgrow("lineage", tmp_path / "again").stdout
    card = (tmp_path / "again" / "README.md").read_text()
    assert f"# then trained by another program: {plain(NOTE)}" in card
    assert f"Another program trained what it grew from, as its user says: {plain(NOTE)}." in card
    assert "recorded after that training" not in card
    assert call_hfgrow("verify", tmp_path / "again").returncode == 0


def test_a_model_trained_elsewhere_is_not_pushed_over_what_it_was_grown_as(
    trained_elsewhere: Path,
) -> None:
    done = call_hfgrow("card", trained_elsewhere, "--trained-elsewhere", NOTE)
    assert f"Next: hfgrow push {trained_elsewhere} NAME" in done.stderr
    refused = call_hfgrow("push", trained_elsewhere, "--dry-run")
    assert refused.returncode == 2
    assert "has only the name of what was grown, grown" in refused.stderr


def test_weights_that_changed_once_more_are_refused_again(trained_elsewhere: Path) -> None:
    assert call_hfgrow("card", trained_elsewhere, "--trained-elsewhere", NOTE).returncode == 0
    weights = trained_elsewhere / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + bytes(4))
    assert call_hfgrow("verify", trained_elsewhere).returncode == 9
    with pytest.raises(ModelError, match="changed after"):
        unchanged(trained_elsewhere, manifest_in(trained_elsewhere), Silent())


@pytest.mark.parametrize("note", ["", " \n ", "x" * 201, "a\x1bb"])
def test_a_note_is_a_line_of_text(trained_elsewhere: Path, note: str) -> None:
    before = (trained_elsewhere / "hfgrow.json").read_text()
    done = call_hfgrow("card", trained_elsewhere, "--trained-elsewhere", note)
    assert done.returncode == 2
    assert (trained_elsewhere / "hfgrow.json").read_text() == before


def test_a_lineage_of_a_model_of_other_sizes_is_not_taken(
    trained_elsewhere: Path, base: Path
) -> None:
    shutil.copy(trained_elsewhere / "hfgrow.json", base / "hfgrow.json")
    done = call_hfgrow("card", base, "--trained-elsewhere", NOTE)
    assert done.returncode == 3
    assert "has other sizes than the model" in done.stderr


@pytest.mark.parametrize("after", [0, 2, "1"])
def test_a_training_elsewhere_stands_behind_a_link(trained_elsewhere: Path, after: object) -> None:
    assert call_hfgrow("card", trained_elsewhere, "--trained-elsewhere", NOTE).returncode == 0
    content = json.loads((trained_elsewhere / "hfgrow.json").read_text())
    content["elsewhere"][0]["after"] = after
    with pytest.raises(ModelError, match=r"hfgrow\.json"):
        parse_manifest(content)


@pytest.mark.parametrize(
    ("record", "how"),
    [
        (None, ""),
        (5, ""),
        ({}, "from a base without a name"),
        ({"base": "a\x1bb", "operators": "stack"}, "from a\ufffdb"),
        ({"base": "b", "operators": ["x", 5], "trained_tokens": 7}, "by x, 5 from b"),
    ],
    ids=str,
)
def test_a_record_of_a_stranger_is_only_told(record: object, how: str) -> None:
    assert told_by_config({"hfgrow": record}) == how
