"""A tokenizer that would make gigabytes of a page is refused before any text goes through it."""

import json
from base64 import b64encode
from pathlib import Path
from shutil import copy
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from hfgrow.checkpoint.tokenizer import check_tokenizer_bounds, most_characters
from hfgrow.errors import ModelError, foreign
from tests.program import call_hfgrow

DEMO = Path(__file__).parents[2] / "hfgrow" / "demo"
DOUBLE = {"type": "Replace", "pattern": {"String": "e"}, "content": "ee"}
BYTES = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
APART = {"type": "Split", "pattern": {"Regex": "."}, "behavior": "Isolated", "invert": False}
SPACES = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
TEXT = {"Sequence": {"id": "A", "type_id": 0}}
LONG = b64encode((4).to_bytes(4, "little") + bytes(4) + b"a" * 5000 + b"\0").decode()


def _changed(folder: Path, **parts: object) -> Path:
    """Give a folder the demo's tokenizer with other parts."""
    folder.mkdir(exist_ok=True)
    copy(DEMO / "tokenizer_config.json", folder)
    content = json.loads((DEMO / "tokenizer.json").read_text(encoding="utf-8")) | parts
    (folder / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def _normalizers(*parts: object) -> dict[str, Any]:
    return {"normalizer": {"type": "Sequence", "normalizers": list(parts)}}


def _template(*pieces: object, tokens: object) -> dict[str, object]:
    return {
        "type": "TemplateProcessing",
        "single": pieces,
        "pair": pieces,
        "special_tokens": tokens,
    }


BOMBS: dict[str, dict[str, Any]] = {
    "doubled 24 times": _normalizers(*[DOUBLE] * 24),
    "doubled 40 times, nested": _normalizers(_normalizers(*[DOUBLE] * 40)["normalizer"]),
    "replaced by a long text": _normalizers(DOUBLE | {"content": "e" * 5000}),
    "nothing replaced by a text": _normalizers(
        *[DOUBLE | {"pattern": {"Regex": "x?"}, "content": "a"}] * 13
    ),
    "composed and decomposed": _normalizers(*[{"type": "NFKD"}, DOUBLE | {"content": "ﷺ"}] * 3),
    "nothing, by a span upside down": _normalizers(
        *[DOUBLE | {"pattern": {"Regex": "q{1,0}"}, "content": "e"}] * 13
    ),
    "prepended": _normalizers({"type": "Prepend", "prepend": "a" * 5000}),
    "a long text of a charsmap": _normalizers(
        {"type": "Precompiled", "precompiled_charsmap": LONG}
    ),
    "bytes of bytes": {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [BYTES] * 6}},
    "spaces between characters": {
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [APART, SPACES] * 13}
    },
    "a text many times": {
        "post_processor": {
            "type": "Sequence",
            "processors": [_template(TEXT, TEXT, tokens={})] * 13,
        }
    },
    "a special token of many": {
        "post_processor": _template(
            TEXT,
            {"SpecialToken": {"id": "a", "type_id": 0}},
            tokens={"a": {"id": "a", "ids": [0] * 5000, "tokens": ["a"] * 5000}},
        )
    },
}


@pytest.mark.case("C21")
@pytest.mark.parametrize("name", BOMBS)
def test_a_tokenizer_that_makes_very_much_of_little_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelError, match=r"^tokenizer\.json can make .* characters of one"):
        check_tokenizer_bounds(_changed(tmp_path, **BOMBS[name]))


@pytest.mark.case("C21")
def test_a_growth_is_measured_without_such_a_tokenizer(base: Path, tmp_path: Path) -> None:
    _changed(base, **BOMBS["doubled 24 times"])
    finished = call_hfgrow("stack", base, "--g", "2", "--verify", "--out", tmp_path / "out")
    assert finished.returncode == 0, finished.stderr
    assert "Note: tokenizer.json can make" in finished.stderr


@pytest.mark.case("C21")
def test_no_tokens_are_prepared_with_such_a_tokenizer(base: Path, tmp_path: Path) -> None:
    _changed(base, **BOMBS["doubled 24 times"])
    (tmp_path / "a.txt").write_text("eee\n")
    out = tmp_path / "tokens"
    finished = call_hfgrow("data", "prepare", tmp_path / "a.txt", "--tokenizer", base, "--out", out)
    assert finished.returncode == 3, finished.stderr
    assert "look at its normalizer" in finished.stderr
    assert not out.exists()


ALBERT = _normalizers(
    *[DOUBLE | {"pattern": {"String": "``"}, "content": '"'}] * 2,
    *({"type": kind} for kind in ("NFKD", "StripAccents", "Lowercase")),
    {
        "type": "Precompiled",
        "precompiled_charsmap": b64encode(
            (4).to_bytes(4, "little") + bytes(4) + ("ﷺ" * 18).encode() + b"\0"
        ).decode(),
    },
) | {
    "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, SPACES]},
    "post_processor": _template(
        {"SpecialToken": {"id": "a", "type_id": 0}},
        TEXT,
        {"SpecialToken": {"id": "a", "type_id": 0}},
        tokens={"a": {"id": "a", "ids": [0], "tokens": ["a"]}},
    ),
}


