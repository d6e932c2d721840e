"""What a push of an untrained stack sends: Xet stores identical layers once.

hf_xet chunks, deduplicates and hashes here as it does for the Hub, into a folder instead of the
Hub's storage.
"""

from pathlib import Path

import pytest

from hfgrow.checkpoint.files import LocalFolder
from hfgrow.checkpoint.layout import lay_out
from hfgrow.checkpoint.read import read
from hfgrow.checkpoint.write import write
from hfgrow.lineage.manifest import non_embedding_parameters
from hfgrow.plan.operators import OPERATORS
from tests.checkpoints import MakeCheckpoint

hf_xet = pytest.importorskip("hf_xet")


@pytest.mark.xet
@pytest.mark.xdist_group("xet")
@pytest.mark.parametrize("operator", ["stack", "interpolate"])
def test_a_stack_sends_the_share_of_bytes_that_the_base_has(
    operator: str, make_checkpoint: MakeCheckpoint, tmp_path: Path
) -> None:
    folder = make_checkpoint(
        "llama",
        dtype="bfloat16",
        traits=False,
        vocab_size=4096,
        hidden_size=384,
        intermediate_size=1024,
        num_hidden_layers=6,
        num_attention_heads=6,
        num_key_value_heads=2,
    )
    base = read(LocalFolder(folder))
    assert 20e6 < base.nbytes < 30e6
    grown = OPERATORS[operator].function(base, g=4)
    write(grown, lay_out(grown), tmp_path / "grown", finish=lambda staging: {})
    layers = non_embedding_parameters(base)
    embeddings = base.num_parameters - layers
    expected = (embeddings + layers) / (embeddings + 4 * layers)

    storage = tmp_path / "xet"
    storage.mkdir()
    commit = hf_xet.XetSession().new_upload_commit(endpoint=f"local://{storage}")
    commit.start_upload_file(str(tmp_path / "grown" / "model.safetensors"))
    metrics = commit.wait_to_finish().dedup_metrics

    assert metrics.total_bytes >= grown.nbytes
    assert metrics.new_bytes / metrics.total_bytes == pytest.approx(expected, abs=0.01)
