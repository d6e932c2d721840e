"""Models that were trained: grown on, verified, told, pushed, and not called derivable."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from hfgrow.console import Silent
from hfgrow.errors import ModelError
from hfgrow.growth.publish import own_files, publish
from hfgrow.hub.client import HubClient
from hfgrow.lineage.reading import read_manifest
from tests.checkpoints import MakeCheckpoint, copied_models
from tests.hub_server import ALICE, Hub
from tests.hub_server.fixtures import IGNORE_CLIENT_WARNING
from tests.program import Finished, call_hfgrow
from tests.trained import DECLARED, PNG, manifest_in, write_trained


@pytest.fixture(scope="module")
def made(make_checkpoint: MakeCheckpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `base`, `grown` from it, `trained` from that, and `again`, grown from that."""
    folder = tmp_path_factory.mktemp("trained")
    shutil.copytree(make_checkpoint(tokenizer=True), folder / "base")
    succeed("stack", "base", "--g", "2", "--out", "grown", cwd=folder)
    write_trained(folder / "grown", folder / "trained")
    succeed("zero-depth", "trained", "--g", "2", "--out", "again", cwd=folder)
    return folder


@pytest.fixture
def work(made: Path, tmp_path: Path) -> Path:
    """The same in a folder that the test may change; the notes of the bases' places follow."""
    return copied_models(made, tmp_path / "work")


def succeed(*words: str, cwd: Path) -> Finished:
    finished = call_hfgrow(*words, cwd=cwd)
    assert finished.returncode == 0, finished.stderr
    return finished


def refused(*words: str, cwd: Path) -> str:
    finished = call_hfgrow(*words, cwd=cwd)
    assert finished.returncode == 3, finished.stderr
    return finished.stderr


def test_growing_a_trained_model_goes_on_with_its_chain(made: Path) -> None:
    trained, again = read_manifest(made / "trained"), read_manifest(made / "again")
    assert trained is not None
    assert again is not None
    assert again.chain[:2] == trained.chain
    assert again.growth.base.name == "trained"
    assert again.growth.base.files == trained.link.result.files


def test_growing_keeps_what_was_declared_of_the_root(work: Path) -> None:
    manifest = read_manifest(work / "trained")
    assert manifest is not None
    (work / "trained" / "hfgrow.json").write_text(
        replace(manifest, root_compute=DECLARED).to_json()
    )
    succeed("stack", "trained", "--g", "2", "--out", "declared", cwd=work)
    found = read_manifest(work / "declared")
    assert found is not None
    assert found.root_compute == DECLARED


def test_growing_a_model_trained_elsewhere_since_starts_a_lineage_anew(work: Path) -> None:
    weights = work / "trained" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    finished = succeed("stack", "trained", "--g", "2", "--out", "new", cwd=work)
    assert "starts anew" in finished.stderr
    manifest = read_manifest(work / "new")
    assert manifest is not None
    assert len(manifest.chain) == 1


def test_trained_weights_are_compared_with_their_record(work: Path) -> None:
    assert "as its training recorded" in succeed("verify", "trained", cwd=work).stdout
    weights = work / "trained" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    finished = call_hfgrow("verify", "trained", cwd=work)
    assert finished.returncode == 9
    assert "its training recorded" in finished.stderr


def test_the_model_of_a_run_is_named_after_the_run(work: Path) -> None:
    (work / "my-run").mkdir()
    (work / "trained").rename(work / "my-run" / "final")
    succeed("stack", "my-run/final", "--g", "2", cwd=work)
    manifest = read_manifest(work / "my-run-stack-g2")
    assert manifest is not None
    assert manifest.growth.base.name == "my-run"


def test_a_growth_from_trained_weights_is_verified_against_them(work: Path) -> None:
    before = succeed("verify", "again", cwd=work).stdout
    assert "equal to what the plan makes of the base" in before
    shutil.rmtree(work / "base")
    shutil.rmtree(work / "grown")
    assert succeed("verify", "again", cwd=work).stdout == before


def test_trained_weights_are_not_compared_with_a_base(made: Path) -> None:
    finished = call_hfgrow("verify", "trained", "--base", "base", cwd=made)
    assert finished.returncode == 2
    assert "a trained model is compared with its record, not with a base or text" in finished.stderr


def test_a_trained_model_is_not_reproduced(made: Path) -> None:
    message = refused("reproduce", "./trained", cwd=made)
    assert "each growth is reproducible, trained weights are not" in message
    assert "hfgrow reproduce FOLDER" in message
    assert "grown" in message


