"""The main job through a Hub: from a name to a pushed model, with the program as people run it."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hub_server import Hub
from tests.hub_server.fixtures import hub_environment
from tests.hub_server.machine import BASE, TARGET, Machine
from tests.hub_server.plain_client import sha256

# One push is looked at by most of these, and it takes time.
pytestmark = pytest.mark.xdist_group("hub_growth")


@pytest.fixture(scope="module")
def pushed(hub_with_base: Hub, tmp_path_factory: pytest.TempPathFactory) -> Machine:
    """After `hfgrow stack alice/tiny --g 4 --push`, which the tests below look at."""
    machine = Machine(hub_with_base, tmp_path_factory.mktemp("machine"))
    finished = machine.hfgrow("stack", BASE, "--g", "4", "--push", "--repo", TARGET)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout == "tiny-stack-g4\n"
    # What takes long tells each 5 s; how often it does is the machine's.
    told = [
        line for line in finished.stderr.splitlines() if line and not re.search(r": \d+ s$", line)
    ]
    assert len(told) <= 16
    return machine


def test_every_pushed_file_is_the_local_one(pushed: Machine) -> None:
    remote = pushed.hub.files(TARGET)
    folder = pushed.cwd / "tiny-stack-g4"
    assert set(remote) - {".gitattributes"} == {
        path.name for path in folder.iterdir() if path.name != ".hfgrow-base"
    }
    for name in set(remote) - {".gitattributes"}:
        assert sha256(remote[name]) == sha256(folder / name)


def test_the_push_is_one_commit_on_top_of_the_new_repository(pushed: Machine) -> None:
    titles = [commit.title for commit in pushed.hub.commits(TARGET)]
    assert titles[0] == "Add tiny-stack-g4"
    assert len(titles) == 2


def test_another_machine_gets_the_same_model_with_the_plain_client(
    pushed: Machine, tmp_path: Path
) -> None:
    code = (
        "import sys; from huggingface_hub import snapshot_download;"
        f"print(snapshot_download({TARGET!r}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=hub_environment(pushed.hub, tmp_path, token=None),
        capture_output=True,
        text=True,
        check=True,
    )
    weights = [path for path in Path(done.stdout.strip()).glob("*.safetensors")]
    assert weights
    recorded = json.loads((weights[0].parent / "hfgrow.json").read_text())["chain"][-1]["result"]
    for path in weights:
        assert recorded["files"][path.name]["sha256"] == sha256(path)


def test_the_card_names_the_base_and_inherits_its_licence(pushed: Machine) -> None:
    card = (pushed.cwd / "tiny-stack-g4" / "README.md").read_text()
    for line in (
        f"base_model: {BASE}",
        "base_model_relation: finetune",
        "library_name: transformers",
        "license: apache-2.0",
        "- en",
    ):
        assert line in card.splitlines()
    assert "Only for tests" not in card
    assert str(pushed.home) not in card


def test_the_lineage_ends_at_the_base_and_its_commit(pushed: Machine) -> None:
    finished = pushed.hfgrow("lineage", TARGET, "--json")
    (link,) = json.loads(finished.stdout)["chain"]
    assert (link["base"]["repo_id"], link["base"]["revision"]) == (BASE, pushed.hub.head(BASE))
    assert all(file["sha256"] for file in link["base"]["files"].values())


def test_reproduce_rebuilds_the_same_bytes_from_the_root(pushed: Machine, tmp_path: Path) -> None:
    other = Machine(pushed.hub, tmp_path)
    finished = other.hfgrow("reproduce", TARGET)
    assert finished.returncode == 0, finished.stderr
    assert "equal" in finished.stdout
    assert other.left_behind() == []


@pytest.mark.case("F-17")
def test_a_second_push_is_none(pushed: Machine) -> None:
    before = pushed.hub.head(TARGET)
    finished = pushed.hfgrow("push", "tiny-stack-g4", TARGET, "--json")
    assert json.loads(finished.stdout)["already_pushed"] is True
    again = pushed.hfgrow("stack", BASE, "--g", "4", "--push", "--repo", TARGET, "--overwrite")
    assert again.returncode == 0, again.stderr
    assert pushed.hub.head(TARGET) == before


def test_the_base_is_unchanged_and_its_pickle_was_never_asked_for(pushed: Machine) -> None:
    assert len(pushed.hub.commits(BASE)) == 2
    assert not pushed.hub.lines("training_args.bin")


def test_growing_the_grown_appends_to_the_chain(pushed: Machine) -> None:
    finished = pushed.hfgrow("interpolate", TARGET, "--g", "2", "--out", "twice")
    assert finished.returncode == 0, finished.stderr
    lineage = json.loads(pushed.hfgrow("lineage", "./twice", "--json").stdout)
    assert [link["steps"][0]["operator"] for link in lineage["chain"]] == ["stack", "interpolate"]
    assert lineage["root_layer_map"] == [i // 2 % 4 for i in range(32)]
    assert pushed.hfgrow("reproduce", "./twice").returncode == 0


def test_inspect_reads_headers_and_no_weight(pushed: Machine, tmp_path: Path) -> None:
    other = Machine(pushed.hub, tmp_path)
    already = len(pushed.hub.log)
    document = json.loads(other.hfgrow("inspect", TARGET, "--json").stdout)
    assert document["num_hidden_layers"] == 16
    ranges = [r.range for r in pushed.hub.log[already:] if ".safetensors" in r.line]
    assert not [
        r
        for r in pushed.hub.log[already:]
        if r.line.startswith("GET") and not r.range and "model-0" in r.line and r.status == 200
    ]
    assert any(ranges)


@pytest.fixture
def changed(pushed: Machine) -> Iterator[str]:
    """The name of a copy of the pushed model in which one byte of a weight is another."""
    folder = Path(shutil.copytree(pushed.cwd / "tiny-stack-g4", pushed.cwd / "changed"))
    weights = min(folder.glob("*.safetensors"))
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    yield "changed"
    shutil.rmtree(folder)


def test_weights_that_changed_after_growth_are_not_pushed_as_grown(
    pushed: Machine, changed: str
) -> None:
    finished = pushed.hfgrow("push", changed, "alice/changed")
    assert finished.returncode == 3, finished.stderr
    assert "changed after growth" in finished.stderr
    assert not pushed.hub.lines("/alice/changed/commit")


def test_weights_that_changed_after_growth_are_not_called_reproduced(
    pushed: Machine, changed: str
) -> None:
    finished = pushed.hfgrow("reproduce", f"./{changed}")
    assert finished.returncode == 9, finished.stderr


def test_growing_changed_weights_starts_the_lineage_anew(pushed: Machine, changed: str) -> None:
    finished = pushed.hfgrow("stack", f"./{changed}", "--g", "2", "--out", "anew")
    assert finished.returncode == 0, finished.stderr
    assert "the lineage starts anew" in finished.stderr
    assert len(json.loads((pushed.cwd / "anew" / "hfgrow.json").read_text())["chain"]) == 1


def test_the_card_of_a_local_growth_names_its_new_place_when_it_is_pushed(
    hub_with_base: Hub, tmp_path: Path
) -> None:
    machine = Machine(hub_with_base, tmp_path)
    assert machine.hfgrow("stack", "demo", "--g", "2", "--out", "local").returncode == 0
    assert machine.hfgrow("push", "local", "alice/demo-two").returncode == 0
    card = hub_with_base.files("alice/demo-two")["README.md"]
    text = card.decode() if isinstance(card, bytes) else card.read_text()
    assert 'from_pretrained("alice/demo-two"' in text
    assert "./local" not in text
    # A root without a repository is found again, also two growths later.
    assert machine.hfgrow("stack", "alice/demo-two", "--g", "2", "--out", "four").returncode == 0
    finished = machine.hfgrow("reproduce", "./four")
    assert finished.returncode == 0, finished.stderr


@pytest.mark.case("F-14")
def test_offline_the_cache_is_enough_to_look_and_to_grow(pushed: Machine) -> None:
    assert pushed.hfgrow("pull", TARGET).returncode == 0
    already = len(pushed.hub.log)
    for words in (
        ["inspect", TARGET],
        ["lineage", TARGET],
        ["stack", TARGET, "--g", "2", "-o", "x"],
    ):
        finished = pushed.hfgrow(*words, offline=True)
        assert finished.returncode == 0, finished.stderr
    assert len(pushed.hub.log) == already
