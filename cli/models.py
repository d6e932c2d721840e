"""The commands that look at a model or at this machine: inspect, check, env."""

import os
import platform
import shutil
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any

import typer

from hfgrow import __version__
from hfgrow.checkpoint.compute.chunks import check_finite
from hfgrow.checkpoint.derived.proven import row_of
from hfgrow.checkpoint.derived.release import check_release
from hfgrow.checkpoint.files import LocalFolder
from hfgrow.checkpoint.read import read
from hfgrow.console import Progress, counting, load, size
from hfgrow.errors import ModelError, missing, printable, require
from hfgrow.growth.loading import available_nbytes
from hfgrow.growth.models import base_name, files_of, local_folder, locate
from hfgrow.growth.proven_growths import COPIES, SILENT, is_proven
from hfgrow.hub.client import HubClient
from hfgrow.lineage.manifest import non_embedding_parameters
from hfgrow.plan.families import FAMILIES
from hfgrow.plan.families.derived import DerivedFamily, describe_rhythm, rhythm
from hfgrow.plan.families.table import AXIS_KEYS
from hfgrow.plan.mixture import experts_of
from hfgrow.plan.operators.padding import why_fixed
from hfgrow.plan.plan import GrowthPlan

from . import options
from .terminal import Console, broken

_INSPECT_EXAMPLES = """\
hfgrow inspect demo
hfgrow inspect hf://org/name@main"""
_CHECK_EXAMPLES = """\
hfgrow check demo
hfgrow check ./demo-stack-g2 --weights"""
_ENV_EXAMPLES = """\
hfgrow env
hfgrow env --json"""
_PACKAGES = ("huggingface_hub", "hf-xet", "transformers", "torch", "safetensors", "accelerate")


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    app.command("inspect", epilog=_INSPECT_EXAMPLES)(inspect_model)
    app.command("check", epilog=_CHECK_EXAMPLES)(check)
    app.command("env", epilog=_ENV_EXAMPLES)(env)


