"""The strict reader on good checkpoints: what the plan says is what lies there."""

import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from hfgrow.checkpoint.files import LocalFolder, file_stamp, hash_file
from hfgrow.checkpoint.read import read
from hfgrow.errors import ModelError, printable
from hfgrow.plan.plan import stored_in
from hfgrow.plan.tensors import Stored
from tests.attacks.craft import drop_tensors, read_raw
from tests.checkpoints import MakeCheckpoint, edit_json, load, tensors_of, write_checkpoint
from tests.families import EVERY_FAMILY

HEAD = "lm_head.weight"
WIDE: dict[str, Any] = {"hidden_size": 64, "num_key_value_heads": 4, "num_hidden_layers": 1}


@pytest.mark.parametrize("sharded", [False, True], ids=["one file", "shards"])
@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("model_type", EVERY_FAMILY)
def test_the_plan_names_every_tensor_with_its_bytes(
    make_checkpoint: MakeCheckpoint, model_type: str, tied: bool, sharded: bool
) -> None:
    folder = make_checkpoint(model_type, tied=tied, sharded=sharded)
    plan = read(LocalFolder(folder))
    tensors = tensors_of(folder)
    assert plan.tensors.keys() == tensors.keys()
    assert (HEAD in plan.tensors) != tied
    assert (len(plan.files) > 1) == sharded
    for name, planned in plan.tensors.items():
        assert planned.shape == tuple(tensors[name].shape)
        source = stored_in(planned)
        raw = (folder / source.file).read_bytes()
        found = raw[source.offset : source.offset + source.nbytes]
        assert found == tensors[name].numpy().tobytes()


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_parameters_are_counted_as_transformers_counts_them(
    make_checkpoint: MakeCheckpoint, tied: bool
) -> None:
    folder = make_checkpoint("qwen3", tied=tied)
    assert read(LocalFolder(folder)).num_parameters == load(folder)[0].num_parameters()


def test_the_plan_of_a_base_is_the_identity(base: Path) -> None:
    plan = read(LocalFolder(base))
    assert [source.layer for source in plan.layer_map] == [0, 1, 2, 3]
    assert plan.steps == ()
    assert plan.notes == ()
    assert plan.preserves_function
    for name, planned in plan.tensors.items():
        assert isinstance(planned.recipe, Stored)
        assert (planned.recipe.name, planned.recipe.dtype) == (name, planned.dtype)


def test_the_plan_remembers_what_the_files_were(base: Path) -> None:
    weights = base / "model.safetensors"
    source = read(LocalFolder(base)).files["model.safetensors"]
    assert source.nbytes == weights.stat().st_size
    assert source.stamp == file_stamp(weights.stat())


def test_no_weight_is_read(base: Path) -> None:
    """The reader asks for headers and JSON only: half of a model's disk may be on fire."""

    class Counting(LocalFolder):
        read_nbytes = 0

        def read(self, name: str, start: int, nbytes: int) -> bytes:
            self.read_nbytes += nbytes
            return super().read(name, start, nbytes)

    files = Counting(base)
    read(files)
    header_nbytes = (base / "model.safetensors").stat().st_size - len(
        read_raw(base / "model.safetensors")[1]
    )
    assert files.read_nbytes <= header_nbytes + (base / "config.json").stat().st_size + 16


def test_a_silent_config_of_a_tied_family_is_tied(
    make_checkpoint: MakeCheckpoint, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(make_checkpoint("smollm3", tied=True), tmp_path / "copy"))
    edit_json(folder / "config.json", tie_word_embeddings=...)
    assert HEAD not in read(LocalFolder(folder)).tensors


def test_a_silent_config_of_an_untied_family_needs_a_head(base: Path) -> None:
    edit_json(base / "config.json", tie_word_embeddings=...)
    assert HEAD in read(LocalFolder(base)).tensors
    drop_tensors(base / "model.safetensors", HEAD)
    with pytest.raises(ModelError, match=HEAD):
        read(LocalFolder(base))


@pytest.mark.parametrize(
    ("model_type", "key", "size"),
    [("llama", "num_attention_heads", 32), ("gemma2", "num_attention_heads", 8)],
)
def test_a_size_that_config_json_leaves_out_is_that_of_the_class(
    tmp_path: Path, model_type: str, key: str, size: int
) -> None:
    folder = write_checkpoint(tmp_path / "base", model_type, traits=False, **{**WIDE, key: size})
    edit_json(folder / "config.json", **{key: ...})
    plan = read(LocalFolder(folder))
    assert plan.config[key] == size
    (note,) = plan.notes
    assert f"{key} {size}" in note


