"""Logits of a model whose weights stay on the disk: those of the loaded one, and of no other."""

import gc
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

from benchmarks.reach.prove import base_of
from hfgrow.checkpoint.files import SINGLE, LocalFolder
from hfgrow.checkpoint.read import read
from hfgrow.console import Silent
from hfgrow.errors import ModelError, VerificationError
from hfgrow.growth import forward
from hfgrow.growth.behaviour import measure, num_probe_tokens
from hfgrow.growth.forward import ModelRole, logits_of
from hfgrow.plan.families import FAMILIES
from hfgrow.plan.plan import stored_in
from tests.checkpoints import MakeCheckpoint, edit_json, load, probe, tensors_of
from tests.families import EVERY_FAMILY

ROLE = ModelRole("the model", ModelError)


def same(one: Any, other: Any) -> bool:
    return one.dtype == other.dtype and torch.equal(one, other)


@pytest.mark.parametrize(
    ("number", "model_type"),
    [pytest.param(i, *one.values, marks=one.marks) for i, one in enumerate(EVERY_FAMILY)],
)
def test_the_logits_are_those_of_the_loaded_model_to_the_last_bit(
    make_checkpoint: MakeCheckpoint, number: int, model_type: str
) -> None:
    """Tied or not, in one file or shards, in whatever dtype, in every family."""
    dtype = ("float32", "bfloat16", "float16")[number % 3]
    options = {"tied": number % 2 == 0, "sharded": number % 4 < 2, "dtype": dtype}
    folder = make_checkpoint(model_type, **options)
    with torch.inference_mode():
        model = load(folder)[0]
        if FAMILIES[model_type].has_experts:
            model.set_experts_implementation("eager")
        wanted = model(probe()[:1]).logits[0]
    counted: list[int] = []
    found, name = logits_of(read(LocalFolder(folder)), probe()[:1], ROLE, advance=counted.append)
    assert same(found, wanted)
    assert name == dtype
    assert sum(counted) == sum(tensor.nbytes for tensor in tensors_of(folder).values())


def test_a_finer_dtype_is_computed_in_where_it_is_asked_for(
    make_checkpoint: MakeCheckpoint,
) -> None:
    """A base of bfloat16 beside what grew from it in float32; never the other way round."""
    folder = make_checkpoint("gemma2", dtype="bfloat16")
    auto_model: Any = AutoModelForCausalLM
    with torch.inference_mode():
        model = auto_model.from_pretrained(folder, dtype=torch.float32)
        wanted = model(probe()[:1]).logits[0]
    found, name = logits_of(read(LocalFolder(folder)), probe()[:1], ROLE, at_least="float32")
    assert same(found, wanted)
    assert name == "float32"
    fine = make_checkpoint("gemma2", dtype="float32")
    assert (
        logits_of(read(LocalFolder(fine)), probe()[:1], ROLE, at_least="bfloat16")[1] == "float32"
    )


@pytest.mark.parametrize("model_type", ["llama", "qwen3_moe"])
def test_no_more_than_one_module_has_its_weights_in_memory(
    make_checkpoint: MakeCheckpoint, monkeypatch: pytest.MonkeyPatch, model_type: str
) -> None:
    """All the experts of a layer are one."""
    folder = make_checkpoint(model_type, tied=True)
    loaded = load(folder)[0]
    largest = max(
        sum(parameter.numel() for parameter in module.parameters(recurse=False))
        for module in loaded.modules()
    )
    models: list[Any] = []
    held: list[int] = []
    linear = torch.nn.functional.linear

    def look(*arguments: Any) -> torch.Tensor:
        if not models:
            # Not `isinstance`, which asks objects of other libraries for their class.
            every = (each for each in gc.get_objects() if issubclass(type(each), type(loaded)))
            models.extend(each for each in every if any(p.is_meta for p in each.parameters()))
        held.append(
            max(sum(p.numel() for p in each.parameters() if not p.is_meta) for each in models)
        )
        return linear(*arguments)

    monkeypatch.setattr(torch.nn.functional, "linear", look)
    logits_of(read(LocalFolder(folder)), probe()[:1], ROLE)
    assert 0 < max(held) <= largest
    assert len(held) > 4


def test_the_disk_reads_ahead_of_what_computes_each_tensor_once(
    make_checkpoint: MakeCheckpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = read(LocalFolder(make_checkpoint("llama")))
    monkeypatch.setattr(forward, "_AHEAD_NBYTES", 1 << 14)
    told: list[int] = []
    wanted = [(stored_in(one).offset, stored_in(one).nbytes) for one in plan.tensors.values()]

    def advise(descriptor: int, offset: int, nbytes: int, advice: int) -> None:
        assert advice == os.POSIX_FADV_WILLNEED
        asked.append((offset, nbytes))

    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "posix_fadvise", advise)
    linear = torch.nn.functional.linear

    def look(*arguments: Any) -> torch.Tensor:
        told.append(len(asked))
        return linear(*arguments)

    monkeypatch.setattr(torch.nn.functional, "linear", look)
    logits_of(plan, probe()[:1], ROLE)
    assert sorted(asked) == sorted(wanted)
    # At the first product some are asked for, and not all.
    assert 1 < told[0] < len(wanted)


