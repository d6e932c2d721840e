"""What is looked at before a folder is pushed, and told: settings that load, a licence."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from tests.hub_server import ALICE, Hub
from tests.hub_server.fixtures import IGNORE_CLIENT_WARNING, hub_environment, talk_here
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
