"""A hostile hfgrow.json: a base may bring one, and its chain becomes part of ours."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from hfgrow.errors import ModelError
from hfgrow.lineage.card import card_files
from hfgrow.lineage.read import parse_manifest
from tests.links import DOCUMENT
from tests.program import call_hfgrow, run_hfgrow

SHELL = "x'; touch /tmp/evil; echo '"
HTML = '"><script>alert(1)</script>\n![x](http://evil/)`'


def document(**changes: Any) -> dict[str, Any]:
    """The chain of two growths, with changes in the first link's base, step or the link itself."""
    content = copy.deepcopy(DOCUMENT)
    link = content["chain"][0]
    for key, value in changes.items():
        place = link["base"] if key in link["base"] else link["steps"][0]
        (place if key in place else link)[key] = value
    return content


def grown_over(base: Path, out: Path, content: dict[str, Any]) -> str:
    """Grow a base that brings a lineage; return the card that comes out."""
    (base / "hfgrow.json").write_text(json.dumps(content))
    finished = call_hfgrow("stack", base, "--g", "2", "--out", out)
    assert finished.returncode in (0, 3), finished.stderr
    return (out / "README.md").read_text() if finished.returncode == 0 else ""


@pytest.mark.case("G6", "G7")
@pytest.mark.parametrize(
    "changes",
    [
        {"operator": SHELL},
        {"operator": HTML},
        {"arguments": {"pattern": SHELL}},
        {"arguments": {"g": SHELL}},
        {"arguments": {SHELL: 2}},
        {"arguments": {"g": [SHELL]}},
        {"arguments": {"g": {HTML: HTML}}},
        {"num_computed": SHELL},
        {"name": SHELL, "repo_id": None},
        {"name": HTML, "repo_id": None},
        {"repo_id": SHELL},
        {"repo_id": HTML},
        {"repo_id": "a)](javascript:alert(1"},
        {"revision": SHELL},
        {"revision": HTML},
        {"dtype": SHELL},
        {"versions": {HTML: HTML}},
    ],
    ids=str,
)
def test_the_chain_of_a_base_puts_no_code_into_our_card(
    base: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    """G6 and G7: the section "How to reproduce" is there to be pasted into a shell."""
    card = grown_over(base, tmp_path / "out", document(**changes))
    assert "; touch" not in card
    assert "<script" not in card
    assert "](http://evil" not in card
    assert "](javascript" not in card


@pytest.mark.parametrize(
    "depth", [10**12, 10**400, 1e308, 0, -1], ids=["10^12", "10^400", "float", "0", "-1"]
)
def test_a_depth_that_no_model_has_is_refused(depth: float) -> None:
    with pytest.raises(ModelError, match="num_hidden_layers"):
        parse_manifest(document(num_hidden_layers=depth))


def test_a_giant_depth_takes_no_memory(tmp_path: Path) -> None:
    content = document(num_hidden_layers=10**12)
    (tmp_path / "hfgrow.json").write_text(json.dumps(content))
    finished = run_hfgrow("lineage", tmp_path, timeout=20, address_space_nbytes=2 << 30)
    assert finished.returncode == 3, finished.stderr


def test_links_that_do_not_fit_together_are_refused() -> None:
    """The second growth starts from more layers than the first one gave."""
    content = document()
    content["chain"][1]["base"]["num_hidden_layers"] = 9
    content["chain"][1]["steps"][0]["layer_map"] = [8, 8, 8, 8]
    with pytest.raises(ModelError, match=r"hfgrow\.json"):
        parse_manifest(content)


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "/etc/passwd", ".env", "", "..", "a/b.safetensors", "x\n"]
)
def test_a_weight_file_of_a_lineage_is_a_plain_safetensors_name(name: str) -> None:
    """F7: the names in the lineage are what `hfgrow push` hashes and uploads."""
    content = document()
    content["chain"][-1]["result"]["files"] = {name: {"nbytes": 1}}
    with pytest.raises(ModelError, match=r"hfgrow\.json"):
        parse_manifest(content)


def test_a_lineage_without_weight_files_proves_nothing(base: Path, tmp_path: Path) -> None:
    """`hfgrow reproduce` would compare nothing and call it equal."""
    out = tmp_path / "out"
    call_hfgrow("stack", base, "--g", "2", "--out", out)
    content = json.loads((out / "hfgrow.json").read_text())
    content["chain"][0]["result"]["files"] = {}
    (out / "hfgrow.json").write_text(json.dumps(content))
    assert call_hfgrow("reproduce", out, cwd=tmp_path).returncode != 0


@pytest.mark.parametrize(
    "changes",
    [
        {"arguments": {"g": "2"}},
        {"arguments": {"g": 2.5}},
        {"arguments": {"g": True}},
        {"arguments": {"g": 1e300}},
        {"arguments": {"g": 2**53}},
        {"operator": "random-depth", "arguments": {"g": 2, "mask": "x"}},
        {"operator": "random-depth", "arguments": {"g": 2, "mask": False}},
        {"operator": "random-depth", "arguments": {"g": 2, "seed": 0.5}},
        {"arguments": {"g": 1}},
        {"arguments": {"g": [2]}},
        {"arguments": {"layers": 10**30}},
        {"arguments": {"base": 2}},
        {"arguments": {"evil": 2}},
        {"arguments": {"g": 2, "remainder": 7}},
        {"operator": "partial", "arguments": {"pattern": 5}},
        {"operator": "partial", "arguments": {"pattern": "9*9"}},
        {"operator": "__init__", "arguments": {}},
        {"dtype": "junk"},
        {"max_shard_nbytes": -1},
        {"max_shard_nbytes": 0},
    ],
    ids=str,
)
def test_a_hostile_step_is_refused_when_it_is_run_again(
    base: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    out = tmp_path / "out"
    call_hfgrow("stack", base, "--g", "2", "--out", out)
    content = json.loads((out / "hfgrow.json").read_text())
    for key, value in changes.items():
        link = content["chain"][0]
        (link["steps"][0] if key in link["steps"][0] else link)[key] = value
    (out / "hfgrow.json").write_text(json.dumps(content))
    finished = call_hfgrow("reproduce", out, cwd=tmp_path)
    assert finished.returncode == 3, finished.stderr
    assert "a bug in hfgrow" not in finished.stderr


@pytest.mark.case("G5")
def test_the_metadata_of_a_foreign_lineage_cannot_replace_ours() -> None:
    """G5: the card of a link is an allow-list when it is read too."""
    content = document()
    evil = {"base_model": "victim/model", "tags": ["evil"], "license": ["mit"], "model-index": 7}
    content["chain"][-1]["card"] = evil
    try:
        card = card_files(parse_manifest(content))["README.md"]
    except ModelError:
        return
    assert "victim/model" not in card
    assert "evil" not in card


@pytest.mark.parametrize("note", [b"\xff\xfe", b"/etc\0/x", b"", b"\n", b"x" * 10_000], ids=repr)
def test_a_hostile_note_of_the_base_is_no_crash(base: Path, tmp_path: Path, note: bytes) -> None:
    out = tmp_path / "out"
    call_hfgrow("stack", base, "--g", "2", "--out", out)
    (out / ".hfgrow-base").write_bytes(note)
    finished = call_hfgrow("reproduce", out, cwd=tmp_path)
    assert finished.returncode == 3, finished.stderr
