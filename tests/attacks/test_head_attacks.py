"""Group C: a head that is tied to the embeddings, or should be, or is not there."""

from pathlib import Path

import pytest

from hfgrow.checkpoint.files import LocalFolder
from hfgrow.checkpoint.read import read
from tests.attacks.craft import drop_tensors, edit_config, read_raw, write_raw
from tests.attacks.refusal import assert_refused
from tests.checkpoints import MakeCheckpoint, load, logits
from tests.program import call_hfgrow

HEAD, EMBEDDINGS = "lm_head.weight", "model.embed_tokens.weight"


@pytest.mark.case("C11")
def test_a_head_that_differs_although_tied_is_kept_and_the_flag_corrected(base: Path) -> None:
    edit_config(base, tie_word_embeddings=True)
    plan = read(LocalFolder(base))
    assert HEAD in plan.tensors
    assert plan.config["tie_word_embeddings"] is False
    assert any("differs from the embeddings" in note for note in plan.notes)


@pytest.mark.case("C12")
def test_a_head_that_equals_the_embeddings_it_is_tied_to_is_stored_once(
    make_checkpoint: MakeCheckpoint, base: Path, tmp_path: Path
) -> None:
    weights = base / "model.safetensors"
    header, data = read_raw(weights)
    (head, _), (embeddings, stop) = header[HEAD]["data_offsets"], header[EMBEDDINGS]["data_offsets"]
    same = data[embeddings:stop]
    write_raw(weights, header, data[:head] + same + data[head + len(same) :])
    edit_config(base, tie_word_embeddings=True)
    assert call_hfgrow("stack", base, "--g", "2", "--out", tmp_path / "out").returncode == 0
    assert HEAD not in read_raw(tmp_path / "out" / "model.safetensors")[0]
    model, report = load(tmp_path / "out")
    assert not any(report[key] for key in report if key.endswith("_keys"))
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert logits(model).isfinite().all()


@pytest.mark.case("C13")
def test_an_untied_model_without_a_head_is_refused(base: Path) -> None:
    """C13: transformers would make one at random."""
    drop_tensors(base / "model.safetensors", HEAD)
    assert_refused(base, HEAD, "missing", "tie_word_embeddings")
