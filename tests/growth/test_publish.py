"""What is looked at before a folder is pushed, and told: settings that load, a licence."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

import hfgrow
from hfgrow.console import Silent
from hfgrow.errors import VerificationError
from hfgrow.growth.lm_eval import read_results
from hfgrow.growth.publish import write_benchmarks
from tests.hub_server import ALICE, Hub
from tests.hub_server.fixtures import IGNORE_CLIENT_WARNING, hub_environment, talk_here
from tests.lm_eval_results import RESULTS
from tests.program import Finished, call_hfgrow, run_hfgrow

pytestmark = pytest.mark.filterwarnings(IGNORE_CLIENT_WARNING)


@pytest.fixture
def grown(base: Path, tmp_path: Path) -> Path:
    """A model grown from a base under a licence without commerce, not pushed yet."""
    (base / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n# Base\n")
    out = tmp_path / "grown"
    assert call_hfgrow("stack", base, "--g", "2", "--out", out).returncode == 0
    return out


@pytest.fixture
def push(hub: Hub, grown: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Finished]:
    """Push it, in this process."""
    talk_here(hub, monkeypatch, token=ALICE)
    return lambda *more: call_hfgrow("push", grown, "alice/grown", *more)


@pytest.mark.case("G8")
def test_a_licence_that_asks_for_a_look_is_told_at_the_push(push: Callable[..., Finished]) -> None:
    finished = push()
    assert finished.returncode == 0, finished.stderr
    assert "Note: The base's licence, cc-by-nc-4.0, allows no commercial use" in finished.stderr


@pytest.mark.case("C22")
@pytest.mark.parametrize(
    ("text", "reason"),
    [("{", "generation_config.json is not JSON"), ('{"max_new_tokens": "many"}', "refuses it")],
    ids=["json", "transformers"],
)
def test_settings_of_generation_that_stop_the_model_from_loading_are_not_pushed(
    hub: Hub, grown: Path, push: Callable[..., Finished], text: str, reason: str
) -> None:
    (grown / "generation_config.json").write_text(text)
    finished = push()
    assert finished.returncode == 3, finished.stderr
    assert reason in finished.stderr
    assert "correct it, or remove it" in finished.stderr
    assert ("model", "alice/grown") not in hub.store.repos


@pytest.mark.parametrize(
    ("token", "said"),
    [(None, "nobody is logged in (hf auth login)"), (ALICE, "offline mode is on")],
    ids=["no-token", "no-network"],
)
def test_a_dry_run_needs_no_login_and_no_network(
    hub: Hub, grown: Path, token: str | None, said: str
) -> None:
    env = hub_environment(hub, grown.parent / "home") | {"HF_HUB_OFFLINE": "1"}
    env["HF_TOKEN"] = token or ""
    found = run_hfgrow("push", grown, "--dry-run", "--private", env=env)
    assert found.returncode == 0, found.stderr
    assert found.stdout == f"{hub.url}/YOU/grown\n"
    assert f"  where  {hub.url}/YOU/grown (private)" in found.stderr
    assert "Note: the Hub was not asked whether you may push there" in found.stderr
    assert said in found.stderr
    assert "Note: YOU stands for the account that pushes" in found.stderr
    assert hub.log == []


def test_a_dry_run_of_a_growth_plans_its_push_alike(hub: Hub, base: Path, tmp_path: Path) -> None:
    env = hub_environment(hub, tmp_path / "home") | {"HF_HUB_OFFLINE": "1", "HF_TOKEN": ALICE}
    words = ("stack", base, "--g", "2", "--push", "--dry-run", "--repo", "mine")
    found = run_hfgrow(*words, env=env, cwd=tmp_path)
    assert found.returncode == 0, found.stderr
    assert "push to         YOU/mine (public, if it is new)" in found.stdout
    assert "Note: the Hub was not asked whether you may push there" in found.stderr
    assert "offline mode is on" in found.stderr
    found = run_hfgrow(*words, "--json", env=env | {"HF_TOKEN": ""}, cwd=tmp_path)
    assert json.loads(found.stdout)["repo"] == "YOU/mine"


def test_a_dry_run_says_what_it_does_not_compare_and_looks_at_sizes(
    grown: Path, push: Callable[..., Finished]
) -> None:
    found = push("--dry-run")
    assert found.returncode == 0, found.stderr
    assert "Note: the weights were not hashed: the push compares them" in found.stderr
    assert "Loading" not in found.stderr
    weights = grown / "model.safetensors"
    save_file(load_file(weights), weights, metadata={"note": "written by another program"})
    found = push("--dry-run")
    assert found.returncode == 3
    assert "model.safetensors is not the file that hfgrow.json records" in found.stderr


COPIED = "Every tensor is copied byte for byte."
UNCOMPARED = "nothing has compared the grown weights with the base since they were written"


def change(model: Path) -> None:
    """Change the last number of a model, a float32, in place."""
    with (model / "model.safetensors").open("r+b") as file:
        file.seek(-4, 2)
        file.write(b"\0\0\x80\x3f")


def sent(hub: Hub, name: str) -> str:
    """Return a text of the model that was pushed."""
    content = hub.files("alice/grown")[name]
    assert isinstance(content, bytes)
    return content.decode()


def test_weights_changed_in_place_since_growth_are_not_pushed_as_that_growth(
    hub: Hub, grown: Path, push: Callable[..., Finished]
) -> None:
    change(grown)
    before = (grown / "hfgrow.json").read_bytes()
    finished = push()
    assert finished.returncode == 9
    assert "differs from model." in finished.stderr
    assert "hfgrow card FOLDER --trained-elsewhere NOTE" in finished.stderr
    assert (grown / "hfgrow.json").read_bytes() == before
    assert ("model", "alice/grown") not in hub.store.repos


def test_a_push_from_python_compares_too(grown: Path, push: Callable[..., Finished]) -> None:
    change(grown)
    with pytest.raises(VerificationError, match=r"differs from model.* of the base"):
        hfgrow.push(grown, "alice/grown")


def test_a_push_that_compared_says_copied_and_records_the_sha256(
    hub: Hub, grown: Path, push: Callable[..., Finished]
) -> None:
    assert COPIED not in (grown / "README.md").read_text()
    finished = push()
    assert finished.returncode == 0, finished.stderr
    assert "nothing has compared" not in finished.stderr
    (link,) = json.loads(sent(hub, "hfgrow.json"))["chain"]
    assert link["result"]["files"]["model.safetensors"]["sha256"]
    assert "uncompared" not in link
    assert COPIED in sent(hub, "README.md")


def test_a_push_without_the_base_says_that_nothing_was_compared_and_so_does_the_card(
    hub: Hub, base: Path, grown: Path, push: Callable[..., Finished]
) -> None:
    base.rename(base.with_name("moved"))
    finished = push()
    assert finished.returncode == 0, finished.stderr
    assert (
        "Note: nothing has compared the weights with the base since they were grown: the base base "
        "is not at hand; hfgrow.json and card say so" in finished.stderr
    )
    card = sent(hub, "README.md")
    assert UNCOMPARED in card
    assert COPIED not in card
    assert "not trained since, as far as is recorded" in card
    assert call_hfgrow("card", grown, "--repo", "alice/grown").returncode == 0
    assert (grown / "README.md").read_text() == card


def test_a_second_push_compares_what_the_first_could_not(
    base: Path, grown: Path, push: Callable[..., Finished]
) -> None:
    base.rename(base.with_name("moved"))
    assert push().returncode == 0
    base.with_name("moved").rename(base)
    assert push().returncode == 0
    assert COPIED in (grown / "README.md").read_text()


def test_weights_that_were_hashed_without_a_comparison_may_still_be_recorded_as_trained(
    base: Path, grown: Path, push: Callable[..., Finished]
) -> None:
    change(grown)
    base.rename(base.with_name("moved"))
    assert push().returncode == 0
    base.with_name("moved").rename(base)
    assert push().returncode == 9
    assert call_hfgrow("card", grown, "--trained-elsewhere", "a note").returncode == 0
    assert push().returncode == 0


def test_a_sha256_of_the_time_of_benchmarks_does_not_stand_for_one_of_the_growth(
    grown: Path, push: Callable[..., Finished]
) -> None:
    change(grown)
    assert write_benchmarks(grown, list(read_results(RESULTS)), Silent())
    assert UNCOMPARED in (grown / "README.md").read_text()
    assert push().returncode == 9


def test_a_card_that_was_edited_stays_and_the_push_says_so(
    base: Path, grown: Path, push: Callable[..., Finished]
) -> None:
    base.rename(base.with_name("moved"))
    (grown / "README.md").write_text("# Mine\n")
    assert "hfgrow.json says so, and the card, which was edited, stays as it is" in push().stderr
    assert (grown / "README.md").read_text() == "# Mine\n"


def test_tensors_that_cannot_be_computed_here_are_not_compared(
    base: Path, tmp_path: Path, push: Callable[..., Finished], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "computed"
    assert (
        call_hfgrow("stack", base, "--g", "2", "--dtype", "bfloat16", "--out", out).returncode == 0
    )
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "numpy", None)
        finished = call_hfgrow("push", out, "alice/computed")
    assert finished.returncode == 0, finished.stderr
    assert "since they were grown: computing tensors needs numpy, which is not" in finished.stderr
    assert call_hfgrow("push", out, "alice/computed").returncode == 0
    assert UNCOMPARED not in (out / "README.md").read_text()


def test_weights_with_a_sha256_of_their_growth_are_not_compared_again(
    base: Path, grown: Path, push: Callable[..., Finished]
) -> None:
    assert push().returncode == 0
    change(base)
    finished = push()
    assert finished.returncode == 0, finished.stderr
    assert "Already there" in finished.stderr


def test_a_dry_run_says_which_base_the_push_will_compare_with(
    base: Path, push: Callable[..., Finished]
) -> None:
    compared = f"no sha256 was recorded at growth: the push compares the weights with {base}"
    assert f"Note: {compared}" in push("--dry-run").stderr
    base.rename(base.with_name("moved"))
    assert "the base base is not at hand" in push("--dry-run").stderr


def test_a_card_says_of_a_model_between_that_nothing_compared_it(
    grown: Path, tmp_path: Path, push: Callable[..., Finished]
) -> None:
    again = tmp_path / "again"
    assert call_hfgrow("stack", grown, "--g", "2", "--out", again).returncode == 0
    assert call_hfgrow("push", again, "alice/again").returncode == 0
    card = (again / "README.md").read_text()
    assert COPIED in card
    assert "layers; as far as is recorded, nothing has compared it with what it was grown" in card
