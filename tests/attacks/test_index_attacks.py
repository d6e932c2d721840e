"""Group B: hostile indexes and file sets.

Group B, links, pipes and devices in place of files.
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from hfgrow.checkpoint.files import LocalFolder
from hfgrow.checkpoint.read import read
from tests.attacks.craft import check, read_raw, rewrite
from tests.attacks.refusal import check_refused
from tests.checkpoints import MakeCheckpoint, edit_json, tensors_of
from tests.program import call_hfgrow

INDEX = "model.safetensors.index.json"
NORM = "model.norm.weight"


@pytest.fixture
def folder(sharded_base: Path) -> Path:
    return sharded_base


def index_of(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / INDEX).read_text())
    return content


def point(folder: Path, shard: object, tensor: str = NORM) -> None:
    """Let the index send one tensor to another file."""
    weight_map = index_of(folder)["weight_map"]
    edit_json(folder / INDEX, weight_map={**weight_map, tensor: shard})


def shard_of(folder: Path, tensor: str) -> Path:
    return folder / str(index_of(folder)["weight_map"][tensor])


@pytest.mark.case("B1")
def test_an_index_that_leaves_the_folder_is_refused_even_if_a_good_file_lies_there(
    folder: Path,
) -> None:
    shutil.copy(shard_of(folder, NORM), folder.parent / "evil.safetensors")
    point(folder, "../evil.safetensors")
    check_refused(folder, NORM, "'../evil.safetensors'", "outside the model folder")


@pytest.mark.case("B2")
@pytest.mark.parametrize(
    "shard",
    [
        "/etc/passwd",
        "/tmp/x.safetensors",
        "C:\\x.safetensors",
        "a\\..\\b.safetensors",
        "a/b.safetensors",
        "x.safetensors\0",
        "x.safetensors\n",
        "\x1b[31m.safetensors",
        "..",
        "",
        ".safetensors/..",
        "x.bin",
        "x.safetensors.py",
        "\u2025.safetensors",
        "n" * 300,
        None,
        5,
        ["x.safetensors"],
    ],
    ids=lambda value: f"B2-{str(value)[:20]!r}",
)
def test_a_shard_must_be_a_plain_file_name(folder: Path, shard: object) -> None:
    point(folder, shard)
    check_refused(folder, INDEX, NORM)


@pytest.mark.case("B5")
def test_missing_shards_are_listed(folder: Path) -> None:
    shard = shard_of(folder, NORM)
    shard.unlink()
    check_refused(folder, "1 of ", shard.name)


@pytest.mark.case("B6")
@pytest.mark.parametrize("at", [0, -1], ids=["B6-first", "B6-last"])
def test_a_tensor_in_two_shards_is_refused(folder: Path, at: int) -> None:
    """Where two shards hold a tensor, transformers would take the alphabetically last one."""
    from safetensors.torch import load_file, save_file

    shard = sorted(folder.glob("*.safetensors"))[at]
    weight_map = index_of(folder)["weight_map"]
    name = next(name for name in weight_map if folder / weight_map[name] != shard)
    save_file(load_file(shard) | {name: tensors_of(folder)[name] + 1}, shard)
    check_refused(folder, name, shard.name, weight_map[name])


@pytest.mark.case("B7")
def test_an_index_entry_without_a_tensor_is_refused(folder: Path) -> None:
    point(folder, shard_of(folder, NORM).name, "model.layers.0.mlp.ghost.weight")
    check_refused(folder, "model.layers.0.mlp.ghost.weight", "in no shard")


@pytest.mark.case("B7")
def test_an_index_that_names_the_wrong_shard_is_refused(folder: Path) -> None:
    right = shard_of(folder, NORM).name
    wrong = next(p.name for p in sorted(folder.glob("*.safetensors")) if p.name != right)
    point(folder, wrong)
    check_refused(folder, NORM, wrong, right)


@pytest.mark.case("B8")
def test_a_tensor_that_the_index_does_not_name_is_refused(folder: Path) -> None:
    weight_map = index_of(folder)["weight_map"]
    shard = weight_map.pop(NORM)
    edit_json(folder / INDEX, weight_map=weight_map)
    check_refused(folder, NORM, shard, "not in")


@pytest.mark.case("B9")
def test_a_single_file_beside_an_index_is_refused(folder: Path, base: Path) -> None:
    """B9: transformers would read the one, mergekit the other."""
    shutil.copy(base / "model.safetensors", folder)
    check_refused(folder, "both", "model.safetensors", INDEX)


@pytest.mark.case("B10")
@pytest.mark.parametrize("weight_map", [..., None, {}, [], "x"], ids=lambda value: f"B10-{value!r}")
def test_an_index_without_a_weight_map_is_refused(folder: Path, weight_map: object) -> None:
    edit_json(folder / INDEX, weight_map=weight_map)
    check_refused(folder, INDEX, "no weight_map")


@pytest.mark.case("B10")
@pytest.mark.parametrize(
    "metadata", [..., None, {}, {"total_size": 1}], ids=lambda value: f"B10-{value!r}"
)
def test_the_metadata_of_an_index_are_not_needed(folder: Path, metadata: object) -> None:
    edit_json(folder / INDEX, metadata=metadata)
    check(folder)


@pytest.mark.case("B10")
@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        (..., "no total_size"),
        ({"total_size": 1}, "says 1, its tensors take 144000"),
        ({"total_size": "\x1b[31m"}, "says '\\x1b[31m', its"),
        ({"total_size": 1e999}, None),
    ],
    ids=["B10-absent", "B10-wrong", "B10-text", "B10-infinite"],
)
def test_a_size_in_the_index_that_is_wrong_is_told(
    folder: Path, metadata: object, said: str | None
) -> None:
    assert read(LocalFolder(folder)).notes == ()
    edit_json(folder / INDEX, metadata=metadata)
    if said is None:
        check_refused(folder, INDEX)
        return
    (note,) = read(LocalFolder(folder)).notes
    assert said in note
    assert note.isprintable()


@pytest.mark.case("B11")
def test_a_repeated_key_in_an_index_is_refused(folder: Path) -> None:
    shard = shard_of(folder, NORM).name
    text = (
        (folder / INDEX)
        .read_text()
        .replace('"weight_map": {', f'"weight_map": {{"{NORM}": "{shard}",', 1)
    )
    (folder / INDEX).write_text(text)
    check_refused(folder, INDEX, NORM, "twice")


@pytest.mark.case("B12")
@pytest.mark.parametrize("name", ["config.json", INDEX], ids="B12-{}".format)
def test_a_giant_json_file_is_refused_unread(folder: Path, name: str) -> None:
    with (folder / name).open("r+b") as file:
        file.truncate(1 << 30)
    check_refused(folder, name, str(1 << 30), "50000000")


@pytest.mark.case("B12")
@pytest.mark.parametrize("name", ["config.json", INDEX], ids="B12-{}".format)
def test_deeply_nested_json_is_refused(folder: Path, name: str) -> None:
    (folder / name).write_text('{"a":' + "[" * 200_000)
    check_refused(folder, name, "nested")


@pytest.mark.case("B13")
@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("pytorch_model.bin", "pickle"),
        ("consolidated.00.pth", "pickle"),
        ("model.ckpt", "pickle"),
        ("tf_model.h5", "Keras"),
        ("model-q4.gguf", "GGUF"),
        ("model.npz", "NumPy"),
        ("flax_model.msgpack", "Flax"),
    ],
    ids=lambda value: f"B13-{value}",
)
def test_other_weight_formats_are_named_with_a_way_out(base: Path, name: str, what: str) -> None:
    (base / "model.safetensors").unlink()
    (base / name).write_bytes(b"x")
    check_refused(base, name, what, "no model.safetensors")


@pytest.mark.case("B13")
def test_a_folder_without_weights_is_refused(base: Path) -> None:
    (base / "model.safetensors").unlink()
    check_refused(base, "model.safetensors", INDEX)


@pytest.mark.case("B14")
def test_foreign_files_beside_the_weights_are_not_copied(base: Path, tmp_path: Path) -> None:
    for name in ("evil.py", "modeling_llama.py", "optimizer.pkl", "pytorch_model.bin", ".env"):
        (base / name).write_text("raise SystemExit('evil')")
    assert call_hfgrow("stack", base, "--g", "2", "--out", tmp_path / "out").returncode == 0
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {
        ".hfgrow-base",
        "README.md",
        "config.json",
        "generation_config.json",
        "hfgrow.json",
        "layers.svg",
        "model.safetensors",
    }


@pytest.mark.case("B15")
def test_an_adapter_is_called_an_adapter(base: Path) -> None:
    (base / "config.json").rename(base / "adapter_config.json")
    check_refused(base, "LoRA adapter")


@pytest.mark.case("B16")
def test_shards_of_two_models_do_not_mix(folder: Path, make_checkpoint: MakeCheckpoint) -> None:
    """B16: a shard of a wider model under the right name."""
    other = make_checkpoint(sharded=True, intermediate_size=64)
    shard = shard_of(folder, "model.layers.1.mlp.up_proj.weight")
    header, data = read_raw(shard_of(other, "model.layers.1.mlp.up_proj.weight"))
    wanted = {**{k: v for k, v in header.items() if k in read_raw(shard)[0]}}
    rewrite(shard, wanted, data)
    check_refused(folder)


@pytest.mark.case("B3")
@pytest.mark.parametrize("name", ["id_rsa", "weights.bin", ".env"])
def test_a_shard_may_not_be_a_link_to_something_else(folder: Path, name: str) -> None:
    shard = shard_of(folder, NORM)
    outside = shutil.move(shard, folder.parent / name)
    shard.symlink_to(outside)
    check_refused(folder, shard.name, "symbolic link", name)


@pytest.mark.case("B3")
@pytest.mark.parametrize("name", ["credentials", "config.json.bak", "settings.json"])
def test_a_config_may_not_be_a_link_to_something_else(folder: Path, name: str) -> None:
    outside = shutil.move(folder / "config.json", folder.parent / name)
    (folder / "config.json").symlink_to(outside)
    check_refused(folder, "config.json", "symbolic link")


@pytest.mark.case("B3")
def test_a_chain_of_links_to_something_else_is_refused(folder: Path) -> None:
    shard = shard_of(folder, NORM)
    outside = shutil.move(shard, folder.parent / "id_rsa")
    (folder / "between.safetensors").symlink_to(outside)
    shard.symlink_to("between.safetensors")
    check_refused(folder, shard.name, "symbolic link")


@pytest.mark.case("B3")
def test_a_folder_of_links_to_files_of_the_same_names_is_read_and_noted(
    folder: Path, tmp_path: Path
) -> None:
    """As `ln -s STORE/* .` and mounts of clusters make them."""
    view = tmp_path / "view"
    view.mkdir()
    for path in folder.iterdir():
        (view / path.name).symlink_to(path)
    plan = read(LocalFolder(view))
    assert plan.tensors.keys() == read(LocalFolder(folder)).tensors.keys()
    assert any(str(folder) in note for note in plan.notes)


@pytest.mark.case("B3")
@pytest.mark.parametrize(
    "blob", ["0" * 64, "a" * 40, f"ab/{'c' * 30}", f"SHA256E-s12--{'0' * 64}.safetensors"]
)
def test_links_to_blobs_named_by_their_hash_are_followed(
    base: Path, tmp_path: Path, blob: str
) -> None:
    """As `local_dir` of older Hub clients, git-annex and DVC make them."""
    for path in ("config.json", "model.safetensors"):
        target = tmp_path / "store" / path.replace(".", "-") / blob
        target.parent.mkdir(parents=True)
        shutil.move(base / path, target)
        (base / path).symlink_to(target)
    check(base)


@pytest.mark.case("B3")
def test_weights_may_be_a_link_to_weights_of_another_name(base: Path, tmp_path: Path) -> None:
    shutil.move(base / "model.safetensors", tmp_path / "llama.safetensors")
    (base / "model.safetensors").symlink_to(tmp_path / "llama.safetensors")
    check(base)


@pytest.mark.case("B3")
def test_the_links_of_the_hub_cache_are_followed(base: Path, tmp_path: Path) -> None:
    """B3: `snapshots/SHA/NAME` links to `../../blobs/HASH`."""
    repo = tmp_path / "models--a--b"
    snapshot = repo / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (repo / "blobs").mkdir()
    for i, path in enumerate(sorted(base.iterdir())):
        shutil.move(path, repo / "blobs" / f"{i:064}")
        (snapshot / path.name).symlink_to(f"../../blobs/{i:064}")
    check(snapshot)


@pytest.mark.case("B3")
def test_blobs_beside_an_ordinary_folder_are_no_cache(base: Path, tmp_path: Path) -> None:
    """B3: only `snapshots/SHA` may link into `blobs`."""
    (tmp_path / "blobs").mkdir()
    folder = Path(shutil.copytree(base, tmp_path / "other" / "model"))
    shutil.move(folder / "config.json", tmp_path / "blobs" / "x")
    (folder / "config.json").symlink_to("../../blobs/x")
    check_refused(folder, "config.json", "symbolic link")


@pytest.mark.case("B4")
def test_a_shard_that_is_a_fifo_is_refused_without_waiting(folder: Path) -> None:
    shard = shard_of(folder, NORM)
    shard.unlink()
    os.mkfifo(shard)
    check_refused(folder, shard.name, "not a regular file")


@pytest.mark.case("B4")
def test_a_shard_that_is_a_folder_is_refused(folder: Path) -> None:
    shard = shard_of(folder, NORM)
    shard.unlink()
    shard.mkdir()
    check_refused(folder, shard.name, "not a regular file")


@pytest.mark.case("B4")
@pytest.mark.parametrize("device", ["/dev/zero", "/dev/null", "/dev/stdin"], ids="B4-{}".format)
def test_a_shard_that_is_a_device_is_refused(folder: Path, device: str) -> None:
    shard = shard_of(folder, NORM)
    shard.unlink()
    shard.symlink_to(device)
    check_refused(folder, shard.name)


@pytest.mark.case("B4")
@pytest.mark.parametrize("name", ["config.json", INDEX], ids="B4-{}".format)
def test_a_json_file_that_is_a_fifo_is_refused_without_waiting(folder: Path, name: str) -> None:
    (folder / name).unlink()
    os.mkfifo(folder / name)
    check_refused(folder, name, "not a regular file")