@pytest.mark.parametrize(
    ("model_type", "name"),
    [
        ("llama", "model.layers.2.mlp.up_proj.weight"),
        ("mixtral", "model.layers.2.block_sparse_moe.experts.1.w3.weight"),
    ],
)
def test_what_transformers_misses_does_not_expect_or_has_in_another_shape_is_named(
    make_checkpoint: MakeCheckpoint, model_type: str, name: str
) -> None:
    """A model as the strict reader does not let it pass; of a mixture by the names of its file."""
    plan = read(LocalFolder(make_checkpoint(model_type)))
    less = {key: tensor for key, tensor in plan.tensors.items() if key != name}
    more = {**plan.tensors, "model.layers.9.odd": plan.tensors[name]}
    other = {**plan.tensors, name: plan.tensors["model.norm.weight"]}
    for tensors, said in (
        (less, f"missing keys {name}"),
        (more, "unexpected keys model.layers.9.odd"),
        (other, f"mismatched keys {name}"),
    ):
        with pytest.raises(ModelError, match=f"^loading the model: {said}$"):
            logits_of(replace(plan, tensors=tensors), probe()[:1], ROLE)


def test_a_config_that_does_not_say_the_dtype_leaves_it_to_the_tensors(
    make_checkpoint: MakeCheckpoint, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(make_checkpoint("qwen2", dtype="bfloat16"), tmp_path / "base"))
    edit_json(folder / "config.json", dtype=..., torch_dtype=...)
    with torch.inference_mode():
        wanted = load(folder)[0](probe()[:1]).logits[0]
    assert same(logits_of(read(LocalFolder(folder)), probe()[:1], ROLE)[0], wanted)


def test_experts_of_several_dtypes_are_computed_in_that_of_the_config(
    make_checkpoint: MakeCheckpoint, tmp_path: Path
) -> None:
    """They are one parameter, whose rows lie in files as they were stored."""
    folder = Path(shutil.copytree(make_checkpoint("mixtral", dtype="float32"), tmp_path / "base"))
    tensors = tensors_of(folder)
    name = "model.layers.1.block_sparse_moe.experts.2.w1.weight"
    tensors[name] = tensors[name].bfloat16()
    save_file(tensors, folder / SINGLE, {"format": "pt"})
    with torch.inference_mode():
        model = load(folder)[0]
        model.set_experts_implementation("eager")
        wanted = model(probe()[:1]).logits[0]
    assert same(logits_of(read(LocalFolder(folder)), probe()[:1], ROLE)[0], wanted)


def test_settings_of_generation_that_stop_a_grown_model_from_loading_are_told(base: Path) -> None:
    """What a base says of generation is not asked."""
    (base / "generation_config.json").write_text('{"max_new_tokens": "many"')
    plan = read(LocalFolder(base))
    with pytest.raises(ModelError, match=r"cannot load the model: .*generation_config"):
        logits_of(plan, probe()[:1], ROLE)
    assert logits_of(plan, probe()[:1], ROLE, at_least="float32")[1] == "float32"


@pytest.mark.case("A25")
@pytest.mark.parametrize("at", [1, 20])
def test_a_model_that_is_truncated_while_it_runs_is_an_error_and_no_crash(
    base: Path, tmp_path: Path, at: int
) -> None:
    """Whoever truncates a mapped file ends the process without a word."""
    grown = Path(shutil.copytree(base, tmp_path / "grown"))
    with pytest.raises(VerificationError, match="cannot run the grown model: Could not read"):
        measure(base, grown, After(at, lambda: os.truncate(grown / SINGLE, 5000)))


@pytest.mark.case("A25")
def test_a_model_that_is_replaced_while_it_runs_is_measured_as_it_was(
    base: Path, tmp_path: Path
) -> None:
    grown = Path(shutil.copytree(base, tmp_path / "grown"))
    (tmp_path / "other").write_text("no model")
    found = measure(base, grown, After(20, lambda: os.replace(tmp_path / "other", grown / SINGLE)))
    assert found.max_abs_dlogit == 0


@pytest.mark.case("A25")
@pytest.mark.parametrize("model_type", ["lfm2", "mixtral", "llama"])
def test_no_weight_file_is_mapped_where_memory_holds_the_model(
    make_checkpoint: MakeCheckpoint,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    model_type: str,
) -> None:
    """That of a derived family is read whole, and opened by nobody else."""
    has_table = model_type in FAMILIES
    folder = make_checkpoint(model_type) if has_table else base_of(model_type, tmp_path / "base")
    opened: list[str] = []

    def watched(*words: Any, **options: Any) -> Any:
        opened.append(options.get("backend", "mmap"))
        return safe_open(*words, **options)

    for place in ("transformers.modeling_utils.safe_open", "safetensors.safe_open"):
        monkeypatch.setattr(place, watched)
    logits_of(read(LocalFolder(folder)), torch.arange(8)[None], ROLE)
    assert set(opened) == ({"pread"} if has_table else set())


class After(Silent):
    """Does something when so many modules have computed."""

    def __init__(self, number: int, act: Callable[[], None]) -> None:
        self.left, self.act = number, act

    def advance(self, nbytes: int) -> None:
        self.left -= 1
        if self.left == 0:
            self.act()


@pytest.mark.parametrize(
    ("num_parameters", "num_tokens"),
    [
        (1_400_000, 512),
        (10**9, 512),
        (1_100_048_384, 256),
        (2 * 10**9, 256),
        (4_010_000_000, 128),
        (10**12, 128),
    ],
)
def test_the_larger_the_model_the_fewer_the_tokens(num_parameters: int, num_tokens: int) -> None:
    assert num_probe_tokens(num_parameters) == num_tokens
