"""Commands about a model that was grown: verify, lineage, reproduce, ungrow, card."""

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from hfgrow.checkpoint.files import CARD, LocalFolder
from hfgrow.checkpoint.staging import replace_text, translated
from hfgrow.console import count, size
from hfgrow.errors import UsageError, command, printable
from hfgrow.growth.models import files_of, local_folder, locate
from hfgrow.growth.publish import card_of, check_sizes, record_training
from hfgrow.growth.reproduce import reproduce as reproduce_model
from hfgrow.growth.ungrow import ungrow as ungrow_model
from hfgrow.growth.verify import Verified
from hfgrow.growth.verify import verify as verify_model
from hfgrow.hub.client import HubClient
from hfgrow.hub.listing import ModelRef
from hfgrow.hub.repo_names import check_repo_id
from hfgrow.hub.search import DEMO
from hfgrow.lineage.describe import (
    changed_experts,
    changed_widths,
    command_line,
    describe_parameters,
    describe_widths,
    ledger_lines,
    measured_lines,
    told_steps,
    training_lines,
)
from hfgrow.lineage.ledger import Ledger, ledger
from hfgrow.lineage.manifest import Link, Manifest, TrainingLink
from hfgrow.lineage.reading import manifest_of

from . import options
from .terminal import Console, broken, say_block

# Of a text, no more than 512 tokens are looked at.
_MAX_TEXT_NBYTES = 1 << 20
_VERIFY_EXAMPLES = """\
hfgrow verify ./demo-stack-g2
hfgrow verify you/demo-stack-g2 --base demo --text mine.txt"""
_LINEAGE_EXAMPLES = """\
hfgrow lineage ./demo-stack-g2
hfgrow lineage you/demo-stack-g2 --json"""
_REPRODUCE_EXAMPLES = """\
hfgrow reproduce ./demo-stack-g2
hfgrow reproduce you/demo-stack-g2 --root demo --out again"""
_CARD_EXAMPLES = """\
hfgrow card ./demo-stack-g2 --repo you/demo-stack-g2
hfgrow card ./demo-stack-g2 --trained-elsewhere '2B tokens of FineWeb'"""
_UNGROW_EXAMPLES = """\
hfgrow ungrow smol-grown/final     # a run that trained `trainable: new` alone
hfgrow ungrow ./demo-zero-depth-g2 --out back"""


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    app.command("verify", epilog=_VERIFY_EXAMPLES)(verify)
    app.command("lineage", epilog=_LINEAGE_EXAMPLES)(lineage)
    app.command("reproduce", epilog=_REPRODUCE_EXAMPLES)(reproduce)
    app.command("card", epilog=_CARD_EXAMPLES)(card)
    app.command("ungrow", epilog=_UNGROW_EXAMPLES)(ungrow)