def inspect_model(
    model: options.ModelArgument,
    revision: options.RevisionOption = None,
    token: options.TokenOption = None,
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Show a model's family, size and what can grow; of a Hub model no weight is downloaded."""
    console = Console(as_json=json, quiet=quiet)
    lines, document = inspected(*_read(model, revision, token, console))
    console.result("\n".join(broken(lines, console.width, behind=13)), document)


def inspected(name: str, plan: GrowthPlan) -> tuple[list[str], dict[str, Any]]:
    """Return what a model is, in lines and as JSON."""
    family = plan.derived
    document = _document(name, plan) if family is None else _derived_document(name, plan, family)
    parameters = (
        f"parameters   {plan.num_parameters:,} ({document['num_non_embedding_parameters']:,} "
        "non-embedding)"
    )
    weights = (
        f"weights      {size(plan.nbytes)} in {len(plan.files)} "
        f"file{'s' if len(plan.files) > 1 else ''}, {', '.join(document['dtypes'])}"
    )
    sizes = document["sizes"]
    if family is None:
        lines = [
            f"family       {plan.family} ({FAMILIES[plan.family].architecture}), written",
            f"layers       {plan.num_hidden_layers}",
            f"hidden_size  {sizes['hidden']}   intermediate_size {sizes['ffn']}   "
            f"vocab_size {sizes['vocab']}",
            f"heads        {sizes['heads']} query, {sizes['kv_heads']} key-value, "
            f"head_dim {sizes['head_dim']}",
            parameters,
            *_expert_lines(document),
            weights,
            f"head         {'tied to the embeddings' if document['tied'] else 'its own'}",
            f"can grow     {', '.join(document['can_grow'])}; see hfgrow operators",
        ]
    else:
        kinds = _kinds(family.kinds, plan.settings.get("layer_types"))
        lines = [
            f"family       {plan.family} ({family.architecture}), derived from transformers "
            f"{family.version}",
            f"layers       {plan.num_hidden_layers}, {kinds}",
            f"rhythm       {describe_rhythm(family.kinds)}",
            f"sizes        {', '.join(f'{key} {value}' for key, value in sizes.items() if value)}",
            parameters,
            *_expert_lines(document),
            weights,
            f"can grow     in depth: {_growths(family)}",
        ]
    notes = (f"note         {note}" for note in document["notes"])
    return [f"model        {printable(name)}", *lines, *notes], document


def _expert_lines(document: dict[str, Any]) -> list[str]:
    if "experts" not in document:
        return []
    found = document["experts"]
    return [
        f"experts      {found['num_experts']} in a layer, of which a token passes "
        f"{found['num_experts_per_tok']}: {found['num_active_parameters']:,} parameters"
    ]


def check(
    model: options.ModelArgument,
    weights: Annotated[
        bool, typer.Option("--weights", help="Read every weight too, and refuse NaN and infinity.")
    ] = False,
    revision: options.RevisionOption = None,
    token: options.TokenOption = None,
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Run the strict reader alone: config, index and every header, checked together."""
    console = Console(as_json=json, quiet=quiet)
    if weights:
        require("a look at every weight", "numpy", extra=None)
    client = HubClient(token=token)
    ref = locate(model, revision, client, console)
    files = LocalFolder(local_folder(ref, client, console)) if weights else files_of(ref, client)
    name, plan = ref.repo_id or base_name(ref), read(files, console)
    for note in plan.notes:
        console.say(f"Note: {note}")
    if weights:
        with counting(console, f"Reading {printable(name)}", plan.nbytes) as advance:
            check_finite(files, plan, advance=advance)
    console.result(
        f"{printable(name)}: {len(plan.tensors)} tensors in {len(plan.files)} "
        f"file{'s' if len(plan.files) > 1 else ''} agree with config.json"
        + (", and every weight is a number" if weights else ""),
        {
            "model": name,
            "num_tensors": len(plan.tensors),
            "notes": list(plan.notes),
            "weights_are_finite": True if weights else None,
            "ok": True,
        },
    )


def env(json: options.JsonOption = False, quiet: options.QuietOption = False) -> None:
    """Show versions, cores, memory, disk, accelerators and the Hub endpoint; never the token."""
    from huggingface_hub import constants, get_token

    console = Console(as_json=json, quiet=quiet)
    found: dict[str, str] = {"hfgrow": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    found |= {
        "platform": platform.platform(),
        "cores": f"{len(os.sched_getaffinity(0))}, OMP_NUM_THREADS "
        f"{os.environ.get('OMP_NUM_THREADS') or 'not set'}",
        "memory": "unknown" if (free := available_nbytes()) is None else f"{size(free)} free",
        "disk": f"{size(shutil.disk_usage('.').free)} free here",
        "accelerator": _accelerators(console),
        "Hub cache": str(constants.HF_HUB_CACHE),
        "endpoint": constants.ENDPOINT,
        "logged in": "yes" if get_token() else "no",
        "offline": "yes" if constants.HF_HUB_OFFLINE else "no",
    }
    width = max(map(len, found))
    console.result("\n".join(f"{key:{width}}  {text}" for key, text in found.items()), dict(found))


def _accelerators(progress: Progress) -> str:
    """Return what torch would train on."""
    if missing("torch"):
        return "torch is not installed"
    load(progress, "torch")
    import torch

    devices = range(torch.cuda.device_count())
    names = [torch.cuda.get_device_name(device) for device in devices]
    return ", ".join(names) or "none that torch sees"


def _read(
    model: str, revision: str | None, token: str | None, console: Console
) -> tuple[str, GrowthPlan]:
    client = HubClient(token=token)
    ref = locate(model, revision, client, console)
    return ref.repo_id or base_name(ref), read(files_of(ref, client), console)


def _document(name: str, plan: GrowthPlan) -> dict[str, Any]:
    family = FAMILIES[plan.family]
    fixed = dict(family.fixed_axes)
    if reason := why_fixed(family, plan.config):
        fixed.setdefault("head_dim", reason)
    return {
        "model": name,
        "family": plan.family,
        "architecture": family.architecture,
        "num_hidden_layers": plan.num_hidden_layers,
        "sizes": family.sizes(plan.config),
        "num_parameters": plan.num_parameters,
        "num_non_embedding_parameters": non_embedding_parameters(plan),
        **({"experts": experts_of(plan)} if family.has_experts else {}),
        "nbytes": plan.nbytes,
        "dtypes": sorted({tensor.dtype for tensor in plan.tensors.values()}),
        "tied": family.head.tensor not in plan.tensors,
        "files": {name: file.nbytes for name, file in plan.files.items()},
        "can_grow": [
            "num_hidden_layers",
            *(
                key
                for axis, key in AXIS_KEYS.items()
                if axis not in ("vocab", *fixed) and plan.num_hidden_layers
            ),
            *(["num_experts"] if family.has_experts else []),
        ],
        "cannot_grow": {
            AXIS_KEYS[axis]: reason for axis, reason in fixed.items() if axis in AXIS_KEYS
        },
        "notes": list(plan.notes),
    }


def _derived_document(name: str, plan: GrowthPlan, family: DerivedFamily) -> dict[str, Any]:
    """Return what is known of a model whose family transformers tells."""
    found = rhythm(family.kinds)
    return {
        "model": name,
        "family": plan.family,
        "derived_from_transformers": family.version,
        "architecture": family.architecture,
        "num_hidden_layers": plan.num_hidden_layers,
        "kinds_of_layers": list(family.kinds),
        "rhythm": None if found is None else {"first": found[0], "period": found[1]},
        "sizes": dict(family.sizes),
        "num_parameters": plan.num_parameters,
        "num_non_embedding_parameters": non_embedding_parameters(plan),
        **({"experts": experts} if (experts := experts_of(plan)) else {}),
        "nbytes": plan.nbytes,
        "dtypes": sorted({tensor.dtype for tensor in plan.tensors.values()}),
        "files": {name: file.nbytes for name, file in plan.files.items()},
        "can_grow": ["num_hidden_layers"],
        "proven": {operator: is_proven(family, operator) for operator in ("stack", "zero-depth")},
        "proven_by": [*_proven_by(family, COPIES), *_proven_by(family, SILENT)],
        "notes": [*plan.notes, *_of_newer_release(plan)],
    }


def _of_newer_release(plan: GrowthPlan) -> list[str]:
    """Return why every growth of a config of a newer transformers is refused, if it is."""
    try:
        check_release(plan.config)
    except ModelError as error:
        return [f"not grown without --untested: {error}"]
    return []


def _kinds(kinds: tuple[str, ...], layer_types: Any) -> str:
    """Return how many layers of each kind there are, and what config.json calls them."""
    if len(set(kinds)) == 1:
        return "all of one kind"
    told = layer_types if isinstance(layer_types, list) else []
    shown = []
    for kind, number in Counter(kinds).items():
        names = {str(name) for own, name in zip(kinds, told, strict=False) if own == kind}
        called = f" ({printable(', '.join(sorted(names)), 60)})" if names else ""
        shown.append(f"{number} {kind}{called}")
    return f"{len(set(kinds))} kinds: {', '.join(shown)}"


def _growths(family: DerivedFamily) -> str:
    """Return which growths were proven with the transformers installed here."""
    parts = []
    for names, what in ((COPIES, "copies of layers"), (SILENT, "layers that add nothing")):
        found = _proven_by(family, names)
        state = f"proven by {', '.join(found)}" if found else "not proven, --untested"
        parts.append(f"{what} ({state})")
    return ", ".join(parts)


def _proven_by(family: DerivedFamily, names: Sequence[str]) -> list[str]:
    """Return the operators that were compared with twins; none where a flag is another one here."""
    row = row_of(family.model_type, family.version)
    return [name for name in names if row.get(name) == "right" and is_proven(family, name)]
