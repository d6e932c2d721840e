"""The main job through a Hub: from a name to a pushed model, with the program as people run it."""

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.checkpoints import MakeCheckpoint
from tests.hub import ALICE, ALICE_READ, Hub
from tests.hub.fixtures import hub_environment
from tests.program import program

pytestmark = pytest.mark.xdist_group("hub_growth")

BASE = "alice/tiny"
TARGET = "alice/tiny-stack-g4"


class Machine:
    """A computer of alice's: a cache, a working folder, and the program."""

    def __init__(self, hub: Hub, home: Path) -> None:
        self.hub, self.home = hub, home
        self.cwd = home / "work"
        self.cwd.mkdir(parents=True)

    def hfgrow(
        self, *words: str, token: str | None = ALICE, offline: bool = False
    ) -> subprocess.CompletedProcess[str]:
        """Run a command, whatever comes out."""
        environment = hub_environment(self.hub, self.home / "hf", token=token)
        if offline:
            environment["HF_HUB_OFFLINE"] = "1"
        finished = subprocess.run(
            [program(), *words], cwd=self.cwd, env=environment, capture_output=True, text=True
        )
        assert "Traceback" not in finished.stderr
        assert not {ALICE, ALICE_READ} & set((finished.stdout + finished.stderr).split())
        return finished

    def left_behind(self) -> list[str]:
        """What lies in the working folder."""
        return sorted(path.name for path in self.cwd.iterdir())


@pytest.fixture(scope="module")
def hub_with_base(
    make_checkpoint: MakeCheckpoint, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Hub]:
    folder = make_checkpoint(sharded=True, tokenizer=True)
    files = {path.name: path for path in folder.iterdir()}
    card = tmp_path_factory.mktemp("card") / "README.md"
    card.write_text("---\nlicense: apache-2.0\nlanguage: en\n---\n# Tiny\n\nOnly for tests.\n")
    with Hub() as hub:
        hub.seed(BASE, {**files, "README.md": card, "training_args.bin": b"\x80\x04 no pickle"})
        yield hub


@pytest.fixture(scope="module")
def pushed(hub_with_base: Hub, tmp_path_factory: pytest.TempPathFactory) -> Machine:
    """After `hfgrow stack alice/tiny --g 4 --push`, which the tests below look at."""
    machine = Machine(hub_with_base, tmp_path_factory.mktemp("machine"))
    finished = machine.hfgrow("stack", BASE, "--g", "4", "--push", "--repo", TARGET)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout == "tiny-stack-g4\n"
    assert len([line for line in finished.stderr.splitlines() if line]) <= 16
    return machine


def sha256(path: Path | bytes) -> str:
    return hashlib.sha256(path if isinstance(path, bytes) else path.read_bytes()).hexdigest()


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


@pytest.mark.case("I3")
def test_a_dry_run_writes_nothing_here_or_there(hub_with_base: Hub, tmp_path: Path) -> None:
    machine = Machine(hub_with_base, tmp_path)
    already = len(hub_with_base.log)
    finished = machine.hfgrow("stack", BASE, "--g", "2", "--push", "--dry-run")
    assert finished.returncode == 0, finished.stderr
    assert "4 -> 8 layers" in finished.stdout
    assert machine.left_behind() == []
    assert not [r for r in hub_with_base.log[already:] if r.line.startswith("POST /api/repos")]


@pytest.mark.case("F-1", "F-2", "F-4", "F-19")
@pytest.mark.parametrize(
    ("token", "words", "code", "message"),
    [
        (None, ["--push"], 4, "no token"),
        (ALICE_READ, ["--push"], 4, "may only read"),
        (ALICE, ["--push", "--repo", BASE], 2, "the base itself"),
        (ALICE, ["--push", "--repo", "bob/tiny"], 4, "neither yours"),
        (ALICE, ["--revision", "nosuch"], 4, "nosuch"),
    ],
    ids=["no-token", "read-token", "onto-the-base", "foreign-namespace", "no-such-revision"],
)
def test_a_push_that_cannot_succeed_is_refused_before_any_work(
    token: str | None,
    words: list[str],
    code: int,
    message: str,
    hub_with_base: Hub,
    tmp_path: Path,
) -> None:
    machine = Machine(hub_with_base, tmp_path)
    already = len(hub_with_base.log)
    finished = machine.hfgrow("stack", BASE, "--g", "2", *words, token=token)
    assert finished.returncode == code, finished.stderr
    assert message in finished.stderr
    assert machine.left_behind() == []
    assert not [r for r in hub_with_base.log[already:] if ".safetensors" in r.line]


@pytest.mark.case("F-6")
def test_a_remote_that_moved_meanwhile_is_a_conflict_and_the_local_model_stays(
    hub_with_base: Hub, tmp_path: Path
) -> None:
    machine = Machine(hub_with_base, tmp_path)
    hub_with_base.fault("POST /api/models/alice/moved/commit/", status=412, times=9)
    words = ["stack", BASE, "--g", "2", "--push", "--repo", "alice/moved", "--no-verify"]
    finished = machine.hfgrow(*words)
    hub_with_base.clear_faults()
    assert finished.returncode == 6, finished.stderr
    assert machine.left_behind() == ["tiny-stack-g2"]
    assert machine.hfgrow("push", "tiny-stack-g2", "alice/moved").returncode == 0


@pytest.mark.case("F-11")
def test_corrupted_weights_are_found_by_their_checksum(hub_with_base: Hub, tmp_path: Path) -> None:
    machine = Machine(hub_with_base, tmp_path)
    fault = hub_with_base.fault("GET /storage/", corrupt_at=100)
    finished = machine.hfgrow("stack", BASE, "--g", "2")
    hub_with_base.clear_faults()
    assert fault.num_hits == 1
    assert finished.returncode == 9, finished.stderr
    assert "model-0" in finished.stderr
    assert machine.left_behind() == []
    assert machine.hfgrow("stack", BASE, "--g", "2").returncode == 0


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


def test_a_push_beside_other_shards_is_refused(hub_with_base: Hub, tmp_path: Path) -> None:
    machine = Machine(hub_with_base, tmp_path)
    push = ["--push", "--repo", "alice/cut", "--no-verify", "--overwrite"]
    size = ["--max-shard-size", "60KB"]
    assert machine.hfgrow("stack", BASE, "--g", "2", *push, *size).returncode == 0
    before = hub_with_base.head("alice/cut")
    finished = machine.hfgrow("stack", BASE, "--g", "2", *push)
    assert finished.returncode == 6, finished.stderr
    assert "model-00001" in finished.stderr
    assert hub_with_base.head("alice/cut") == before


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
