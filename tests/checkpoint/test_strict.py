"""JSON of strangers: the same as json.loads where that is safe, one clear refusal elsewhere."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hfgrow.checkpoint.strict import is_int, parse_json_object
from hfgrow.errors import ModelError
from tests.attacks.refusal import result_or_refusal

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)
LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT
VALUES: st.SearchStrategy[Any] = st.recursive(
    LEAVES.filter(lambda leaf: leaf not in (float("inf"), -float("inf"))),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


@given(content=st.dictionaries(TEXT, VALUES, max_size=4), ascii_only=st.booleans())
def test_an_object_is_read_as_json_reads_it(content: dict[str, Any], ascii_only: bool) -> None:
    raw = json.dumps(content, ensure_ascii=ascii_only).encode()
    assert parse_json_object(raw, "x.json") == content


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(raw: bytes) -> None:
    found, message = result_or_refusal(lambda: parse_json_object(raw, "x.json"))
    if found is None:
        assert "x.json" in message
        assert message.isprintable()
    else:
        assert found == json.loads(raw)


@given(st.text(alphabet='{}[]":,0123456789eE.-ntf\\u \ud83d', max_size=30))
def test_nearly_json_is_read_or_refused(text: str) -> None:
    raw = text.encode("utf-8", "surrogatepass")
    _, message = result_or_refusal(lambda: parse_json_object(raw, "x.json"))
    assert message.isprintable()


@pytest.mark.parametrize(
    ("raw", "word"),
    [
        (b'{"a": 1, "a": 1}', "'a' stands twice"),
        (b'{"a": {"b": [], "b": []}}', "'b' stands twice"),
        (b'{"a": 1, "\\u0061": 2}', "'a' stands twice"),
        (b'{"a": NaN}', "NaN is no JSON value"),
        (b'{"a": [-Infinity]}', "-Infinity is no JSON value"),
        (b'{"a": 1e400}', "1e400 is no JSON value"),
        (b'{"a": "\\ud83d"}', "half of a surrogate pair"),
        (b'{"\\uDE00": 1}', "half of a surrogate pair"),
        (b"5", "not a int"),
        (b"{} {}", "not JSON"),
        (b"\x1b[31m", "not JSON"),
        (b'{"a": "\xc3\x28"}', "not UTF-8 (byte 7)"),
    ],
)
def test_what_two_parsers_could_read_differently_is_refused(raw: bytes, word: str) -> None:
    with pytest.raises(ModelError) as caught:
        parse_json_object(raw, "x.json")
    assert word in str(caught.value)


def test_a_whole_surrogate_pair_is_read() -> None:
    assert parse_json_object(b'{"a": "\\ud83d\\ude00"}', "x.json") == {"a": "\U0001f600"}


@pytest.mark.parametrize(
    ("value", "expected"), [(0, True), (-5, True), (10**30, True), (True, False), (2.0, False)]
)
def test_true_and_floats_are_no_integers(value: object, expected: bool) -> None:
    assert is_int(value) is expected
