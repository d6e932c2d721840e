"""What a growth writes: the same bytes each time, sound for every reader, whole or not at all.

Full disks, read-only folders and limits: exit 7, nothing left, the old output intact.
"""

import errno
import hashlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from hfgrow.checkpoint.files import LocalFolder
from hfgrow.checkpoint.header import BLOCK_NBYTES, build_header, read_header
from hfgrow.checkpoint.layout import lay_out
from hfgrow.checkpoint.read import read
from hfgrow.checkpoint.staging import replace_text, staged
from hfgrow.checkpoint.write import Written, write
from hfgrow.errors import ModelError
from hfgrow.plan.families import FAMILIES
from hfgrow.plan.operators.stacking import stack
from tests.checkpoints import SIZES, MakeCheckpoint, load, logits, tensors_of
from tests.program import Finished, call_hfgrow, run_hfgrow

INDEX = "model.safetensors.index.json"


def digests(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir()}


def grow(base: Path, out: Path, *options: str) -> Path:
    finished = call_hfgrow("stack", base, "--g", "3", "--out", out, *options)
    assert finished.returncode == 0, finished.stderr
    return out


def carry_out(base: Path, out: Path, advance: Callable[[int], None]) -> Written:
    plan = stack(read(LocalFolder(base)), g=3)
    with staged(out) as staging:
        return write(plan, lay_out(plan), staging, advance=advance)


@pytest.mark.case("I4")
def test_the_same_command_gives_the_same_bytes(base: Path, tmp_path: Path) -> None:
    """I4: weights, config, card and lineage; nothing knows the time."""
    one = digests(grow(base, tmp_path / "a" / "out", "--max-shard-size", "60KB"))
    two = digests(grow(base, tmp_path / "b" / "out", "--max-shard-size", "60KB"))
    assert one == two


def test_the_weights_do_not_depend_on_the_name_of_the_output(base: Path, tmp_path: Path) -> None:
    one, two = digests(grow(base, tmp_path / "a")), digests(grow(base, tmp_path / "b"))
    assert one["model.safetensors"] == two["model.safetensors"]


def test_the_base_stays_as_it_is(base: Path, tmp_path: Path) -> None:
    """Promise 3: bytes, names and times."""
    before = digests(base), {p.name: p.stat().st_mtime_ns for p in base.iterdir()}
    grow(base, tmp_path / "out")
    assert (digests(base), {p.name: p.stat().st_mtime_ns for p in base.iterdir()}) == before


def test_shards_hold_what_the_single_file_holds(
    base: Path, sharded_base: Path, tmp_path: Path
) -> None:
    whole = tensors_of(grow(base, tmp_path / "one"))
    for name, source in (("from one", base), ("from shards", sharded_base)):
        parts = tensors_of(grow(source, tmp_path / name, "--max-shard-size", "50KB"))
        assert parts.keys() == whole.keys()
        assert all(torch.equal(parts[key], whole[key]) for key in whole)


def test_no_shard_is_larger_than_asked_but_for_one_large_tensor(base: Path, tmp_path: Path) -> None:
    out = grow(base, tmp_path / "out", "--max-shard-size", "8KB")
    shards = sorted(out.glob("*.safetensors"))
    assert len(shards) > 10
    for shard in shards:
        header = read_header(LocalFolder(out), shard.name)
        assert header
        assert sum(entry.nbytes for entry in header.values()) <= 8000 or len(header) == 1


def test_the_index_agrees_with_the_shards(base: Path, tmp_path: Path) -> None:
    out = grow(base, tmp_path / "out", "--max-shard-size", "50KB")
    index = json.loads((out / INDEX).read_text())
    found = {
        name: path.name
        for path in out.glob("*.safetensors")
        for name in read_header(LocalFolder(out), path.name)
    }
    assert index["weight_map"] == found
    total = sum(tensor.numel() * tensor.element_size() for tensor in tensors_of(out).values())
    assert index["metadata"] == {"total_size": total}


