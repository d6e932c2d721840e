"""A hostile hfgrow.json: a base may bring one, and its chain becomes part of ours.

A hostile record of training in hfgrow.json: nothing is believed before it has its shape.
"""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from hfgrow.errors import ModelError
from hfgrow.lineage.card import card_files
from hfgrow.lineage.reading import parse_manifest
from tests.links import DOCUMENT, link
from tests.program import call_hfgrow, run_hfgrow
from tests.trained import document_of, then_trained

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
    "depth", [10**12, 10**400, 1e308, -1], ids=["10^12", "10^400", "float", "-1"]
)
def test_a_depth_that_no_model_has_is_refused(depth: float) -> None:
    with pytest.raises(ModelError, match="num_hidden_layers"):
        parse_manifest(document(num_hidden_layers=depth))


def test_copies_of_a_model_without_layers_are_refused() -> None:
    with pytest.raises(
        ModelError,
        match=r"^hfgrow\.json is damaged: layer_map is 'stack takes layers that its base lacks'$",
    ):
        parse_manifest(document(num_hidden_layers=0))


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


TRAINED_DOCUMENT = document_of(then_trained(link(2, [0, 1, 0, 1], card={"license": "mit"})))
NO_NUMBERS: tuple[Any, ...] = (
    -1,
    float("nan"),
    float("inf"),
    10**400,
    True,
    None,
    "1",
    [1],
    {"a": 1},
    SHELL,
)
NO_TEXTS: tuple[Any, ...] = (None, "", 5, True, [], {}, "x" * 5000, HTML, SHELL, "a\x1b[31mb", "`")


def training_document(path: str, value: object) -> dict[str, Any]:
    """The chain of a growth and a training, with one value of the training replaced."""
    content = copy.deepcopy(TRAINED_DOCUMENT)
    place: Any = content["chain"][1]
    *keys, last = path.split(".")
    for key in keys:
        place = place[int(key) if key.isdigit() else key]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return content


def check_refused(content: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match=r"hfgrow\.json"):
        parse_manifest(content)


def test_the_record_itself_is_good() -> None:
    assert len(parse_manifest(copy.deepcopy(TRAINED_DOCUMENT)).trainings) == 1


@pytest.mark.parametrize(
    "path",
    [
        "stage",
        "learning_rate",
        "batch_tokens",
        "sequence_length",
        "seed",
        "data.0.tokens",
        "data.0.weight",
        "compute.num_parameters",
        "compute.num_non_embedding_parameters",
        "compute.tokens",
        "compute.flops",
        "evaluations.0.num_tokens",
        "evaluations.0.before",
        "evaluations.0.after",
        "evaluations.0.bits_per_byte_before",
        "evaluations.0.bits_per_byte_after",
    ],
)
@pytest.mark.parametrize("value", NO_NUMBERS, ids=repr)
def test_a_number_is_one_and_bounded(path: str, value: object) -> None:
    check_refused(training_document(path, value))


@pytest.mark.parametrize(
    "path",
    [
        "compute.exact_flops",
        "compute.seconds",
        "compute.devices",
        "evaluations.0.before_growth",
        "evaluations.0.recovered_tokens",
    ],
)
@pytest.mark.parametrize("value", [v for v in NO_NUMBERS if v is not None], ids=repr)
def test_a_number_that_may_be_unknown_is_one_and_bounded(path: str, value: object) -> None:
    check_refused(training_document(path, value))
    parse_manifest(training_document(path, ...))


@pytest.mark.parametrize(
    "path",
    [
        "optimizer",
        "schedule",
        "precision",
        "trainable",
        "compute.source",
        "data.0.kind",
        "data.0.split",
        "data.0.fingerprint",
    ],
)
@pytest.mark.parametrize("value", NO_TEXTS, ids=lambda value: repr(value)[:20])
def test_a_text_has_its_shape(path: str, value: object) -> None:
    check_refused(training_document(path, value))


@pytest.mark.parametrize("path", ["compute.device", "data.0.dataset"])
@pytest.mark.parametrize(
    "value", [v for v in NO_TEXTS if v is not None], ids=lambda value: repr(value)[:20]
)
def test_a_text_that_may_be_absent_has_its_shape(path: str, value: object) -> None:
    check_refused(training_document(path, value))
    parse_manifest(training_document(path, ...))