def test_where_the_last_link_is_a_growth_reproduce_names_the_proof_there_is(made: Path) -> None:
    assert "hfgrow verify" in refused("reproduce", "./again", cwd=made)


def test_the_growth_below_a_training_is_reproduced(made: Path) -> None:
    assert "model.safetensors" in succeed("reproduce", "./grown", cwd=made).stdout


def test_the_lineage_of_a_trained_model_tells_both_and_what_they_cost(made: Path) -> None:
    text = succeed("lineage", "again", cwd=made).stdout
    for line in (
        "      | hfgrow stack base --g 2",
        "      | trained on 1 M tokens of org/texts, notes.txt",
        "      | loss on held.txt: 3.000 before growth, 4.250 -> 2.500",
        "      | hfgrow zero-depth trained --g 2",
    ):
        assert line in text.splitlines()
    assert "unknown" in text


def test_the_lineage_of_a_growth_alone_has_no_table_of_costs(made: Path) -> None:
    assert "FLOPs" not in succeed("lineage", "grown", cwd=made).stdout


def test_the_lineage_as_json_has_the_ledger(made: Path) -> None:
    content = json.loads(succeed("lineage", "trained", "--json", cwd=made).stdout)
    assert [link["kind"] for link in content["chain"]] == ["growth", "training"]
    kinds = [stage["kind"] for stage in content["ledger"]["stages"]]
    assert kinds == ["root", "growth", "training"]
    assert content["ledger"]["recorded"]["tokens"] == 1_000_000
    assert content["ledger"]["total"]["tokens"] is None


def test_the_card_is_written_again_with_its_picture(work: Path) -> None:
    before = (work / "trained" / "README.md").read_text()
    assert "loss.png" in before
    (work / "trained" / "README.md").unlink()
    succeed("card", "trained", cwd=work)
    assert (work / "trained" / "README.md").read_text() == before


def test_the_picture_of_the_loss_is_pushed_where_there_was_training(work: Path) -> None:
    (work / "trained" / "other.png").write_bytes(PNG)
    (work / "grown" / "loss.png").write_bytes(PNG)
    files = own_files(work / "trained", manifest_in(work / "trained"))
    assert "loss.png" in files
    assert "other.png" not in files
    assert "loss.png" not in own_files(work / "grown", manifest_in(work / "grown"))
    (work / "trained" / "loss.png").unlink()
    assert "loss.png" not in own_files(work / "trained", manifest_in(work / "trained"))


@pytest.mark.filterwarnings(IGNORE_CLIENT_WARNING)
def test_a_trained_model_is_pushed_as_it_lies_there(work: Path, hub: Hub) -> None:
    folder = work / "trained"
    (folder / "train.log").write_text("nobody else's business")
    client = HubClient(endpoint=hub.url, token=ALICE)
    pushed = publish(folder, "alice/trained", client, Silent(), private=False)
    assert pushed.url.endswith("alice/trained")
    remote = hub.files("alice/trained")
    assert set(remote) - {".gitattributes"} == {
        path.name for path in folder.iterdir() if path.name not in (".hfgrow-base", "train.log")
    }
    sent = {name: f if isinstance(f, bytes) else f.read_bytes() for name, f in remote.items()}
    assert sent["loss.png"] == PNG
    card = sent["README.md"].decode()
    assert 'from_pretrained("alice/trained"' in card
    assert "![loss](loss.png)" in card
    assert publish(folder, "alice/trained", client, Silent()).already


@pytest.mark.filterwarnings(IGNORE_CLIENT_WARNING)
def test_a_model_trained_on_since_its_record_is_not_pushed(work: Path, hub: Hub) -> None:
    weights = work / "trained" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    client = HubClient(endpoint=hub.url, token=ALICE)
    with pytest.raises(ModelError, match="changed after that training"):
        publish(work / "trained", "alice/trained", client, Silent(), private=False)


def test_a_training_of_a_root_is_a_chain_of_its_own(work: Path) -> None:
    write_trained(work / "base", work / "only", picture=False)
    manifest = manifest_in(work / "only")
    assert manifest.root.name == "base"
    text = succeed("lineage", "only", cwd=work).stdout
    assert text.startswith("root  base: 4 layers")
    message = refused("reproduce", "./only", cwd=work)
    assert "sha256 in hfgrow.json" in message