def verify(
    model: options.ModelArgument,
    base: Annotated[
        str | None, typer.Option("--base", metavar="MODEL", help="The base, if it has moved.")
    ] = None,
    text: Annotated[
        Path | None,
        typer.Option("--text", metavar="FILE", help="Probe text, UTF-8, or `demo`."),
    ] = None,
    token: options.TokenOption = None,
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Derive every tensor again from base and plan, compare bytes, load, and measure logits.

    Of a trained model, whose weights nothing derives, the sha256 are compared with its record.
    """
    console = Console(as_json=json, quiet=quiet)
    probe = probe_text_of(text)
    client = HubClient(token=token)
    folder = Path(model).expanduser()
    if not folder.exists():
        ref = locate(model, None, client, console)
        # What has no lineage is refused before it is downloaded.
        manifest_of(files_of(ref, client))
        folder = local_folder(ref, client, console)
    outcome = verify_model(folder, client, console, base=base, text=probe)
    told = _trained if outcome.provenance is None else _grown
    lines, document = told(outcome)
    console.result(
        "\n".join(broken(lines, console.width, behind=14)),
        {"folder": str(folder), **document, "ok": True},
    )
    if folder == Path(model).expanduser():
        console.say(f"Next: hfgrow push {shlex.quote(printable(model, 200))}")


def _grown(outcome: Verified) -> tuple[list[str], dict[str, object]]:
    growth, measured, found = outcome.manifest.growth, outcome.measured, outcome.provenance
    assert found is not None
    preserves, computed = growth.preserves_function, found.num_computed
    lines = [
        f"bytes         {found.num_tensors} tensors, "
        f"{size(found.nbytes)}, equal to what the plan makes of the base"
        + (f" ({computed} computed again)" if computed else ""),
        _expected(outcome),
        *measured_lines(measured),
        "function      "
        + (
            "not promised to be preserved"
            if not preserves
            else "preserved, within the tolerance of the dtype"
            if measured
            else "promised to be preserved"
        ),
        f"verified      {_verdict(growth, measured is not None)}",
    ]
    return lines, {
        "provenance": asdict(found),
        "num_transformers_tensors": outcome.num_transformers_tensors,
        "measured": measured.to_json() if measured else None,
        "preserves_function": preserves,
    }


def _verdict(growth: Link, was_measured: bool) -> str:
    made = f"exactly what {told_steps(growth.steps)} makes of {printable(growth.base.name)}"
    if not growth.preserves_function:
        return f"{made}; it computes something else, as such a growth does"
    return f"{made}{', and computes what that does' if was_measured else ''}"


def _expected(outcome: Verified) -> str:
    if outcome.num_transformers_tensors is None:
        return "transformers  not installed, not asked"
    return f"transformers  expects exactly these {outcome.num_transformers_tensors} tensors"


def _trained(outcome: Verified) -> tuple[list[str], dict[str, object]]:
    files = outcome.manifest.files
    names = ", ".join(printable(name) for name in files)
    lines = [
        f"sha256        {names}: as its training recorded",
        _expected(outcome),
        "verified      exactly what its training left",
    ]
    return lines, {
        "provenance": None,
        "sha256": {name: file.sha256 for name, file in files.items()},
        "num_transformers_tensors": outcome.num_transformers_tensors,
        "measured": None,
    }


def lineage(
    model: options.ModelArgument,
    revision: options.RevisionOption = None,
    token: options.TokenOption = None,
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Walk from a grown or trained model to its root: every growth, every training, their cost."""
    console = Console(as_json=json, quiet=quiet)
    client = HubClient(token=token)
    ref = locate(model, revision, client, console)
    manifest = manifest_of(files_of(ref, client))
    found = ledger(manifest)
    document = {"root_layer_map": list(manifest.root_layer_map), "ledger": found.to_json()}
    console.result(
        "\n".join(lineage_lines(ref, manifest, found, console.width)),
        {**_loads(manifest), **document},
    )
    verify_it = command(f"verify {shlex.quote(printable(model, 200))}", revision=revision)
    console.say(f"This is what is recorded; {verify_it} compares the weights with it")


def lineage_lines(
    ref: ModelRef, manifest: Manifest, found: Ledger, width: int | None = None
) -> list[str]:
    """Return a lineage from the root on, and what was spent on it.

    Args:
        ref: The model that it is of.
        manifest: The lineage.
        found: Its ledger.
        width: The columns that there are; None breaks nothing.
    """
    lines = []
    for i, link in enumerate(manifest.chain):
        lines += _elsewhere(manifest, i)
        at = f" @ {link.base.revision[:12]}" if link.base.revision else ""
        name = printable(link.base.repo_id or link.base.name)
        lines.append(
            f"{'root' if i == 0 else '    '}  {name}{at}: "
            f"{link.base.num_hidden_layers} layers, {describe_parameters(link.base)}"
        )
        if isinstance(link, TrainingLink):
            lines += [f"      | {line}" for line in training_lines(link)]
            continue
        lines.append(f"      | {command_line(link)}")
        widths = changed_widths(link.base, link.result)
        if widths:
            become_experts = bool(link.result.num_experts) and not link.base.num_experts
            lines.append(f"      | {describe_widths(widths, become_experts=become_experts)}")
        lines += [
            f"      | {what} {before} -> {after}"
            for what, before, after in changed_experts(link.base, link.result)
        ]
    lines += _elsewhere(manifest, len(manifest.chain))
    result = manifest.link.result
    recorded = printable(result.name)
    asked = recorded
    if ref.repo_id is not None and ref.repo_id.rpartition("/")[2] != result.name:
        asked = f"{ref.repo_id}, recorded as {recorded}"
    elif ref.repo_id is not None:
        asked = ref.repo_id
    lines.append(f"this  {asked}: {result.num_hidden_layers} layers, {describe_parameters(result)}")
    told = broken(lines, width, behind=8)
    has_cost = bool(manifest.trainings or manifest.root_compute)
    return [*told, "", *ledger_lines(found, width)] if has_cost else told


def _elsewhere(manifest: Manifest, after: int) -> list[str]:
    """Return what other programs trained behind so many links."""
    return [
        f"      | trained by another program, its cost unknown: {printable(one.note, 200)}"
        for one in manifest.elsewhere
        if one.after == after
    ]


def reproduce(
    model: options.ModelArgument,
    root: Annotated[
        str | None, typer.Option("--root", metavar="MODEL", help="The root, if it has moved.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="DIR", help="Keep the rebuilt model here.")
    ] = None,
    revision: options.RevisionOption = None,
    token: options.TokenOption = None,
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Rebuild a grown model from the root of its chain and compare the sha256 of its weights."""
    console = Console(as_json=json, quiet=quiet)
    outcome = reproduce_model(
        model, HubClient(token=token), console, revision=revision, root=root, out=out
    )
    lines = [f"{name}: sha256 {digest}, equal" for name, digest in outcome.items()]
    console.result(
        "\n".join(broken(lines, console.width, behind=2)),
        {"model": model, "sha256": dict(outcome), "ok": True},
    )
    if out is not None:
        kept = printable(out, 200)
        say_block(console, "Rebuilt", [("where", kept)], f"hfgrow verify {shlex.quote(kept)}")


def ungrow(
    folder: options.FolderArgument,
    out: Annotated[
        Path | None,
        options.out_option("Output folder.  [default: ./NAME-ungrown]"),
    ] = None,
    overwrite: options.OverwriteOption = False,
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Take the last growth back: the base, bit for bit, where only what was added was trained.

    From the folder and its hfgrow.json alone. Refused where old weights were trained, or where the
    operator changed them in a way that rounds; which do not: hfgrow docs operators
    """
    console = Console(as_json=json, quiet=quiet)
    found = ungrow_model(folder, out, console, overwrite=overwrite)
    shown, link = printable(found.out, 200), found.link
    equal = "equal to that of the base" if not found.unproved else "not compared"
    if found.beside is not None:
        where = printable(found.beside, 200)
        equal = f"of a file that lies otherwise; every tensor is equal to that in {where}"
    rows = [
        ("where", f"{shown}, {size(found.nbytes)}"),
        ("sha256", f"{found.sha256}, {equal}"),
    ]
    if found.unproved:
        rows.append(
            (
                "note",
                f"{found.unproved}: whether an old weight has moved is not known, only that none "
                "was to be trained",
            )
        )
    say_block(
        console,
        f"Took back {told_steps(link.steps)}: {count(link.result.num_parameters)} parameters "
        f"into {count(found.num_parameters)}",
        rows,
        f"hfgrow inspect {shlex.quote(shown)}",
    )
    document = {
        "out": str(found.out),
        "base": link.base.name,
        "num_parameters": found.num_parameters,
        "sha256": found.sha256,
        "is_equal": None if found.unproved else True,
        "compared_with": None if found.beside is None else str(found.beside),
        "unproved": found.unproved,
    }
    console.result(str(found.out), document)


def card(
    folder: options.FolderArgument,
    repo: Annotated[
        str | None, typer.Option("--repo", metavar="NAME", help="Where the model will lie.")
    ] = None,
    trained_elsewhere: Annotated[
        str | None,
        typer.Option(
            "--trained-elsewhere",
            metavar="NOTE",
            help="Record that another program has trained it since, on what and for how long.",
        ),
    ] = None,
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Write README.md and its picture again from hfgrow.json."""
    console = Console(as_json=json, quiet=quiet)
    if trained_elsewhere is not None and not record_training(folder, trained_elsewhere, console):
        console.say(f"Note: {CARD} was edited by hand; it is written again, as asked")
    if repo is not None:
        check_repo_id(repo)
    with translated(printable(folder, 200)):
        manifest = manifest_of(LocalFolder(folder))
        check_sizes(folder, manifest)
        made = card_of(folder, manifest, repo)
        for name, text in made.items():
            replace_text(folder / name, text)
    shown = printable(folder, 200)
    rows = [("what", ", ".join(made)), ("where", shown)]
    target = repo or ("NAME" if manifest.trained_since else None)
    words = " ".join(shlex.quote(word) for word in filter(None, (shown, target)))
    say_block(console, "Written anew", rows, f"hfgrow push {words}")
    console.result(str(folder / CARD), {"card": str(folder / CARD)})


def _loads(manifest: Manifest) -> dict[str, object]:
    import json

    content: dict[str, object] = json.loads(manifest.to_json())
    return content


def probe_text_of(path: Path | None) -> str | None:
    """Return the start of a text to measure on, as much as is looked at; `demo` is that of eval.

    Raises:
        UsageError: It cannot be read, or is blank.
    """
    if path is None:
        return None
    if str(path) == DEMO and not path.exists():
        from hfgrow.data.prepare import demo_documents
        from hfgrow.data.sources import VALIDATION

        return "\n".join(piece.text for piece in demo_documents(VALIDATION))
    shown = printable(path, 200)
    try:
        with path.open("rb") as file:
            raw = file.read(_MAX_TEXT_NBYTES)
        # The bound may lie inside a character.
        text = raw.decode("utf-8", errors="strict" if len(raw) < _MAX_TEXT_NBYTES else "ignore")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read the text {shown}: {error}") from error
    if not text.strip():
        raise UsageError(f"the text {shown} is blank", hint="give a page of text, or none")
    return text
