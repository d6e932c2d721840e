"""Commands that look, inspect, check, env and operators, and the two to the Hub, pull and push."""

import os
import platform
import re
import shlex
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any

import typer

from hfgrow import __version__
from hfgrow.checkpoint.compute.chunks import check_finite
from hfgrow.checkpoint.files import (
    CARD,
    CONFIG,
    INDEX,
    MANIFEST,
    RECIPE,
    WEIGHTS_NAME,
    LocalFolder,
    side_files_of,
)
from hfgrow.checkpoint.read import read
from hfgrow.checkpoint.staging import check_target, staged
from hfgrow.console import count, counting, size
from hfgrow.errors import ModelError, UsageError, missing, printable, require
from hfgrow.growth.loading import available_nbytes
from hfgrow.growth.models import base_name, files_of, local_folder, locate
from hfgrow.growth.publish import publish
from hfgrow.hub.client import HubClient
from hfgrow.lineage.describe import describe_step
from hfgrow.lineage.manifest import experts_of, non_embedding_parameters
from hfgrow.plan.families import FAMILIES
from hfgrow.plan.families.table import AXIS_KEYS
from hfgrow.plan.operators import ALL_OPERATORS, OPERATORS
from hfgrow.plan.operators.padding import why_fixed
from hfgrow.plan.plan import GrowthPlan

from . import options
from .help_pages import LOOK, ON_HUB, OUTPUT
from .rhythm import derived_document, derived_lines
from .terminal import Console, broken, near, say_block

_INSPECT_EXAMPLES = """\
hfgrow inspect demo
hfgrow inspect hf://org/name@main"""
_PUSH_EXAMPLES = """\
hfgrow push ./demo-stack-g2
hfgrow push ./demo-stack-g2 you/name --private"""
_PACKAGES = ("huggingface_hub", "hf-xet", "transformers", "torch", "safetensors", "accelerate")


def register_inspect(app: typer.Typer) -> None:
    """Add the commands to the program."""
    panel = LOOK
    app.command("inspect", rich_help_panel=panel, epilog=_INSPECT_EXAMPLES)(inspect_model)
    app.command("check", rich_help_panel=panel)(check)
    app.command("env", rich_help_panel=panel)(env)


def inspect_model(
    model: options.ModelArgument,
    revision: options.RevisionOption = None,
    token: options.TokenOption = None,
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Show a model's family, size and what can grow; of a Hub model no weight is downloaded."""
    console = Console(as_json=json, quiet=quiet)
    name, plan = _read(model, revision, token, console)
    if plan.derived is not None:
        document = derived_document(name, plan, plan.derived)
        lines = derived_lines(plan, plan.derived, document)
        console.result("\n".join(broken(lines, console.width, behind=13)), document)
        return
    document = _document(name, plan)
    sizes = document["sizes"]
    lines = [
        f"model        {printable(name)}",
        f"family       {plan.family} ({FAMILIES[plan.family].architecture}), written",
        f"layers       {plan.num_hidden_layers}",
        f"hidden_size  {sizes['hidden']}   intermediate_size {sizes['ffn']}   "
        f"vocab_size {sizes['vocab']}",
        f"heads        {sizes['heads']} query, {sizes['kv_heads']} key-value, "
        f"head_dim {sizes['head_dim']}",
        f"parameters   {plan.num_parameters:,} ({document['num_non_embedding_parameters']:,} "
        "non-embedding)",
        *_expert_lines(document),
        f"weights      {size(plan.nbytes)} in {len(plan.files)} "
        f"file{'s' if len(plan.files) > 1 else ''}, {', '.join(document['dtypes'])}",
        f"head         {'tied to the embeddings' if document['tied'] else 'its own'}",
        f"can grow     {', '.join(document['can_grow'])}; see hfgrow operators",
        *(f"note         {note}" for note in plan.notes),
    ]
    console.result("\n".join(broken(lines, console.width, behind=13)), document)


def _expert_lines(document: dict[str, Any]) -> list[str]:
    if "experts" not in document:
        return []
    found = document["experts"]
    return [
        f"experts      {found['num_experts']} in each layer, of which a token passes "
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
    name, plan = ref.repo_id or base_name(ref), read(files)
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
        "accelerator": _accelerators(),
        "Hub cache": str(constants.HF_HUB_CACHE),
        "endpoint": constants.ENDPOINT,
        "logged in": "yes" if get_token() else "no",
        "offline": "yes" if constants.HF_HUB_OFFLINE else "no",
    }
    width = max(map(len, found))
    console.result("\n".join(f"{key:{width}}  {text}" for key, text in found.items()), dict(found))


def _accelerators() -> str:
    """Return what torch would train on."""
    if missing("torch"):
        return "torch is not installed"
    import torch

    devices = range(torch.cuda.device_count())
    names = [torch.cuda.get_device_name(device) for device in devices]
    return ", ".join(names) or "none that torch sees"


def _read(
    model: str, revision: str | None, token: str | None, console: Console
) -> tuple[str, GrowthPlan]:
    client = HubClient(token=token)
    ref = locate(model, revision, client, console)
    return ref.repo_id or base_name(ref), read(files_of(ref, client))


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
            *(key for axis, key in AXIS_KEYS.items() if axis not in ("vocab", *fixed)),
        ],
        "cannot_grow": {
            AXIS_KEYS[axis]: reason for axis, reason in fixed.items() if axis in AXIS_KEYS
        },
        "notes": list(plan.notes),
    }