@pytest.mark.parametrize("path", ["data.0.label", "evaluations.0.label"])
@pytest.mark.parametrize(
    "value", [None, "", 5, [], "a\x1b[31mb", "a\nb", "\u202eabc", "x" * 5000], ids=repr
)
def test_a_label_can_be_printed(path: str, value: object) -> None:
    check_refused(training_document(path, value))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("kind", "Training"),
        ("kind", ["training"]),
        ("kind", None),
        ("base", None),
        ("result", ...),
        ("versions", {HTML: HTML}),
        ("versions", "1"),
        ("card", "mit"),
        ("data", []),
        ("data", {}),
        ("data", "org/texts"),
        ("data", [5]),
        ("data", [TRAINED_DOCUMENT["chain"][1]["data"][0]] * 1001),
        ("data.1.dataset", "org/texts"),
        ("data.1.label", "/home/somebody/texts.txt"),
        ("data.0.split", "train[:99%"),
        ("data.0.split", "train[a:b]"),
        ("data.0.dataset", "a/b/c"),
        ("data.0.dataset", "../../etc"),
        ("data.0.dataset", "a)](javascript:alert(1"),
        ("data.0.fingerprint", "AB" * 32),
        ("data.0.fingerprint", "ab" * 31),
        ("compute", ...),
        ("compute", 5),
        ("compute.flops", 1e30),
        ("compute.tokens", 10**15),
        ("compute.source", "guessed"),
        ("compute.devices", 0),
        ("compute.devices", 10**9),
        ("compute.devices", 1.5),
        ("evaluations", ...),
        ("evaluations", None),
        ("evaluations", [[]]),
        ("evaluations", [TRAINED_DOCUMENT["chain"][1]["evaluations"][0]] * 1001),
        ("settings", 5),
        ("settings", {"a`b": 1}),
        ("settings", {"eps": "`x`"}),
        ("settings", {"eps": [1]}),
        ("settings", {f"key{i}": 1 for i in range(101)}),
        ("evaluations.0.num_tokens", 0),
        ("evaluations.0.recovered_tokens", 0.5),
        ("seed", 1 << 32),
        ("stage", 10**6),
        ("batch_tokens", 0),
        ("sequence_length", 0),
        ("result.num_parameters", 41),
        ("result.num_hidden_layers", 5),
        ("result.files", {}),
        ("result.files", {"../../etc/passwd": {"nbytes": 1}}),
        ("base.num_hidden_layers", 5),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_what_a_training_cannot_say_is_refused(path: str, value: object) -> None:
    check_refused(training_document(path, value))


def test_training_that_changes_a_width_is_refused() -> None:
    content = training_document("result.hidden_size", 64)
    content["chain"][1]["base"]["hidden_size"] = 32
    check_refused(content)


@pytest.mark.parametrize("value", [5, "much", [], {}, {"tokens": 1}], ids=repr)
def test_the_declared_cost_of_a_root_has_its_shape(value: object) -> None:
    check_refused({**copy.deepcopy(TRAINED_DOCUMENT), "root_compute": value})


@pytest.mark.parametrize("label", [HTML.replace("\n", ""), SHELL, "a](http://evil)", "| a | b"])
def test_a_label_that_can_be_printed_becomes_no_markup(
    base: Path, tmp_path: Path, label: str
) -> None:
    content = training_document("evaluations.0.label", label)
    text = card_files(parse_manifest(content))["README.md"]
    for markup in ("<script", "](http://evil", "touch /tmp/evil;", "| a |"):
        assert markup not in text
    (base / "hfgrow.json").write_text(json.dumps(content))
    finished = call_hfgrow("lineage", base)
    assert finished.returncode == 0, finished.stderr


@pytest.mark.parametrize("key", ["stack", "verify", "reproduce", "card", "lineage"])
def test_a_bad_record_of_training_ends_a_command_in_one_line(
    base: Path, tmp_path: Path, key: str
) -> None:
    (base / "hfgrow.json").write_text(json.dumps(training_document("compute.flops", -1)))
    more = {"stack": ("--g", "2", "--out", str(tmp_path / "out"))}.get(key, ())
    finished = call_hfgrow(key, base, *more)
    assert finished.returncode == 3, finished.stderr
    assert "hfgrow.json is damaged: flops" in finished.stderr


def test_giant_numbers_take_no_memory(tmp_path: Path) -> None:
    content = training_document("compute.tokens", 1 << 62)
    tokens, size = 1 << 62, 40
    content["chain"][1]["compute"]["flops"] = 6.0 * tokens * size
    content["chain"][1]["batch_tokens"] = content["chain"][1]["sequence_length"] = 1 << 62
    (tmp_path / "hfgrow.json").write_text(json.dumps(content))
    finished = run_hfgrow("lineage", tmp_path, timeout=30, address_space_nbytes=2 << 30)
    assert finished.returncode == 0, finished.stderr