def test_a_size_that_was_left_out_and_is_not_the_default_is_told(base: Path) -> None:
    edit_json(base / "config.json", vocab_size=...)
    with pytest.raises(ModelError, match=r"\[64, 32\].*\[32000, 32\]") as caught:
        read(LocalFolder(base))
    assert "leaves out vocab_size 32000" in caught.value.hint


@pytest.mark.parametrize(
    ("model_type", "key", "said"),
    [
        ("llama", "num_key_value_heads", "leaves out num_key_value_heads, which is then 4"),
        ("qwen3", "head_dim", "leaves out head_dim, which is then 128"),
    ],
)
def test_heads_that_config_json_leaves_out_are_told_where_a_tensor_has_others(
    tmp_path: Path, model_type: str, key: str, said: str
) -> None:
    folder = write_checkpoint(tmp_path / "base", model_type)
    edit_json(folder / "config.json", **{key: ...})
    with pytest.raises(ModelError, match=r"but config\.json demands") as caught:
        read(LocalFolder(folder))
    assert said in caught.value.hint


def test_a_folder_may_itself_be_a_link(base: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(base)
    assert len(read(LocalFolder(tmp_path / "link")).tensors) > 9


def test_a_link_to_weights_that_are_gone_says_where_it_leads(base: Path) -> None:
    (base / "model.safetensors").rename(base / "taken.away")
    (base / "model.safetensors").symlink_to("/gone/model.safetensors")
    said = "model.safetensors is a symbolic link to /gone/model.safetensors, which is not there"
    with pytest.raises(ModelError, match=re.escape(said)):
        read(LocalFolder(base))


def test_a_shard_may_be_a_link_inside_the_folder(base: Path) -> None:
    (base / "model.safetensors").rename(base / "weights.bin-not")
    (base / "model.safetensors").symlink_to("weights.bin-not")
    assert len(read(LocalFolder(base)).tensors) > 9


def test_a_file_is_hashed_as_it_lies(base: Path) -> None:
    from hashlib import sha256

    weights = base / "model.safetensors"
    counted: list[int] = []
    assert hash_file(weights, advance=counted.append) == sha256(weights.read_bytes()).hexdigest()
    assert sum(counted) == weights.stat().st_size


@pytest.mark.case("A25")
def test_a_file_that_grows_while_it_is_hashed_is_refused(base: Path) -> None:
    weights = base / "model.safetensors"

    def grow(nbytes: int) -> None:
        if weights.stat().st_size < 1 << 20:
            with weights.open("ab") as file:
                file.write(bytes(1 << 20))

    with pytest.raises(ModelError, match="changed while it was read"):
        hash_file(weights, advance=grow)


@pytest.mark.case("A18")
@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("\x1b[31mred", "\ufffd[31mred"),
        ("a\u202eb", "a\ufffdb"),
        ("a\nb\tc\0", "a\ufffdb\ufffdc\ufffd"),
        ("\u200b\ufeff", "\ufffd\ufffd"),
        ("\ud800", "\ufffd"),
        ("a\u0602b\u00ad\u06dd\u180e", "a\ufffdb\ufffd\ufffd\ufffd"),
        ("m\u00f6del \u6a21\u578b", "m\u00f6del \u6a21\u578b"),
        ("x" * 100, "x" * 79 + "\u2026"),
        (5, "5"),
    ],
)
def test_foreign_text_is_made_safe_to_print(text: object, shown: str) -> None:
    """A18 and F18."""
    assert printable(text) == shown


@pytest.mark.case("A18")
def test_no_character_at_all_is_printed_that_is_not_printable() -> None:
    every = "".join(map(chr, range(sys.maxunicode + 1)))
    shown = printable(every, len(every))
    assert len(shown) == len(every)
    assert shown.isprintable()


def test_files_without_any_layer_are_refused_by_their_first_tensor(base: Path) -> None:
    layers = [name for name in tensors_of(base) if ".layers." in name]
    drop_tensors(base / "model.safetensors", *layers)
    with pytest.raises(ModelError, match=r"no tensor is of a layer, such as model\.layers\.0"):
        read(LocalFolder(base))
