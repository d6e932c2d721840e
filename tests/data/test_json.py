"""JSON as datasets are published in it: lines, or one list of objects, however it is spread."""

import json
from pathlib import Path

import pytest

from hfgrow.data.text_tokenizer import TextTokenizer
from hfgrow.errors import TrainingError
from tests.data.corpora import documents, expected, prepared, story

ROWS = [{"id": i, "text": story(i, 20), "more": {"a": [1, "]"]}} for i in range(5)]


@pytest.mark.parametrize("indent", [None, 0, 2])
@pytest.mark.parametrize("before", ["", "\ufeff", "\n\n  "])
@pytest.mark.parametrize("block", [7, 100, 1 << 20])
def test_a_list_of_objects_is_read_as_its_rows(
    tmp_path: Path,
    encoder: TextTokenizer,
    monkeypatch: pytest.MonkeyPatch,
    indent: int | None,
    before: str,
    block: int,
) -> None:
    monkeypatch.setattr("hfgrow.data.documents._BLOCK_NBYTES", block)
    path = tmp_path / "a.json"
    path.write_text(before + json.dumps(ROWS, indent=indent, ensure_ascii=False) + "\n")
    files = prepared(path, tmp_path / "out", encoder)
    assert documents(files) == expected(encoder, *[str(row["text"]) for row in ROWS])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('[{"text": "a"}, {"text": "b"}', "ends inside its list"),
        ('[{"text": "a"} {"text": "b"}]', "element 2 is not JSON: no comma"),
        ('[{"text": "a"}, {"text": ]', "element 2 is not JSON"),
        ('[{"text": "a"}] x', "goes on after its list"),
        ('[{"text": "a"}, 5]', "element 2 is a JSON int, not an object"),
        ('[{"text": "a"}, {"content": "b"}]', "element 2 has no column text"),
        ("[", "ends inside its list"),
    ],
)
def test_a_broken_list_is_refused_at_its_element(
    tmp_path: Path, encoder: TextTokenizer, content: str, message: str
) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(TrainingError, match=message):
        prepared(tmp_path / "a.json", tmp_path / "out", encoder)


def test_one_object_over_several_lines_says_what_is_read(
    tmp_path: Path, encoder: TextTokenizer
) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"data": ROWS}, indent=1))
    with pytest.raises(TrainingError, match="line 1 is not JSON") as caught:
        prepared(tmp_path / "a.json", tmp_path / "out", encoder)
    assert "a list of objects" in caught.value.hint