# Values for an example; an operator takes the first of these that it has.
_TARGETS = {"g": 2, "block": 2, "factor": 2, "amount": 0.2, "exponent": 0.5, "experts": 8}

# What makes sense behind another operator only.
_EXAMPLES = {"branch-scale": "hfgrow stack MODEL --g 4 --branch-scale 0.5"}


def register_operators(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command("operators", rich_help_panel=LOOK)(operators)


def operators(
    name: options.OperatorArgument = None,
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """List the growth operators, or explain one."""
    console = Console(as_json=json, quiet=quiet)
    if name is None:
        lines = broken(_table(), console.width, behind=max(map(len, OPERATORS)) + 7)
        console.result("\n".join(lines), {"operators": [_row(key) for key in OPERATORS]})
        return
    if name not in OPERATORS:
        hint = near(name, OPERATORS) or "hfgrow operators lists them"
        if name in ALL_OPERATORS:
            hint = f"{name} needs text and has a command of its own: hfgrow {name} --help"
        raise UsageError(f"there is no operator {printable(name)}", hint=hint)
    console.result("\n".join(broken(_explained(name), console.width, behind=21)), _row(name))


def _table() -> list[str]:
    width = max(map(len, OPERATORS))
    lines = []
    for axis in dict.fromkeys(row.axis for row in OPERATORS.values()):
        lines.append(f"{axis:{width}}  function preserving")
        lines += [
            f"{row.name:{width}}  {_yes(row.preserves_function):3}  {row.summary}"
            for row in OPERATORS.values()
            if row.axis == axis
        ]
        lines.append("")
    return lines[:-1]


def _explained(name: str) -> list[str]:
    row = OPERATORS[name]
    lines = [
        f"{row.name}: {row.summary}",
        f"axis                 {row.axis}",
        f"formula              {row.formula}",
        f"function preserving  {_yes(row.preserves_function)}",
        f"paper                {row.paper}",
        f"example              {example_of(name)}",
    ]
    arguments = _arguments(name)
    if arguments:
        lines.append("arguments")
    for argument in arguments.values():
        default = argument["default"]
        shown = "" if default is None else f"  [default: {default}]"
        lines.append(f"  {argument['typed']}: {argument['help']}{shown}")
    return lines


def _row(name: str) -> dict[str, Any]:
    row = OPERATORS[name]
    return {
        "name": row.name,
        "axis": row.axis,
        "preserves_function": row.preserves_function,
        "summary": row.summary,
        "formula": row.formula,
        "paper": row.paper,
        "example": example_of(name),
        "arguments": _arguments(name),
    }


def _arguments(name: str) -> dict[str, dict[str, Any]]:
    """Return how each argument is typed, its help, and its default; None if it has none."""
    return {
        parameter.name: {
            "typed": options.typed(parameter),
            "help": parameter.help,
            "default": parameter.default,
            "required": parameter.is_required,
        }
        for parameter in OPERATORS[name].parameters
    }


def example_of(name: str) -> str:
    """Return a command: what must be given, or else a target, with a value of the help or ours."""
    if name in _EXAMPLES:
        return _EXAMPLES[name]
    row = OPERATORS[name]
    wanted = [parameter for parameter in row.parameters if parameter.is_required]
    wanted = wanted or [found for key in _TARGETS if (found := row.parameter(key))][:1]
    arguments: dict[str, object] = {}
    for parameter in wanted:
        told = re.search(r"such as ([^\s,;]+)", parameter.help)
        key = parameter.name
        arguments[key] = told[1] if told else _TARGETS.get(key, key.upper())
    operator, _, more = describe_step(name, arguments).partition(" ")
    return f"hfgrow {operator} MODEL {more}".rstrip()


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def register_hub(app: typer.Typer) -> None:
    """Add the commands to the program."""
    panel = ON_HUB
    app.command("pull", rich_help_panel=panel)(pull)
    app.command("push", rich_help_panel=panel, epilog=_PUSH_EXAMPLES)(push)


def pull(
    model: options.ModelArgument,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="DIR",
            help="Copy them into a folder.  [default: the cache of the Hub]",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    overwrite: options.OverwriteOption = False,
    revision: options.RevisionOption = None,
    token: options.TokenOption = None,
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Download the files of a model that growing needs, checksums compared; print the folder."""
    console = Console(as_json=json, quiet=quiet)
    client = HubClient(token=token)
    ref = locate(model, revision, client, console)
    if out is not None:
        out = out.expanduser()
        check_target(out, ref.path, overwrite=overwrite)
    folder = local_folder(ref, client, console)
    rows = [("commit", ref.revision)] if ref.revision else []
    typed = shlex.quote(printable(model, 200))
    following = f"Next: hfgrow stack {typed} --g 2, or another of hfgrow operators"
    try:
        plan = read(LocalFolder(folder))
    except ModelError as error:
        following = f"Note: it is here, and cannot be grown: {error}"
    else:
        what = f"{plan.num_hidden_layers} layers, {count(plan.num_parameters)} parameters"
        rows.insert(0, ("what", f"{what}, {size(plan.nbytes)}"))
    if out is not None:
        folder = _copied(folder, out, console, overwrite=overwrite)
    say_block(console, f"Here: {printable(ref.label, 100)}", rows)
    console.say(following)
    document = {"folder": str(folder), "repo": ref.repo_id, "revision": ref.revision}
    console.result(str(folder), document)


def _copied(folder: Path, out: Path, console: Console, *, overwrite: bool) -> Path:
    """Copy the files of a model into a folder, which appears complete or not at all."""
    check_target(out, folder, overwrite=overwrite)
    kept = {CONFIG, INDEX, CARD, MANIFEST, RECIPE}
    names = {name for name in os.listdir(folder) if name in kept or WEIGHTS_NAME.fullmatch(name)}
    names |= set(side_files_of(folder))
    nbytes = sum((folder / name).stat().st_size for name in names)
    with (
        staged(out, overwrite=overwrite) as staging,
        counting(console, f"Copying {out.name}", nbytes) as advance,
    ):
        for name in sorted(names):
            (staging / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(folder / name, staging / name)
            advance((folder / name).stat().st_size)
    return out


def push(
    folder: options.FolderArgument,
    repo: Annotated[
        str | None, typer.Argument(metavar="[REPO]", help="Target.  [default: YOU/NAME]")
    ] = None,
    private: options.PrivateOption = None,
    create_pr: options.CreatePrOption = False,
    exist_ok: options.ExistOkOption = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Say what would go where; send nothing.", rich_help_panel=OUTPUT
        ),
    ] = False,
    token: options.TokenOption = None,
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Push a grown model in one commit; a second push of the same is none."""
    console = Console(as_json=json, quiet=quiet)
    client = HubClient(token=token)
    pushed = publish(
        folder,
        repo,
        client,
        console,
        private=private,
        exist_ok=exist_ok,
        create_pr=create_pr,
        dry_run=dry_run,
    )
    for note in pushed.notes:
        console.say(f"Note: {note}")
    name = printable(pushed.url.removeprefix(f"{client.endpoint}/"))
    done = "Would be pushed" if dry_run else "Pushed"
    if pushed.already:
        done = "Already there: every file is the same, nothing was pushed"
    rows = [
        ("where", f"{pushed.url} ({pushed.visibility})"),
        ("what", f"{len(pushed.files)} files, {size(sum(pushed.files.values()))}"),
        *([("commit", pushed.commit)] if pushed.commit else []),
    ]
    say_block(console, done, rows)
    if pushed.private is False and private is None and not pushed.already:
        console.say("Note: as public as its base; --private is for your eyes alone")
    if not dry_run:
        console.say(f"Next: hfgrow lineage {name}")
    console.result(
        pushed.pull_request or pushed.url,
        {
            "url": pushed.url,
            "private": pushed.private,
            "files": dict(pushed.files),
            "commit": pushed.commit or None,
            "already_pushed": pushed.already,
            "pull_request": pushed.pull_request,
            "dry_run": dry_run,
        },
    )
