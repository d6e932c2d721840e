"""Records of training, and folders that look as training leaves them, without training."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from hfgrow.checkpoint.files import LocalFolder, hash_file
from hfgrow.checkpoint.read import read
from hfgrow.lineage.card import card_files
from hfgrow.lineage.card_metadata import inherited
from hfgrow.lineage.manifest import (
    Compute,
    Evaluated,
    Link,
    Manifest,
    Model,
    TrainingLink,
    TrainingSource,
    WeightFile,
    config_record,
    model_record,
)
from hfgrow.lineage.reading import read_manifest
from tests.checkpoints import edit_json
from tests.links import model

HUB_TEXT = TrainingSource(
    "org/texts", "dataset", "train[:99%]", 900_000, 3.0, "cd" * 32, dataset="org/texts"
)
LOCAL_TEXT = TrainingSource("notes.txt", "local", "train", 100_000, 1.0, "ef" * 32)
EVALUATED = Evaluated("held.txt", 4096, 4.25, 2.5, 1.75, 1.0, 3.0, 250_000)
# What somebody says that the root has cost.
DECLARED = Compute(20, 16, 10**9, 6.0 * 20 * 10**9, source="declared")
# The first bytes of any PNG; nobody looks further.
PNG = b"\x89PNG\r\n\x1a\n" + bytes(64)


def cost(num_parameters: int, tokens: int = 1_000_000, **more: Any) -> Compute:
    found = Compute(
        num_parameters,
        num_parameters // 2,
        tokens,
        flops=6.0 * num_parameters * tokens,
        exact_flops=5e12,
        seconds=1800.0,
        devices=2,
        device="a device",
    )
    return replace(found, **more)


def training(base: Model, result: Model | None = None, **more: Any) -> TrainingLink:
    """A record of training from one model to another of its sizes."""
    fields: dict[str, Any] = {
        "stage": 0,
        "data": (HUB_TEXT, LOCAL_TEXT),
        "optimizer": "adamw",
        "learning_rate": 3e-4,
        "schedule": "wsd",
        "batch_tokens": 65_536,
        "sequence_length": 1024,
        "precision": "bf16",
        "seed": 7,
        "trainable": "all",
        "settings": {"betas": "0.9,0.95", "weight_decay": 0.1, "document_mask": False},
        "compute": cost(base.num_parameters),
        "evaluations": (EVALUATED,),
    }
    result = result or replace(base, name="trained")
    return TrainingLink(base=base, result=result, versions={"hfgrow": "0"}, **fields | more)


def then_trained(link: Link, **more: Any) -> Manifest:
    """A growth, and training after it."""
    return Manifest((link, training(link.result, **more)))


def trained_only(**more: Any) -> Manifest:
    return Manifest((training(model(4, repo_id="org/base", revision="0" * 40), **more),))


def write_trained(grown: Path, out: Path, *, picture: bool = True) -> Path:
    """Write a copy of a model whose weights are others, with the record of training."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(grown, out, ignore=shutil.ignore_patterns("*.md", "*.svg", ".hfgrow-base"))
    files = sorted(path.name for path in out.glob("*.safetensors"))
    for name in files:
        tensors = {key: tensor * 1.01 for key, tensor in load_file(grown / name).items()}
        save_file(tensors, out / name, metadata={"format": "pt"})
    plan = read(LocalFolder(grown))
    link = training(
        model_record(plan, grown.name, files=_records(grown, files)),
        model_record(plan, out.name, files=_records(out, files)),
        compute=cost(plan.num_parameters),
        card=inherited(grown),
    )
    earlier = read_manifest(grown)
    manifest = earlier.followed_by(link) if earlier else Manifest((link,))
    edit_json(out / "config.json", hfgrow=config_record(link))
    (out / ".hfgrow-base").write_text(f"{grown.absolute()}\n")
    (out / "hfgrow.json").write_text(manifest.to_json())
    if picture:
        (out / "loss.png").write_bytes(PNG)
    for name, text in card_files(manifest, picture=picture).items():
        (out / name).write_text(text)
    return out


def manifest_in(folder: Path) -> Manifest:
    """Return the record of a model that has one."""
    found = read_manifest(folder)
    assert found is not None
    return found


def document_of(manifest: Manifest) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(manifest.to_json())
    return content


def _records(folder: Path, names: list[str]) -> dict[str, WeightFile]:
    return {
        name: WeightFile((folder / name).stat().st_size, hash_file(folder / name)) for name in names
    }