def test_a_sharded_output_loads_in_transformers_as_the_single_file_does(
    base: Path, tmp_path: Path
) -> None:
    one = load(grow(base, tmp_path / "one"))[0]
    parts, report = load(grow(base, tmp_path / "parts", "--max-shard-size", "50KB"))
    assert not any(report[key] for key in report if key.endswith("_keys"))
    assert torch.equal(logits(one), logits(parts))


@pytest.mark.parametrize("limit", ["50GB", "50KB"])
def test_each_written_file_starts_congruent_to_its_source(
    base: Path, tmp_path: Path, limit: str
) -> None:
    out = grow(base, tmp_path / "out", "--max-shard-size", limit)
    sources = read_header(LocalFolder(base), "model.safetensors")
    written = list(out.glob("*.safetensors"))
    assert len(written) > (limit == "50KB")
    for path in written:
        name, first = next(iter(read_header(LocalFolder(out), path.name).items()))
        source = re.sub(r"layers\.(\d+)", lambda m: f"layers.{int(m[1]) % 4}", name)
        assert (first.offset - sources[source].offset) % BLOCK_NBYTES == 0


@pytest.mark.case("A22")
def test_every_tensor_keeps_its_own_dtype(base: Path, tmp_path: Path) -> None:
    """A22: bf16 weights, f32 norms, an f16 head."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(base / "model.safetensors")
    for name in tensors:
        dtype = torch.float32 if "norm" in name else torch.bfloat16
        tensors[name] = tensors[name].to(torch.float16 if "lm_head" in name else dtype)
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    out = tensors_of(grow(base, tmp_path / "out"))
    assert {tensor.dtype for tensor in out.values()} == {
        torch.float32,
        torch.bfloat16,
        torch.float16,
    }
    for name, tensor in out.items():
        source = tensors[re.sub(r"layers\.(\d+)", lambda m: f"layers.{int(m[1]) % 4}", name)]
        assert tensor.dtype == source.dtype
        assert torch.equal(tensor, source)


@pytest.mark.case("A24")
@pytest.mark.parametrize("metadata", [{"format": "tf"}, None], ids=["tf", "absent"])
def test_the_output_says_that_it_is_for_torch(
    base: Path, tmp_path: Path, metadata: dict[str, str] | None
) -> None:
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    tensors = load_file(base / "model.safetensors")
    save_file(tensors, base / "model.safetensors", metadata=metadata)
    with safe_open(grow(base, tmp_path / "out") / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}


@pytest.mark.case("E16")
@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600)])
def test_modes_follow_the_umask(base: Path, tmp_path: Path, umask: int, mode: int) -> None:
    finished = run_hfgrow("stack", base, "--g", "2", "--out", tmp_path / "out", umask=umask)
    assert finished.returncode == 0
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "out").iterdir()} == {mode}
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o777 & ~umask


@pytest.mark.case("A25")
def test_a_base_that_changes_before_the_copy_is_refused(base: Path, tmp_path: Path) -> None:
    plan = stack(read(LocalFolder(base)), g=2)
    os.utime(base / "model.safetensors", ns=(0, 0))
    changed = r"changed while it was read: model\.safetensors"
    with pytest.raises(ModelError, match=changed), staged(tmp_path / "out") as staging:
        write(plan, lay_out(plan), staging)
    assert [path.name for path in tmp_path.iterdir()] == ["base"]


@pytest.mark.case("A25")
@pytest.mark.parametrize("how", ["edited", "truncated"])
def test_a_base_that_changes_during_the_copy_is_refused(
    base: Path, tmp_path: Path, how: str
) -> None:
    """A25: never a crash by SIGBUS, and no output."""
    weights = base / "model.safetensors"

    def change(nbytes: int) -> None:
        with weights.open("r+b") as file:
            if how == "truncated":
                file.truncate(1000)
            else:
                file.seek(-4, os.SEEK_END)
                file.write(b"evil")
        os.utime(weights, ns=(1, 1))

    with pytest.raises(ModelError, match="changed while it was read"):
        carry_out(base, tmp_path / "out", change)
    assert [path.name for path in tmp_path.iterdir()] == ["base"]


def test_the_advance_of_a_copy_adds_up_to_the_tensors(base: Path, tmp_path: Path) -> None:
    counted: list[int] = []
    written = carry_out(base, tmp_path / "out", counted.append)
    nbytes = stack(read(LocalFolder(base)), g=3).nbytes
    assert sum(counted) == nbytes >= written.cloned_nbytes


def test_everything_that_a_model_needs_travels_with_it(base: Path, tmp_path: Path) -> None:
    names = {
        "added_tokens.json",
        "additional_chat_templates/rag.jinja",
        "additional_chat_templates/tool_use.jinja",
        "chat_template.jinja",
        "chat_template.json",
        "preprocessor_config.json",
        "processor_config.json",
        "spiece.model",
        "tekken.json",
        "tokenizer.model",
        "tokenizer.model.v3",
        "vocab.txt",
    }
    (base / "additional_chat_templates").mkdir()
    for name in (*names, "additional_chat_templates/evil.py", "additional_chat_templates/.x"):
        (base / name).write_text("{}")
    assert call_hfgrow("stack", base, "--g", "2", "--out", tmp_path / "out").returncode == 0
    written = {p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*.*")}
    assert {*written} >= names
    assert not written & {"additional_chat_templates/evil.py", "additional_chat_templates/.x"}


@pytest.mark.parametrize(
    "name",
    [
        "model.layers.0.self_attn.rotary_emb.inv_freq",
        "model.rotary_emb.inv_freq",
        "model.layers.1.self_attn.rotary_emb.cos_cached",
    ],
)
def test_recomputed_buffers_of_old_checkpoints_are_dropped(
    base: Path, tmp_path: Path, name: str
) -> None:
    from tests.attacks.craft import add_tensor

    add_tensor(base / "model.safetensors", name, [4], bytes(16))
    finished = call_hfgrow("stack", base, "--g", "2", "--out", tmp_path / "out")
    assert "1 rotary buffers were dropped" in finished.stderr
    assert not [key for key in tensors_of(tmp_path / "out") if "rotary" in key]


def test_an_output_can_be_grown_again(make_checkpoint: MakeCheckpoint, tmp_path: Path) -> None:
    base = shutil.copytree(make_checkpoint("smollm3"), tmp_path / "base")
    once = grow(Path(base), tmp_path / "once")
    twice = tensors_of(grow(once, tmp_path / "twice"))
    names = {name for name in twice if name.startswith("model.layers.")}
    assert {int(name.split(".")[2]) for name in names} == set(range(36))


def test_a_text_that_cannot_be_written_leaves_the_old_one_and_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "README.md").write_text("old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        replace_text(tmp_path / "README.md", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]
    assert (tmp_path / "README.md").read_text() == "old"


def test_a_text_is_written_beside_others_that_are_being_written(tmp_path: Path) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    alive = tmp_path / f".README.md.{os.getppid()}.hfgrow-new"
    for path in (alive, tmp_path / f".README.md.{gone.pid}.hfgrow-new"):
        path.write_text("half")
    replace_text(tmp_path / "README.md", "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == [alive.name, "README.md"]


def run_stack(base: Path, out: Path, *more: str, file_nbytes: int | None = None) -> Finished:
    return run_hfgrow("stack", base, "--g", "2", "--out", out, *more, file_nbytes=file_nbytes)


def check_failed_cleanly(finished: Finished, folder: Path, *left: str) -> None:
    assert finished.returncode == 7, finished.stderr
    assert finished.stderr.count("Error: ") == 1
    assert "Traceback" not in finished.stderr
    assert sorted(path.name for path in folder.iterdir()) == sorted(left)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.case("E2")
@pytest.mark.parametrize("file_nbytes", [0, 4096, 150_000])
def test_a_file_that_cannot_grow_leaves_nothing(
    base: Path, tmp_path: Path, file_nbytes: int
) -> None:
    """E2: RLIMIT_FSIZE, at the header and in the middle of the weights."""
    finished = run_stack(base, tmp_path / "out", file_nbytes=file_nbytes)
    check_failed_cleanly(finished, tmp_path, "base")
    assert "EFBIG" in finished.stderr


@pytest.mark.case("E3")
def test_every_file_may_be_the_one_that_does_not_fit(base: Path, tmp_path: Path) -> None:
    """E3: with a shard for each tensor, the limit is met by weights, index, lineage and card."""
    whole = tmp_path / "all"
    tiny_shards = ("--max-shard-size", "1")
    assert run_stack(base, whole, *tiny_shards).returncode == 0
    sizes = sorted({len(raw) for name, raw in content(whole).items()}, reverse=True)
    largest = {name for name, raw in content(whole).items() if len(raw) >= sizes[2]}
    assert not all(name.endswith(".safetensors") for name in largest)
    for size in sizes[:3]:
        finished = run_stack(base, tmp_path / "out", *tiny_shards, file_nbytes=size - 1)
        check_failed_cleanly(finished, tmp_path, "all", "base")


@pytest.mark.case("E7")
def test_overwriting_keeps_the_old_output_when_the_new_one_fails(
    base: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert run_stack(base, out).returncode == 0
    before = content(out)
    finished = run_stack(base, out, "--overwrite", file_nbytes=50_000)
    check_failed_cleanly(finished, tmp_path, "base", "out")
    assert content(out) == before


@pytest.mark.case("E6")
def test_an_output_that_exists_is_kept_without_overwrite(base: Path, tmp_path: Path) -> None:
    """E6 and promise 4."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("mine")
    finished = run_stack(base, tmp_path / "out")
    check_failed_cleanly(finished, tmp_path, "base", "out")
    assert "--overwrite" in finished.stderr
    assert content(tmp_path / "out") == {"mine": b"mine"}


