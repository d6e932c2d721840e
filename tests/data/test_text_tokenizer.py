"""Tokenizers: one that fits the tokens and the model, and what is refused of others (H14)."""

import json
import shutil
from pathlib import Path

import pytest

from hfgrow.data.prepare import prepare
from hfgrow.data.sources import TextSource
from hfgrow.data.text_tokenizer import TextTokenizer, open_tokenizer
from hfgrow.errors import HubUnreachableError, ModelError, TrainingError
from tests.checkpoints import write_tokenizer
from tests.data.corpora import DEMO, VOCAB_SIZE, prepared, write_stories


def test_tokens_of_another_tokenizer_are_refused(tmp_path: Path, encoder: TextTokenizer) -> None:
    path = write_stories(tmp_path / "a.txt", 3)
    files = prepared(path, tmp_path / "out", encoder)
    config = json.loads((DEMO / "tokenizer.json").read_text())
    other = tmp_path / "other"
    other.mkdir()
    (other / "tokenizer_config.json").write_bytes((DEMO / "tokenizer_config.json").read_bytes())
    (other / "tokenizer.json").write_text(json.dumps(config, indent=1))
    assert open_tokenizer(other).identity == encoder.identity
    merged = config["model"]["merges"]
    merged[0], merged[1] = merged[1], merged[0]
    (other / "tokenizer.json").write_text(json.dumps(config))
    changed = open_tokenizer(other)
    with pytest.raises(TrainingError, match="tokenised with another tokenizer"):
        prepared(path, tmp_path / "out", changed)
    with pytest.raises(TrainingError, match="tokenised with another tokenizer"):
        files.check_tokenizer(changed, VOCAB_SIZE)


def test_a_tokenizer_that_parts_no_documents_is_refused(tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    with pytest.raises(ModelError, match="neither eos_token nor bos_token"):
        open_tokenizer(tmp_path)
    (tmp_path / "none").mkdir()
    with pytest.raises(ModelError, match="has no tokenizer"):
        open_tokenizer(tmp_path / "none")


def test_a_tokenizer_that_only_the_cache_lacks_is_not_said_to_be_missing_in_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = tmp_path / "models--bob--my-model" / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    said = "^the tokenizer of bob/my-model is not in the cache, and offline mode is on$"
    with pytest.raises(HubUnreachableError, match=said):
        open_tokenizer(snapshot)


def test_a_folder_that_transformers_opens_with_another_tokenizer_is_refused(tmp_path: Path) -> None:
    """The class that model_type qwen2 chooses cuts text in its own way, whatever the file says."""
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(DEMO / name, tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "qwen2"}')
    with pytest.raises(ModelError, match=r"opens another tokenizer than tokenizer\.json holds"):
        open_tokenizer(tmp_path)


@pytest.mark.case("H14")
def test_a_token_that_the_model_does_not_have_is_refused(
    tmp_path: Path, encoder: TextTokenizer
) -> None:
    """H14, when it is made and when it is found again."""
    source = TextSource(path=write_stories(tmp_path / "a.txt", 3))
    with pytest.raises(ModelError, match=r"token \d+ .* vocab_size is 50"):
        prepare([source], encoder, tmp_path / "out", vocab_size=50)
    assert not (tmp_path / "out").exists()
    prepare([source], encoder, tmp_path / "out", vocab_size=VOCAB_SIZE)
    with pytest.raises(ModelError, match="vocab_size is 50"):
        prepare([source], encoder, tmp_path / "out", vocab_size=50)


def test_a_tokenizer_that_fails_is_named_whatever_it_raises(tmp_path: Path) -> None:
    """A panic of Rust code is no Exception."""
    for name in ("tokenizer.json", "tokenizer_config.json", "config.json"):
        shutil.copy(DEMO / name, tmp_path)
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    content["pre_tokenizer"] = None
    content["model"] = {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "missing"}
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(ModelError, match=r"cannot encode|can be opened"):
        open_tokenizer(tmp_path).encode(["words that are not there"])