@pytest.mark.case("C21")
@pytest.mark.parametrize(
    ("parts", "config", "said"),
    [
        ({"model": {"type": "WordPiece", "max_input_chars_per_word": 10**9}}, {}, "chars_per_word"),
        (
            _normalizers(DOUBLE | {"pattern": {"String": "é"}, "content": "a" * 4000})
            | {"added_tokens": [{"content": "é" * 8, "normalized": True}] * 5000},
            {},
            "added tokens would fill the memory",
        ),
        ({}, {"tokenizer_class": "T5Tokenizer", "extra_ids": 10**9}, "extra_ids is 1000000000"),
    ],
    ids=["a long word", "added tokens", "extra ids"],
)
def test_other_ways_to_take_all_memory_or_time_are_refused(
    tmp_path: Path, parts: dict[str, Any], config: dict[str, Any], said: str
) -> None:
    folder = _changed(tmp_path, **parts)
    usual = {"model_max_length": 10**30}
    (folder / "tokenizer_config.json").write_text(json.dumps(usual | config))
    with pytest.raises(ModelError, match=said):
        check_tokenizer_bounds(folder)


USUAL: tuple[dict[str, Any], ...] = (
    {},
    _normalizers({"type": "Prepend", "prepend": "▁"}, DOUBLE | {"content": "▁"}),
    _normalizers(
        *[DOUBLE | {"pattern": {"String": "``"}, "content": '"'}] * 2,
        {"type": "NFKD"},
        {"type": "StripAccents"},
        {"type": "Lowercase"},
        DOUBLE | {"pattern": {"Regex": " {2,}"}, "content": " "},
    ),
    {"normalizer": {"type": "NFC"}, "pre_tokenizer": BYTES},
    ALBERT,
)


@pytest.mark.parametrize("parts", USUAL, ids=range(len(USUAL)))
def test_the_tokenizers_of_well_known_families_are_let_through(
    tmp_path: Path, parts: dict[str, object]
) -> None:
    check_tokenizer_bounds(_changed(tmp_path, **parts))


@pytest.mark.case("C21")
@pytest.mark.parametrize(
    "parts",
    [
        {"normalizer": {"type": "Replace", "pattern": 5}},
        {"normalizer": {"normalizers": [DOUBLE] * 24}},
        _normalizers(*[{key: DOUBLE[key] for key in ("pattern", "content")}] * 24),
        {"normalizer": {"type": "Sequence", "normalizers": None}},
        {"normalizer": [5]},
    ],
    ids=["pattern", "outer type", "inner type", "null", "list"],
)
def test_what_cannot_be_read_is_refused_since_the_library_may_read_it(
    tmp_path: Path, parts: dict[str, Any]
) -> None:
    with pytest.raises(ModelError, match="normalizer has a part without a type"):
        check_tokenizer_bounds(_changed(tmp_path, **parts))


@pytest.mark.case("C21")
@pytest.mark.parametrize("key", ["pretokenizers", "processors", "other"])
def test_a_key_that_means_nothing_hides_nothing(tmp_path: Path, key: str) -> None:
    parts = _normalizers(*[DOUBLE] * 24)
    parts["normalizer"] = {**parts["normalizer"], key: None}
    with pytest.raises(ModelError, match="can make"):
        check_tokenizer_bounds(_changed(tmp_path, **parts))


_PIECES = st.sampled_from(
    [
        *({"type": name} for name in ("NFC", "NFD", "NFKC", "NFKD", "Lowercase", "ByteLevel")),
        {"type": "Prepend", "prepend": "ab"},
        DOUBLE,
        DOUBLE | {"pattern": {"Regex": "x?"}, "content": "yz"},
        DOUBLE | {"pattern": {"Regex": r"\s+"}, "content": "é "},
        DOUBLE | {"pattern": {"String": "ab"}, "content": "ﷺaΐ"},
    ]
)


@given(parts=st.lists(_PIECES, max_size=4), text=st.text(max_size=12))
@settings(max_examples=40)
def test_no_text_becomes_longer_than_the_bound(parts: list[dict[str, Any]], text: str) -> None:
    content = json.loads((DEMO / "tokenizer.json").read_text(encoding="utf-8"))
    content |= {"normalizer": {"type": "Sequence", "normalizers": parts}}
    normalizer = Tokenizer.from_str(json.dumps(content)).normalizer
    try:
        with foreign(ModelError):
            made = normalizer.normalize_str(text)
    except ModelError:
        # The library gives up on some texts that change their length more than once.
        assume(False)
    # What is put beside a text is put beside a text of none too.
    assert len(made) <= most_characters(content) * (len(text) + 1)