@pytest.mark.case("D10", "E5")
def test_a_disk_that_is_too_small_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    """E5 and D10: a sparse base whose growth needs more than the disk has free."""
    base = tmp_path / "base"
    base.mkdir()
    free = shutil.disk_usage(tmp_path).free
    ffn = free // (3 * 4 * 32 * 4)
    config = {**SIZES, "model_type": "llama", "intermediate_size": ffn}
    (base / "config.json").write_text(json.dumps(config))
    shapes = FAMILIES["llama"].shapes(config, tied=False)
    header = build_header([(name, "F32", shape) for name, shape in shapes.items()], metadata={})
    numbers = sum(shape[0] * (shape[1] if len(shape) == 2 else 1) for shape in shapes.values())
    try:
        with (base / "model.safetensors").open("wb") as file:
            file.write(header)
            file.truncate(len(header) + 4 * numbers)
    except OSError:
        pytest.skip("the file system has no sparse files of that size")
    words = ("stack", base, "--g", "4", "--out", tmp_path / "out")
    finished = run_hfgrow(*words, timeout=20)
    check_failed_cleanly(finished, tmp_path, "base")
    assert "GB free" in finished.stderr
    foreseen = run_hfgrow(*words, "--dry-run", timeout=20)
    assert foreseen.returncode == 0
    assert "would stop here" in foreseen.stderr


@pytest.mark.case("E8")
def test_a_parent_that_belongs_to_somebody_else_is_refused(base: Path, tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere; the read-only file system covers it")
    (tmp_path / "locked").mkdir(mode=0o500)
    assert run_stack(base, tmp_path / "locked" / "out").returncode == 7
